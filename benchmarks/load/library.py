"""Load through the client library, as an application has it: the leader is found, lost answers are asked for again."""

from __future__ import annotations

import asyncio

from benchmarks.load.rhythm import Recorder
from benchmarks.load.spec import LoadSpec, Read
from benchmarks.machines import CALLS
from raftkv.client import Client
from raftkv.errors import RaftKVError

DEADLINE_S = 15.0


class LibraryConnection:
    """One client with a session of its own; each operation is a task."""

    def __init__(self, spec: LoadSpec, address: str, recorder: Recorder, value: bytes) -> None:
        self._recorder = recorder
        self._value = value
        self._calls = CALLS[spec.machine]
        self._stale = spec.read is Read.STALE
        self._client = Client(self._calls.machine, spec.addresses, sessions=spec.sessions, deadline_s=DEADLINE_S)
        self._command = self._client.method(self._calls.command)
        self._query = self._client.method(self._calls.query)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """One write, which finds the leader and opens the session."""
        await self._write(b"opened")

    async def close(self) -> None:
        """Drop what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._client.close()

    def submit(self, reads: bool, key: bytes, due_ns: int) -> None:
        """Begin an operation."""
        task = asyncio.ensure_future(self._operate(reads, key, due_ns))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _operate(self, reads: bool, key: bytes, due_ns: int) -> None:
        try:
            await (self._read(key) if reads else self._write(key))
        except RaftKVError as exc:
            self._recorder.failed(self, type(exc).__name__)
        else:
            self._recorder.answered(self, due_ns)

    async def _write(self, key: bytes) -> None:
        await self._client.invoke(self._command, self._calls.arguments(key, self._value), {}, DEADLINE_S)

    async def _read(self, key: bytes) -> None:
        invoke = self._client.invoke_stale if self._stale else self._client.invoke
        await invoke(self._query, self._calls.key(key), {}, DEADLINE_S)
