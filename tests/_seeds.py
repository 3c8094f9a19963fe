"""What tests of the seeds' rows share."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from trio_ws import WebSocket, WebSocketRequest

ROOT: Final = Path(__file__).parent.parent


def load_example(name: str) -> ModuleType:
    """Return the module ``examples/<name>/server.py``."""
    path = ROOT / "examples" / name / "server.py"
    spec = importlib.util.spec_from_file_location(f"seed_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def echo(request: WebSocketRequest) -> None:
    """Send back what comes."""
    async with request.accept() as ws:
        async for message in ws:
            await ws.send(message)


async def next_with(ws: WebSocket, key: str) -> Any:
    """Return the next message that is a JSON object with such a key."""
    while key not in (message := json.loads(await ws.receive())):
        pass
    return message
