"""A listener that cannot accept: a shortage is waited out, anything else is told."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable

import pytest
import trio
import trio.testing

from trio_ws import WebSocketRequest, serve_websocket_listeners
from trio_ws._listeners import ACCEPT_PAUSE, COMPLAINT_INTERVAL, PatientListener


class Failing(trio.abc.Listener[trio.abc.Stream]):
    """A listener that fails, as often as told, before it accepts."""

    def __init__(self, failures: Iterable[int]) -> None:
        self._failures = list(failures)
        self.closed = False

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        if self._failures:
            number = self._failures.pop(0)
            raise OSError(number, errno.errorcode[number])
        return trio.testing.memory_stream_pair()[0]

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_a_shortage_is_waited_out(number: int, autojump_clock) -> None:
    counted = []
    listener = PatientListener(Failing([number] * 5), lambda: counted.append(number))
    started = trio.current_time()
    await listener.accept()
    assert trio.current_time() - started == pytest.approx(5 * ACCEPT_PAUSE)
    assert len(counted) == 5


async def test_a_long_shortage_takes_a_line_a_minute(autojump_clock, caplog) -> None:
    attempts = int(2.5 * COMPLAINT_INTERVAL / ACCEPT_PAUSE)
    listener = PatientListener(Failing([errno.EMFILE] * attempts), lambda: None)
    with caplog.at_level(logging.ERROR):
        await listener.accept()
    assert len(caplog.records) == 3
    assert all(record.exc_info is None for record in caplog.records)
    assert "EMFILE" in caplog.text


async def test_another_failure_is_told_and_leaves_the_listener_closed(autojump_clock) -> None:
    async def handler(request: WebSocketRequest) -> None:
        raise AssertionError("nobody comes")

    failing = Failing([errno.EMFILE, errno.EINVAL])
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="EINVAL"), flatten_subgroups=True):
        await serve_websocket_listeners(handler, [failing])
    assert failing.closed


async def test_waiting_for_better_times_can_be_cancelled(autojump_clock) -> None:
    listener = PatientListener(Failing([errno.EMFILE] * 1000), lambda: None)
    with trio.move_on_after(1) as scope:
        await listener.accept()
    assert scope.cancelled_caught
