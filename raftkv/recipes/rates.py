"""`RateLimits`: so many a time by name, over all of an application's processes.

```python
rates = AwaitedRateLimits(client, App.rates)
pace = await rates.ask(user, limit=100, per_s=60)           # Pace(is_allowed=False, left=0, wait_s=0.6)
await rates.acquire("mail", limit=10, per_s=1, burst=20)    # waits until it is one's turn
```

A token bucket: it is full with `burst` tokens (as many as the limit, if nothing is said) and gets `limit` of them every
`per_s` seconds, evenly. Its time is the log's, and its arithmetic is in whole numbers: all nodes find the same, and
what was found is never more than was promised. In a command of the same machine, `self.rates.spend(…)` goes with all
else that it does: what is rejected has spent nothing.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec

from raftkv.machine import Component, Rejection, Table, command, query
from raftkv.recipes.claims import Awaited, Blocking, NotAcquired

TOKENS_MAX = 1_000_000_000
PER_MS_MAX = 366 * 86_400_000
BUCKETS_MAX = 1_000_000
"""In one machine; one that is full again costs nothing."""


class TooFast(Rejection):
    """The bucket has too few tokens; nothing was spent."""

    name: str
    wait_s: float
    """For how long, if nobody else takes any."""


class TooManyBuckets(Rejection):
    """So many names have spent tokens lately that no more may: are they names, or parts of requests?"""

    limit: int


class Pace(msgspec.Struct, frozen=True):
    """What a bucket says."""

    is_allowed: bool
    left: int
    """Tokens that are there now."""
    wait_s: float = 0.0
    """In how long there will be enough, if nobody else takes any."""


class Bucket(msgspec.Struct, frozen=True):
    """What was in it, and when. It is counted in parts of a token, of which one has `per_ms`: so each millisecond adds
    a whole number of them, the limit."""

    level: int
    at_ms: int
    per_ms: int


class RateLimits(Component):
    """Buckets by name. A bucket's settings are those of the call: it takes over what there is, as well as it can."""

    buckets = Table(str, Bucket, expires=True)
    """Those that are not full: the others need not be known."""

    @command
    def ask(self, name: str, limit: int, per_s: float, burst: int = 0, cost: int = 1) -> Pace:
        """Spend `cost` tokens if there are enough, else none. Raises `TooManyBuckets`."""
        per_ms, size = _checked(limit, per_s, burst, cost)
        level, now_ms = self._level(name, limit, per_ms, size), self.now_ms
        left = level - cost * per_ms
        if left < 0:
            self._follow_the_clock(name)
            return Pace(False, level // per_ms, _up(-left, limit) / 1000)
        if name not in self.buckets and len(self.buckets) >= BUCKETS_MAX:
            raise TooManyBuckets(limit=BUCKETS_MAX)
        full_ms = _up(size * per_ms - left, limit)
        self.buckets.put(name, Bucket(left, now_ms, per_ms), ttl_s=timedelta(milliseconds=full_ms))
        return Pace(True, left // per_ms)

    @command
    def spend(self, name: str, limit: int, per_s: float, burst: int = 0, cost: int = 1) -> int:
        """Spend `cost` tokens; how many are left. Raises `TooFast` when there are too few, and `TooManyBuckets`."""
        pace = self.ask(name, limit, per_s, burst, cost)
        if not pace.is_allowed:
            raise TooFast(name=name, wait_s=pace.wait_s)
        return pace.left

    @command
    def refill(self, name: str) -> bool:
        """Let the bucket be full; False when it was."""
        return self.buckets.pop(name, None) is not None

    @query
    def peek(self, name: str, limit: int, per_s: float, burst: int = 0, cost: int = 1) -> Pace:
        """What `ask` would say now; nothing is spent."""
        per_ms, size = _checked(limit, per_s, burst, cost)
        level = self._level(name, limit, per_ms, size)
        left = level - cost * per_ms
        return Pace(left >= 0, level // per_ms, _up(max(-left, 0), limit) / 1000)

    def _level(self, name: str, limit: int, per_ms: int, size: int) -> int:
        """What is in a bucket now."""
        bucket = self.buckets.get(name)
        if bucket is None:
            return size * per_ms
        passed_ms = max(0, self.now_ms - bucket.at_ms)
        before = bucket.level * per_ms // bucket.per_ms
        return min(size * per_ms, before + passed_ms * limit)

    def _follow_the_clock(self, name: str) -> None:
        """If an operator has set the log's clock back, tokens come from now on, not when it is that late again."""
        bucket = self.buckets.get(name)
        if bucket is not None and bucket.at_ms > self.now_ms:
            self.buckets[name] = msgspec.structs.replace(bucket, at_ms=self.now_ms)


def _checked(limit: int, per_s: float, burst: int, cost: int) -> tuple[int, int]:
    """The milliseconds in which `limit` tokens come, and how many there are at most. Raises `ValueError`."""
    if not 1 <= limit <= TOKENS_MAX:
        raise ValueError(f"limit must be 1 to {TOKENS_MAX}, not {limit}")
    if not 0.001 <= per_s <= PER_MS_MAX / 1000:
        raise ValueError(f"per_s must be 0.001 to {PER_MS_MAX / 1000:g} seconds, not {per_s!r}")
    if not 0 <= burst <= TOKENS_MAX:
        raise ValueError(f"burst must be 0 (as many as the limit) to {TOKENS_MAX}, not {burst}")
    size = burst or limit
    if not 1 <= cost <= size:
        raise ValueError(f"cost must be 1 to {size}, which is all that a full bucket has, not {cost}")
    per_ms = round(per_s * 1000)
    if size * per_ms > PER_MS_MAX * limit:
        raise ValueError(f"{size} tokens would take more than a year to come: raise the limit, or lower the burst")
    return per_ms, size


def _up(parts: int, limit: int) -> int:
    """In how many milliseconds so many parts of tokens come."""
    return -(-parts // limit)


class AwaitedRateLimits(Awaited[RateLimits]):
    """Rate limits through a `Client`."""

    _recipe = RateLimits

    async def ask(self, name: str, *, limit: int, per_s: float, burst: int = 0, cost: int = 1) -> Pace:
        """As `RateLimits.ask`."""
        found: Pace = await self._client.call(self._at.ask, name, limit, per_s, burst, cost)
        return found

    async def acquire(
        self, name: str, *, limit: int, per_s: float, burst: int = 0, cost: int = 1, timeout_s: float | None = None
    ) -> None:
        """Spend `cost` tokens as soon as there are enough. Raises `NotAcquired`, at once, when that would be after
        `timeout_s`: then nothing was spent."""
        loop = asyncio.get_running_loop()
        end = None if timeout_s is None else loop.time() + timeout_s
        while True:
            pace = await self.ask(name, limit=limit, per_s=per_s, burst=burst, cost=cost)
            if pace.is_allowed:
                return
            if end is not None and loop.time() + pace.wait_s > end:
                raise NotAcquired(f"{name!r} has too few tokens for another {pace.wait_s:g} s")
            await asyncio.sleep(pace.wait_s)


class BlockingRateLimits(Blocking[RateLimits]):
    """Rate limits through a `BlockingClient`."""

    _awaited = AwaitedRateLimits

    def ask(self, name: str, *, limit: int, per_s: float, burst: int = 0, cost: int = 1) -> Pace:
        """As `RateLimits.ask`."""
        found: Pace = self._client.run(self._face.ask(name, limit=limit, per_s=per_s, burst=burst, cost=cost))
        return found

    def acquire(
        self, name: str, *, limit: int, per_s: float, burst: int = 0, cost: int = 1, timeout_s: float | None = None
    ) -> None:
        """As `AwaitedRateLimits.acquire`."""
        settings = {"limit": limit, "per_s": per_s, "burst": burst, "cost": cost, "timeout_s": timeout_s}
        self._client.run(self._face.acquire(name, **settings))
