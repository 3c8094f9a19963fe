"""What went over a link, both ways, with times: as a list, a transcript or a diagram."""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import attrs
import trio

from ._frame import Frame, FrameReader

Side: TypeAlias = Literal["client", "server"]

MAX_BYTES: Final = 1024 * 1024
"""Bytes that are remembered of a link: the newest. Enough for a test that one can read."""

_TLS_HANDSHAKE: Final = 0x16  # the first byte of such a record (RFC 8446, section 5.1)
_HTTP_HEAD: Final = re.compile(rb"HTTP/1|[A-Z]{3,10} [/*h]")  # RFC 9112, sections 3 and 4
_WIDTH: Final = 50  # of a diagram: with the times it fits into 80 columns

recent: Final[deque[Recorder]] = deque(maxlen=8)
"""The newest recorders of this process, for the report of a test that fails."""


@attrs.define(eq=False, repr=False)
class Entry:
    """A line of a transcript: something that one side has sent, or that befell the link."""

    sender: Literal["client", "server", "network"]
    """Who has sent it; ``network``: something that befell the link."""
    sent_at: float
    """Seconds since the first entry."""
    what: Frame | str
    """A frame; or in words: the first line of a request, ``end of TCP``, ``reset``."""
    arrived_at: float | None = None
    """When the other side had read all of it; `None`: it has not."""

    def __str__(self) -> str:
        if self.arrived_at is None:
            fate = "   (has not arrived)"
        else:
            fate = f"   (arrived {self.arrived_at:.3f})" if self.arrived_at > self.sent_at else ""
        return f"{self.sent_at:9.3f}  {self.sender:7}  {self.what}{fate}"

    def __repr__(self) -> str:
        return f"<Entry {self}>"


class Recorder:
    """A transcript of one link: what both sides sent, and what of it arrived.

    Each `Link` has one: ``link.recorder``, ``pair.recorder``. Printed, or in a failed
    assertion, it is the transcript; `diagram` draws it. It remembers the newest
    megabyte. Of TLS it sees only that there are bytes.
    """

    def __init__(self) -> None:
        self._entries: deque[tuple[Entry, int]] = deque()
        self._bytes = 0
        self._forgotten = 0
        self._begun_at: float | None = None
        self._last = 0.0
        self._streams: dict[Side, _Stream] = {"client": _Stream(), "server": _Stream()}
        recent.append(self)

    # What users ask...

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All there is, in the order in which it was sent."""
        return tuple(entry for entry, _ in self._entries)

    def frames(self, sender: Side | None = None) -> list[Frame]:
        """Return the frames that were sent: by one side, or by both."""
        chosen = (each.what for each in self.entries if sender in (None, each.sender))
        return [what for what in chosen if isinstance(what, Frame)]

    def clear(self) -> None:
        """Forget what there is, so that what follows stands alone."""
        self._entries.clear()
        self._bytes = self._forgotten = 0

    def __str__(self) -> str:
        return "\n".join([*self._preface(), *map(str, self.entries), *self._postscript()])

    def __repr__(self) -> str:
        return f"<Recorder\n{self}\n>"

    def diagram(self) -> str:
        """Return a sequence diagram, as text."""
        head = f"{'':9}client{'server':>{_WIDTH}}"
        arrows = map(_draw, self.entries)
        return "\n".join([*self._preface(), head, *arrows, *self._postscript()])

    def _preface(self) -> list[str]:
        return [f"({self._forgotten} older entries are forgotten)"] if self._forgotten else []

    def _postscript(self) -> list[str]:
        return [
            f"({side}: {stream.unfinished} bytes of a frame that has not come to its end)"
            for side, stream in self._streams.items()
            if stream.unfinished
        ]

    # What the link tells...

    def _note_sent(self, sender: Side, data: bytes) -> None:
        """A side's socket has taken bytes."""
        stream = self._streams[sender]
        now = self._now()
        for what, size, end in stream.feed(data):
            entry = Entry(sender, now, what)
            stream.waiting.append((end, entry))
            self._add(entry, size)

    def _note_end(self, sender: Side, *, unheard: bool) -> None:
        """A side will send nothing more; ``unheard``: the other one has closed before."""
        stream = self._streams[sender]
        now = self._now()
        entry = Entry(sender, now, "end of TCP", now if unheard else None)
        stream.waiting.append((stream.total + 1, entry))
        self._add(entry, 0)

    def _note_arrived(self, sender: Side, total: int) -> None:
        """The other side has read so many bytes of this one's; one more with the end."""
        waiting = self._streams[sender].waiting
        now = self._now()
        while waiting and waiting[0][0] <= total:
            waiting.popleft()[1].arrived_at = now

    def _note_event(self, sender: Literal["client", "server", "network"], event: str) -> None:
        """Something else has happened: ``reset``, ``stalled``."""
        now = self._now()
        self._add(Entry(sender, now, event, arrived_at=now), 0)

    def _add(self, entry: Entry, size: int) -> None:
        self._entries.append((entry, size))
        self._bytes += size
        while self._bytes > MAX_BYTES and len(self._entries) > 1:
            self._bytes -= self._entries.popleft()[1]
            self._forgotten += 1

    def _now(self) -> float:
        with contextlib.suppress(RuntimeError):  # closed when the run is over
            now = trio.current_time()
            if self._begun_at is None:
                self._begun_at = now
            self._last = now - self._begun_at
        return self._last


class _Stream:
    """Makes sense of what one side sends: TLS, HTTP, then frames."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Entry]] = deque()  # what has yet to arrive, by its end
        self._mode: Literal["new", "tls", "http", "frames"] = "new"
        self.total = 0
        self._head = b""
        self._frames = FrameReader()

    @property
    def unfinished(self) -> int:
        """Bytes of a frame that has begun."""
        return len(self._frames.unread)

    def feed(self, data: bytes) -> Iterator[tuple[Frame | str, int, int]]:
        """Yield what has come to its end, its size, and where in the stream it ends."""
        self.total += len(data)
        if self._mode == "new":
            self._mode = _guess_mode(data)
        if self._mode == "tls":
            yield f"TLS: {len(data)} bytes", len(data), self.total
        elif self._mode == "http":
            yield from self._feed_http(data)
        else:
            yield from self._feed_frames(data)

    def _feed_http(self, data: bytes) -> Iterator[tuple[Frame | str, int, int]]:
        if not (self._head or _HTTP_HEAD.match(data)):
            yield f"{len(data)} bytes", len(data), self.total
            return
        head, end, rest = (self._head + data).partition(b"\r\n\r\n")
        if not end:
            self._head = head
            return
        self._head = b""
        first_line = head.partition(b"\r\n")[0].decode("latin-1")
        yield first_line, len(head) + 4, self.total - len(rest)
        if " 101 " in first_line or b"\r\nsec-websocket-key:" in head.lower():
            self._mode = "frames"
        if rest:
            self.total -= len(rest)
            yield from self.feed(rest)

    def _feed_frames(self, data: bytes) -> Iterator[tuple[Frame | str, int, int]]:
        end = self.total - len(data) - self.unfinished
        for frame in self._frames.feed(data):
            size = frame.wire_size
            end += size
            yield frame, size, end


def _guess_mode(data: bytes) -> Literal["tls", "http", "frames"]:
    if data[0] == _TLS_HANDSHAKE:
        return "tls"
    return "http" if _HTTP_HEAD.match(data) else "frames"


def _draw(entry: Entry) -> str:
    """Draw an entry as an arrow: one that has not arrived ends halfway."""
    inner = _WIDTH - 2
    if entry.sender == "network":
        line = f" {entry.what} ".center(inner, "~")
        return f"{entry.sent_at:9.3f}   |{line}|"
    lost = entry.arrived_at is None
    words = f" {_cut(str(entry.what), inner - 12)} "
    if entry.sender == "client":
        shaft = f"--{words}".ljust(inner - 1, "-") + ">"
        shaft = (f"--{words}---x").ljust(inner) if lost else shaft
    else:
        shaft = "<" + f"{words}--".rjust(inner - 1, "-")
        shaft = f"x---{words}--".rjust(inner) if lost else shaft
    later = entry.arrived_at is not None and entry.arrived_at > entry.sent_at
    arrival = f" {entry.arrived_at:.3f}" if later else ""
    return f"{entry.sent_at:9.3f}   |{shaft}|{arrival}"


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 2] + ".."
