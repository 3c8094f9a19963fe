"""The command line: ``trio-ws serve``, ``connect``, ``echo`` and ``bench``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version

import trio

from . import _benchmark, _connecting, _serving
from ._usage import ExitCode, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: see `ExitCode`."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = make_parser().parse_args(given)
    options.arguments = given
    level = getattr(options, "log_level", "info").upper()
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")
    try:
        return int(trio.run(options.run, options))
    except UsageError as exc:
        print(f"trio-ws: {exc}", file=sys.stderr)
        return ExitCode.USAGE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BaseExceptionGroup as group:  # Ctrl-C inside of nurseries
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return ExitCode.INTERRUPTED


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="trio-ws",
        description="WebSockets on trio.",
        epilog="trio-ws COMMAND --help tells more about each.",
    )
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show it and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (_connecting, _benchmark):
        module.add_parser(commands)
    _serving.add_parsers(commands)
    return parser


class _ShowVersion(argparse.Action):
    """Unlike argparse's own, it looks for the version when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"trio-ws {version('trio-ws')}")
        parser.exit()
