"""Connects a client of the same program to its node without a socket; to all other nodes as any client."""

from __future__ import annotations

import asyncio
import ssl as tls
from collections import deque
from collections.abc import Callable
from typing import Any

from raftkv.addresses import join
from raftkv.config import KIB

WRITE_BUFFER_BYTES = 64 * KIB
"""Bytes that wait at one end before its protocol is told, unless it sets a limit; the same as in asyncio."""


class Pipe(asyncio.Transport):
    """One end of a connection within a process: what is written arrives in the next turn of the loop, as it is.

    Invariants: `connection_lost` is called once, and nothing afterwards; what was written before `close` arrives.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._protocol = protocol
        self._other: Pipe | None = None
        """None when the connection is gone."""
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._high = WRITE_BUFFER_BYTES
        self._is_read = True
        self._is_full = False
        self._closing = False
        self._due = False

    @classmethod
    def between(cls, one: asyncio.Protocol, two: asyncio.Protocol) -> None:
        """Connect two protocols; `one` is told last, as it is who dials."""
        here, there = cls(one), cls(two)
        here._other, there._other = there, here
        two.connection_made(there)
        if here._other is not None:
            one.connection_made(here)

    def write(self, data: Any) -> None:
        """Hand `data` over in the next turn of the loop."""
        if self._closing or not data:
            return
        self._pieces.append(bytes(data))
        self._size += len(data)
        if not self._is_full and self._size > self._high:
            self._is_full = True
            self._protocol.pause_writing()
        self._hand_over_soon()

    def _hand_over_soon(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._due = False
        while self._pieces and self._other is not None and self._other._is_read:
            piece = self._pieces.popleft()
            self._size -= len(piece)
            self._other._protocol.data_received(piece)
        if self._is_full and self._size <= self._high and self._other is not None:
            self._is_full = False
            self._protocol.resume_writing()
        if self._closing and not self._pieces:
            self._break()

    def _break(self) -> None:
        other, self._other = self._other, None
        if other is None:
            return
        self._closing = True
        self._pieces.clear()
        self._size = 0
        other._end()
        self._protocol.connection_lost(None)

    def _end(self) -> None:
        """The other end is gone."""
        if self._other is not None:
            self._other, self._closing = None, True
            self._pieces.clear()
            self._size = 0
            self._loop.call_soon(self._protocol.connection_lost, None)

    def close(self) -> None:
        """Hand over what was written, then end."""
        self._closing = True
        self._hand_over_soon()

    def abort(self) -> None:
        """End, without handing over what was written."""
        self._closing = True
        self._pieces.clear()
        self._size = 0
        self._hand_over_soon()

    def is_closing(self) -> bool:
        """Whether it takes no more."""
        return self._closing

    def pause_reading(self) -> None:
        """Let what arrives wait at the other end."""
        self._is_read = False

    def resume_reading(self) -> None:
        """Take what waits."""
        self._is_read = True
        if self._other is not None:
            self._other._hand_over_soon()

    def is_reading(self) -> bool:
        """Whether it takes what arrives."""
        return self._is_read

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much may wait before the protocol is told."""
        self._high = WRITE_BUFFER_BYTES if high is None else high

    def get_write_buffer_size(self) -> int:
        """How much waits."""
        return self._size


class NearDial:
    """Connects to the node of this program through memory, to all other addresses by sockets."""

    def __init__(
        self,
        accept: Callable[[], asyncio.Protocol | None],
        is_own: Callable[[str], bool],
        ssl: tls.SSLContext | None,
    ) -> None:
        """`accept` makes the protocol at the node's end; None when the node can't be reached like this any more."""
        self._accept = accept
        self._is_own = is_own
        self._ssl = ssl

    async def __call__(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> None:
        """Connect. Raises `OSError`."""
        accepted = self._accept() if self._is_own(join(host, port)) else None
        if accepted is not None:
            Pipe.between(factory(), accepted)
            return
        loop = asyncio.get_running_loop()
        name = host if self._ssl is not None else None
        await loop.create_connection(factory, host, port, ssl=self._ssl, server_hostname=name)
