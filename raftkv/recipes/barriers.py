"""`Barriers`: so many parties begin at once, and (if they like) end at once.

```python
barriers = AwaitedBarriers(client, App.barriers)
await barriers.meet("stage 1", parties=3)                   # returns when three have come
async with barriers.together("stage 2", parties=3):         # begins when three have come,
    ...                                                     # and ends when all three have left
```

As kazoo's double barrier. A party that dies while it waits is not counted; one that dies inside has left after its
`ttl_s`. A barrier is used again and again: who comes while a round is on its way is of the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import msgspec

from raftkv.machine import Rejection, command, query
from raftkv.recipes.claims import Awaited, Blocking, Claim
from raftkv.recipes.locks import TTL_S
from raftkv.recipes.turns import Turns
from raftkv.recipes.waiting import until

PARTIES_MAX = 1_000
"""All of a round go in in one command."""
LEFT_S = 10.0


class OtherParties(Rejection):
    """Others wait there for another number of parties: all must say the same."""

    name: str
    parties: int


class Barriers(Turns):
    """Barriers by name; a round is over when all who have gone in have left. Its tokens follow each other, and `data`
    of a hold is the first of them."""

    def _settle(self, name: str) -> None:
        if next(self.held.prefix((name,), limit=1), None) is not None:
            return
        _, first = next(self.waiters.prefix((name,), limit=1), (None, None))
        if first is None:
            return
        come = list(self.waiters.prefix((name,), limit=first.weight))
        if len(come) == first.weight:
            begun = str(self._next_number())
            for place, waiter in come:
                self._grant(place, msgspec.structs.replace(waiter, data=begun))

    @command
    def enter(self, name: str, owner: str, parties: int, ttl_s: float = TTL_S, wait_s: float = 0.0) -> int:
        """The token by which `owner` is inside; 0 until so many parties have come. The rest is as for `Locks.acquire`.
        Raises `OtherParties`."""
        if not 1 <= parties <= PARTIES_MAX:
            raise ValueError(f"parties must be 1 to {PARTIES_MAX}, not {parties}")
        _, first = next(self.waiters.prefix((name,), limit=1), (None, None))
        if first is not None and first.weight != parties:
            raise OtherParties(name=name, parties=first.weight)
        return self._ask(name, owner, parties, ttl_s, wait_s)

    @query
    def inside(self, name: str) -> int:
        """How many of a round have not left yet."""
        return sum(1 for _ in self.held.prefix((name,)))

    @query
    def is_on(self, name: str, token: int) -> bool:
        """Whether anybody is inside still of the round in which `token` was given."""
        _, hold = next(self.held.prefix((name,), limit=1), (None, None))
        return hold is not None and int(hold.data) <= token < int(hold.data) + hold.weight


class AwaitedBarriers(Awaited[Barriers]):
    """Barriers through a `Client`."""

    _recipe = Barriers

    def _party(self, name: str, parties: int, ttl_s: float, timeout_s: float | None) -> Claim:
        return self._claim(self._at.enter, name, ttl_s, timeout_s, (parties, ttl_s))

    async def meet(self, name: str, *, parties: int, ttl_s: float = TTL_S, timeout_s: float | None = None) -> None:
        """Wait until so many have come. Raises `NotAcquired` after `timeout_s`: then this one has not."""
        party = await self._party(name, parties, ttl_s, timeout_s).acquire()
        await party.release()

    @contextlib.asynccontextmanager
    async def together(
        self, name: str, *, parties: int, ttl_s: float = TTL_S, timeout_s: float | None = None
    ) -> AsyncIterator[Claim]:
        """Begin when so many have come (raises `NotAcquired` after `timeout_s`), and end when all of them have left.

        What the block raises is raised at once.
        """
        party = self._party(name, parties, ttl_s, timeout_s)
        async with party:
            token = party.token
            yield party
        while await until(self._client, self._at.is_on, name, token, timeout_s=LEFT_S, unlike=True):
            pass


class BlockingBarriers(Blocking[Barriers]):
    """Barriers through a `BlockingClient`."""

    _awaited = AwaitedBarriers

    def meet(self, name: str, *, parties: int, ttl_s: float = TTL_S, timeout_s: float | None = None) -> None:
        """As `AwaitedBarriers.meet`."""
        self._client.run(self._face.meet(name, parties=parties, ttl_s=ttl_s, timeout_s=timeout_s))

    @contextlib.contextmanager
    def together(
        self, name: str, *, parties: int, ttl_s: float = TTL_S, timeout_s: float | None = None
    ) -> Iterator[None]:
        """As `AwaitedBarriers.together`, for `with`."""
        manager = self._face.together(name, parties=parties, ttl_s=ttl_s, timeout_s=timeout_s)
        self._client.run(manager.__aenter__())
        try:
            yield
        except BaseException as exc:
            self._client.run(manager.__aexit__(type(exc), exc, exc.__traceback__))
            raise
        self._client.run(manager.__aexit__(None, None, None))
