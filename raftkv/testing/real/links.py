"""A proxy between real nodes, and between them and their clients: what is cut hears nothing, and sees no end.

A connection that was cut is dead for good: what was said on it meanwhile is lost. When the way is whole again it is
reset, and whoever needs it connects anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from raftkv.errors import FrameError
from raftkv.model import NodeId
from raftkv.wire import FRAME_HEAD_BYTES, Hello, HelloReply, decode_message, encode_message

T = TypeVar("T")

CLIENTS = 0
"""Stands for every client where there is a node's id; nodes count from 1."""

CHUNK_BYTES = 64 * 1024
HELLO_BYTES_MAX = 16 * 1024 * 1024
"""More than any node takes for a hello."""

Address = tuple[str, int]


class Door(msgspec.Struct, frozen=True):
    """An address at which others expect a node, and the node's real address."""

    target: NodeId
    front: Address
    behind: Address
    is_for_nodes: bool


class BackgroundLoop:
    """An event loop with a thread of its own, so that nothing in it waits for the test."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something in it, and wait for the end."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        """End what goes on in it."""
        self.run(_cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


class _Connection:
    """A connection through the proxy."""

    def __init__(self, target: NodeId, writer: asyncio.StreamWriter) -> None:
        self.ends = frozenset({CLIENTS, target})
        self.writers = [writer]
        self.is_dead = False

    def abort(self) -> None:
        """Reset both ends."""
        for writer in self.writers:
            writer.transport.abort()


class Links:
    """Listens at the doors of nodes, in the loop that it is given."""

    def __init__(self, doors: Sequence[Door], background: BackgroundLoop) -> None:
        self._doors = doors
        self._background = background
        self._told = {door.target: "{}:{}".format(*door.front) for door in doors if door.is_for_nodes}
        self._cut: set[frozenset[NodeId]] = set()
        self._connections: dict[_Connection, None] = {}
        self._servers: list[asyncio.Server] = []
        background.run(self._listen())

    async def _listen(self) -> None:
        for door in self._doors:

            async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, door: Door = door) -> None:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, FrameError):
                    await self._relay(door, reader, writer)

            self._servers.append(await asyncio.start_server(accept, *door.front))

    def close(self) -> None:
        """Listen no more, and reset what is open."""

        async def close() -> None:
            for server in self._servers:
                server.close()
            for connection in list(self._connections):
                connection.abort()

        self._background.run(close())

    def cut(self, ways: Iterable[frozenset[NodeId]]) -> None:
        """Let nothing through between these."""
        found = set(ways)

        async def cut() -> None:
            self._cut |= found
            for connection in self._connections:
                connection.is_dead = connection.is_dead or connection.ends in self._cut

        self._background.run(cut())

    def heal(self) -> None:
        """Let everything through, on connections that are made from now on."""

        async def heal() -> None:
            self._cut.clear()
            for connection in list(self._connections):
                if connection.is_dead:
                    connection.abort()

        self._background.run(heal())

    async def _relay(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(door.target, writer)
        self._connections[connection] = None
        try:
            hello = await self._hello(reader) if door.is_for_nodes else b""
            if hello:
                connection.ends = frozenset({_sender(hello), door.target})
            connection.is_dead = connection.ends in self._cut
            if connection.is_dead:
                while await reader.read(CHUNK_BYTES):
                    pass
                return
            behind, back = await asyncio.open_connection(*door.behind)
            connection.writers.append(back)
            back.write(hello)
            await asyncio.gather(
                self._pump(connection, reader, back), self._pump(connection, behind, writer, door.is_for_nodes)
            )
        finally:
            del self._connections[connection]
            connection.abort()

    async def _pump(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        begins_with_hello: bool = False,
    ) -> None:
        """Hand on what comes, until the end; from a dead connection nothing, and no end either."""
        data = await self._hello(reader) if begins_with_hello else await reader.read(CHUNK_BYTES)
        while data:
            if not connection.is_dead:
                writer.write(data)
                await writer.drain()
            data = await reader.read(CHUNK_BYTES)
        if not connection.is_dead:
            writer.write_eof()

    async def _hello(self, reader: asyncio.StreamReader) -> bytes:
        """The first frame of a node, with the address where others are to find it: else they would dial past here."""
        head = await reader.readexactly(FRAME_HEAD_BYTES)
        length = int.from_bytes(head[:4], "little")
        if length > HELLO_BYTES_MAX:
            raise FrameError(f"a hello of {length} bytes")
        payload = await reader.readexactly(length)
        match message := decode_message(payload):
            case Hello():
                return encode_message(self._at_door(message))
            case HelloReply(hello=Hello() as hello):
                return encode_message(msgspec.structs.replace(message, hello=self._at_door(hello)))
            case _:
                return head + payload

    def _at_door(self, hello: Hello) -> Hello:
        told = self._told.get(hello.node_id)
        return hello if told is None else msgspec.structs.replace(hello, address=told)


def _sender(hello: bytes) -> NodeId:
    message = decode_message(hello[FRAME_HEAD_BYTES:])
    return message.node_id if isinstance(message, Hello) else CLIENTS
