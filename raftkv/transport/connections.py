"""All connections of a node that are not gone yet, and which of them have something to send."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Protocol


class OpenConnection(Protocol):
    """A connection, whichever side dialled."""

    def after_fork(self) -> None:
        """In a child: the peer is the parent's."""


class DialledConnection(OpenConnection, Protocol):
    """A connection that this node dialled, on which messages leave."""

    def flush(self) -> None:
        """Send what was written in this turn of the loop, in one write."""


class Connections:
    """Iterates over open connections, oldest first."""

    def __init__(self) -> None:
        self._open: dict[OpenConnection, None] = {}  # an ordered set
        self._dirty: list[DialledConnection] = []
        self._corked = False
        self._all_gone: asyncio.Future[None] | None = None

    def __iter__(self) -> Iterator[OpenConnection]:
        return iter(list(self._open))

    def opened(self, connection: OpenConnection) -> None:
        """From now on `all_gone` waits for the end of this connection, too."""
        self._open[connection] = None

    def gone(self, connection: OpenConnection) -> None:
        """A connection is closed on this side for good."""
        self._open.pop(connection, None)
        if not self._open and self._all_gone is not None and not self._all_gone.done():
            self._all_gone.set_result(None)

    async def all_gone(self) -> None:
        """Wait until no connection is left."""
        if self._open:
            self._all_gone = asyncio.get_running_loop().create_future()
            await self._all_gone

    def flush_later(self, connection: DialledConnection) -> None:
        """Send what `connection` has with `uncork`, else at the end of this turn of the loop: one callback for all."""
        if not self._dirty and not self._corked:
            asyncio.get_running_loop().call_soon(self._flush)
        self._dirty.append(connection)

    def cork(self) -> None:
        """Let what is written pile up until `uncork`."""
        self._corked = True

    def uncork(self) -> None:
        """Send what has piled up."""
        self._corked = False
        if self._dirty:
            self._flush()

    def _flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()
