"""`Elections`: one of an application's workers leads; the others wait for their turn, or look on.

```python
elections = AwaitedElections(client, App.workers)
async with elections.campaign("scheduler", data="10.0.0.7:80", ttl_s=10) as term:      # until it is elected
    while work():
        term.check()                        # raises LockLost as soon as it is not sure that it still leads
async for leader in elections.observe("scheduler"):
    print(leader)                           # Holder(owner=…, token=…, data="10.0.0.7:80"), or None
```

A worker that is paused may believe for a moment that it leads while another does: let what it does carry `term.token`,
which rises with each leader (see `raftkv.recipes.turns`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import msgspec

from raftkv.machine import command, query
from raftkv.recipes.claims import Awaited, Blocking, BlockingClaim, Claim
from raftkv.recipes.locks import TTL_S
from raftkv.recipes.turns import Holder, Turns
from raftkv.recipes.waiting import observed


class Elections(Turns):
    """Elections by name: each has one leader at a time, with data of its own."""

    @command
    def campaign(self, name: str, owner: str, data: str = "", ttl_s: float = TTL_S, wait_s: float = 0.0) -> int:
        """The token by which `owner` leads; 0 when it does not. The rest is as for `Locks.acquire`."""
        return self._ask(name, owner, 1, ttl_s, wait_s, data)

    @command
    def proclaim(self, name: str, token: int, data: str) -> None:
        """The leader has other data now. Raises `LockLost`."""
        self.require(name, token)
        self.held[name, token] = msgspec.structs.replace(self.held[name, token], data=data)

    @query
    def leader(self, name: str) -> Holder | None:
        """Who leads."""
        found = self.holders(name)
        return found[0] if found else None


class AwaitedElections(Awaited[Elections]):
    """Elections through a `Client`."""

    _recipe = Elections

    def campaign(self, name: str, *, data: str = "", ttl_s: float = TTL_S, timeout_s: float | None = None) -> Claim:
        """To lead; as `AwaitedLocks.lock`. To resign is to `release` it."""
        return self._claim(self._at.campaign, name, ttl_s, timeout_s, (data, ttl_s))

    async def proclaim(self, term: Claim, data: str) -> None:
        """The leader has other data now. Raises `LockLost`."""
        await self._client.call(self._at.proclaim, term.name, term.token, data)

    async def leader(self, name: str) -> Holder | None:
        """Who leads."""
        found: Holder | None = await self._client.call(self._at.leader, name)
        return found

    def observe(self, name: str) -> AsyncIterator[Holder | None]:
        """Who leads now, and then whoever does, as it changes. One that led for a short time only may be left out."""
        return observed(self._client, self._at.leader, name)


class BlockingElections(Blocking[Elections]):
    """Elections through a `BlockingClient`."""

    _awaited = AwaitedElections

    def campaign(
        self, name: str, *, data: str = "", ttl_s: float = TTL_S, timeout_s: float | None = None
    ) -> BlockingClaim:
        """As `AwaitedElections.campaign`, for `with`."""
        return self._claim(self._face.campaign(name, data=data, ttl_s=ttl_s, timeout_s=timeout_s))

    def proclaim(self, term: BlockingClaim, data: str) -> None:
        """As `AwaitedElections.proclaim`."""
        self._client.run(self._face.proclaim(term.claim, data))

    def leader(self, name: str) -> Holder | None:
        """Who leads."""
        found: Holder | None = self._client.run(self._face.leader(name))
        return found

    def observe(self, name: str) -> Iterator[Holder | None]:
        """As `AwaitedElections.observe`."""
        changes = self._face.observe(name)
        while True:
            yield self._client.run(_next(changes))


async def _next(changes: AsyncIterator[Holder | None]) -> Holder | None:
    return await anext(changes)
