"""The clients that are compared: ``python clients.py PEER PORT DEPTH TOTAL``.

Each keeps DEPTH messages in flight until TOTAL have come back, and prints, as JSON, the
seconds of CPU that its process took for that (user and system) and the seconds that went by. A
tenth as many before that warm it up. Each is in its fastest honest setting, as in servers.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

QUEUE = 128
READ = 64 * 1024
MESSAGE = sys.stdin.read()


async def measure(
    send: Callable[[str], Awaitable[object]],
    receive: Callable[[], Awaitable[object]],
    depth: int,
    total: int,
) -> None:
    await exchange(send, receive, depth, max(total // 10, depth))
    cpu, start = time.process_time(), time.perf_counter()
    await exchange(send, receive, depth, total)
    report(cpu, start)


async def exchange(
    send: Callable[[str], Awaitable[object]],
    receive: Callable[[], Awaitable[object]],
    depth: int,
    total: int,
) -> None:
    for _ in range(depth):
        await send(MESSAGE)
    for _ in range(total - depth):
        await receive()
        await send(MESSAGE)
    for _ in range(depth):
        assert await receive() == MESSAGE


def report(cpu: float, start: float) -> None:
    print(json.dumps([time.process_time() - cpu, time.perf_counter() - start]))


# On trio...


def trio_ws(url: str, depth: int, total: int) -> None:
    import trio

    import trio_ws

    async def main() -> None:
        options = trio_ws.Options(compression=None, ping_interval=None)
        async with trio_ws.open_websocket(url, proxy=None, options=options) as ws:
            await measure(ws.send, ws.receive, depth, total)

    trio.run(main)


def websockets_trio(url: str, depth: int, total: int) -> None:
    import trio
    from websockets.trio.client import connect

    async def main() -> None:
        async with connect(
            url, compression=None, proxy=None, ping_interval=None, max_queue=QUEUE
        ) as ws:
            await measure(ws.send, ws.recv, depth, total)

    trio.run(main)


def trio_websocket(url: str, depth: int, total: int) -> None:
    import trio
    from trio_websocket import open_websocket_url

    async def main() -> None:
        async with open_websocket_url(
            url, message_queue_size=QUEUE, receive_buffer_size=READ
        ) as ws:
            await measure(ws.send_message, ws.get_message, depth, total)

    trio.run(main)


# On asyncio...


def websockets_asyncio(url: str, depth: int, total: int) -> None:
    asyncio.run(_websockets(url, depth, total))


def websockets_uvloop(url: str, depth: int, total: int) -> None:
    import uvloop

    uvloop.run(_websockets(url, depth, total))


async def _websockets(url: str, depth: int, total: int) -> None:
    from websockets.asyncio.client import connect

    async with connect(
        url, compression=None, proxy=None, ping_interval=None, max_queue=QUEUE
    ) as ws:
        await measure(ws.send, ws.recv, depth, total)


def aiohttp_uvloop(url: str, depth: int, total: int) -> None:
    import aiohttp
    import uvloop

    async def main() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url) as ws:
            await measure(ws.send_str, ws.receive_str, depth, total)

    uvloop.run(main())


def picows_uvloop(url: str, depth: int, total: int) -> None:
    import picows
    import uvloop

    async def main() -> None:
        transport, _ = await picows.ws_connect(lambda: picows_listener(depth, total), url)
        await transport.wait_disconnected()

    uvloop.run(main())


def picows_listener(depth: int, total: int):
    """Return what does the same as `exchange`, in callbacks, which is picows' way."""
    import picows

    message = MESSAGE.encode()

    class Listener(picows.WSListener):
        def on_ws_connected(self, transport) -> None:
            self.goals = [max(total // 10, depth), total]
            self.begin(transport)

        def begin(self, transport) -> None:
            self.cpu, self.start = time.process_time(), time.perf_counter()
            self.missing = self.goals.pop(0)
            self.unsent = self.missing - depth
            for _ in range(depth):
                transport.send(picows.WSMsgType.TEXT, message)

        def on_ws_frame(self, transport, frame) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.disconnect()
                return
            received = frame.get_payload_as_bytes()
            self.missing -= 1
            if self.unsent:
                self.unsent -= 1
                transport.send(picows.WSMsgType.TEXT, message)
            elif not self.missing:
                assert received == message
                self.end(transport)

        def end(self, transport) -> None:
            if self.goals:
                self.begin(transport)
            else:
                report(self.cpu, self.start)
                transport.send_close(picows.WSCloseCode.OK)

    return Listener()


PEERS = {
    "trio_ws": trio_ws,
    "websockets.trio": websockets_trio,
    "trio-websocket": trio_websocket,
    "websockets": websockets_asyncio,
    "websockets uvloop": websockets_uvloop,
    "aiohttp uvloop": aiohttp_uvloop,
    "picows uvloop": picows_uvloop,
}

if __name__ == "__main__":
    PEERS[sys.argv[1]](f"ws://127.0.0.1:{sys.argv[2]}/", int(sys.argv[3]), int(sys.argv[4]))
