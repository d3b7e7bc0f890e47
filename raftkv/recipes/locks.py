"""`Locks`: locks by name, with a time, a token, and a fair queue.

```python
locks = AwaitedLocks(client)                        # or AwaitedLocks(client, App.locks), of a part
async with locks.lock("db", ttl_s=10, timeout_s=5) as lock:
    lock.check()                                    # raises LockLost as soon as it is not sure any more
    await write(lock.token)                         # the resource refuses lower tokens: see `Fences`
```

As etcd's mutex and kazoo's lock: whoever asks first has it first, and a process that dies loses it after `ttl_s`. The
holder of a moment ago may not know that yet: see `raftkv.recipes.turns` on pauses, and why tokens are what is safe.
"""

from __future__ import annotations

from raftkv.machine import command
from raftkv.recipes.claims import Awaited, Blocking, BlockingClaim, Claim
from raftkv.recipes.turns import Turns

TTL_S = 10.0
"""By default: a dead holder is waited for as long, a living one writes three entries meanwhile."""


class Locks(Turns):
    """Locks by name; each is held by one owner at a time."""

    @command
    def acquire(self, name: str, owner: str, ttl_s: float = TTL_S, wait_s: float = 0.0) -> int:
        """The token by which `owner` holds the lock; 0 when it does not.

        With `wait_s` it waits in the queue, for so many seconds from now on: ask again before that, and see whether
        `token_of` says it has its turn. Asking again gives the same token, for the same time as before.
        """
        return self._ask(name, owner, 1, ttl_s, wait_s)


class AwaitedLocks(Awaited[Locks]):
    """Locks through a `Client`."""

    _recipe = Locks

    def lock(self, name: str, *, ttl_s: float = TTL_S, timeout_s: float | None = None) -> Claim:
        """A lock to be acquired; `async with` does, and waits for `timeout_s` (without it, as long as it takes)."""
        return self._claim(self._at.acquire, name, ttl_s, timeout_s, (ttl_s,))


class BlockingLocks(Blocking[Locks]):
    """Locks through a `BlockingClient`."""

    _awaited = AwaitedLocks

    def lock(self, name: str, *, ttl_s: float = TTL_S, timeout_s: float | None = None) -> BlockingClaim:
        """As `AwaitedLocks.lock`, for `with`."""
        return self._claim(self._face.lock(name, ttl_s=ttl_s, timeout_s=timeout_s))
