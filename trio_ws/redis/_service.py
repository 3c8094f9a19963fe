"""The service: what is done for the rooms as long as a link to Redis is up.

::

    run ─ run_link ─→ listen; all rooms: subscribe, fetch, tell who is here
       ↑                └─→ up ─→ send, tell, beat, fetch what is stale ... until it is down
       └─ backoff ──────────────────────────────────────────────────────── down ─┘

It reconnects for ever, with a backoff that begins anew with each outage.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, TypeVar

import attrs
import trio

from .._errors import BrokerDown
from ..rooms import Occupant, Position
from ._address import Address
from ._catching_up import Fetched, Stand
from ._delivering import Delivering, OpenRoom, fresh_epoch
from ._link import Link, LinkDown, Refused, run_link
from ._outgoing import Batch, Outgoing
from ._scripts import FETCH, PUBLISH, STATE_LIFE, Argument, Bounds, Command, Names
from ._wire import Presence, pack_occupant, parse, parse_occupants

logger: Final = logging.getLogger("trio_ws")

CHUNK: Final = 100
"""Rooms that are fetched, or told of, in one go: Redis is busy with them for a millisecond."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
"""Seconds between two attempts to connect, at most: so rooms are whole again within a second
of Redis' return, and a hundred processes that wait for it make 400 attempts a second."""

_REFUSALS: Final = ("OOM", "MISCONF", "NOREPLICAS")
"""What Redis says when it takes no writes from anybody: no memory, no disk, no replicas."""

_TOLD: Final = object()

GOODBYE: Final = 1.0
"""Seconds for telling others, at the end, that everybody here has left."""


@attrs.frozen
class Terms:
    """How to use Redis: what `open_rooms` was told."""

    address: Address
    names: Names
    bounds: Bounds
    timeout: float
    on_degraded: Callable[[str | None], None] | None = None

    @property
    def beat(self) -> float:
        """Seconds between two signs of life."""
        return self.timeout / 4

    @property
    def life(self) -> float:
        """Seconds without one behind which a process is held to be dead.

        Long enough for it to notice that its link is down, and to come back.
        """
        return 3 * self.timeout


class Service:
    """The tasks behind the rooms of this process."""

    def __init__(
        self, terms: Terms, process: str, delivering: Delivering, outgoing: Outgoing
    ) -> None:
        self._terms = terms
        self._process = process
        self._delivering = delivering
        self._outgoing = outgoing
        self._changes: dict[tuple[str, str], Occupant | None] = {}  # of presence, untold
        self._changed = trio.Event()
        self._heard: dict[str, float] = {}  # when each other process gave a sign of life
        self._link: Link | None = None
        self._down: str | None = "Redis was not reached yet"
        self._refusal: str | None = None
        self.connected: trio.Event = trio.Event()
        """Set once the first link is up."""

    @property
    def degraded(self) -> str | None:
        """What is wrong with Redis, if anything is."""
        return self._down or self._refusal

    # What the broker asks for...

    def close_room(self, room: OpenRoom) -> None:
        """Hear no more of a room."""
        self._delivering.remove(room)
        if self._link is not None:
            self._link.unsubscribe(self._terms.names.channel(room.name))

    def tell(self, room: str, name: str, occupant: Occupant | None) -> None:
        """Tell other processes of somebody who has come, or gone (`None`)."""
        self._changes[room, name] = occupant
        self._changed.set()

    # Links, one after the other...

    async def run(self) -> None:
        """Serve until cancelled; never raises an `Exception`."""
        pauses = _pauses()
        while True:
            if await self._run_once():
                pauses = _pauses()
            await trio.sleep(next(pauses))

    async def _run_once(self) -> bool:
        """Return whether a link was up."""
        terms = self._terms
        problem: Exception | None = None
        try:
            await run_link(terms.address, terms.timeout, self._serve)
        except LinkDown as exc:
            problem = exc
        except Exception as exc:  # a defect of ours, or an answer that no Redis gives
            logger.exception("rooms on Redis at %s failed", terms.address)
            problem = exc
        was_up = self._link is not None
        self._link = None
        self._note(down=f"no connection to Redis at {terms.address}: {problem}")
        self._delivering.finish_all()
        return was_up

    async def _serve(self, link: Link) -> None:
        """Do everything that is to be done while a link is up."""
        self._delivering.mark_all_stale()
        problem: LinkDown | None = None
        async with trio.open_nursery() as nursery:

            async def watch(task: Callable[[Link], Awaitable[None]]) -> None:
                nonlocal problem
                try:
                    await task(link)
                except (LinkDown, Refused) as exc:
                    problem = problem or LinkDown(str(exc))
                    nursery.cancel_scope.cancel(reason="the link to Redis is down")

            async def begin(link: Link) -> None:
                await self._fetch_stale(link, complete=True)
                await self._beat_once(link, trio.current_time())
                self._link = link
                self._note(down=None)
                self.connected.set()
                for task in (self._send, self._tell, self._beat, self._fetch):
                    nursery.start_soon(watch, task)

            nursery.start_soon(watch, self._listen)
            nursery.start_soon(watch, begin)
        assert problem is not None, "nothing else ends a link"
        raise problem

    def _note(self, **changes: str | None) -> None:
        """Note that something is wrong with Redis (``down``, ``refusal``), or right again."""
        before = self.degraded
        self._down = changes.get("down", self._down)
        self._refusal = changes.get("refusal", self._refusal)
        if self._refusal is None and self._down is None and self._delivering.unsaid:
            self._delivering.stale_news.set()
        if self.connected.is_set() and (before is None) != (self.degraded is None):
            logger.warning("rooms: %s", self.degraded or "Redis is back")
            if self._terms.on_degraded is not None:
                try:
                    self._terms.on_degraded(self.degraded)
                except Exception:  # the user's code, which may do anything
                    logger.exception("on_degraded failed")

    # Messages...

    async def _listen(self, link: Link) -> None:
        channels = self._terms.names

        def handle(channel: bytes, data: bytes) -> None:
            self._delivering.hear(channels.room(channel), data)

        await link.listen(handle)

    async def _send(self, link: Link) -> None:
        """Send what is published here, batch by batch."""
        while True:
            await self._outgoing.wait()
            batch = self._outgoing.next_batch(link.run)
            if batch is not None:
                await self._send_batch(link, batch)

    async def _send_batch(self, link: Link, batch: Batch) -> None:
        terms = self._terms
        keys = [terms.names.sent(self._process)]
        arguments: list[Argument] = [
            *(link.run, fresh_epoch(), batch.number, int(1000 * STATE_LIFE)),
            *terms.bounds.publish,
        ]
        for pending in batch.pending:
            rooms = pending.publication.rooms
            for room in rooms:
                keys += [terms.names.state(room), terms.names.history(room)]
            arguments += [len(rooms), *map(terms.names.channel, rooms), pending.body]
        try:
            answer = await link.run_script(PUBLISH, keys, arguments)
        except Refused as exc:
            self._outgoing.fail_batch(BrokerDown(f"Redis refuses it: {exc}", uncertain=True))
            self._note(refusal=str(exc))
            return
        problems = [each.decode() for each in answer or ()]
        if any(each.startswith("READONLY") for each in problems):
            raise LinkDown("this Redis has become a replica")
        for pending in self._outgoing.acknowledge(batch, problems):
            if answer is None:  # by an earlier link, and what could be fetched was
                self._delivering.finish(pending)
            else:
                self._delivering.check(pending)
        self._note(refusal=next((each for each in problems if each.startswith(_REFUSALS)), None))

    # Rooms...

    async def _fetch(self, link: Link) -> None:
        """Fetch what is stale, as it becomes so."""
        while True:
            await self._delivering.stale_news.wait()
            await self._fetch_stale(link, complete=False)

    async def _fetch_stale(self, link: Link, *, complete: bool) -> None:
        """Fetch what is stale; ``complete``: and tell others who is here."""
        delivering = self._delivering
        breaks = set(delivering.unsaid) if self._refusal is None else set[str]()
        delivering.unsaid -= breaks  # at once: what is published alone from now on is said later
        try:
            await self._fetch_all(link, breaks, complete=complete)
        except BaseException:
            delivering.unsaid |= breaks
            raise

    async def _fetch_all(self, link: Link, breaks: set[str], *, complete: bool) -> None:
        """Fetch what is stale; tell others that messages of ``breaks`` are missing."""
        delivering = self._delivering
        for name in breaks & delivering.rooms.keys():
            delivering.mark_stale(delivering.rooms[name])
        fetched: list[tuple[OpenRoom, Fetched]] = []
        asked = 0  # when the first of them was
        while rooms := delivering.take_stale({room.name for room, _ in fetched}):
            for some in _chunks(rooms):
                here = [room for room in some if delivering.is_open(room)]
                link.subscribe([self._terms.names.channel(room.name) for room in here])
                now, found = await self._ask(link, here, breaks, complete=complete)
                asked = asked or now
                fetched += zip(here, found, strict=True)
            delivering.mark_involved(fetched)
        # Of rooms that nobody here is in any more, others have to know that they missed something.
        for names in _chunks(sorted(breaks - delivering.rooms.keys())):
            await link.run_script(FETCH, *self._fetching(link, names, {}, breaks))
        await link.wait_heard()  # what the histories do not keep may have been heard
        await delivering.update(fetched, asked)

    async def _ask(
        self, link: Link, rooms: list[OpenRoom], breaks: set[str], *, complete: bool
    ) -> tuple[int, list[Fetched]]:
        """Ask where rooms stand, what was published in them, and who is there."""
        names = self._terms.names
        stands = {room.name: room.stand for room in rooms}
        keys, arguments = self._fetching(link, [*stands], stands, breaks)
        commands: list[Command] = [(b"EVALSHA", FETCH.sha, len(keys), *keys, *arguments)]
        commands += [(b"HGETALL", names.presence(room.name)) for room in rooms]
        (now, *answers), *presences = await link.commands(commands)
        for room, presence in zip(rooms, presences, strict=True):
            own = self._read_presence(link, room, presence)
            if complete:
                await self._tell_all(link, room, own)
        return int(now), [_read(answer, link.run) for answer in answers]

    def _fetching(
        self, link: Link, rooms: list[str], stands: dict[str, Stand | None], breaks: set[str]
    ) -> tuple[list[bytes], list[Argument]]:
        """Return the keys and the arguments of `fetch.lua`."""
        names = self._terms.names
        keys: list[bytes] = []
        arguments: list[Argument] = [link.run, fresh_epoch(), *self._terms.bounds.fetch]
        for room in rooms:
            stand = stands.get(room)
            position = stand.position if stand is not None else Position("", 0)
            breaking = "break" if room in breaks else ""
            keys += [names.state(room), names.history(room)]
            arguments += [position.epoch, position.offset, names.channel(room), breaking]
        return keys, arguments

    # Presence...

    def _read_presence(
        self, link: Link, room: OpenRoom, fields: dict[bytes, bytes]
    ) -> dict[str, Any]:
        """Take over who is in a room; return whom of this process Redis knows to be there."""
        found = parse_occupants(fields)
        own = found.pop(self._process, {})
        for process in found:
            self._heard.setdefault(process, trio.current_time())
        # Of a Redis that was started anew, others may not have told it yet that they are there.
        same = room.stand is not None and room.stand.run == link.run
        self._delivering.tell(room.roster.read(found, [*room.roster.processes] if same else ()))
        return own

    async def _tell_all(self, link: Link, room: OpenRoom, known: dict[str, Any]) -> None:
        """Tell others who of this process is in a room, and that nobody else is."""
        own = room.roster.own
        if own or known:
            gone = [name for name in known if name not in own]
            await self._write(link, room.name, [*own.values()], gone, complete=True)

    async def _tell(self, link: Link) -> None:
        """Tell others who has come and gone, as it happens."""
        while True:
            await self._changed.wait()
            await self._tell_changes(link)

    async def _tell_changes(self, link: Link) -> None:
        self._changed = trio.Event()
        by_room: dict[str, dict[str, Occupant | None]] = {}
        for (room, name), occupant in self._changes.items():
            by_room.setdefault(room, {})[name] = occupant
        for room, changes in by_room.items():
            came = [occupant for occupant in changes.values() if occupant is not None]
            left = [name for name, occupant in changes.items() if occupant is None]
            await self._write(link, room, came, left)
            for name, occupant in changes.items():
                if self._changes.get((room, name), _TOLD) is occupant:
                    del self._changes[room, name]

    async def _write(
        self,
        link: Link,
        room: str,
        came: list[Occupant],
        left: list[str],
        *,
        complete: bool = False,
    ) -> None:
        names = self._terms.names
        key, channel = names.presence(room), names.channel(room)
        presence = Presence(
            self._process, {each.id: each.meta for each in came}, tuple(left), complete
        )
        commands: list[Command] = [(b"PUBLISH", channel, presence.pack())]
        if left:
            commands.append((b"HDEL", key, *[f"{self._process} {name}" for name in left]))
        if came:
            fields = [part for each in came for part in pack_occupant(self._process, each)]
            commands += [(b"HSET", key, *fields), (b"EXPIRE", key, math.ceil(STATE_LIFE))]
        try:
            await link.commands(commands)
        except Refused as exc:
            self._note(refusal=str(exc))

    # Life...

    async def _beat(self, link: Link) -> None:
        """Give a sign of life every now and then, and look for those of others."""
        refresh = trio.current_time() + STATE_LIFE / 3
        up_since = trio.current_time()
        while True:
            await trio.sleep(self._terms.beat)
            await self._beat_once(link, up_since)
            if trio.current_time() > refresh:
                refresh = trio.current_time() + STATE_LIFE / 3
                await self._refresh(link)

    async def _beat_once(self, link: Link, up_since: float) -> None:
        names, process = self._terms.names, self._process
        others = list(self._heard)
        commands: list[Command] = [
            (b"EXISTS", names.alive(process)),
            *((b"EXISTS", names.alive(other)) for other in others),
            (b"SET", names.alive(process), 1, b"PX", int(1000 * self._terms.life)),
        ]
        try:
            was_alive, *alive, _ = await link.commands(commands)
        except Refused as exc:
            self._note(refusal=str(exc))
            await link.command(b"PEXPIRE", names.alive(process), int(1000 * self._terms.life))
            return
        self._note(refusal=None)
        now = trio.current_time()
        for other, lives in zip(others, alive, strict=True):
            if lives:
                self._heard[other] = now
            elif now - max(self._heard[other], up_since) > self._terms.life:
                await self._bury(link, other)
        if not was_alive and self._link is link:  # others hold those here to be gone
            for room in tuple(self._delivering.rooms.values()):
                await self._tell_all(link, room, {})

    async def _bury(self, link: Link, process: str) -> None:
        """A process has ended without a word: those who were there have left."""
        del self._heard[process]
        for room in tuple(self._delivering.rooms.values()):
            gone = list(room.roster.drop(process))
            if gone:
                self._delivering.tell(gone)
                fields = (f"{process} {each.id}" for each in gone)
                await link.command(b"HDEL", self._terms.names.presence(room.name), *fields)

    async def _refresh(self, link: Link) -> None:
        """Let Redis remember rooms in which somebody is, though nothing is said."""
        names, life = self._terms.names, self._terms.bounds.life
        for rooms in _chunks(list(self._delivering.rooms)):
            commands: list[Command] = [
                (b"EXPIRE", names.presence(room), math.ceil(STATE_LIFE)) for room in rooms
            ]
            if life != math.inf:
                commands += [(b"EXPIRE", names.state(room), int(life)) for room in rooms]
            await link.commands(commands)

    # The end...

    async def say_goodbye(self) -> None:
        """Tell others that everybody here has left, if that can be done soon."""
        link = self._link
        if link is None:
            return
        with trio.move_on_after(GOODBYE, shield=True):
            with contextlib.suppress(LinkDown):
                for room in self._delivering.rooms.values():
                    for name in room.roster.own:
                        self.tell(room.name, name, None)
                await self._tell_changes(link)
                await link.command(b"DEL", self._terms.names.alive(self._process))


def _read(answer: Any, run: str) -> Fetched:
    epoch, offset, time, ended, records = answer
    return Fetched(
        Stand(Position(epoch.decode(), offset), int(time), run),
        Position.parse(ended.decode()) if ended else None,
        [parse(record) for record in records],
    )


def _pauses() -> Iterator[float]:
    """Yield seconds between two attempts to connect: longer and longer, and never in step."""
    longest = FIRST_PAUSE
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311  # no secret
        longest = min(2 * longest, LONGEST_PAUSE)


T = TypeVar("T")


def _chunks(things: list[T]) -> Iterator[list[T]]:
    return (things[start : start + CHUNK] for start in range(0, len(things), CHUNK))
