"""Behind a real nginx that ends TLS and spreads clients over two servers, as the docs have it."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import trio
import trustme
from _components import PATIENCE, free_port
from _nginx import SITE, run_nginx, write_config

from trio_ws import (
    ConnectionLost,
    ConnectionRejected,
    Options,
    Request,
    Response,
    Routes,
    Server,
    WebSocket,
    WebSocketRequest,
    health_page,
    open_websocket_over_stream,
    serve_websocket,
)

CLIENT: Final = "127.0.0.2"
OPTIONS: Final = Options(trusted_proxies=["127.0.0.1"], max_connections_per_address=4)


def make_routes(name: str) -> Routes:
    routes = Routes()
    routes.get("/health")(health_page())

    @routes.get("/whoami")
    async def whoami(request: Request) -> Response:
        return Response.json([request.remote_address[0], request.secure])

    @routes.websocket("/{path:path}")
    async def echo(request: WebSocketRequest, *, path: str) -> None:
        async with request.accept(headers={"X-Server": name}) as ws:
            await ws.send(f"{name} {ws.remote_address[0]} {request.secure}")
            async for message in ws:
                await ws.send(message)

    return routes


@attrs.frozen
class Site:
    port: int
    servers: tuple[Server, Server]
    context: ssl.SSLContext

    @property
    def origin(self) -> str:
        return f"https://localhost:{self.port}"

    async def dial(self) -> trio.SSLStream[trio.SocketStream]:
        """Come from another address than nginx, which is trusted."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port, local_address=CLIENT)
        return trio.SSLStream(
            stream, self.context, server_hostname="localhost", https_compatible=True
        )

    @asynccontextmanager
    async def open(self, **arguments: Any) -> AsyncGenerator[WebSocket, None]:
        url = f"wss://localhost:{self.port}/echo"
        async with open_websocket_over_stream(await self.dial(), url, **arguments) as ws:
            yield ws

    async def get(self, path: str, *headers: str) -> tuple[int, str]:
        async with await self.dial() as stream:
            lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
            await stream.send_all("\r\n".join([*lines, "", ""]).encode())
            answer = b"".join([bytes(data) async for data in stream]).decode()
        return int(answer.split()[1]), answer.partition("\r\n\r\n")[2]


@asynccontextmanager
async def open_site(folder: Path, options: Options = OPTIONS) -> AsyncGenerator[Site, None]:
    authority = trustme.CA()
    key = folder / "key.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            one, two = [
                await nursery.start(
                    partial(
                        serve_websocket, make_routes(name), 0, host="127.0.0.1", options=options
                    )
                )
                for name in ("one", "two")
            ]
            port = free_port()
            config = write_config(folder, port, (one.port, two.port), key)
            async with run_nginx(config, port):
                yield Site(port, (one, two), context)
            nursery.cancel_scope.cancel()


async def test_the_client_is_who_spoke_to_nginx(tmp_path: Path) -> None:
    """And not whom it claims to be: what it has written itself comes first, and is not read."""
    claims = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Host": "evil.example"}
    async with open_site(tmp_path) as site:
        async with site.open(headers=claims, origin=site.origin) as ws:
            name, address, secure = (await ws.receive()).split()
            assert name in {"one", "two"}
            assert (address, secure) == (CLIENT, "True")
            await ws.send("x" * 100_000)
            assert await ws.receive() == "x" * 100_000
            await ws.ping()
        lines = ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: http")
        assert await site.get("/whoami", *lines) == (200, f'["{CLIENT}",true]')


async def test_pages_of_the_site_may_connect_and_others_may_not(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        async with site.open(origin=site.origin) as ws:
            await ws.receive()
        insecure = site.origin.replace("https", "http")
        for origin in ("https://evil.example", insecure, "https://localhost"):
            with pytest.raises(ConnectionRejected) as caught:
                async with site.open(origin=origin):
                    pass
            assert caught.value.status == 403


async def test_a_server_that_trusts_nobody_sees_nginx(tmp_path: Path) -> None:
    async with open_site(tmp_path, Options()) as site:
        assert await site.get("/whoami") == (200, '["127.0.0.1",false]')


async def test_draining_one_server_moves_its_clients_to_the_other(tmp_path: Path) -> None:
    async with (
        open_site(tmp_path) as site,
        trio.open_nursery() as nursery,
        site.open() as ws,
        site.open() as other,
    ):
        names = [(await each.receive()).split()[0] for each in (ws, other)]
        assert sorted(names) == ["one", "two"]  # nginx takes turns
        first, stays = (ws, other) if names[0] == "one" else (other, ws)
        nursery.start_soon(partial(site.servers[0].drain, deadline=5))
        with pytest.raises(ConnectionLost) as caught:
            await first.receive()
        assert caught.value.code == 1012  # through the proxy
        for _ in range(4):  # its turn or not: a 503 is for nginx alone
            async with site.open() as again:
                assert (await again.receive()).startswith("two ")
        assert await site.get("/health") == (200, "ok\n")
        await stays.send("still here")
        assert await stays.receive() == "still here"


async def test_when_all_drain_health_and_clients_hear_503(tmp_path: Path) -> None:
    async with (
        open_site(tmp_path) as site,
        trio.open_nursery() as nursery,
        site.open() as ws,
        site.open() as other,
    ):
        for each in (ws, other):
            await each.receive()
        for server in site.servers:
            nursery.start_soon(partial(server.drain, deadline=5))
            await server.draining.wait()
        with pytest.raises(ConnectionRejected) as caught:
            async with site.open():
                pass
        assert caught.value.status in {502, 503}  # 502 once nginx knows of no server
        assert (await site.get("/health"))[0] in {502, 503}


def test_the_docs_show_this_very_file() -> None:
    page = SITE.parents[2] / "docs" / "howto" / "behind-a-proxy.rst"
    assert re.search(r"literalinclude:: ../../tests/nginx/site.conf", page.read_text())
