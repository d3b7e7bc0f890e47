"""`Semaphores`: so many permits by name, each for a time.

```python
semaphores = AwaitedSemaphores(client, App.licences)
async with semaphores.permit("gpu", limit=4, ttl_s=30):
    ...
```

Permits are given in the order of asking: one that wants several holds up those behind it until they are free. See
`raftkv.recipes.turns` on pauses: for a moment more may be used than there are, unless the resource compares tokens.
"""

from __future__ import annotations

from raftkv.machine import Rejection, Table, command, query
from raftkv.recipes.claims import Awaited, Blocking, BlockingClaim, Claim
from raftkv.recipes.locks import TTL_S
from raftkv.recipes.turns import Hold, Turns

LIMIT_MAX = 1_000
"""Permits of one semaphore: who asks has them counted."""


class OtherLimit(Rejection):
    """The semaphore is in use with another number of permits: all must say the same, or `resize` it."""

    name: str
    limit: int


class Semaphores(Turns):
    """Permits by name. How many there are is what the first of its users says, as long as it has any."""

    limits = Table(str, int)

    def _has_room(self, name: str, weight: int) -> bool:
        return self._used(name) + weight <= self.limits.get(name, 0)

    def _used(self, name: str) -> int:
        return sum(hold.weight for _, hold in self.held.prefix((name,)))

    def _ended(self, name: str, hold: Hold | None) -> None:
        if not any(next(table.prefix((name,), limit=1), None) for table in (self.held, self.waiters)):
            self.limits.pop(name, None)

    @command
    def acquire(
        self, name: str, owner: str, limit: int, permits: int = 1, ttl_s: float = TTL_S, wait_s: float = 0.0
    ) -> int:
        """The token by which `owner` has so many of `limit` permits; 0 when it does not. The rest is as for
        `Locks.acquire`. Raises `OtherLimit`."""
        _check(limit, permits)
        known = self.limits.get(name)
        if known is None:
            self.limits[name] = limit
        elif known != limit:
            raise OtherLimit(name=name, limit=known)
        token = self._ask(name, owner, permits, ttl_s, wait_s)
        self._ended(name, None)
        return token

    @command
    def resize(self, name: str, limit: int) -> None:
        """From now on there are so many permits. Nobody loses one: if there are fewer, none is given for a while."""
        _check(limit, 1)
        if name in self.limits:
            self.limits[name] = limit
            self._settle(name)

    @query
    def free(self, name: str) -> int | None:
        """How many permits nobody has; None for a semaphore that nobody uses."""
        limit = self.limits.get(name)
        return None if limit is None else max(0, limit - self._used(name))


def _check(limit: int, permits: int) -> None:
    if not 1 <= limit <= LIMIT_MAX:
        raise ValueError(f"limit must be 1 to {LIMIT_MAX}, not {limit}")
    if not 1 <= permits <= limit:
        raise ValueError(f"permits must be 1 to {limit}, which is all that there are, not {permits}")


class AwaitedSemaphores(Awaited[Semaphores]):
    """Semaphores through a `Client`."""

    _recipe = Semaphores

    def permit(
        self, name: str, *, limit: int, permits: int = 1, ttl_s: float = TTL_S, timeout_s: float | None = None
    ) -> Claim:
        """So many permits to be acquired; as `AwaitedLocks.lock`."""
        return self._claim(self._at.acquire, name, ttl_s, timeout_s, (limit, permits, ttl_s))


class BlockingSemaphores(Blocking[Semaphores]):
    """Semaphores through a `BlockingClient`."""

    _awaited = AwaitedSemaphores

    def permit(
        self, name: str, *, limit: int, permits: int = 1, ttl_s: float = TTL_S, timeout_s: float | None = None
    ) -> BlockingClaim:
        """As `AwaitedSemaphores.permit`, for `with`."""
        return self._claim(self._face.permit(name, limit=limit, permits=permits, ttl_s=ttl_s, timeout_s=timeout_s))
