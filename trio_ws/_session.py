"""The ``async with`` around a WebSocket: its nursery, its tasks, its goodbye."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType

import trio

from ._budget import Budget
from ._connection import Connection, close_code_for
from ._deflate import DeflateParameters
from ._errors import find_refusal
from ._flag import Flag
from ._http_request import RequestHead
from ._keepalive import Keepalive
from ._messages import CloseCode
from ._options import Options
from ._protocol import Protocol
from ._pump import Pump
from ._streams import Addresses, addresses_of
from ._transport import Transport
from ._websocket import WebSocket


class Session:
    """Runs a connection's tasks for the length of a block, and closes it at the end.

    The block's own exception never meets the nursery: it is kept out, so that it comes
    out as it went in, in no group. The tasks never raise (`Connection.run_reader`), and
    are shielded, so that a cancelled block can still say Close 1001.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        options: Options,
        *,
        client: bool,
        leftover: bytes,
        deflate: DeflateParameters | None = None,
        subprotocol: str | None = None,
        request: RequestHead | None = None,
        addresses: Addresses | None = None,
        transport: Transport | None = None,
        draining: Flag | None = None,
        name: str | None = None,
        budget: Budget | None = None,
        pump: Pump | None = None,
    ) -> None:
        protocol = Protocol(client=client, options=options, deflate=deflate)
        protocol.receive_data(leftover)  # frames may come right behind the handshake
        self._connection = Connection(
            transport or Transport(stream),
            protocol,
            options,
            client=client,
            name=name,
            budget=budget,
            pump=pump,
        )
        local_address, remote_address = addresses or addresses_of(stream)
        self.ws = WebSocket(
            self._connection,
            subprotocol=subprotocol,
            request=request,
            local_address=local_address,
            remote_address=remote_address,
            draining=Flag() if draining is None else draining,
        )
        self._manager = trio.open_nursery()
        self._pump = pump
        self._stop_keepalive: Callable[[], None] | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> WebSocket:
        connection = self._connection
        self._nursery = await self._manager.__aenter__()
        connection.start(self._nursery)
        if connection.options.ping_interval != math.inf:
            self._start_keepalive()
        return self.ws

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._nursery.cancel_scope.shield = True  # close_grace bounds what follows
        code, reason = _farewell(exc)
        self._connection.begin_close(code, reason, by_user=True)
        if self._stop_keepalive is not None:
            self._stop_keepalive()
        try:
            if not self._connection.over.is_set():  # the nursery's end is a schedule point, too
                await self._connection.over.wait()
        finally:  # even if one of the tasks, against all promises, has failed
            self._connection.close_account()
            await self._manager.__aexit__(None, None, None)

    def _start_keepalive(self) -> None:
        keepalive, pump = Keepalive(self._connection), self._pump
        if pump is not None and not pump.closed:
            self._stop_keepalive = pump.alarms.set(keepalive.ping_at, keepalive.look).cancel
        else:
            scope = trio.CancelScope(shield=True)
            name = f"keepalive of {self._connection.id}"
            self._nursery.start_soon(self._run_keepalive, keepalive, scope, name=name)
            self._stop_keepalive = scope.cancel

    @trio.lowlevel.enable_ki_protection
    async def _run_keepalive(self, keepalive: Keepalive, scope: trio.CancelScope) -> None:
        with scope:
            await keepalive.run()


def _farewell(exc: BaseException | None) -> tuple[int, str]:
    """Return what the end of a block says to the peer."""
    if (refusal := find_refusal(exc)) is not None:
        return refusal.code, refusal.reason
    return (CloseCode.NORMAL if exc is None else close_code_for(exc)), ""
