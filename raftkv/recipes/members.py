"""`Members`: which workers are alive, by group, each with data of its own.

```python
members = AwaitedMembers(client, App.workers)
async with members.join("encoders", "host-7", data="10.0.0.7:80", ttl_s=10) as member:
    ...                                                 # kept up in the background; `member.lost` tells the end of it
for each in await members.present("encoders"):
    print(each.owner, each.data)
async for present in members.observe("encoders"):       # now, and at each change
    ...
```

A worker that is gone is listed until its time is over. A subclass that overrides `on_leave` can do, in the same entry,
what its leaving entails: give its work to others, for example.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from raftkv.machine import command, query
from raftkv.recipes.claims import Awaited, Blocking, BlockingClaim, Claim
from raftkv.recipes.locks import TTL_S
from raftkv.recipes.turns import Hold, Holder, Turns
from raftkv.recipes.waiting import observed


class Members(Turns):
    """Members by group. One that joins under the name of another takes its place: that one is told that it is lost, and
    has not left, even if its time was over just then."""

    def on_leave(self, group: str, member: str, data: str) -> None:
        """Called in the command by which a member leaves, or is found to be gone: override it. What it raises undoes
        a leave, and is in the nodes' logs when the member's time was over."""

    def _has_room(self, name: str, weight: int) -> bool:
        return True

    def _ended(self, name: str, hold: Hold | None) -> None:
        if hold is not None:
            self.on_leave(name, hold.owner, hold.data)

    @command
    def join(self, group: str, member: str, data: str = "", ttl_s: float = TTL_S) -> int:
        """The token by which `member` renews its membership."""
        number = self._number_of(group, member)
        if number:
            del self.held[group, number]
            del self.places[group, member]
        return self._ask(group, member, 1, ttl_s, 0.0, data)

    @query
    def present(self, group: str) -> list[Holder]:
        """The members, the earliest first; at most 1,000."""
        return self.holders(group)


class AwaitedMembers(Awaited[Members]):
    """Membership through a `Client`."""

    _recipe = Members

    def join(self, group: str, member: str, *, data: str = "", ttl_s: float = TTL_S) -> Claim:
        """A membership, from the beginning to the end of `async with`."""

        async def ask(owner: str, wait_s: float) -> int:
            return int(await self._client.call(self._at.join, group, owner, data, ttl_s))

        return Claim(self._client, self._at, group, ttl_s, ask, None, member)

    async def present(self, group: str) -> list[Holder]:
        """The members, the earliest first; at most 1,000."""
        found: list[Holder] = await self._client.call(self._at.present, group)
        return found

    def observe(self, group: str) -> AsyncIterator[list[Holder]]:
        """The members now, and then at each change; one that came and went meanwhile may be left out."""
        return observed(self._client, self._at.present, group)


class BlockingMembers(Blocking[Members]):
    """Membership through a `BlockingClient`."""

    _awaited = AwaitedMembers

    def join(self, group: str, member: str, *, data: str = "", ttl_s: float = TTL_S) -> BlockingClaim:
        """As `AwaitedMembers.join`, for `with`."""
        return self._claim(self._face.join(group, member, data=data, ttl_s=ttl_s))

    def present(self, group: str) -> list[Holder]:
        """The members, the earliest first; at most 1,000."""
        found: list[Holder] = self._client.run(self._face.present(group))
        return found
