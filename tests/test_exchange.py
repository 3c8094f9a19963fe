"""One request and its answer over a stream that may break at any moment."""

from __future__ import annotations

import pytest
import trio
from _helpers import break_sending, stream_pair
from trio.testing import MockClock

from trio_ws._errors import HandshakeError, ProxyRejected
from trio_ws._exchange import Progress, ask
from trio_ws._http_client import ConnectHandshake
from trio_ws._proxy import parse_proxy
from trio_ws._url import parse_url


def a_request() -> ConnectHandshake:
    url = parse_url("ws://a.test/")
    return ConnectHandshake(parse_proxy("http://p.test"), url, max_header_size=1024)


BUSY = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\n"


async def test_the_answer_comes_in_any_pieces(autojump_clock: MockClock) -> None:
    ours, theirs = stream_pair()
    progress = Progress()

    async def answer() -> None:
        for byte in b"HTTP/1.1 200 OK\r\n\r\n":
            await theirs.send_all(bytes([byte]))
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await ask(ours, a_request(), progress) is True
    assert progress.phase == "waiting for the answer of the proxy http://p.test:1080"
    assert progress.rejection is None


async def test_the_end_instead_of_an_answer_is_told(autojump_clock: MockClock) -> None:
    ours, theirs = stream_pair()
    await theirs.send_eof()
    with pytest.raises(HandshakeError, match="without an answer"):
        await ask(ours, a_request(), Progress())


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 5", b"nonsense"])
async def test_a_request_that_cannot_be_sent_is_told(
    said: bytes, autojump_clock: MockClock
) -> None:
    ours, theirs = stream_pair()
    break_sending(ours, trio.BrokenResourceError("reset"))
    await theirs.send_all(said)
    await theirs.send_eof()
    progress = Progress()
    with pytest.raises(trio.BrokenResourceError, match="reset"):
        await ask(ours, a_request(), progress)
    assert progress.phase == "sending the request to the proxy http://p.test:1080"
    assert progress.rejection is None


async def test_a_refusal_that_came_before_the_request_was_sent_is_known(
    autojump_clock: MockClock,
) -> None:
    ours, theirs = stream_pair()
    break_sending(ours, trio.BrokenResourceError("reset"))
    await theirs.send_all(BUSY + b"full")
    progress = Progress()
    with pytest.raises(trio.BrokenResourceError):
        await ask(ours, a_request(), progress)
    assert isinstance(progress.rejection, ProxyRejected)
    assert progress.rejection.body == b"full"


async def test_a_refusal_that_comes_to_no_end_is_known(autojump_clock: MockClock) -> None:
    ours, theirs = stream_pair()
    await theirs.send_all(BUSY + b"fu")
    progress = Progress()
    with trio.move_on_after(1):
        await ask(ours, a_request(), progress)
    assert isinstance(progress.rejection, ProxyRejected)
    assert progress.rejection.body == b"fu"
    progress.enter("something else")
    assert progress.rejection is None
