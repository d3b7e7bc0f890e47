"""A peer that says exactly what it is told to, right or wrong."""

from __future__ import annotations

import asyncio

from raftkv.model import NodeId
from raftkv.wire import FrameDecoder, Hello, PeerMessage, Ping, decode_message, encode_message
from tests.transport.worlds import DEADLINE_S, Talker


class Raw(asyncio.Protocol):
    """Keeps what comes, says what it is told to; `gone` is set when the connection is."""

    def __init__(self) -> None:
        self.messages: list[PeerMessage] = []
        self.gone = asyncio.Event()
        self.arrived = asyncio.Event()
        self.sips = False
        """Whether it stops reading after every piece."""
        self.transport: asyncio.Transport
        self._decoder = FrameDecoder(1 << 24)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.sips:
            self.transport.pause_reading()
        self.messages += map(decode_message, self._decoder.feed(data))
        self.arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()

    def say(self, *messages: PeerMessage) -> None:
        """Send messages as a node would."""
        self.transport.write(b"".join(map(encode_message, messages)))

    async def heard(self, count: int) -> None:
        """Wait until this many messages have come."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.messages) < count:
                self.arrived.clear()
                await self.arrived.wait()

    async def closed(self) -> None:
        """Wait until the other side has closed."""
        async with asyncio.timeout(DEADLINE_S):
            await self.gone.wait()


async def connect(address: str) -> Raw:
    """A connection to a node, on which nothing was said yet."""
    host, _, port = address.rpartition(":")
    raw = Raw()
    await asyncio.get_running_loop().create_connection(lambda: raw, host, int(port))
    return raw


async def join(address: str, node_id: NodeId) -> Raw:
    """A connection to a node, as the peer `node_id`."""
    raw = await connect(address)
    raw.say(hello(node_id))
    await raw.heard(1)
    raw.say(Ping(0))
    await raw.heard(2)
    return raw


def hello(node_id: NodeId) -> Hello:
    """What a node of the right cluster says."""
    return Talker(node_id).hello()


class Listening:
    """An address where every connection gets a `Raw`."""

    def __init__(self) -> None:
        self.accepted: list[Raw] = []
        self._more = asyncio.Event()
        self._server: asyncio.Server

    async def start(self) -> str:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    def _accept(self) -> Raw:
        self.accepted.append(Raw())
        self._more.set()
        return self.accepted[-1]

    async def next(self) -> Raw:
        """The next connection, once it has said something."""
        async with asyncio.timeout(DEADLINE_S):
            while not self.accepted:
                self._more.clear()
                await self._more.wait()
        raw = self.accepted.pop(0)
        await raw.heard(1)
        return raw

    def close(self) -> None:
        self._server.close()
        for raw in self.accepted:
            raw.transport.abort()
