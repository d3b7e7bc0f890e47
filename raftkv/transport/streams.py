"""What carries bytes between nodes: sockets, or pipes in memory."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from raftkv.transport.reasons import error_text

ProtocolFactory: TypeAlias = Callable[[], asyncio.Protocol]

Refused: TypeAlias = Callable[[str, str, str], None]
"""Hears of a connection that never came to be: what kind of trouble, why, and from where it was dialled."""

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
    async def listen(self, factory: ProtocolFactory, refused: Refused) -> str:
        """Give every incoming connection a protocol of `factory`; returns the address. Raises `ConfigError`.

        `refused` hears of those that did not get through a handshake below the protocol.
        """

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

    def explain(self, exc: BaseException) -> str:
        """What ended a connection, in words for an operator."""
        return error_text(exc)

    def after_fork(self) -> None:  # noqa: B027 (streams within one process have nothing to let go of)
        """In a child: the address is the parent's."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening; connections stay as they are."""
