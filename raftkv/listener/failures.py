"""Failed sign-ins, by where they came from and whom they were for: who has failed often has to wait, longer each time.

An attempt that has to wait is not tried at all, so it neither costs anything nor tells anything. A few failures are
free, as people mistype. The wait of one user from one place grows to a minute; that of a user from anywhere, or of
a place for anybody, begins later and ends sooner, and counts nothing for a user where that user came in before:
somebody who guesses shall not lock others out.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from raftkv.listener.memory import Memory

PLACES_MAX = 10_000
"""Of each kind; the one that has failed least recently is forgotten."""

QUIET_S = 900.0
"""After so long without a failure, all is forgotten."""

FIRST_WAIT_S = 0.5

LOOKED_MAX = 500
"""Of each kind, so many of those that failed last are looked at to tell who has to wait: it takes a few milliseconds,
however many guess."""

KNOWN_S = 30 * 86_400.0
"""How long it is known where a user came in."""


class Rule(NamedTuple):
    """How many failures are free, and how long the wait may grow."""

    free: int
    longest_s: float


USER_FROM_HOST = Rule(5, 60.0)
USER = Rule(50, 10.0)
HOST = Rule(50, 10.0)


class Slowed(NamedTuple):
    """Who has failed so often within `QUIET_S` that further tries have to wait."""

    failures: int
    ago_s: float
    """Since the last one."""
    of: Literal["user from host", "user", "host"]
    user: str
    """Empty for a place; and for tokens, which name nobody."""
    host: str
    """Empty for a user from anywhere."""


class _Count(msgspec.Struct):
    number: int
    last: float
    until: float


class _Table:
    """Counts by one kind of key."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._counts: OrderedDict[tuple[str, ...], _Count] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def wait_s(self, key: tuple[str, ...], now: float) -> float:
        count = self._counts.get(key)
        return max(0.0, count.until - now) if count is not None else 0.0

    def failed(self, key: tuple[str, ...], now: float) -> None:
        count = self._counts.pop(key, None)
        if count is None or now - count.last >= QUIET_S:
            count = _Count(0, now, 0.0)
        count.number += 1
        count.last = now
        over = count.number - self._rule.free
        if over > 0:
            count.until = now + min(self._rule.longest_s, FIRST_WAIT_S * 2.0 ** min(over - 1, 16))
        self._counts[key] = count
        if len(self._counts) > PLACES_MAX:
            self._counts.popitem(last=False)

    def forget(self, key: tuple[str, ...]) -> None:
        self._counts.pop(key, None)

    def slowed(self, now: float) -> Iterator[tuple[tuple[str, ...], int, float]]:
        """Those with more failures than are free: the key, how many, and how long ago the last one was."""
        for key, count in islice(reversed(self._counts.items()), LOOKED_MAX):
            if now - count.last >= QUIET_S:
                return  # those before have failed even earlier
            if count.number > self._rule.free:
                yield key, count.number, now - count.last


class Failures:
    """What `SignIns` knows of attempts that were wrong. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._both, self._users, self._hosts = _Table(USER_FROM_HOST), _Table(USER), _Table(HOST)
        self._came_in: Memory[tuple[str, str]] = Memory(PLACES_MAX, KNOWN_S, clock)

    def __len__(self) -> int:
        return len(self._both) + len(self._users) + len(self._hosts)

    def wait_s(self, user: str, host: str) -> float:
        """How long an attempt for `user` from `host` has to wait; 0 when it may be made now."""
        now = self._clock()
        own = self._both.wait_s((user, host), now)
        if self.is_known(user, host):
            return own
        return max(own, self._users.wait_s((user,), now), self._hosts.wait_s((host,), now))

    def slowed(self, most: int) -> tuple[int, list[Slowed]]:
        """How many have to wait, or had to, and those of them with the most failures; of those that failed last."""
        now = self._clock()
        found = [
            *(
                Slowed(number, ago_s, "user from host", user, host)
                for (user, host), number, ago_s in self._both.slowed(now)
            ),
            *(Slowed(number, ago_s, "user", user, "") for (user,), number, ago_s in self._users.slowed(now)),
            *(Slowed(number, ago_s, "host", "", host) for (host,), number, ago_s in self._hosts.slowed(now)),
        ]
        return len(found), heapq.nlargest(most, found)

    def is_known(self, user: str, host: str) -> bool:
        """Whether that user came in from there before."""
        return (user, host) in self._came_in

    def failed(self, user: str, host: str) -> None:
        """An attempt was wrong. `user` is empty for a token, which names nobody."""
        now = self._clock()
        self._both.failed((user, host), now)
        self._hosts.failed((host,), now)
        if user:
            self._users.failed((user,), now)

    def succeeded(self, user: str, host: str) -> None:
        """An attempt was right: that user from there had mistyped. Who else guesses goes on waiting."""
        self._both.forget((user, host))
        self._came_in.add((user, host))
