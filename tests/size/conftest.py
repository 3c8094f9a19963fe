"""These take a minute, and run only when this folder is asked for by name: ``nox -s size``."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave them out of the plain suite."""
    wanted = any("size" in Path(each).parts for each in config.invocation_params.args)
    return None if wanted else True
