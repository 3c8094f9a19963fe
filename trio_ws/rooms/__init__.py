"""Rooms: one message to many connections, each with a bounded queue of its own."""

from ._member import Member as Member
from ._overflow import Overflow as Overflow
from ._rooms import Rooms as Rooms
