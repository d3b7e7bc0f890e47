"""A network in memory and in virtual time: connections that behave like TCP's, with nothing to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class Pipe(asyncio.Transport):
    """One end of a connection. What is written arrives in the next turn of the loop, unless the other end is paused."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.protocol = protocol
        self.peer: Pipe
        self._buffer = bytearray()
        self._high = 64 * 1024
        self._reading = True
        self._writable = True
        self._closing = False
        self._lost = False

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self._buffer += data
        self._loop.call_soon(self._deliver)
        self._check_high()

    def _deliver(self) -> None:
        if self._buffer and self.peer._reading and not self.peer._lost and not self._lost:
            data = bytes(self._buffer)
            self._buffer.clear()
            self.peer.protocol.data_received(data)
        self._check_high()
        if self._closing and not self._buffer and not self._lost:
            self._lose()

    def _check_high(self) -> None:
        if self._lost:
            return
        full = len(self._buffer) > self._high
        if full == self._writable:
            self._writable = not full
            if full:
                self.protocol.pause_writing()
            else:
                self.protocol.resume_writing()

    def get_write_buffer_size(self) -> int:
        return len(self._buffer)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high = high

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._loop.call_soon(self.peer._deliver)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True
        self._loop.call_soon(self._deliver)

    def abort(self) -> None:
        self._closing = True
        self._buffer.clear()
        self._loop.call_soon(self._lose)

    def _lose(self) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self.protocol.connection_lost(None)
        self.peer.break_off(None)

    def break_off(self, error: Exception | None) -> None:
        """The network breaks this end."""
        if not self._lost:
            self._lost = self._closing = True
            self._loop.call_soon(self.protocol.connection_lost, error)


class Network:
    """Who listens where. Dialling nobody is refused; dialling a silent address never ends."""

    def __init__(self) -> None:
        self.listeners: dict[str, Callable[[], asyncio.Protocol]] = {}
        self.silent: set[str] = set()
        self.dialled: list[str] = []

    async def dial(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> Pipe:
        address = f"{host}:{port}"
        self.dialled.append(address)
        if address in self.silent:
            await asyncio.get_running_loop().create_future()
        if address not in self.listeners:
            raise ConnectionRefusedError(f"nobody listens at {address}")
        here, there = Pipe(factory()), Pipe(self.listeners[address]())
        here.peer, there.peer = there, here
        there.protocol.connection_made(there)
        here.protocol.connection_made(here)
        return here
