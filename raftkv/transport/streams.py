"""The interface of what carries bytes between nodes: sockets, or pipes in memory."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from raftkv.transport.reasons import error_text

ProtocolFactory: TypeAlias = Callable[[], asyncio.Protocol]

Refused: TypeAlias = Callable[[str, str, str], None]
"""Hears of a connection that was never established: the kind of trouble, the reason, and where it was dialled from."""

PlaceFactory: TypeAlias = Callable[[str], asyncio.Protocol]
"""Makes the protocol of a connection to a place."""


class Shut(asyncio.Protocol):
    """Turns connections away from a node that has taken its address but has not started, as if nobody listened."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close at once."""
        cast(asyncio.Transport, transport).abort()  # uvloop's has the methods, but not the base class


class Streams(ABC):
    """Makes connections, both ways; asyncio protocols handle what is said on them."""

    @abstractmethod
    async def listen(self, factory: ProtocolFactory, refused: Refused) -> str:
        """Give every incoming connection a protocol of `factory`; returns the address. Raises `ConfigError`.

        `refused` hears of connections whose handshake below the protocol (TLS) has failed.
        """

    @abstractmethod
    def look_up(self, address: str) -> Sequence[str] | asyncio.Future[tuple[str, ...]]:
        """The places that "host:port" stands for now: at once if that needs no lookup, else in a future.

        Raises `NameUnknown`, as the future does; it may take for ever, and holds up no other lookup.
        """

    @abstractmethod
    async def dial(self, factory: PlaceFactory, address: str, places: Sequence[str]) -> None:
        """Connect to one of the places of `address`; returns once the protocol's `connection_made` was called.

        Raises `OSError` when nothing answers at any of them; may take for ever.
        """

    def explain(self, exc: BaseException) -> str:
        """What ended a connection, in words for an operator."""
        return error_text(exc)

    def after_fork(self) -> None:  # noqa: B027 (streams within one process have nothing to let go of)
        """In a child: the address is the parent's."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening; connections stay as they are."""
