"""The interface of a recorder, as a world and its clients' histories use it."""

from __future__ import annotations

from typing import Any, Protocol

from raftkv.transport import MemoryTransport


class Recorder(Protocol):
    """Is told what happens in a world, and changes nothing there."""

    def transport(self, *args: Any, **settings: Any) -> MemoryTransport:
        """A `MemoryTransport` of these arguments whose messages are recorded."""

    def called(self, operation: Any) -> None:
        """A client has begun a call."""

    def answered(self, operation: Any, *, refused: bool) -> None:
        """A client has its result, or knows that nothing was done."""
