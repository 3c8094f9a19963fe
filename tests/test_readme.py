"""The README: what it shows runs, and what it names is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

import trio
from _components import PATIENCE, free_port, wait_until_somebody_listens

ROOT: Final = Path(__file__).parent.parent
README: Final = (ROOT / "README.md").read_text("utf-8")
SERVER, CLIENT = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS: Final = re.findall(r"^```console\n(.*?)\n```$", README, re.MULTILINE | re.DOTALL)


async def test_its_server_and_client_talk(tmp_path: Path) -> None:
    port = free_port()
    for name, program in (("server.py", SERVER), ("client.py", CLIENT)):
        assert "8000" in program
        (tmp_path / name).write_text(program.replace("8000", str(port)))

    with trio.fail_after(PATIENCE):
        server = await trio.lowlevel.open_process([sys.executable, "server.py"], cwd=tmp_path)
        try:
            await wait_until_somebody_listens(port, server)
            client = await trio.run_process(
                [sys.executable, "client.py"], cwd=tmp_path, capture_stdout=True
            )
        finally:
            server.kill()
            with trio.CancelScope(shield=True):
                await server.wait()
    assert client.stdout.decode().splitlines() == ["Hello, trio!"]


def test_server_and_client_have_twelve_lines_each() -> None:
    assert "## Twelve lines each" in README
    assert all(len(program.splitlines()) == 12 for program in (SERVER, CLIENT))


def test_two_commands_do_all_set_up_themselves() -> None:
    chat, tests = COMMANDS
    assert all(command.startswith("python3 -m venv .venv && ") for command in COMMANDS)
    assert chat.endswith(" && .venv/bin/python examples/chat/server.py")  # see test_examples.py
    assert tests.endswith(" && .venv/bin/nox -s tests")


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    inside = [link for link in links if not link.startswith("https://")]
    assert len(inside) >= 10
    assert [link for link in inside if not (ROOT / link).is_file()] == []
