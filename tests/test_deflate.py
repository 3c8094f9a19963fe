"""permessage-deflate: what is agreed, what is inflated, what is sent."""

from __future__ import annotations

import math
import os
import random
import tracemalloc
import zlib

import attrs
import pytest
from _cost import assert_cheap
from frame_receiver import FrameReceiver, data_of
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import Frame, Opcode
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate
from wsproto.frame_protocol import CloseReason

from trio_ws._deflate import (
    EXPANSION,
    INFLATE_STEP,
    MAX_OFFERS,
    MAX_STREAMS,
    WIRE_SLACK,
    DeflateParameters,
    PerMessageDeflate,
    accept_offers,
    offer,
    read_response,
)
from trio_ws._frames import BINARY, CONTINUATION, encode_frame
from trio_ws._options import Deflate

PING = 0x9
DEFAULT = Deflate()
KEEPING = Deflate(server_no_context_takeover=False, client_no_context_takeover=False)
WIDE = attrs.evolve(KEEPING, server_max_window_bits=15, client_max_window_bits=15)
FRESH = DeflateParameters(True, True, 15, 15)
KEPT = DeflateParameters(False, False, 15, 15)
NOISE = random.Random(7692).randbytes(2**17)  # does not compress

# Negotiating: the client's offer...


def test_the_default_offer_asks_for_what_keeps_idle_connections_small() -> None:
    assert offer(Deflate()) == (
        "permessage-deflate; client_max_window_bits=12; "
        "client_no_context_takeover; server_no_context_takeover"
    )


def test_the_server_window_is_asked_for_where_it_would_stay_in_memory() -> None:
    assert offer(KEEPING) == (
        "permessage-deflate; client_max_window_bits=12; server_max_window_bits=12"
    )


def test_an_offer_without_wishes_still_lets_the_server_choose_our_window() -> None:
    assert offer(WIDE) == "permessage-deflate; client_max_window_bits"


# ... the server's answer...


@pytest.mark.parametrize(
    ("settings", "asked", "answer", "agreed"),
    [
        pytest.param(
            Deflate(),
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "client_max_window_bits=12",
            DeflateParameters(True, True, 12, 12),
            id="a browser",
        ),
        pytest.param(
            Deflate(),
            "permessage-deflate",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            DeflateParameters(True, True, 12, 15),
            id="a client that cannot choose its window",
        ),
        pytest.param(
            WIDE,
            "permessage-deflate",
            "permessage-deflate",
            DeflateParameters(False, False, 15, 15),
            id="nothing wanted on either side",
        ),
        pytest.param(
            WIDE,
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=9; client_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=9; client_max_window_bits=10",
            DeflateParameters(True, True, 9, 10),
            id="all of the client's wishes",
        ),
        pytest.param(
            KEEPING,
            "permessage-deflate; server_max_window_bits=15; client_max_window_bits=15",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            DeflateParameters(False, False, 12, 12),
            id="the smaller window wins",
        ),
        pytest.param(
            WIDE,
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate; client_max_window_bits=8",
            DeflateParameters(False, False, 15, 8),
            id="we can inflate a window of 8",
        ),
        pytest.param(
            WIDE,
            'permessage-deflate ; server_max_window_bits = "1\\0" ;\tclient_max_window_bits="11"',
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11",
            DeflateParameters(False, False, 10, 11),
            id="quoted values and white space",
        ),
        pytest.param(
            WIDE,
            'x-other; mode="fast", ,, permessage-deflate; server_max_window_bits=10, ,',
            "permessage-deflate; server_max_window_bits=10",
            DeflateParameters(False, False, 10, 15),
            id="stray commas and another extension",
        ),
        pytest.param(
            WIDE,
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            "permessage-deflate; server_max_window_bits=10",
            DeflateParameters(False, False, 10, 15),
            id="the first offer that will do",
        ),
        pytest.param(
            WIDE,
            "permessage-deflate; unheard_of, permessage-deflate; server_max_window_bits=8, "
            "permessage-deflate; client_max_window_bits=11",
            "permessage-deflate; client_max_window_bits=11",
            DeflateParameters(False, False, 15, 11),
            id="the third, as the others will not do",
        ),
    ],
)
def test_an_offer_is_accepted(
    settings: Deflate, asked: str, answer: str, agreed: DeflateParameters
) -> None:
    assert accept_offers(settings, [asked]) == (answer, agreed)


def test_offers_may_be_spread_over_headers() -> None:
    values = ["", "x-other", "permessage-deflate; unheard_of", "permessage-deflate"]
    assert accept_offers(WIDE, values) == ("permessage-deflate", KEPT)


BAD_PARAMETERS = [
    "unheard_of",
    "Server_No_Context_Takeover",
    "server_no_context_takeover=1",
    "client_no_context_takeover=true",
    "server_no_context_takeover; server_no_context_takeover",
    "client_max_window_bits=9; client_max_window_bits=9",
    "server_max_window_bits",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=010",
    "server_max_window_bits=1O",
    "server_max_window_bits=-9",
    'server_max_window_bits="09"',
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=100",
]


@pytest.mark.parametrize("parameters", [*BAD_PARAMETERS, "server_max_window_bits=8"])
def test_an_offer_that_cannot_be_honoured_is_declined(parameters: str) -> None:
    asked = f"permessage-deflate; {parameters}"
    assert accept_offers(WIDE, [asked]) is None
    assert accept_offers(WIDE, [f"{asked}, permessage-deflate"]) == ("permessage-deflate", KEPT)


BROKEN_LISTS = [
    ";",
    "permessage-deflate;",
    "permessage-deflate; =9",
    "permessage-deflate; server_max_window_bits=",
    'permessage-deflate; server_max_window_bits="10',
    'permessage-deflate; server_max_window_bits=""',
    'permessage-deflate; server_max_window_bits="1 0"',
    "permessage-deflate; server_max_window_bits=10 11",
    "permessage-deflate x",
    'permessage-deflate, x-other; a="',
    "permessage-deflate, \xff",
    "permessage-deflate\n",
]


@pytest.mark.parametrize(
    "value", ["", ",", " , ,", "x-other", "permessage-deflate-2", *BROKEN_LISTS]
)
def test_other_extensions_and_broken_lists_offer_nothing(value: str) -> None:
    assert accept_offers(Deflate(), [value]) is None


@pytest.mark.parametrize(
    "values",
    [
        ["permessage-deflate; unheard_of, " * 50_000],
        ["permessage-deflate; unheard_of"] * 50_000,
        ["permessage-deflate" + "; server_no_context_takeover" * 5_000],
        ["x-other" + "; a=b" * 5_000],
        ["permessage-deflate; a=" + '"a' * 50_000],
        ["permessage-deflate; a=" + '"\\' * 50_000],
        ['permessage-deflate; a="' + "\\a" * 50_000],
        ["permessage-deflate" + " " * 100_000 + "x"],
        ["," * 100_000],
        [""] * 100_000,
    ],
    ids=lambda values: f"{len(values)} x {values[0][:30]}",
)
def test_a_senseless_header_costs_little(values: list[str]) -> None:
    assert accept_offers(Deflate(), values) is None
    assert_cheap(lambda: accept_offers(Deflate(), values), 1)


def test_only_the_first_offers_are_looked_at() -> None:
    bad = ["permessage-deflate; unheard_of"]
    good = ["permessage-deflate"]
    assert accept_offers(Deflate(), bad * (MAX_OFFERS - 1) + good) is not None
    assert accept_offers(Deflate(), bad * MAX_OFFERS + good) is None


# ... and what the client makes of it...


@pytest.mark.parametrize(
    ("settings", "answer", "agreed"),
    [
        pytest.param(
            Deflate(),
            "permessage-deflate; server_no_context_takeover",
            DeflateParameters(True, True, 15, 12),
            id="what we said about ourselves holds without an answer",
        ),
        pytest.param(
            WIDE,
            "permessage-deflate",
            DeflateParameters(False, False, 15, 15),
            id="as offered",
        ),
        pytest.param(
            WIDE,
            "permessage-deflate; client_no_context_takeover; server_no_context_takeover; "
            'client_max_window_bits=9; server_max_window_bits="8"',
            DeflateParameters(True, True, 8, 9),
            id="the server has wishes of its own",
        ),
        pytest.param(
            KEEPING,
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
            DeflateParameters(False, False, 12, 12),
            id="both windows as offered",
        ),
        pytest.param(
            KEEPING,
            "permessage-deflate; server_max_window_bits=11; client_max_window_bits=10",
            DeflateParameters(False, False, 11, 10),
            id="smaller windows than offered",
        ),
        pytest.param(
            KEEPING,
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=15",
            DeflateParameters(False, False, 12, 12),
            id="the server allows this side more than it wants",
        ),
    ],
)
def test_an_answer_that_fits_the_offer(
    settings: Deflate, answer: str, agreed: DeflateParameters
) -> None:
    assert read_response(settings, ["", answer]) == agreed


@pytest.mark.parametrize("settings", [None, Deflate()])
@pytest.mark.parametrize("values", [[], [""], [" , "]])
def test_no_answer_is_none(settings: Deflate | None, values: list[str]) -> None:
    assert read_response(settings, values) is None


@pytest.mark.parametrize(
    ("settings", "answer", "complaint"),
    [
        (None, "permessage-deflate", "not offered: permessage-deflate"),
        (WIDE, "x-other", "not offered: x-other"),
        (WIDE, "permessage-deflate, x-other", "a second extension: x-other"),
        (WIDE, "permessage-deflate, permessage-deflate", "a second extension"),
        (WIDE, "permessage-deflate; client_max_window_bits", "bad client_max_window_bits: None"),
        (KEEPING, "permessage-deflate", "without its server_max_window_bits"),
        (KEEPING, "permessage-deflate; server_max_window_bits=13", "13 bits, 12 were offered"),
        (Deflate(), "permessage-deflate", "without its server_no_context_takeover"),
        *(
            (WIDE, f"permessage-deflate; {bad}", "permessage-deflate with")
            for bad in BAD_PARAMETERS
        ),
        *((WIDE, broken, "a malformed list") for broken in BROKEN_LISTS if "," not in broken),
    ],
)
def test_an_answer_that_does_not_fit_the_offer(
    settings: Deflate | None, answer: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_response(settings, [answer])


@pytest.mark.parametrize("answer", ["x" * 9999, "permessage-deflate, " + "x" * 9999])
def test_a_complaint_quotes_no_more_than_a_line(answer: str) -> None:
    with pytest.raises(ValueError, match=r" x{64}$"):
        read_response(WIDE, [answer])


# Receiving...


class Receiver(FrameReceiver):
    """A peer that compresses, if not told otherwise."""

    def frame(
        self, payload: bytes, *, opcode: int = BINARY, fin: bool = True, rsv1: bool = True
    ) -> list[Event]:
        return super().frame(payload, opcode=opcode, fin=fin, rsv1=rsv1)

    def message(self, payload: bytes, *, rsv1: bool = True) -> bytes:
        return data_of(self.frame(payload, rsv1=rsv1))


def extension(
    parameters: DeflateParameters = FRESH,
    *,
    client: bool = False,
    settings: Deflate = DEFAULT,
    max_message_size: float = 2**20,
    max_fragments: float = 4096,
) -> PerMessageDeflate:
    return PerMessageDeflate(
        parameters,
        settings,
        client=client,
        max_message_size=max_message_size,
        max_fragments=max_fragments,
    )


def receiver(
    parameters: DeflateParameters = FRESH,
    *,
    client: bool = False,
    max_message_size: float = 2**20,
    max_fragments: float = 4096,
) -> Receiver:
    deflate = extension(
        parameters, client=client, max_message_size=max_message_size, max_fragments=max_fragments
    )
    return Receiver(deflate, client=client)


def raw_deflate(data: bytes, bits: int = 15, *, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
    """What a peer's message looks like, with its tail."""
    compressor = zlib.compressobj(wbits=-bits)
    return compressor.compress(data) + compressor.flush(flush)


@pytest.fixture(params=[True, False], ids=["client", "server"])
def client(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=[FRESH, KEPT], ids=["fresh", "kept"])
def parameters(request: pytest.FixtureRequest) -> DeflateParameters:
    assert isinstance(request.param, DeflateParameters)
    return request.param


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("f248cdc9c90700", id="one block"),
        pytest.param("000500faff48656c6c6f00", id="stored"),
        pytest.param("f348cdc9c9070000", id="BFINAL"),
        pytest.param("f248050000 00ffff cac9c90700", id="two blocks"),
        pytest.param("f348cdc9c907 00", id="BFINAL without the byte behind it"),
        pytest.param("0300 f348cdc9c90700 0300 00", id="three streams"),
        pytest.param("f248cdc9c90700 0000ffff 00 0000ffff 00", id="empty blocks behind"),
    ],
)
def test_the_examples_of_the_rfc(
    client: bool, parameters: DeflateParameters, payload: str
) -> None:
    """RFC 7692, section 7.2.3, and neighbours of what it shows."""
    peer = receiver(parameters, client=client)
    for _ in range(3):
        assert peer.message(bytes.fromhex(payload)) == b"Hello"
        assert peer.limits.size == 5


def test_a_kept_window_is_referred_to(client: bool) -> None:
    """RFC 7692, section 7.2.3.2: the second Hello is five bytes."""
    peer = receiver(KEPT, client=client)
    assert peer.message(bytes.fromhex("f248cdc9c90700")) == b"Hello"
    assert peer.message(bytes.fromhex("f200110000")) == b"Hello"


def test_a_reference_to_a_window_that_was_not_kept_is_corrupt(client: bool) -> None:
    peer = receiver(FRESH, client=client)
    assert peer.message(bytes.fromhex("f248cdc9c90700")) == b"Hello"
    peer.assert_refused(
        peer.frame(bytes.fromhex("f200110000")),
        CloseReason.INVALID_FRAME_PAYLOAD_DATA,
        "compressed data that does not inflate",
    )


@pytest.mark.parametrize("empty", [b"\x00", b"", b"\x02\x00", b"\x03\x00", b"\x03\x00\x00"])
def test_an_empty_message_leaves_the_window_alone(
    client: bool, parameters: DeflateParameters, empty: bytes
) -> None:
    peer = receiver(parameters, client=client)
    for _ in range(3):
        assert peer.message(empty) == b""
        assert peer.limits.size == 0
        assert peer.message(bytes.fromhex("f248cdc9c90700")) == b"Hello"


def test_fragments_and_control_frames_between_them(
    client: bool, parameters: DeflateParameters
) -> None:
    """RFC 7692, section 7.2.3.1: RSV1 is on the first fragment only."""
    peer = receiver(parameters, client=client)
    for _ in range(2):
        assert peer.frame(b"", fin=False) != []
        assert peer.frame(bytes.fromhex("f248cd"), opcode=CONTINUATION, fin=False, rsv1=False)
        (ping,) = peer.frame(b"Hello", opcode=PING, rsv1=False)
        assert isinstance(ping, Ping)
        assert ping.payload == b"Hello"
        (last,) = peer.frame(bytes.fromhex("c9c90700"), opcode=CONTINUATION, rsv1=False)
        assert isinstance(last, BytesMessage)
        assert last.message_finished
        assert peer.limits.size == 5


def test_messages_may_come_as_they_are(client: bool, parameters: DeflateParameters) -> None:
    peer = receiver(parameters, client=client, max_message_size=5)
    for _ in range(2):
        assert peer.message(b"Hello", rsv1=False) == b"Hello"
        assert peer.limits.size == 5
        assert peer.message(bytes.fromhex("f248cdc9c90700")) == b"Hello"
    peer.assert_refused(
        peer.frame(b"Hello!", rsv1=False),
        CloseReason.MESSAGE_TOO_BIG,
        "message of 6 bytes: 5 is the most",
    )


@pytest.mark.parametrize("bits", range(9, 16))
def test_the_whole_of_an_agreed_window_can_be_referred_to(client: bool, bits: int) -> None:
    peer = receiver(DeflateParameters(False, False, bits, bits), client=client)
    compressor = zlib.compressobj(wbits=-bits)
    data = NOISE[: 2**bits - 262]  # zlib looks that much less far back
    for _ in range(2):
        wire = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
        assert peer.message(wire[:-4]) == data
    assert len(wire) < len(data) / 3


def test_a_window_of_8_is_inflated_even_if_it_is_9(client: bool) -> None:
    """What zlib before 1.2.9 makes of 8."""
    data = bytes(range(256)) * 2
    peer = receiver(DeflateParameters(False, False, 8, 8), client=client)
    assert peer.message(raw_deflate(data, 9)[:-4]) == data


def test_a_reference_beyond_the_agreed_window_is_corrupt(client: bool) -> None:
    peer = receiver(DeflateParameters(False, False, 9, 9), client=client)
    compressor = zlib.compressobj(wbits=-15)
    first = NOISE[:5000]
    wire = compressor.compress(first) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert peer.message(wire[:-4]) == first
    wire = compressor.compress(first) + compressor.flush(zlib.Z_SYNC_FLUSH)
    peer.assert_refused(
        peer.frame(wire[:-4]),
        CloseReason.INVALID_FRAME_PAYLOAD_DATA,
        "compressed data that does not inflate",
    )


@pytest.mark.parametrize("opcode", [CONTINUATION, PING])
def test_rsv1_is_for_the_first_frame_of_a_message(client: bool, opcode: int) -> None:
    peer = receiver(client=client)
    assert peer.frame(bytes.fromhex("f248cd"), fin=False)
    (event,) = peer.frame(b"", opcode=opcode)
    assert isinstance(event, CloseConnection)
    assert event.code is CloseReason.PROTOCOL_ERROR


def test_rsv1_on_a_continuation_of_an_uncompressed_message(client: bool) -> None:
    peer = receiver(client=client)
    assert peer.frame(b"", fin=False, rsv1=False)
    (event,) = peer.frame(b"", opcode=CONTINUATION)
    assert isinstance(event, CloseConnection)
    assert event.code is CloseReason.PROTOCOL_ERROR


@pytest.mark.parametrize("bit", [0x20, 0x10])
def test_the_other_reserved_bits_stay_reserved(client: bool, bit: int) -> None:
    (event,) = receiver(client=client).frame(b"", opcode=BINARY | bit)
    assert isinstance(event, CloseConnection)
    assert event.code is CloseReason.PROTOCOL_ERROR


def test_the_order_of_frames_is_judged_as_ever(client: bool) -> None:
    peer = receiver(client=client)
    peer.assert_refused(
        peer.frame(b"", opcode=CONTINUATION, rsv1=False),
        CloseReason.PROTOCOL_ERROR,
        "continuation of no message",
    )
    peer = receiver(client=client)
    assert peer.frame(b"", fin=False)
    peer.assert_refused(peer.frame(b""), CloseReason.PROTOCOL_ERROR, "new message inside another")


def test_fragments_are_counted_as_ever(client: bool) -> None:
    peer = receiver(client=client, max_fragments=2)
    assert peer.frame(b"", fin=False)
    assert peer.frame(b"", opcode=CONTINUATION, fin=False, rsv1=False)
    peer.assert_refused(
        peer.frame(b"", opcode=CONTINUATION, rsv1=False),
        CloseReason.POLICY_VIOLATION,
        "message of 3 frames: 2 is the most",
    )


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param("ff", id="no such block"),
        pytest.param("f248cd", id="cut off"),
        pytest.param("000500", id="cut off in a length"),
        pytest.param("000500faff4865", id="cut off in a stored block"),
        pytest.param("0064009bff4865", id="cut off in a long stored block"),
        pytest.param("010300fcff", id="a last block that ends inside the tail"),
        pytest.param("010400fbff", id="a last block that ends with the tail"),
        pytest.param("f348cdc9c90700 ff", id="garbage behind the end"),
        pytest.param("f348cdc9c90700 f2", id="start of a stream behind the end"),
        pytest.param("f200110000", id="a reference to nothing"),
    ],
)
def test_corrupt_data(client: bool, parameters: DeflateParameters, payload: str) -> None:
    peer = receiver(parameters, client=client)
    peer.assert_refused(
        peer.frame(bytes.fromhex(payload)),
        CloseReason.INVALID_FRAME_PAYLOAD_DATA,
        "compressed data that does not inflate",
    )


# Receiving: limits...


def test_a_bomb_inflates_to_the_limit_and_no_further(
    client: bool, parameters: DeflateParameters
) -> None:
    bomb = raw_deflate(bytes(2**27))[:-4]
    peer = receiver(parameters, client=client)
    tracemalloc.start()
    try:
        events = peer.frame(bomb)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    peer.assert_refused(
        events,
        CloseReason.MESSAGE_TOO_BIG,
        "message of more than 1048576 bytes after inflating",
    )
    assert len(events) == 1
    assert peer.limits.size == 2**20 + 1
    assert peak < 4 * 2**20


def test_a_bomb_in_fragments_goes_no_further(client: bool, parameters: DeflateParameters) -> None:
    bomb = raw_deflate(bytes(2**24))[:-4]
    peer = receiver(parameters, client=client, max_message_size=100_000)
    events = peer.frame(bomb[:10], fin=False)
    for at in range(10, len(bomb), 10):
        if peer.limits.violation:
            break
        events += peer.frame(bomb[at : at + 10], opcode=CONTINUATION, fin=False, rsv1=False)
    inflated = sum(len(event.data) for event in events if isinstance(event, BytesMessage))
    assert inflated <= 100_000
    peer.assert_refused(
        events, CloseReason.MESSAGE_TOO_BIG, "message of more than 100000 bytes after inflating"
    )


def test_a_message_of_the_largest_size_passes(client: bool, parameters: DeflateParameters) -> None:
    for data in (NOISE, bytes(len(NOISE))):
        wire = raw_deflate(data)[:-4]
        peer = receiver(parameters, client=client, max_message_size=len(data))
        assert peer.message(wire) == data
        assert peer.limits.size == len(data)
        peer = receiver(parameters, client=client, max_message_size=len(data) - 1)
        peer.assert_refused(
            peer.frame(wire),
            CloseReason.MESSAGE_TOO_BIG,
            f"message of more than {len(data) - 1} bytes after inflating",
        )


def test_what_the_tail_brings_out_is_counted_too(
    client: bool, parameters: DeflateParameters
) -> None:
    """A stored block of 4 bytes that stops behind its header: the tail is its data."""
    wire = bytes.fromhex("000400fbff")
    peer = receiver(parameters, client=client, max_message_size=4)
    assert peer.message(wire) == b"\x00\x00\xff\xff"
    assert peer.limits.size == 4
    peer = receiver(parameters, client=client, max_message_size=3)
    peer.assert_refused(
        peer.frame(wire),
        CloseReason.MESSAGE_TOO_BIG,
        "message of more than 3 bytes after inflating",
    )


@pytest.mark.parametrize("length", [2 * 10**6 + WIRE_SLACK + 1, 2**31, 2**62, 2**63 - 1])
def test_an_absurd_length_is_refused_from_the_header_alone(client: bool, length: int) -> None:
    peer = receiver(client=client, max_message_size=10**6)
    peer.assert_refused(
        peer.header(0x40 | BINARY, length),
        CloseReason.MESSAGE_TOO_BIG,
        f"message of {length} compressed bytes: 1000000 is the most after inflating",
    )


def test_a_length_that_noise_could_need_passes_the_header(client: bool) -> None:
    peer = receiver(client=client, max_message_size=10**6)
    assert peer.header(0x40 | BINARY, 2 * 10**6 + WIRE_SLACK) == []
    assert peer.limits.violation is None


def test_compressed_bytes_that_inflate_to_nothing_are_bounded(client: bool) -> None:
    peer = receiver(client=client, max_message_size=1000, max_fragments=math.inf)
    nothing = bytes.fromhex("000000ffff") * 1000
    events = peer.frame(nothing, fin=False)
    for _ in range(100):
        if peer.limits.violation:
            break
        events = peer.frame(nothing, opcode=CONTINUATION, fin=False, rsv1=False)
    peer.assert_refused(
        events,
        CloseReason.MESSAGE_TOO_BIG,
        "message of 70000 compressed bytes: 1000 is the most after inflating",
    )


@pytest.mark.parametrize("flush", [zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_FIXED])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_no_honest_compressor_meets_the_bound_on_the_wire(
    level: int, strategy: int, flush: int
) -> None:
    """The worst there is: noise, in fragments of 16 bytes, the least memory."""
    data = NOISE[: 16 * 3000]
    compressor = zlib.compressobj(level, zlib.DEFLATED, -9, 1, strategy)
    parts = [
        compressor.compress(data[at : at + 16]) + compressor.flush(flush)
        for at in range(0, len(data) - 16, 16)
    ]
    last = compressor.compress(data[-16:]) + compressor.flush(zlib.Z_SYNC_FLUSH)
    parts.append(last[:-4])
    peer = receiver(max_message_size=len(data))
    events = peer.frame(parts[0], fin=False)
    for part in parts[1:-1]:
        events += peer.frame(part, opcode=CONTINUATION, fin=False, rsv1=False)
    events += peer.frame(parts[-1], opcode=CONTINUATION, rsv1=False)
    assert data_of(events) == data


def test_streams_in_a_frame_are_bounded(client: bool, parameters: DeflateParameters) -> None:
    def check() -> None:
        peer = receiver(parameters, client=client)
        streams = bytes.fromhex("0300") * MAX_STREAMS
        for _ in range(2):
            assert peer.frame(streams, fin=False)
            assert peer.frame(streams, opcode=CONTINUATION, rsv1=False)
        peer.assert_refused(
            peer.frame(bytes.fromhex("0300") * 500_000),
            CloseReason.POLICY_VIOLATION,
            "frame of more than 256 deflate streams",
        )

    assert_cheap(check, 1)


@pytest.mark.parametrize("limit", [math.inf, 1e300, 2**63, 2**63 - 1, 2**63 - 2])
def test_without_a_limit_everything_is_inflated(client: bool, limit: float) -> None:
    data = bytes(2**22)
    peer = receiver(client=client, max_message_size=limit)
    assert peer.message(raw_deflate(data)[:-4]) == data


def test_a_limit_may_be_a_fraction(client: bool) -> None:
    peer = receiver(client=client, max_message_size=5.5)
    assert peer.message(bytes.fromhex("f248cdc9c90700")) == b"Hello"
    assert peer.frame(raw_deflate(b"Hello!")[:-4]) != []
    assert peer.limits.violation == "message of more than 6 bytes after inflating"


# Sending...


def test_one_message_is_what_the_rfc_shows(client: bool) -> None:
    deflate = extension(FRESH, client=client)
    for _ in range(2):
        assert deflate.compress(b"Hello") == bytes.fromhex("f248cdc9c90700")


def test_a_kept_context_makes_the_second_message_smaller(client: bool) -> None:
    deflate = extension(KEPT, client=client)
    assert deflate.compress(b"Hello") == bytes.fromhex("f248cdc9c90700")
    assert deflate.compress(b"Hello") == bytes.fromhex("f200110000")


@pytest.mark.parametrize(
    ("parameters", "client_keeps", "server_keeps"),
    [
        (DeflateParameters(True, True, 15, 15), False, False),
        (DeflateParameters(True, False, 15, 15), True, False),
        (DeflateParameters(False, True, 15, 15), False, True),
    ],
)
def test_each_side_keeps_only_its_own_context(
    parameters: DeflateParameters, client_keeps: bool, server_keeps: bool
) -> None:
    for client, keeps in ((True, client_keeps), (False, server_keeps)):
        deflate = extension(parameters, client=client)
        assert (deflate.compress(b"Hello") != deflate.compress(b"Hello")) is keeps
        assert (deflate.shared_key is None) is keeps


def test_an_empty_message_is_a_zero_byte(client: bool, parameters: DeflateParameters) -> None:
    """RFC 7692, section 7.2.3.6."""
    deflate = extension(parameters, client=client)
    assert deflate.compress(b"") == b"\x00"
    assert deflate.compress(b"") == b"\x00"
    assert deflate.compress(b"Hello") == bytes.fromhex("f248cdc9c90700")
    assert deflate.compress(b"") == b"\x00"


def test_each_part_can_be_inflated_when_it_comes(
    client: bool, parameters: DeflateParameters
) -> None:
    sender = extension(parameters, client=client)
    peer = receiver(parameters, client=not client)
    for _ in range(2):
        for number, part in enumerate([b"tick ", b"", b"tock ", b"tick "]):
            wire = sender.compress_part(part, final=False)
            opcode = CONTINUATION if number else BINARY
            events = peer.frame(wire, opcode=opcode, fin=False, rsv1=number == 0)
            pieces = [event.data for event in events if isinstance(event, BytesMessage)]
            assert b"".join(pieces) == part
        wire = sender.compress_part(b"", final=True)
        assert data_of(peer.frame(wire, opcode=CONTINUATION, rsv1=False)) == b""


def test_parts_share_a_window_in_either_profile(
    client: bool, parameters: DeflateParameters
) -> None:
    deflate = extension(parameters, client=client)
    first = deflate.compress_part(NOISE[:1000], final=False)
    assert len(deflate.compress_part(NOISE[:1000], final=True)) < 50 < len(first)


def test_between_messages_a_fresh_profile_holds_no_memory(client: bool) -> None:
    for parameters, holds in ((FRESH, False), (KEPT, True)):
        deflate = extension(parameters, client=client)
        Receiver(deflate, client=client).message(deflate.compress(b"Hello"))
        assert (deflate._compressor is not None) is holds
        assert (deflate._decompressor is not None) is holds


def test_a_shared_key_is_what_the_bytes_depend_on() -> None:
    """Whatever two connections agreed on besides: equal keys, equal bytes."""
    small = Deflate(level=1, memory_level=1)
    data = (NOISE[:600] + b"0123456789" * 100) * 30
    made: dict[object, set[bytes]] = {}
    for settings in (Deflate(), small):
        for server_bits in (9, 15):
            for client_bits in (9, 15):
                for peer_fresh in (True, False):
                    agreed = DeflateParameters(True, peer_fresh, server_bits, client_bits)
                    server = extension(agreed, settings=settings, client=False)
                    made.setdefault(server.shared_key, set()).add(server.compress(data))
    assert len(made) == 4
    assert all(len(payloads) == 1 for payloads in made.values())
    assert len(set.union(*made.values())) == 4


def test_an_agreed_window_of_8_is_kept_to() -> None:
    """The server may tell a client so; zlib itself has no raw deflate of 8."""
    agreed = read_response(WIDE, ["permessage-deflate; client_max_window_bits=8"])
    assert agreed is not None
    data = b"".join(NOISE[at : at + 3] * 2 + bytes(300) for at in range(0, 3000, 3))
    wire = extension(agreed, settings=WIDE, client=True).compress(data)
    inflater = zlib.decompressobj(-8)
    step = 16  # so that zlib has no more to refer to than its window
    pieces = [inflater.decompress(wire[at : at + step]) for at in range(0, len(wire), step)]
    assert b"".join(pieces) + inflater.decompress(b"\x00\x00\xff\xff") == data
    assert len(wire) < len(data) / 2


def test_the_threshold_is_the_settings() -> None:
    assert extension(settings=Deflate(threshold=77)).threshold == 77


# Outside witnesses...


@pytest.mark.parametrize("size", [0, 1, 5, 2000, 100_000])
def test_websockets_understands_us_and_is_understood(
    client: bool, parameters: DeflateParameters, size: int
) -> None:
    ours = extension(parameters, client=client)
    peer = Receiver(ours, client=client)
    fresh = parameters is FRESH
    theirs = WebsocketsDeflate(fresh, fresh, 15, 15)
    data = (b"0123456789" * size)[:size]
    for _ in range(3):
        frame = theirs.decode(Frame(Opcode.BINARY, ours.compress(data), fin=True, rsv1=True))
        assert bytes(frame.data) == data
        frame = theirs.encode(Frame(Opcode.BINARY, data))
        assert frame.rsv1
        assert peer.message(bytes(frame.data)) == data


@pytest.mark.parametrize("size", [0, 1, 5, 2000, 100_000])
def test_wsproto_understands_us_and_is_understood(
    client: bool, parameters: DeflateParameters, size: int
) -> None:
    ours = extension(parameters, client=client)
    peer = Receiver(ours, client=client)
    fresh = parameters is FRESH
    extension_of_wsproto = WsprotoDeflate(fresh, 15, fresh, 15)
    extension_of_wsproto.finalize("")
    role = ConnectionType.SERVER if client else ConnectionType.CLIENT
    theirs = Connection(role, [extension_of_wsproto])
    data = (b"0123456789" * size)[:size]
    for _ in range(3):
        theirs.receive_data(encode_frame(BINARY, ours.compress(data), rsv1=True, masked=client))
        assert data_of(list(theirs.events())) == data
        assert data_of(peer.feed(theirs.send(BytesMessage(data)))) == data


# Limits and memory...


def test_a_frame_limit_is_for_what_is_on_the_wire() -> None:
    deflate = PerMessageDeflate(
        FRESH, DEFAULT, client=False, max_message_size=2**20, max_fragments=9, max_frame_size=50
    )
    peer = Receiver(deflate, client=False)
    small = zlib.compress(b"x" * 10_000, wbits=-15)
    assert len(small) <= 50
    assert peer.message(small) == b"x" * 10_000
    events = peer.frame(bytes(51))
    peer.assert_refused(events, CloseReason.MESSAGE_TOO_BIG, "frame of 51 bytes: 50 is the most")


def test_what_zlib_holds_is_known() -> None:
    peer = receiver(KEPT)
    deflate = peer.limits
    assert isinstance(deflate, PerMessageDeflate)
    assert deflate.memory == 0
    peer.frame(zlib.compress(b"x" * 100, wbits=-15)[:-2], fin=False)
    inflating = 2**15 + 7 * 1024
    assert deflate.memory == inflating
    deflate.compress(b"x" * 100)
    assert deflate.memory == inflating + 2**17 + 2**14 + 7 * 1024


# A message in one piece...


def whole(payload: bytes, fresh: bool = True, most: float = 1000) -> bytes | None:
    parameters = DeflateParameters(fresh, fresh, 12, 12)
    deflate = PerMessageDeflate(
        parameters, Deflate(), client=False, max_message_size=most, max_fragments=1
    )
    return deflate.inflate_whole(payload)


def compressed(data: bytes, last: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -12)
    return (compressor.compress(data) + compressor.flush(last)).removesuffix(b"\x00\x00\xff\xff")


def test_a_whole_message_is_inflated_at_once() -> None:
    assert whole(compressed(b"hello " * 100)) == b"hello " * 100
    assert whole(compressed(b"x" * 1000)) == b"x" * 1000
    assert whole(b"\x00") == b""


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xff",
        compressed(b"hello")[:-1],
        compressed(b"hello") + b"x",
        compressed(b"hello", zlib.Z_FINISH) + b"more",
        compressed(b"x" * 1001),
    ],
    ids=["nothing", "damaged", "cut short", "too much", "another stream", "too long"],
)
def test_what_is_not_plain_to_see_is_not_inflated_at_once(payload: bytes) -> None:
    assert whole(payload) is None


def test_messages_that_depend_on_each_other_are_not_inflated_at_once() -> None:
    assert whole(compressed(b"hello"), fresh=False) is None


def test_what_may_become_very_long_is_not_inflated_at_once() -> None:
    long = compressed(os.urandom(INFLATE_STEP + 1))
    assert whole(long, most=math.inf) is None
    assert whole(long, most=INFLATE_STEP * EXPANSION) is not None
    assert whole(compressed(bytes(3_000_000)), most=math.inf) == bytes(3_000_000)
