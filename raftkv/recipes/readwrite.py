"""`ReadWriteLocks`: many read at a time, or one writes.

```python
locks = AwaitedReadWriteLocks(client, App.files)
async with locks.reading("a.txt"):
    ...
async with locks.writing("a.txt", ttl_s=30) as lock:
    await write(lock.token)
```

All stand in one queue, so a writer waits for those only that came before it, however many readers follow. A reader's
token is a fencing token too: a writer that comes later has a higher one. See `raftkv.recipes.turns` on pauses.
"""

from __future__ import annotations

from raftkv.machine import command
from raftkv.recipes.claims import Awaited, Blocking, BlockingClaim, Claim
from raftkv.recipes.locks import TTL_S
from raftkv.recipes.turns import Turns

READER, WRITER = 1, 2
"""What a hold's `weight` says."""


class ReadWriteLocks(Turns):
    """Locks by name, each held by any number of readers, or by one writer. Who reads can't go on to write: release it,
    and ask anew, as others may have written in between."""

    def _has_room(self, name: str, weight: int) -> bool:
        _, hold = next(self.held.prefix((name,), limit=1), (None, None))
        return hold is None or hold.weight == weight == READER

    @command
    def acquire_read(self, name: str, owner: str, ttl_s: float = TTL_S, wait_s: float = 0.0) -> int:
        """The token by which `owner` reads; 0 when it does not. The rest is as for `Locks.acquire`."""
        return self._ask(name, owner, READER, ttl_s, wait_s)

    @command
    def acquire_write(self, name: str, owner: str, ttl_s: float = TTL_S, wait_s: float = 0.0) -> int:
        """The same to write."""
        return self._ask(name, owner, WRITER, ttl_s, wait_s)


class AwaitedReadWriteLocks(Awaited[ReadWriteLocks]):
    """Read–write locks through a `Client`."""

    _recipe = ReadWriteLocks

    def reading(self, name: str, *, ttl_s: float = TTL_S, timeout_s: float | None = None) -> Claim:
        """A lock to read; as `AwaitedLocks.lock`."""
        return self._claim(self._at.acquire_read, name, ttl_s, timeout_s, (ttl_s,))

    def writing(self, name: str, *, ttl_s: float = TTL_S, timeout_s: float | None = None) -> Claim:
        """A lock to write."""
        return self._claim(self._at.acquire_write, name, ttl_s, timeout_s, (ttl_s,))


class BlockingReadWriteLocks(Blocking[ReadWriteLocks]):
    """Read–write locks through a `BlockingClient`."""

    _awaited = AwaitedReadWriteLocks

    def reading(self, name: str, *, ttl_s: float = TTL_S, timeout_s: float | None = None) -> BlockingClaim:
        """As `AwaitedReadWriteLocks.reading`, for `with`."""
        return self._claim(self._face.reading(name, ttl_s=ttl_s, timeout_s=timeout_s))

    def writing(self, name: str, *, ttl_s: float = TTL_S, timeout_s: float | None = None) -> BlockingClaim:
        """As `AwaitedReadWriteLocks.writing`."""
        return self._claim(self._face.writing(name, ttl_s=ttl_s, timeout_s=timeout_s))
