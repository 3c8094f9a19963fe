"""Options and Deflate: defaults, what they refuse, and copies."""

from __future__ import annotations

import math
import re
from ipaddress import ip_network
from typing import Any

import attrs
import pytest

from trio_ws._options import (
    ANY_ORIGIN,
    KIB,
    MIB,
    SAME_ORIGIN,
    Deflate,
    Options,
    check_options,
)

NO_LIMITS = {
    "compression",
    "allowed_origins",
    "forwarded_header",
    "on_handler_error",
    "trusted_proxies",
}
LIMITS = [field.name for field in attrs.fields(Options) if field.name not in NO_LIMITS]


def test_the_defaults_are_those_of_the_design() -> None:
    options = Options()
    assert (options.handshake_timeout, options.close_grace) == (10, 5)
    assert (options.ping_interval, options.ping_timeout, options.write_timeout) == (20, 20, 30)
    assert (options.max_message_size, options.max_fragments) == (MIB, 4096)
    assert (options.receive_buffer, options.send_buffer) == (64 * KIB, 64 * KIB)
    assert options.max_header_size == 16 * KIB
    assert options.compression == Deflate()
    assert options.allowed_origins is SAME_ORIGIN
    assert (options.max_connections, options.max_handshakes) == (10_000, 1000)
    assert options.max_connections_per_address == math.inf
    assert options.on_handler_error == "log"
    assert options.trusted_proxies == ()
    assert options.forwarded_header == "X-Forwarded-For"


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_can_be_set_and_switched_off(name: str) -> None:
    assert getattr(Options().replace(**{name: 7}), name) == 7
    assert getattr(Options(**{name: 0.5}), name) == 0.5
    assert getattr(Options(**{name: None}), name) == math.inf
    assert getattr(Options(**{name: math.inf}), name) == math.inf


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, -math.inf, math.nan])
def test_a_limit_is_positive(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be greater than 0, not {value!r}"):
        Options(**{name: value})


@pytest.mark.parametrize("value", ["5", True, [5], 5j])
def test_a_limit_is_a_number(value: object) -> None:
    message = f"close_grace is a number or None, not {type(value).__name__}"
    with pytest.raises(TypeError, match=message):
        Options(close_grace=value)
    with pytest.raises(TypeError, match=message):
        Options().replace(close_grace=value)


def test_there_is_no_other_field() -> None:
    with pytest.raises(TypeError, match="timeout"):
        Options(timeout=5)
    with pytest.raises(TypeError, match="timeout"):
        Options().replace(timeout=5)
    with pytest.raises(TypeError):
        Options(5)


def test_options_cannot_be_changed_but_replaced() -> None:
    options = Options()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.close_grace = 1
    changed = options.replace(close_grace=1, compression=None)
    assert (changed.close_grace, changed.compression) == (1, None)
    assert changed.ping_interval == options.ping_interval
    assert options == Options()


@pytest.mark.parametrize("value", [True, "deflate", 6])
def test_compression_is_deflate_or_none(value: object) -> None:
    with pytest.raises(TypeError, match=re.escape(f"Deflate(...) or None, not {value!r}")):
        Options(compression=value)


@pytest.mark.parametrize("value", ["ignore", None])
def test_handler_errors_are_logged_or_raised(value: Any) -> None:
    assert Options(on_handler_error="raise").on_handler_error == "raise"
    with pytest.raises(ValueError, match=f"^on_handler_error is 'log' or 'raise', not {value!r}$"):
        Options(on_handler_error=value)


# Origins...


def test_origins_become_a_tuple() -> None:
    pattern = re.compile(r"https://\w+\.example\.org")
    options = Options(allowed_origins=["https://example.org:8443", pattern, "null"])
    assert options.allowed_origins == ("https://example.org:8443", pattern, "null")
    assert Options(allowed_origins=[]).allowed_origins == ()
    assert Options(allowed_origins=ANY_ORIGIN).allowed_origins is ANY_ORIGIN


@pytest.mark.parametrize("value", ["https://example.org", re.compile("x")])
def test_a_single_origin_is_no_list(value: object) -> None:
    with pytest.raises(TypeError, match=r"put it in \[ \]"):
        Options(allowed_origins=value)


@pytest.mark.parametrize(
    "origin", ["example.org", "https://", "https://example.org/", "https://a b", "*", ""]
)
def test_an_origin_is_scheme_and_host(origin: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{origin!r} is no origin: write scheme")):
        Options(allowed_origins=[origin])


@pytest.mark.parametrize("field", ["allowed_origins", "trusted_proxies"])
@pytest.mark.parametrize("value", [None, 5])
def test_what_is_no_list_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"{field} is .*list.*, not {value}"):
        Options(**{field: value})


def test_an_origin_is_a_str_or_a_pattern() -> None:
    with pytest.raises(TypeError, match="an origin is a str or a pattern, not bytes"):
        Options(allowed_origins=[b"https://example.org"])


# Deflate...


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("level", 0, 9),
        ("memory_level", 1, 9),
        ("threshold", 0, math.inf),
        ("server_max_window_bits", 9, 15),
        ("client_max_window_bits", 9, 15),
    ],
)
def test_each_number_of_deflate_has_its_range(name: str, low: int, high: float) -> None:
    most = 10**9 if high == math.inf else int(high)
    for value in (low, most):
        assert getattr(Deflate(**{name: value}), name) == value
    for value in {low - 1, most + 1} if high < math.inf else {low - 1}:
        with pytest.raises(ValueError, match=f"{name} must be from {low} to {high}, not {value}"):
            Deflate(**{name: value})
    for value in (None, 9.0, True, "9"):
        with pytest.raises(TypeError, match=f"{name} is an int, not {type(value).__name__}"):
            Deflate(**{name: value})


@pytest.mark.parametrize("name", ["server_no_context_takeover", "client_no_context_takeover"])
@pytest.mark.parametrize("value", ["no", None, 0])
def test_contexts_are_taken_over_or_not(name: str, value: object) -> None:
    assert getattr(Deflate(**{name: False}), name) is False
    with pytest.raises(TypeError, match=f"{name} is True or False, not {value!r}"):
        Deflate(**{name: value})


def test_deflate_keeps_nothing_between_messages_by_default() -> None:
    deflate = Deflate()
    assert deflate.server_no_context_takeover
    assert deflate.client_no_context_takeover
    assert deflate.threshold == 1024


# Proxies...


def test_proxies_are_addresses_networks_or_unix() -> None:
    given = ["127.0.0.1", "10.0.0.0/8", "2001:db8::/32", "unix", ip_network("::1")]
    options = Options(trusted_proxies=given)
    networks = ("127.0.0.1/32", "10.0.0.0/8", "2001:db8::/32", "unix", "::1/128")
    assert tuple(map(str, options.trusted_proxies)) == networks
    assert options.replace(trusted_proxies=iter(given)) == options


@pytest.mark.parametrize("value", ["proxy.example.org", "10.0.0.1/8", "", "300.0.0.1", "Unix"])
def test_what_is_no_network_is_no_proxy(value: str) -> None:
    """A name could be looked up by whoever answers first."""
    with pytest.raises(ValueError, match=f"'{value}' is no address or network, as"):
        Options(trusted_proxies=[value])


@pytest.mark.parametrize("value", ["127.0.0.1", ip_network("10.0.0.0/8"), [1], [b"127.0.0.1"]])
def test_proxies_are_a_list_of_texts(value: object) -> None:
    with pytest.raises(TypeError, match=r"put it in \[ \]|a proxy is a str"):
        Options(trusted_proxies=value)


@pytest.mark.parametrize("value", ["X-Real-IP", "forwarded", None])
def test_there_are_two_headers_that_a_proxy_may_write(value: object) -> None:
    with pytest.raises(ValueError, match=r"^forwarded_header is 'X-Forwarded-For' or 'Forwarded'"):
        Options(forwarded_header=value)


# Whoever takes options...


def test_options_are_checked_before_they_are_asked() -> None:
    check_options(Options())
    with pytest.raises(TypeError, match=r"options is an Options\(\.\.\.\), not NoneType"):
        check_options(None)
