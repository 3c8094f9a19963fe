"""permessage-deflate over any messages, parameters, fragments and chunks."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate as WebsocketsDeflate
from websockets.frames import Frame, Opcode
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message
from wsproto.extensions import PerMessageDeflate as WsprotoDeflate

from trio_ws._deflate import (
    DeflateParameters,
    PerMessageDeflate,
    accept_offers,
    offer,
    read_response,
)
from trio_ws._frames import BINARY, CONTINUATION, TEXT, encode_frame
from trio_ws._messages import MessagePart
from trio_ws._options import Deflate, Options
from trio_ws._protocol import Protocol

LIMIT = 2000


@attrs.frozen
class Outcome:
    """What came of a stream of bytes."""

    messages: list[bytes]
    unfinished: bytes
    code: int | None
    violation: str | None


def fed(chunks: Iterator[bytes], deflate: PerMessageDeflate, *, client: bool) -> Outcome:
    connection = Connection(ConnectionType.CLIENT if client else ConnectionType.SERVER, [deflate])
    messages: list[bytes] = []
    unfinished = b""
    for chunk in chunks:
        connection.receive_data(chunk)
        for event in connection.events():
            if isinstance(event, CloseConnection):
                return Outcome(messages, unfinished, event.code, deflate.violation)
            assert isinstance(event, Message)
            unfinished += event.data
            assert deflate.size == len(unfinished)
            if event.message_finished:
                messages.append(unfinished)
                unfinished = b""
    return Outcome(messages, unfinished, None, deflate.violation)


def chunks_of(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """Cut into chunks of these lengths, over and over."""
    at = turn = 0
    while at < len(data):
        yield data[at : at + cuts[turn % len(cuts)]]
        at += cuts[turn % len(cuts)]
        turn += 1


def extension(
    parameters: DeflateParameters,
    settings: Deflate,
    *,
    client: bool,
    max_message_size: float = 2**20,
) -> PerMessageDeflate:
    return PerMessageDeflate(
        parameters,
        settings,
        client=client,
        max_message_size=max_message_size,
        max_fragments=4096,
    )


bits = st.integers(9, 15)
settings_ = st.builds(
    Deflate,
    level=st.integers(0, 9),
    memory_level=st.integers(1, 9),
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=bits,
    client_max_window_bits=bits,
)
cuts_ = st.lists(st.integers(1, 3000), min_size=1, max_size=5)
data_ = st.one_of(
    st.binary(max_size=300),
    st.builds(bytes.__mul__, st.binary(min_size=1, max_size=20), st.integers(0, 600)),
)
messages_ = st.lists(data_, max_size=6)
parts_ = st.lists(st.lists(data_, min_size=1, max_size=4), max_size=4)

any_parameters = st.builds(
    DeflateParameters,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.just(15),
    client_max_window_bits=st.just(15),
)


@given(wanted=settings_, granted=settings_)
def test_both_sides_agree_on_what_was_negotiated(wanted: Deflate, granted: Deflate) -> None:
    """And each can inflate what the other may send."""
    answer = accept_offers(granted, [offer(wanted)])
    assert answer is not None
    server = answer[1]
    client = read_response(wanted, [answer[0]])
    assert client is not None
    assert client.client_no_context_takeover == server.client_no_context_takeover
    assert client.server_no_context_takeover == server.server_no_context_takeover
    assert client.client_max_window_bits <= server.client_max_window_bits
    assert client.server_max_window_bits >= server.server_max_window_bits
    assert client.client_max_window_bits <= wanted.client_max_window_bits
    assert server.server_max_window_bits <= granted.server_max_window_bits


@given(
    text=st.text(
        st.sampled_from('permessage-deflate; server_max_window_bits=10,"\\ \t'), max_size=60
    )
)
def test_a_header_of_anything_is_declined_or_accepted(text: str) -> None:
    accept_offers(Deflate(), [text])
    with contextlib.suppress(ValueError):
        read_response(Deflate(), [text])


@given(wanted=settings_, granted=settings_, messages=parts_, cuts=cuts_, to_client=...)
def test_what_one_side_sends_the_other_receives(
    wanted: Deflate,
    granted: Deflate,
    messages: list[list[bytes]],
    cuts: list[int],
    to_client: bool,
) -> None:
    answer = accept_offers(granted, [offer(wanted)])
    assert answer is not None
    client_side = read_response(wanted, [answer[0]])
    assert client_side is not None
    client = extension(client_side, wanted, client=True)
    server = extension(answer[1], granted, client=False)
    sender, receiver = (server, client) if to_client else (client, server)

    wire = b""
    for parts in messages:
        for number, part in enumerate(parts):
            final = number == len(parts) - 1
            payload = (
                sender.compress(part)
                if len(parts) == 1
                else sender.compress_part(part, final=final)
            )
            wire += encode_frame(
                CONTINUATION if number else BINARY,
                payload,
                fin=final,
                rsv1=number == 0,
                masked=not to_client,
            )
    outcome = fed(chunks_of(wire, cuts), receiver, client=to_client)
    assert outcome == Outcome([b"".join(parts) for parts in messages], b"", None, None)


@given(
    payloads=st.lists(st.tuples(st.binary(max_size=80), st.booleans()), max_size=5),
    parameters=any_parameters,
    cuts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    client=...,
)
@example(
    [(zlib.compress(bytes(9999), wbits=-15), True)],
    DeflateParameters(True, True, 15, 15),
    [7],
    False,
)
def test_random_bytes_give_data_or_one_close_code_in_any_chunking(
    payloads: list[tuple[bytes, bool]],
    parameters: DeflateParameters,
    cuts: list[int],
    client: bool,
) -> None:
    """No other exception comes out, and no more than the limit."""
    wire = b"".join(
        encode_frame(BINARY, payload, rsv1=rsv1, masked=not client) for payload, rsv1 in payloads
    )

    def outcome(chunks: Iterator[bytes]) -> Outcome:
        deflate = extension(parameters, Deflate(), client=client, max_message_size=LIMIT)
        return fed(chunks, deflate, client=client)

    whole = outcome(iter([wire]))
    assert whole.code in (None, 1007, 1009)
    assert (whole.code is None) == (whole.violation is None)
    assert all(len(message) <= LIMIT for message in whole.messages)
    cut = outcome(chunks_of(wire, cuts))
    assert len(cut.unfinished) <= LIMIT
    # What the last piece of a broken message would have given is lost with the piece.
    assert attrs.evolve(cut, unfinished=b"") == attrs.evolve(whole, unfinished=b"")


@given(
    data=data_.filter(bool),
    damage=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=3),
    parameters=any_parameters,
    client=...,
)
def test_damaged_data_gives_data_or_one_close_code(
    data: bytes, damage: list[tuple[int, int]], parameters: DeflateParameters, client: bool
) -> None:
    payload = bytearray(extension(parameters, Deflate(), client=not client).compress(data))
    for at, value in damage:
        payload[at % len(payload)] = value
    deflate = extension(parameters, Deflate(), client=client, max_message_size=LIMIT)
    wire = encode_frame(BINARY, bytes(payload), rsv1=True, masked=not client)
    outcome = fed(iter([wire, wire]), deflate, client=client)
    assert outcome.code in (None, 1007, 1009)
    assert deflate.size <= LIMIT + 1


@given(
    seed=st.binary(min_size=1, max_size=10),
    times=st.integers(LIMIT + 1, 10**6),
    level=st.integers(1, 9),
    parameters=any_parameters,
    cuts=cuts_,
    client=...,
)
def test_a_bomb_gives_no_more_than_the_limit(
    *,
    seed: bytes,
    times: int,
    level: int,
    parameters: DeflateParameters,
    cuts: list[int],
    client: bool,
) -> None:
    bomb = extension(parameters, Deflate(level=level), client=not client).compress(seed * times)
    deflate = extension(parameters, Deflate(), client=client, max_message_size=LIMIT)
    wire = encode_frame(BINARY, bomb, rsv1=True, masked=not client)
    outcome = fed(chunks_of(wire, cuts), deflate, client=client)
    assert outcome.code == 1009
    assert outcome.messages == []
    assert len(outcome.unfinished) <= LIMIT
    assert deflate.size == LIMIT + 1


@given(messages=messages_, window=bits, fresh=..., settings=settings_, client=...)
def test_websockets_and_wsproto_receive_what_we_send(
    messages: list[bytes], window: int, fresh: bool, settings: Deflate, client: bool
) -> None:
    parameters = DeflateParameters(fresh, fresh, window, window)
    ours = extension(parameters, settings, client=client)
    websockets = WebsocketsDeflate(fresh, fresh, window, window)
    extension_of_wsproto = WsprotoDeflate(fresh, window, fresh, window)
    extension_of_wsproto.finalize("")
    wsproto = Connection(
        ConnectionType.SERVER if client else ConnectionType.CLIENT, [extension_of_wsproto]
    )
    for message in messages:
        payload = ours.compress(message)
        frame = websockets.decode(Frame(Opcode.BINARY, payload, rsv1=True))
        assert bytes(frame.data) == message
        wsproto.receive_data(encode_frame(BINARY, payload, rsv1=True, masked=client))
        (event,) = wsproto.events()
        assert isinstance(event, BytesMessage)
        assert event.data == message
        assert event.message_finished


@given(messages=parts_, window=bits, fresh=..., cuts=cuts_, client=...)
def test_we_receive_what_websockets_sends(
    messages: list[list[bytes]], window: int, fresh: bool, cuts: list[int], client: bool
) -> None:
    theirs = WebsocketsDeflate(fresh, fresh, window, window)
    wire = b"".join(
        Frame(
            Opcode.CONT if number else Opcode.BINARY, part, fin=number == len(parts) - 1
        ).serialize(mask=not client, extensions=[theirs])
        for parts in messages
        for number, part in enumerate(parts)
    )
    parameters = DeflateParameters(fresh, fresh, window, window)
    outcome = fed(
        chunks_of(wire, cuts), extension(parameters, Deflate(), client=client), client=client
    )
    assert outcome == Outcome([b"".join(parts) for parts in messages], b"", None, None)


@given(messages=parts_, window=bits, fresh=..., cuts=cuts_, client=...)
def test_we_receive_what_wsproto_sends(
    messages: list[list[bytes]], window: int, fresh: bool, cuts: list[int], client: bool
) -> None:
    extension_of_wsproto = WsprotoDeflate(fresh, window, fresh, window)
    extension_of_wsproto.finalize("")
    theirs = Connection(
        ConnectionType.SERVER if client else ConnectionType.CLIENT, [extension_of_wsproto]
    )
    wire = b"".join(
        theirs.send(BytesMessage(part, message_finished=number == len(parts) - 1))
        for parts in messages
        for number, part in enumerate(parts)
    )
    parameters = DeflateParameters(fresh, fresh, window, window)
    outcome = fed(
        chunks_of(wire, cuts), extension(parameters, Deflate(), client=client), client=client
    )
    assert outcome == Outcome([b"".join(parts) for parts in messages], b"", None, None)


# Past wsproto and through it...


def compress_once(data: bytes) -> bytes:
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


frames_ = st.lists(
    st.builds(
        lambda data, kind, damage: (kind, damage(data)),
        st.one_of(data_, st.text(max_size=300).map(str.encode)).map(compress_once),
        st.sampled_from([TEXT, BINARY]),
        st.sampled_from(
            [bytes, bytes, bytes, lambda data: data[:-1], lambda data: data + b"x", bytes.swapcase]
        ),
    ),
    max_size=6,
)


def events_of(protocol: Protocol, chunks: Iterator[bytes]) -> list[object]:
    """Return whole messages, and how it ended."""
    told: list[object] = []
    unfinished: list[str | bytes] = []
    for chunk in chunks:
        protocol.receive_data(chunk)
        while event := protocol.next_event():
            if not isinstance(event, MessagePart):
                told.append(event)
                continue
            unfinished.append(event.data)
            if event.final:
                told.append(type(event.data)().join(unfinished))
                unfinished = []
    return told


@given(frames=frames_, cuts=cuts_, client=st.booleans(), parameters=any_parameters)
def test_the_straight_lane_tells_of_compressed_messages_what_wsproto_tells(
    frames: list[tuple[int, bytes]], cuts: list[int], client: bool, parameters: DeflateParameters
) -> None:
    data = b"".join(
        encode_frame(opcode, payload, rsv1=True, masked=not client) for opcode, payload in frames
    )
    options = Options(max_message_size=LIMIT)
    lane, reference = (
        Protocol(client=client, options=options, deflate=parameters) for _ in range(2)
    )
    reference.next_messages = lambda most, room=0: []  # type: ignore[method-assign]
    assert events_of(lane, chunks_of(data, cuts)) == events_of(reference, chunks_of(data, cuts))
