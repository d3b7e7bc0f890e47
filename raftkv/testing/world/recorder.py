"""What a world and the histories of its clients know of whoever records them."""

from __future__ import annotations

from typing import Any, Protocol

from raftkv.transport import MemoryTransport


class Recorder(Protocol):
    """Hears of what happens; changes nothing."""

    def transport(self, *args: Any, **settings: Any) -> MemoryTransport:
        """A `MemoryTransport` of these arguments whose messages are recorded."""

    def called(self, operation: Any) -> None:
        """A client calls."""

    def answered(self, operation: Any, *, refused: bool) -> None:
        """It heard the result, or that nothing was done."""
