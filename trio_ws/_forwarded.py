"""Who is asking: the client behind the proxies that are trusted to say so.

::

    client ──────→ proxy ──────→ proxy ──────→ us
    203.0.113.7    198.51.100.9  127.0.0.1
                   │             │
                   │             └─ writes "for 198.51.100.9" behind what it got
                   └─ writes "for 203.0.113.7" behind what the client claims

So the list is read from its end, for as long as who is named there is trusted itself. What
stands before the first stranger is that stranger's claim, and means nothing.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

import attrs

from ._http_headers import TOKEN
from ._http_request import RequestHead, split_host
from ._http_response import BadRequest
from ._options import Options


@attrs.frozen
class Client:
    """Who asks, and what for, as far as proxies can be believed."""

    address: Any
    """As a socket has it: host and port, with port 0 where a proxy does not tell it."""
    secure: bool | None
    """Whether TLS is spoken to the first of the proxies; `None` if none of them tells."""
    authority: tuple[str, int | None] | None


def is_trusted(address: Any, options: Options) -> bool:
    """Whether a socket's peer is one of ``options.trusted_proxies``."""
    if not options.trusted_proxies:
        return False
    if isinstance(address, (str, bytes)):
        return "unix" in options.trusted_proxies
    return isinstance(address, tuple) and _in_networks(_parse_ip(address[0]), options)


def find_client(head: RequestHead, peer: Any, options: Options) -> Client:
    """Return who sent a request that came from the trusted proxy ``peer``.

    Raises:
      BadRequest: what the proxies have written is malformed.
    """
    by_standard = options.forwarded_header == "Forwarded"
    hops = _read_forwarded(head) if by_standard else _read_x_forwarded(head)
    address, secure, authority = peer, None, head.authority
    for hop in reversed(hops):
        if hop.proto is not None:
            secure = hop.proto.lower() in ("https", "wss")
        if hop.host is not None:
            authority = split_host(hop.host)
        named = _split_node(hop.node)
        if named is None:  # "unknown", or a name that means something to the proxy alone
            break
        address = named
        if not _in_networks(_parse_ip(named[0]), options):
            break
    return Client(address, secure, authority)


@attrs.frozen
class _Hop:
    """What one proxy says about the connection that came to it."""

    node: str
    proto: str | None
    host: str | None


def _read_x_forwarded(head: RequestHead) -> list[_Hop]:
    nodes = _split_list(head, "x-forwarded-for")
    protos = _split_list(head, "x-forwarded-proto")
    hosts = _split_list(head, "x-forwarded-host")
    # Without a standard, some proxies append to these two, and most overwrite them.
    count = max(len(nodes), 1 if protos or hosts else 0)
    return [
        _Hop(
            nodes[index] if nodes else "",
            _of_hop(protos, index, count),
            _of_hop(hosts, index, count),
        )
        for index in range(count)
    ]


def _split_list(head: RequestHead, name: str) -> list[str]:
    text = ",".join(head.headers.getall(name, ()))
    return [item for part in text.split(",") if (item := part.strip(" \t"))]


def _of_hop(values: list[str], index: int, count: int) -> str | None:
    if len(values) == count:
        return values[index]
    return values[-1] if values and index == count - 1 else None


# RFC 7239, section 4: pairs are separated by semicolons, hops by commas.
# Possessive ("*+"): two runs of blanks that give back to each other take 10,000 blanks squared.
_PAIR: Final = re.compile(
    rf'[ \t]*+(?:({TOKEN.pattern})=({TOKEN.pattern}|"(?:[^"\\]|\\.)*+"))?[ \t]*+([;,]|$)'
)


def _read_forwarded(head: RequestHead) -> list[_Hop]:
    text = ",".join(head.headers.getall("forwarded", ()))
    hops: list[_Hop] = []
    pairs: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _PAIR.match(text, position)
        if found is None:
            # Where the last hop begins cannot be told any more.
            raise BadRequest(400, "the header Forwarded is malformed")
        position = found.end()
        if found[1] is not None:
            pairs[found[1].lower()] = _unquote(found[2])
        if (found[3] == "," or position == len(text)) and pairs:
            hops.append(_Hop(pairs.get("for", ""), pairs.get("proto"), pairs.get("host")))
            pairs = {}
    return hops


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


_NODE: Final = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::(\d{1,5}))?", re.ASCII)


def _split_node(text: str) -> tuple[str, int] | None:
    """Read an address with or without a port; an IPv6 address needs its brackets only then."""
    bare = _parse_ip(text)
    if bare is not None:
        return str(bare), 0
    found = _NODE.fullmatch(text)
    if found is None:
        return None
    address = _parse_ip(found[1] or found[2])
    return None if address is None else (str(address), int(found[3] or 0))


def _parse_ip(text: str | None) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address((text or "").partition("%")[0])  # without a zone
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _in_networks(address: IPv4Address | IPv6Address | None, options: Options) -> bool:
    return address is not None and any(
        address in network for network in options.trusted_proxies if network != "unix"
    )
