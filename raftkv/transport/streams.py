"""What carries bytes between nodes: sockets, or pipes in memory."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

ProtocolFactory: TypeAlias = Callable[[], asyncio.Protocol]

PlaceFactory: TypeAlias = Callable[[str], asyncio.Protocol]
"""Makes the protocol of a connection to a place."""


class Shut(asyncio.Protocol):
    """Turns away who dials a node that has taken its address and is not there yet; as if nobody listened."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once."""
        cast(asyncio.Transport, transport).abort()  # uvloop's has the methods, but not the base class


class Streams(ABC):
    """Makes connections, both ways. Everything said on them is the business of asyncio protocols."""

    @abstractmethod
    async def listen(self, factory: ProtocolFactory) -> str:
        """Give every incoming connection a protocol of `factory`; returns the address. Raises `ConfigError`."""

    @abstractmethod
    def look_up(self, address: str) -> Sequence[str] | asyncio.Future[tuple[str, ...]]:
        """The places that "host:port" stands for now: at once if that needs no lookup, else when it is done.

        Raises `NameUnknown`, as the future does; it may take for ever, and holds up no other lookup.
        """

    @abstractmethod
    async def dial(self, factory: PlaceFactory, address: str, places: Sequence[str]) -> None:
        """Connect to one of the places of `address`; returns when the protocol knows.

        Raises `OSError` when there is none where anybody answers; may take for ever.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop listening; connections stay as they are."""
