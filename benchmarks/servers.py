"""The servers that are compared: ``python servers.py PEER MODE`` prints its port.

``MODE`` is ``echo``, ``deflate``, ``tls`` or ``broadcast``: there, a message that one
client sends goes to all of them as often as its first four digits say. Each peer is in
its fastest honest setting: no per-message compression unless it is the point, no
keepalive, whole messages, queues and reads that are not too small for 64 messages in flight,
and the same limits of 64 MiB. Compression is that of trio_ws' default profile for all: no
context takeover, a window of 4 KiB, 16 KiB to compress in.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
from pathlib import Path

HERE = Path(__file__).parent
LIMIT = 64 * 1024 * 1024
READ = 64 * 1024
QUEUE = 128

DEFLATE = {  # for websockets
    "server_no_context_takeover": True,
    "client_no_context_takeover": True,
    "server_max_window_bits": 12,
    "compress_settings": {"memLevel": 5},
}


def listening_socket() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    print(sock.getsockname()[1], flush=True)
    return sock


def server_tls(mode: str) -> ssl.SSLContext | None:
    if mode != "tls":
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(os.environ["BENCHMARK_CERT"])
    return context


def times(message: str | bytes) -> int:
    """How often a message is to be broadcast."""
    return int(message[:4])


# On trio...


def trio_ws(mode: str) -> None:
    import trio

    import trio_ws

    options = trio_ws.Options(
        max_message_size=LIMIT,
        ping_interval=None,
        max_connections=None,
        max_handshakes=None,
        compression=trio_ws.Deflate(threshold=0) if mode == "deflate" else None,
    )
    rooms = trio_ws.Rooms()

    async def echo(request: trio_ws.WebSocketRequest) -> None:
        async with request.accept() as ws:
            async for message in ws:
                await ws.send(message)

    async def broadcast(request: trio_ws.WebSocketRequest) -> None:
        async with request.accept() as ws, rooms.join(ws, "all", buffer=100_000):
            async for message in ws:
                for _ in range(times(message)):
                    await rooms.publish("all", message)

    async def main() -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening_socket()))
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = [listener]
        context = server_tls(mode)
        if context is not None:
            listeners = [trio.SSLListener(listener, context, https_compatible=True)]
        handler = broadcast if mode == "broadcast" else echo
        await trio_ws.serve_websocket_listeners(handler, listeners, options=options)

    trio.run(main)


def websockets_trio(mode: str) -> None:
    import trio
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
    from websockets.trio.server import broadcast as send_to_all
    from websockets.trio.server import serve

    connections = set()

    async def handler(ws) -> None:
        connections.add(ws)
        try:
            async for message in ws:
                if mode == "broadcast":
                    for _ in range(times(message)):
                        await send_to_all(connections, message)
                else:
                    await ws.send(message)
        finally:
            connections.discard(ws)

    async def main() -> None:
        factory = ServerPerMessageDeflateFactory(**DEFLATE)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening_socket()))
        await serve(
            handler,
            None,
            listeners=[listener],
            ssl=server_tls(mode),
            compression=None,
            extensions=[factory] if mode == "deflate" else None,
            max_size=LIMIT,
            max_queue=QUEUE,
            ping_interval=None,
        )

    trio.run(main)


def trio_websocket(mode: str) -> None:
    import trio
    from trio_websocket import ConnectionClosed, WebSocketServer

    connections = set()

    async def handler(request) -> None:
        ws = await request.accept()
        connections.add(ws)
        try:
            while True:
                message = await ws.get_message()
                if mode == "broadcast":
                    for _ in range(times(message)):
                        for each in tuple(connections):
                            await each.send_message(message)
                else:
                    await ws.send_message(message)
        except ConnectionClosed:
            connections.discard(ws)

    async def main() -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening_socket()))
        context = server_tls(mode)
        if context is not None:
            listener = trio.SSLListener(listener, context, https_compatible=True)
        server = WebSocketServer(
            handler,
            [listener],
            message_queue_size=QUEUE,
            max_message_size=LIMIT,
            receive_buffer_size=READ,
        )
        await server.run()

    trio.run(main)


def trio_tcp(mode: str) -> None:
    """No WebSocket: bytes back as they come, behind a handshake by hand."""
    import base64
    import hashlib

    import trio

    async def handler(stream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some()
        lines = head.split(b"\r\n")
        key = next(line[19:] for line in lines if line.startswith(b"Sec-WebSocket-Key"))
        digest = hashlib.sha1(  # noqa: S324  # RFC 6455, section 4.2.2, asks for it
            key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        ).digest()
        await stream.send_all(
            b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
        )
        while data := await stream.receive_some():
            await stream.send_all(data)

    async def main() -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening_socket()))
        await trio.serve_listeners(handler, [listener])

    trio.run(main)


# On asyncio...


def websockets_asyncio(mode: str) -> None:
    asyncio.run(_websockets(mode))


def websockets_uvloop(mode: str) -> None:
    import uvloop

    uvloop.run(_websockets(mode))


async def _websockets(mode: str) -> None:
    from websockets.asyncio.server import broadcast, serve
    from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory

    connections = set()

    async def handler(ws) -> None:
        connections.add(ws)
        try:
            async for message in ws:
                if mode == "broadcast":
                    for _ in range(times(message)):
                        broadcast(connections, message)
                        await asyncio.sleep(0)
                else:
                    await ws.send(message)
        finally:
            connections.discard(ws)

    factory = ServerPerMessageDeflateFactory(**DEFLATE)
    async with serve(
        handler,
        sock=listening_socket(),
        ssl=server_tls(mode),
        compression=None,
        extensions=[factory] if mode == "deflate" else None,
        max_size=LIMIT,
        max_queue=QUEUE,
        ping_interval=None,
    ):
        await asyncio.Future()


def aiohttp_uvloop(mode: str) -> None:
    import uvloop
    from aiohttp import WSMsgType, web

    connections = set()

    async def handler(request):
        ws = web.WebSocketResponse(compress=mode == "deflate", max_msg_size=LIMIT)
        await ws.prepare(request)
        connections.add(ws)
        async for message in ws:
            if mode == "broadcast":
                for _ in range(times(message.data)):
                    for each in tuple(connections):
                        await each.send_str(message.data)
            elif message.type == WSMsgType.TEXT:
                await ws.send_str(message.data)
            else:
                await ws.send_bytes(message.data)
        connections.discard(ws)
        return ws

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, listening_socket(), ssl_context=server_tls(mode)).start()
        await asyncio.Future()

    uvloop.run(main())


def picows_uvloop(mode: str) -> None:
    import picows
    import uvloop

    connections = set()

    class Listener(picows.WSListener):
        def on_ws_connected(self, transport) -> None:
            connections.add(transport)

        def on_ws_disconnected(self, transport) -> None:
            connections.discard(transport)

        def on_ws_frame(self, transport, frame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            elif mode == "broadcast":
                payload = frame.get_payload_as_bytes()
                for _ in range(times(payload)):
                    for each in connections:
                        each.send(picows.WSMsgType.TEXT, payload)
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    async def main() -> None:
        server = await picows.ws_create_server(
            lambda request: Listener(),
            sock=listening_socket(),
            ssl=server_tls(mode),
            max_frame_size=LIMIT,
        )
        await server.serve_forever()

    uvloop.run(main())


PEERS = {
    "trio_ws": trio_ws,
    "websockets.trio": websockets_trio,
    "trio-websocket": trio_websocket,
    "trio TCP echo": trio_tcp,
    "websockets": websockets_asyncio,
    "websockets uvloop": websockets_uvloop,
    "aiohttp uvloop": aiohttp_uvloop,
    "picows uvloop": picows_uvloop,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](sys.argv[2])
