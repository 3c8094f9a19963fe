"""What members hear of a broker that cannot be reached: here one that only says so."""

from __future__ import annotations

from typing import Any

import pytest

from trio_ws import BrokerDown, JoinRefused, Rooms
from trio_ws.rooms._embedded import EmbeddedBroker
from trio_ws.testing import open_pair


class DownBroker(EmbeddedBroker):
    degraded = "redis.internal:6379 does not answer"

    async def open(self, room: str) -> None:
        raise BrokerDown("redis.internal:6379 does not answer")

    def check(self, meta: Any) -> None:
        if meta is not None:
            raise TypeError("no meta today")


async def test_a_room_that_cannot_be_opened_refuses_for_now_and_gives_no_details_away() -> None:
    rooms = Rooms(broker=DownBroker())
    async with open_pair() as (_, server):
        with pytest.raises(JoinRefused) as caught:
            async with rooms.join(server, "a"):
                pytest.fail("nobody can enter")
    assert caught.value.code == 1013
    assert "internal" not in str(caught.value)
    assert isinstance(caught.value.__cause__, BrokerDown)
    assert rooms.statistics().rooms == {}


async def test_the_rooms_say_what_is_wrong() -> None:
    rooms = Rooms(broker=DownBroker())
    assert rooms.degraded == DownBroker.degraded
    assert rooms.statistics().degraded == DownBroker.degraded
    assert Rooms().degraded is None


async def test_the_broker_is_asked_whether_a_meta_can_travel() -> None:
    async with open_pair() as (_, server):
        with pytest.raises(TypeError, match="no meta today"):
            Rooms(broker=DownBroker()).join(server, "a", meta={"name": "Ann"})
