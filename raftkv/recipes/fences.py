"""`Fences`: resources that refuse a holder of a lock whose time is over, by its token."""

from __future__ import annotations

from raftkv.machine import Component, Rejection, Table, command, query


class StaleToken(Rejection):
    """The resource has seen a higher token: who has this one holds the lock no longer."""

    resource: str
    token: int
    highest: int

    def __str__(self) -> str:
        return f"{self.resource!r} has seen token {self.highest}: token {self.token} is of a holder before that"


class Fences(Component):
    """The highest token that each resource has seen.

    ```python
    class Disk(StateMachine):
        fences = Part(Fences)
        blocks = Table(int, bytes)

        @command
        def write(self, block: int, data: bytes, token: int) -> None:
            self.fences.admit("disk", token)        # raises StaleToken
            self.blocks[block] = data
    ```

    The locks may be of another machine, or of another cluster: tokens are all that it takes.
    """

    highest = Table(str, int)

    def admit(self, resource: str, token: int) -> None:
        """For commands of the same machine. Raises `StaleToken` unless no higher token was seen."""
        highest = self.highest.get(resource, 0)
        if token < highest:
            raise StaleToken(resource=resource, token=token, highest=highest)
        if token > highest:
            self.highest[resource] = token

    @command
    def check(self, resource: str, token: int) -> None:
        """The same for a resource that is elsewhere. What it does then must not be held up: check it there if it can
        be."""
        self.admit(resource, token)

    @command
    def forget(self, resource: str) -> bool:
        """The resource is gone; False when it was not known."""
        return self.highest.pop(resource, None) is not None

    @query
    def seen(self, resource: str) -> int:
        """The highest token; 0 when there was none."""
        return self.highest.get(resource, 0)
