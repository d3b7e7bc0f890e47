"""What carries bytes between nodes: sockets, or pipes in memory."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

ProtocolFactory: TypeAlias = Callable[[], asyncio.Protocol]


class Streams(ABC):
    """Makes connections, both ways. Everything said on them is the business of asyncio protocols."""

    @abstractmethod
    async def listen(self, factory: ProtocolFactory) -> str:
        """Give every incoming connection a protocol of `factory`; returns the address. Raises `ConfigError`."""

    @abstractmethod
    async def dial(self, factory: ProtocolFactory, address: str) -> None:
        """Connect to "host:port"; returns when the protocol knows. Raises `OSError`; may take for ever."""

    @abstractmethod
    def close(self) -> None:
        """Stop listening; connections stay as they are."""
