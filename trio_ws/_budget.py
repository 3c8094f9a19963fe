"""One budget of bytes that all connections of a server draw on.

::

    Inbox     unread messages, and those that are not complete yet ─┐
    Protocol  bytes not parsed yet, state of zlib ──────────────────┼─ Purse ─→ Account ─→ Budget
    Outbox    frames that were made for this connection alone ──────┘              ↑
    Queue     what waits for a member of rooms: for all of them counted once ──────┘

Each part of a connection has a purse and says what it holds; the budget is the sum. Room
members share their messages, so a message counts once there, however many it waits for;
for the same reason what rooms have put into an `Outbox` does not count: 64 KiB bound it.

When more is held than there may be, the connection that holds most is closed with 1013 and
what it holds is dropped, until the sum is right again. Not the one that asked last: a peer
that sends small messages and reads its answers would pay for those who hoard. Whoever
wants to be in the server's way has to hold less than everybody who is not, and then there is
no harm in it.

Who has been told may still hold what is in flight, for as long as a goodbye takes: a peer
that does not read holds up to 256 KiB. That is not held against the others, and bounded
by itself: beyond ``LEAVING`` those who were told first go without a goodbye. Newcomers are
refused earlier, at ``NEWCOMERS``: the rest is for those who
are here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from ._messages import PreparedMessage

NEWCOMERS: Final = 0.75
"""The part of a budget behind which requests are answered with 503."""

LEAVING: Final = 0.25
"""The part of a budget that those who have been evicted may hold on top of it."""


class Budget:
    """What may be held, what is, and by whom."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.used: int = 0
        self.leaving: int = 0
        """What of that is held by those who have been evicted."""
        self._accounts: dict[Account, None] = {}  # in the order of opening
        self._evicted: dict[Account, None] = {}  # in the order of eviction
        self._waiting: Counter[PreparedMessage] = Counter()  # how often each is held
        self._relieving = False

    def __repr__(self) -> str:
        return f"<Budget {self.used} of {self.limit:.0f} bytes, {len(self._accounts)} accounts>"

    @property
    def crowded(self) -> bool:
        """Whether there is no room for one more connection."""
        return self.used >= NEWCOMERS * self.limit

    def open_account(
        self, evict: Callable[[], None], abort: Callable[[], None] = lambda: None
    ) -> Account:
        """Return an account for a connection.

        ``evict`` ends it and drops what it holds; ``abort`` drops the rest, in a moment.
        """
        account = Account(self, evict, abort)
        self._accounts[account] = None
        return account

    def forget(self, account: Account) -> None:
        """Close an account, if that has not been done."""
        self._accounts.pop(account, None)
        self._evicted.pop(account, None)

    def relieve(self) -> None:
        """Close those who hold most, until no more is held than may be."""
        if self._relieving:
            return
        self._relieving = True  # saying goodbye draws on the budget, too
        try:
            while self.used - self.leaving > self.limit and self._accounts:
                victim = max(self._accounts, key=_weight)
                del self._accounts[victim]
                self._evicted[victim] = None
                self.leaving += victim.held
                victim.leaving = True
                victim.evict()
                self._hurry()
        finally:
            self._relieving = False

    def _hurry(self) -> None:
        """Let those go at once who were told first, if all who were told hold too much."""
        held = sum(each.held for each in self._evicted)
        for account in tuple(self._evicted):
            if held <= LEAVING * self.limit:
                break
            if account.held:
                held -= account.held
                del self._evicted[account]
                account.abort()

    def hold(self, message: PreparedMessage) -> None:
        """Count a message that waits for one member more."""
        self._waiting[message] += 1
        if self._waiting[message] == 1:
            self.used += len(message.payload)

    def let_go(self, message: PreparedMessage) -> None:
        """Count a message that waits for one member less."""
        self._waiting[message] -= 1
        if not self._waiting[message]:
            del self._waiting[message]
            self.used -= len(message.payload)


class Account:
    """What one connection holds of a budget; made by `Budget.open_account`."""

    def __init__(
        self, budget: Budget, evict: Callable[[], None], abort: Callable[[], None]
    ) -> None:
        self.budget = budget
        self.evict = evict
        self.abort = abort
        self.held: int = 0
        """What it holds alone."""
        self.shared: int = 0
        """What it holds together with other members of rooms."""
        self.leaving: bool = False
        """Whether it has been evicted."""
        self.closed: bool = False
        """Whether it holds nothing alone any more, whatever its purses still say."""

    def close(self) -> None:
        """Give up all that it holds alone."""
        self.count(-self.held)
        self.closed = True
        self.budget.forget(self)

    def count(self, change: int) -> None:
        """Hold more or less alone. `Budget.relieve` is the caller's."""
        self.held += change
        self.budget.used += change
        if self.leaving:
            self.budget.leaving += change

    def hold(self, message: PreparedMessage) -> None:
        """Take a message that others may hold as well. `Budget.relieve` is the caller's."""
        self.shared += len(message.payload)
        self.budget.hold(message)

    def let_go(self, message: PreparedMessage) -> None:
        """Give it up."""
        self.shared -= len(message.payload)
        self.budget.let_go(message)


class Purse:
    """What one part of a connection holds."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._held = 0

    def settle(self, held: int) -> None:
        """Say what is held now; if that is too much for all, some connection is evicted.

        It may be this one: everything has to be in order before this is called.
        """
        account = self._account
        if account.closed:
            return  # it has been given up as a whole: not twice
        change = held - self._held
        self._held = held
        account.count(change)
        budget = account.budget
        if change > 0 and budget.used > budget.limit:
            budget.relieve()


def open_purse(account: Account | None) -> Purse | None:
    """Return a purse for a part of a connection, if there is a budget to draw on."""
    return None if account is None else Purse(account)


def _weight(account: Account) -> int:
    return account.held + account.shared
