"""The files of examples/deploy, with a real nginx, a real Redis and two processes."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio
import trustme
from _components import PATIENCE, free_port, until
from _nginx import run_nginx, write_config
from _redis import RedisServer, redis_server

from trio_ws import ConnectionLost, open_websocket

DEPLOY: Final = Path(__file__).parents[2] / "examples" / "deploy"
REDIS_CONF: Final = (DEPLOY / "redis.conf").read_text()


def settings(name: str) -> dict[str, str]:
    """Return what a unit of systemd says."""
    lines = (DEPLOY / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def start_command(port: int) -> list[str]:
    """Return what systemd would start, with the files of this machine."""
    python, program, *arguments = shlex.split(settings("chat@.service")["ExecStart"])
    assert python.endswith("/python")
    name = program.rpartition("/")[2]
    return [
        sys.executable,
        str(DEPLOY / name),
        *(each.replace("%i", str(port)) for each in arguments),
    ]


@attrs.define
class Site:
    """nginx, and the two processes behind it."""

    port: int
    context: ssl.SSLContext
    ports: tuple[int, int]
    redis: RedisServer
    processes: dict[int, trio.Process]

    def open(self, **query: str) -> Any:
        since = f"?since={query['since']}" if query else ""
        url = f"wss://localhost:{self.port}/chat/lobby{since}"
        return open_websocket(url, ssl_context=self.context, proxy=None)

    async def start(self, port: int) -> None:
        password = REDIS_CONF.partition("on >")[2].split()[0]
        url = f"redis://chat:{password}@127.0.0.1:{self.redis.port}"
        self.processes[port] = await trio.lowlevel.open_process(
            start_command(port), env={**os.environ, "CHAT_REDIS": url}
        )
        await self.until_ready(port, 200)

    async def ask(self, port: int, path: str) -> int | None:
        """Return the status of a page; `None`: nobody is there."""
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: close", "", ""]
                await stream.send_all("\r\n".join(lines).encode())
                return int((await stream.receive_some()).split()[1])
        except OSError:
            return None

    async def until_ready(self, port: int, status: int) -> None:
        with trio.fail_after(PATIENCE):
            while await self.ask(port, "/ready") != status:  # noqa: ASYNC110  # it is far away
                await trio.sleep(0.02)

    async def stop(self, port: int) -> None:
        process = self.processes[port]
        process.terminate()
        assert await process.wait() == 0


@asynccontextmanager
async def deployed(folder: Path) -> AsyncGenerator[Site, None]:
    authority = trustme.CA()
    key = folder / "key.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    port = free_port()
    ports = (free_port(), free_port())
    rights = [line for line in REDIS_CONF.splitlines() if line.startswith("user ")]
    (folder / "users.acl").write_text("\n".join([*rights, ""]))
    with (
        redis_server("--aclfile", str(folder / "users.acl")) as redis,
        trio.fail_after(2 * PATIENCE),
    ):
        site = Site(port, context, ports, redis, {})
        try:
            async with trio.open_nursery() as nursery:
                for each in ports:
                    nursery.start_soon(site.start, each)
            async with run_nginx(write_config(folder, port, ports, key), port):
                yield site
        finally:
            for process in site.processes.values():
                if process.returncode is None:
                    process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()


class Listener:
    """Somebody in the chat, who comes back whenever the server goes."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.heard: list[str] = []
        self.codes: list[int] = []
        self.doubts = 0

    async def run(self) -> None:
        query: dict[str, str] = {}
        while True:
            async with self._site.open(**query) as ws:  # raises if it is refused
                with contextlib.suppress(ConnectionLost):
                    async for text in ws:
                        message = json.loads(text)
                        query = {"since": message["position"]}
                        self.doubts += message.get("resume") == "lost"
                        if "data" in message:
                            self.heard.append(message["data"])
            self.codes.append((await ws.wait_closed()).code)


async def test_a_deploy_refuses_nobody_and_loses_nothing(tmp_path: Path) -> None:
    """One process after the other is restarted; who was there comes back, and has heard all."""
    async with deployed(tmp_path) as site, trio.open_nursery() as nursery:
        listeners = [Listener(site), Listener(site)]
        for listener in listeners:
            nursery.start_soon(listener.run)
        said: list[str] = []

        async def say(text: str) -> None:
            said.append(text)
            async with site.open() as ws:
                await ws.send(text)
                await until(lambda: all(each.heard == said for each in listeners))

        for port in site.ports:
            await say(f"before {port} goes")
            await site.stop(port)
            await say(f"without {port}")
            await site.start(port)
            await say(f"with {port}")
        nursery.cancel_scope.cancel()
    codes = {code for listener in listeners for code in listener.codes}
    assert codes == {1012}
    assert [listener.doubts for listener in listeners] == [0, 0]


async def test_readiness_tells_of_redis_and_health_does_not(tmp_path: Path) -> None:
    async with deployed(tmp_path) as site:
        (port, _) = site.ports
        site.redis.kill()
        await site.until_ready(port, 503)
        assert await site.ask(port, "/health") == 200
        site.redis.start()
        await site.until_ready(port, 200)


def test_systemd_waits_longer_than_a_process_drains() -> None:
    drain = int((DEPLOY / "app.py").read_text().partition("\nDRAIN = ")[2].split()[0])
    assert int(settings("chat@.service")["TimeoutStopSec"]) > drain + 5


def test_redis_takes_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "redis.conf"
    config.write_text(
        "\n".join(line for line in REDIS_CONF.splitlines() if "port" not in line.split()[:1])
    )
    with redis_server("--include", str(config)) as redis:
        assert redis.command("PING").startswith(b"-NOAUTH")
