"""A room of several processes: a handler here, a publisher in a process of its own."""

from __future__ import annotations

import sys

import trio
from _components import PATIENCE, until
from _redis import redis_server

from trio_ws import WebSocketRequest, open_websocket, serve_websocket
from trio_ws.redis import open_rooms

PUBLISHER = """
import sys, trio
from trio_ws.redis import open_rooms

async def main():
    async with open_rooms(sys.argv[1]) as rooms:
        await rooms.publish("news", "from another process")

trio.run(main)
"""


async def test_w9_a_handler_subscribes_to_a_broker_that_other_processes_publish_to() -> None:
    with redis_server() as redis:
        async with open_rooms(redis.url) as rooms, trio.open_nursery() as nursery:

            async def handler(request: WebSocketRequest) -> None:
                async with request.accept() as ws, rooms.join(ws, "news"):
                    await ws.wait_closed()

            server = await nursery.start(serve_websocket, handler, 0)
            async with open_websocket(f"ws://localhost:{server.port}/") as ws:
                await until(lambda: len(rooms.members("news")) == 1)
                command = [sys.executable, "-c", PUBLISHER, redis.url]
                await trio.run_process(command, capture_stderr=True)
                with trio.fail_after(PATIENCE):
                    assert await ws.receive() == "from another process"
            nursery.cancel_scope.cancel()
