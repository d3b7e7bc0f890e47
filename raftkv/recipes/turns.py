"""`Turns`: what locks, semaphores and elections have in common: who holds what, until when, and who is next.

Whoever asks goes to the end of a queue; as long as there is room for the first of it, that one gets a *token*. Tokens
rise over the whole machine: a later holder of anything has a higher one than all before. A hold, and a place in the
queue, ends at its time by the log's clock unless it is renewed; so a dead process holds nothing up for longer.

**A holder that is paused does not know it.** A process that stops for longer than its `ttl_s` (a garbage collection, a
laptop's lid, a full host) goes on as if it held the lock, while another one does. No lock service can prevent that:
what is to be safe must compare tokens. A resource within the same machine asks `require`; any other one keeps the
highest token that it has seen, and refuses lower ones, as `Fences` does.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec

from raftkv.errors import MachineError
from raftkv.machine import Component, Rejection, Table, Value, command, on_expire, query

TTL_S_MIN, TTL_S_MAX = 0.1, 366 * 86_400.0
WAITERS_MAX = 100_000
"""In one machine: each costs two rows."""
GRANTS_AT_ONCE = 100
"""So many get a token in one command; the next follow at once, in one that is scheduled."""
LISTED_MAX = 1_000
"""Of holders and waiters that a query tells."""


class LockLost(Rejection):
    """The token is none of those that hold `name`: its time is over, or it was released. What is done in its name from
    now on may meet what another holder does."""

    name: str
    token: int

    def __str__(self) -> str:
        return f"token {self.token} does not hold {self.name!r} any more"


class TooManyWaiters(Rejection):
    """So many wait already that no more may."""

    limit: int


class Hold(msgspec.Struct, frozen=True):
    """What is known of a holder; `weight` is how much room it takes."""

    owner: str
    weight: int
    ttl_ms: int
    data: str = ""


class Place(msgspec.Struct, frozen=True):
    """Where somebody is: the number is its token, or that of its place in the queue."""

    number: int
    is_held: bool


class Holder(msgspec.Struct, frozen=True):
    """Who holds something."""

    owner: str
    token: int
    data: str = ""


class Turns(Component):
    """Holders and queues, by name. Subclasses say when there is room, in `_has_room`, and how one asks.

    Whoever asks is told apart by `owner`, a text that no two use for one name at a time.
    """

    held = Table(tuple[str, int], Hold, expires=True)
    """By name and token."""
    waiters = Table(tuple[str, int], Hold, expires=True)
    """By name and number; the first is the next."""
    places = Table(tuple[str, str], Place)
    """By name and owner."""
    last_number = Value(int, 0)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Raises `MachineError` for a class of two kinds: they would share their tables, and one say for the other when
        there is room."""
        super().__init_subclass__(**kwargs)
        kinds = [each.__name__ for each in cls.__mro__ if Turns in each.__bases__]
        if len(kinds) > 1:
            raise MachineError(
                f"{cls.__module__}.{cls.__qualname__}: {kinds[0]} and {kinds[1]} keep their holders in the same "
                f"tables, so they can't be mixed: make each a part, like `{kinds[1].lower()} = Part({kinds[1]})`"
            )

    def _has_room(self, name: str, weight: int) -> bool:
        """Whether one more may hold `name`."""
        return next(self.held.prefix((name,), limit=1), None) is None

    def _ask(self, name: str, owner: str, weight: int, ttl_s: float, wait_s: float, data: str = "") -> int:
        """The token of `owner`; 0 as long as it waits, for so many seconds from now. Asking again does no harm."""
        check_ttl(ttl_s)
        if wait_s:
            check_ttl(wait_s, "wait_s")
        number = self._number_of(name, owner)
        if number < 0:
            if wait_s:
                self.waiters.touch((name, -number), wait_s)
        elif number == 0:
            self._queue(name, owner, Hold(owner, weight, round(ttl_s * 1000), data), wait_s or TTL_S_MIN)
        self._settle(name)
        number = self._number_of(name, owner)
        if number < 0 and not wait_s:
            self._drop_waiter(name, owner, -number)
            self._settle(name)  # it may have held up those behind it
        return max(number, 0)

    def _number_of(self, name: str, owner: str) -> int:
        """The token; below 0 when it waits, 0 when it is nowhere."""
        place = self.places.get((name, owner))
        if place is None:
            return 0
        if place.is_held:
            return place.number if (name, place.number) in self.held else 0
        return -place.number if (name, place.number) in self.waiters else 0

    def _queue(self, name: str, owner: str, waiter: Hold, wait_s: float) -> None:
        if len(self.waiters) >= WAITERS_MAX:
            raise TooManyWaiters(limit=WAITERS_MAX)
        number = self.last_number = self._next_number()
        self.waiters.put((name, number), waiter, ttl_s=wait_s)
        self.places[name, owner] = Place(number, is_held=False)

    def _next_number(self) -> int:
        """The one that will be handed out next."""
        return self._moment.next_number(self.last_number)

    def _settle(self, name: str) -> None:
        """Give tokens to the first of the queue as long as there is room."""
        for _ in range(GRANTS_AT_ONCE):
            first = next(self.waiters.prefix((name,), limit=1), None)
            if first is None or not self._has_room(name, first[1].weight):
                return
            self._grant(*first)
        self.schedule(0, Turns.settle, name)

    def _grant(self, place: tuple[str, int], waiter: Hold) -> None:
        """Give a token to one of the queue."""
        name, _ = place
        del self.waiters[place]
        number = self.last_number = self._next_number()
        self.held.put((name, number), waiter, ttl_s=timedelta(milliseconds=waiter.ttl_ms))
        self.places[name, waiter.owner] = Place(number, is_held=True)

    def _drop_waiter(self, name: str, owner: str, number: int) -> None:
        del self.waiters[name, number]
        del self.places[name, owner]

    def _forget(self, name: str, owner: str, number: int, hold: Hold | None = None) -> None:
        """Its `hold`, or its place in the queue, has ended: the next may come."""
        place = self.places.get((name, owner))
        if place is not None and place.number == number:
            del self.places[name, owner]
        else:
            hold = None  # the owner has come again since
        self._ended(name, hold)
        self._settle(name)

    def _ended(self, name: str, hold: Hold | None) -> None:
        """Called when a hold has ended, for what a subclass does besides; None for a wait, and for a hold whose owner
        had come again before anybody noticed its end."""

    def require(self, name: str, token: int) -> None:
        """For commands of the same machine: goes on only if `token` holds `name` now. Raises `LockLost`."""
        if (name, token) not in self.held:
            raise LockLost(name=name, token=token)

    @command
    def renew(self, name: str, token: int) -> None:
        """Hold it for its `ttl_s` from now on. Raises `LockLost`."""
        self.require(name, token)
        self.held.touch((name, token), timedelta(milliseconds=self.held[name, token].ttl_ms))

    @command
    def release(self, name: str, token: int) -> bool:
        """Hold it no longer; False when it is not held by this token any more."""
        hold = self.held.pop((name, token), None)
        if hold is None:
            return False
        self._forget(name, hold.owner, token, hold)
        return True

    @command
    def leave(self, name: str, owner: str) -> bool:
        """Neither hold it nor wait for it; False when `owner` did neither."""
        number = self._number_of(name, owner)
        if number > 0:
            return self.release(name, number)
        if number < 0:
            self._drop_waiter(name, owner, -number)
            self._forget(name, owner, -number)
        return number < 0

    @command
    def settle(self, name: str) -> None:
        """Runs by itself when there was more to grant than one command does."""
        self._settle(name)

    @command
    @on_expire("held")
    def hold_is_over(self, key: tuple[str, int], hold: Hold) -> None:
        """Runs by itself."""
        if key not in self.held:
            self._forget(key[0], hold.owner, key[1], hold)

    @command
    @on_expire("waiters")
    def wait_is_over(self, key: tuple[str, int], waiter: Hold) -> None:
        """Runs by itself."""
        if key not in self.waiters:
            self._forget(key[0], waiter.owner, key[1])

    @query
    def token_of(self, name: str, owner: str) -> int:
        """The token by which `owner` holds it; 0 when it does not."""
        return max(self._number_of(name, owner), 0)

    @query
    def holders(self, name: str) -> list[Holder]:
        """Who holds it, the earliest first; at most 1,000."""
        found = self.held.prefix((name,), limit=LISTED_MAX)
        return [Holder(hold.owner, token, hold.data) for (_, token), hold in found]

    @query
    def waiting(self, name: str) -> list[str]:
        """The owners that wait for it, the next first; at most 1,000."""
        return [waiter.owner for _, waiter in self.waiters.prefix((name,), limit=LISTED_MAX)]


def check_ttl(ttl_s: float, what: str = "ttl_s") -> None:
    """Raises `ValueError`."""
    if not TTL_S_MIN <= ttl_s <= TTL_S_MAX:
        raise ValueError(f"{what} must be {TTL_S_MIN:g} to {TTL_S_MAX:g} seconds, not {ttl_s!r}")
