"""``python -m trio_ws``: the same as the command ``trio-ws``."""

import sys

from ._cli import main

if __name__ == "__main__":
    sys.exit(main())
