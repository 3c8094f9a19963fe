"""When to come back, and whether to: no clock, no network."""

from __future__ import annotations

import math
import pickle
import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random
from statistics import mean

import attrs
import pytest
import trio
from multidict import CIMultiDict

from trio_ws import (
    Backoff,
    CloseInfo,
    ConnectionEnded,
    ConnectionLost,
    ConnectionRejected,
    HandshakeError,
    HandshakeTimeout,
    ProtocolViolation,
    is_transient,
)
from trio_ws._backoff import retry_after


def most(low: float, high: float) -> float:
    return high


def least(low: float, high: float) -> float:
    return low


def closed(code: int) -> ConnectionEnded | ConnectionLost:
    info = CloseInfo(code, "", "remote", clean=True)
    return ConnectionEnded(info) if info.polite else ConnectionLost(info)


def rejected(status: int = 503, **headers: str) -> ConnectionRejected:
    return ConnectionRejected(
        status, CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    )


def because(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


# Whether to...


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_server_that_cannot_now_is_asked_again(status: int) -> None:
    assert is_transient(rejected(status))


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 407, 410, 426, 501, 505])
def test_a_server_that_says_no_is_believed(status: int) -> None:
    assert not is_transient(rejected(status))


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014])
def test_a_session_that_ended_for_the_moment_is_followed_by_another(code: int) -> None:
    assert is_transient(closed(code))


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 1009, 1010, 1015, 3000, 3003, 4001])
def test_a_session_that_ended_for_a_reason_of_its_own_is_the_last_one(code: int) -> None:
    assert not is_transient(closed(code))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError("refused"),
        ConnectionResetError("reset"),
        FileNotFoundError("no socket yet"),
        OSError("all attempts to connect failed"),
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        HandshakeTimeout("too slow"),
        because(HandshakeError("ended"), EOFError()),
        because(HandshakeError("broken"), trio.BrokenResourceError()),
        because(HandshakeError("reset"), because(trio.BrokenResourceError(), OSError("reset"))),
        because(HandshakeError("TLS"), because(trio.BrokenResourceError(), ssl.SSLEOFError())),
    ],
    ids=repr,
)
def test_a_network_that_fails_may_work_later(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        PermissionError("not yours"),
        ssl.SSLError("odd"),
        HandshakeError("this is no WebSocket"),
        because(HandshakeError("malformed"), ValueError("malformed")),
        because(
            HandshakeError("not trusted"),
            because(trio.BrokenResourceError(), ssl.SSLCertVerificationError()),
        ),
        because(
            HandshakeError("no TLS there"), because(trio.BrokenResourceError(), ssl.SSLError())
        ),
        ProtocolViolation(1002, "reserved bit"),
        trio.TooSlowError(),
        ValueError("a URL of no use"),
    ],
    ids=repr,
)
def test_what_is_wrong_stays_wrong(error: Exception) -> None:
    assert not is_transient(error)


# When...


def test_the_longest_wait_doubles_with_each_failure_up_to_a_minute() -> None:
    waits = [Backoff(uniform=most).delay(failures) for failures in range(8)]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize("failures", [1023, 1024, 10**6])
def test_no_number_of_failures_is_too_large(failures: int) -> None:
    assert Backoff(uniform=most).delay(failures) == 60


def test_waits_are_spread_over_all_of_the_time() -> None:
    backoff = Backoff(uniform=Random(1).uniform)
    waits = sorted(backoff.delay(3) for _ in range(1000))
    assert 0 <= waits[0] < 0.1
    assert 7.9 < waits[-1] <= 8
    assert mean(waits) == pytest.approx(4, abs=0.2)


def test_the_same_chance_gives_the_same_waits() -> None:
    first, second = (Backoff(uniform=Random(7).uniform) for _ in range(2))
    assert [first.delay(n) for n in range(9)] == [second.delay(n) for n in range(9)]


def test_two_clients_do_not_wait_alike_by_default() -> None:
    assert len({Backoff().delay(5) for _ in range(20)}) == 20


@pytest.mark.parametrize("code", [1012, 1013])
def test_who_is_told_to_come_back_later_waits_five_to_thirty_seconds(code: int) -> None:
    assert Backoff(uniform=least).delay(0, closed(code)) == 5
    assert Backoff(uniform=most).delay(0, closed(code)) == 30
    assert Backoff(uniform=most).delay(9, closed(code)) == 60
    assert Backoff(uniform=most, restart=(0, 0.5)).delay(0, closed(code)) == 1


@pytest.mark.parametrize("code", [1001, 1006, 1011])
def test_after_any_other_end_the_wait_is_short(code: int) -> None:
    assert Backoff(uniform=most).delay(0, closed(code)) == 1


def test_retry_after_is_waited_for_and_some_more() -> None:
    assert Backoff(uniform=least).delay(1, rejected(Retry_After="7")) == 7
    assert Backoff(uniform=most).delay(1, rejected(Retry_After="7")) == 9
    assert Backoff(uniform=most).delay(1, rejected()) == 2


def test_a_server_cannot_silence_its_clients_for_ever() -> None:
    error = rejected(Retry_After="9" * 400)
    assert Backoff(uniform=least).delay(0, error) == 3600
    assert Backoff(uniform=least, max_retry_after=5).delay(0, error) == 5
    assert Backoff(uniform=least, max_retry_after=None).delay(0, error) > 10**17


def test_a_date_is_read_by_the_clock_of_the_server() -> None:
    headers = {
        "Date": "Fri, 31 Dec 1999 23:59:00 GMT",
        "Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT",
    }
    assert retry_after(headers) == 59
    assert retry_after({**headers, "Date": "Sat, 01 Jan 2000 00:00:00 GMT"}) == 0
    assert retry_after({**headers, "Date": "Fri, 31 Dec 1999 23:59:00 -0000"}) == 59


def test_a_date_is_read_by_our_clock_if_there_is_no_other() -> None:
    date = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after({"Retry-After": format_datetime(date, usegmt=True)}) == pytest.approx(
        90, abs=5
    )


@pytest.mark.parametrize("text", ["", "soon", "-3", "1.5", "٣", "Fri, 99 Dec 1999 23:59:59 GMT"])
def test_what_is_neither_a_number_nor_a_date_is_no_time_at_all(text: str) -> None:
    assert retry_after({"Retry-After": text}) == 0


# The values themselves...


@pytest.mark.parametrize(
    "field", ["initial", "factor", "maximum", "stable_after", "max_attempts", "max_outage"]
)
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_value_that_makes_no_sense_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        Backoff(**{field: value})


def test_waits_may_stay_as_they_are_but_not_shrink() -> None:
    assert Backoff(factor=1, uniform=most).delay(100) == 1
    with pytest.raises(ValueError, match="factor must be 1 or more"):
        Backoff(factor=0.5)
    with pytest.raises(ValueError, match="factor must be 1 or more"):
        Backoff(factor=math.inf)


@pytest.mark.parametrize("value", [(3, 2), (-1, 2), (0, math.inf), (math.nan, 1)])
def test_a_range_goes_from_the_least_to_the_most(value: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="restart is two numbers"):
        Backoff(restart=value)


@pytest.mark.parametrize("value", [5, (1, 2, 3), [1, 2], ("1", "2")])
def test_a_range_is_a_pair(value: object) -> None:
    with pytest.raises(TypeError, match="restart is two numbers"):
        Backoff(restart=value)


def test_there_cannot_be_less_than_no_failure() -> None:
    with pytest.raises(ValueError, match="0 or more failures, not -1"):
        Backoff().delay(-1)


def test_a_backoff_is_a_value() -> None:
    backoff = Backoff(initial=3)
    assert backoff == Backoff(initial=3)
    assert backoff.max_attempts == backoff.max_outage == math.inf
    assert pickle.loads(pickle.dumps(backoff)).initial == 3  # noqa: S301  # our own bytes
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        backoff.initial = 4
