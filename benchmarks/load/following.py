"""etcd's clients as they behave when members die: an operation that fails is tried at the next member."""

from __future__ import annotations

import asyncio

from benchmarks.load.etcd import EtcdConnection
from benchmarks.load.rhythm import Connection, Recorder
from benchmarks.load.spec import LoadSpec

PATIENCE_S = 0.02
"""Between two tries: as eager as any client would be."""
SILENCE_S = 2.0
"""A connection that owes an answer for so long is given up: the same patience as raftkv's clients have."""


class FollowingEtcdConnection:
    """One client that moves on to another member when its own fails or says nothing."""

    def __init__(self, spec: LoadSpec, address: str, recorder: Recorder, value: bytes) -> None:
        self._spec = spec
        self._recorder = recorder
        self._value = value
        self._at = spec.addresses.index(address)
        self._current: EtcdConnection | None = None
        self._moving: asyncio.Task[None] | None = None
        self._open: dict[int, tuple[bool, bytes]] = {}
        self._heard_at = 0.0
        self._watch: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()

    async def open(self) -> None:
        """Connect to the first member that can be reached."""
        await self._move()
        self._watch = asyncio.ensure_future(self._notice_silence())

    async def close(self) -> None:
        """Disconnect."""
        self._open.clear()
        for task in (self._watch, self._moving):
            if task is not None:
                task.cancel()
        if self._current is not None:
            await self._current.close()

    def submit(self, reads: bool, key: bytes, due_ns: int) -> None:
        """Send an operation; it is sent again until it is answered."""
        if not self._open:
            self._heard_at = self._loop.time()
        self._open[due_ns] = (reads, key)
        if self._current is not None:
            self._current.submit(reads, key, due_ns)

    def answered(self, connection: Connection, due_ns: int) -> None:
        """Done; a second answer to an operation that was sent twice counts no more."""
        self._heard_at = self._loop.time()
        if self._open.pop(due_ns, None) is not None:
            self._recorder.answered(self, due_ns)

    def failed(self, connection: Connection, error: str) -> None:
        """Try the next member."""
        if connection is self._current:
            self._leave()

    def _leave(self) -> None:
        old, self._current = self._current, None
        if old is not None:
            self._moving = asyncio.ensure_future(self._go_on(old))

    async def _go_on(self, old: EtcdConnection) -> None:
        await old.close()
        await asyncio.sleep(PATIENCE_S)
        await self._move()

    async def _move(self) -> None:
        while self._current is None:
            self._at = (self._at + 1) % len(self._spec.addresses)
            found = EtcdConnection(self._spec, self._spec.addresses[self._at], self, self._value)
            try:
                await asyncio.wait_for(found.open(), SILENCE_S)
            except (OSError, TimeoutError):
                await found.close()
                await asyncio.sleep(PATIENCE_S)
            else:
                self._current = found
        self._heard_at = self._loop.time()
        for due_ns, (reads, key) in list(self._open.items()):
            self._current.submit(reads, key, due_ns)

    async def _notice_silence(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            if self._open and self._current is not None and self._loop.time() - self._heard_at > SILENCE_S:
                self._leave()
