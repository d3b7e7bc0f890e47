"""Nodes that only exchange messages, on any network, for contract tests."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from raftkv.config import MIB, Config
from raftkv.errors import HandshakeRefused
from raftkv.model import NodeId
from raftkv.testing.world.loop import SimLoop
from raftkv.transport import Demands, MemoryNetwork, MemoryTransport, PeerSecret, TcpTransport
from raftkv.transport.limits import TransportLimits
from raftkv.transport.memory import pause
from raftkv.transport.mesh import Mesh
from raftkv.wire import PROTOCOL_VERSION, Hello, PeerMessage, Removal

CONFIG = Config(peer_frame_bytes_max=2 * MIB, command_bytes_max=MIB, client_frame_bytes_max=2 * MIB)
LIMITS = TransportLimits.of(CONFIG)
DEADLINE_S = 20.0
"""What no test ever takes; a condition that does not come true fails there."""


STORY_S = 20 * DEADLINE_S
"""What no story takes, whatever it waits for."""


class Talker:
    """A handler that remembers everything, and lets a test wait until it has seen enough."""

    def __init__(self, node_id: NodeId, cluster_id: str = "c") -> None:
        self.node_id = node_id
        self.cluster_id = cluster_id
        self.version = PROTOCOL_VERSION
        self.boot = 1
        self.messages: list[tuple[NodeId, PeerMessage]] = []
        self.connected: list[NodeId] = []
        self.lost: list[tuple[NodeId, str]] = []
        self.removals: list[tuple[NodeId, Removal]] = []
        self.raises: Exception | None = None
        self._changed = asyncio.Event()

    def on_message(self, sender: NodeId, message: PeerMessage) -> None:
        if self.raises is not None:
            raise self.raises
        self.messages.append((sender, message))
        self._changed.set()

    def on_connected(self, peer: NodeId) -> None:
        self.connected.append(peer)
        self._changed.set()

    def on_lost(self, peer: NodeId, reason: str) -> None:
        self.lost.append((peer, reason))
        self._changed.set()

    def on_removed(self, peer, removal) -> None:
        self.removals.append((peer, removal))

    def hello(self) -> Hello:
        return Hello(self.version, self.cluster_id, self.node_id, "i", self.boot, "n", "f", False, 0)

    def check_hello(self, hello: Hello) -> None:
        if hello.cluster_id != self.cluster_id:
            raise HandshakeRefused(f"node {hello.node_id} is of cluster {hello.cluster_id!r}: check its peers")

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until something that this node hears makes `condition` true."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class World(ABC):
    """Starts nodes, and remembers how to stop them."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Mesh] = {}
        self.talkers: dict[NodeId, Talker] = {}
        self._used: list[Mesh] = []

    @abstractmethod
    def transport(self, node_id: NodeId, address: str | None, limits: TransportLimits) -> Mesh:
        """A transport that is not started yet."""

    async def start(
        self, node_id: NodeId, *, address: str | None = None, talker: Talker | None = None, **limits: Any
    ) -> Talker:
        """Start (or, after `stop`, start again) a node."""
        transport = self.transport(node_id, address, msgspec.structs.replace(LIMITS, **limits))
        talker = talker or Talker(node_id)
        self._used.append(transport)
        await transport.start(talker)
        self.nodes[node_id], self.talkers[node_id] = transport, talker
        return talker

    async def stop(self, node_id: NodeId) -> str:
        """Stop a node as its death would; returns the address where it was."""
        transport = self.nodes.pop(node_id)
        await transport.close()
        return transport.address

    def introduce(self, *ids: NodeId) -> None:
        """Let these nodes know each other."""
        addresses = {i: self.nodes[i].address for i in ids}
        for i in ids:
            self.nodes[i].set_peers(addresses)

    async def pair(self) -> tuple[Talker, Talker]:
        """Nodes 1 and 2, connected both ways."""
        one, two = await self.start(1), await self.start(2)
        self.introduce(1, 2)
        await one.until(lambda: one.connected)
        await two.until(lambda: two.connected)
        return one, two

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait until a condition is true of which no handler hears: it is looked at every few ms."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await pause(0.005)

    async def close(self) -> None:
        """Stop what is left."""
        for transport in self._used:
            await transport.close()


class MemoryWorld(World):
    """In memory and in virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MemoryNetwork(delay_s=0.001)

    def transport(self, node_id: NodeId, address: str | None, limits: TransportLimits) -> Mesh:
        draw = random.Random(node_id).randrange
        return MemoryTransport(
            self.network, node_id, address or f"node-{node_id}:1", config=CONFIG, draw=draw, limits=limits
        )


class ProvingWorld(MemoryWorld):
    """The same, where nodes prove to each other that they know a secret."""

    def transport(self, node_id: NodeId, address: str | None, limits: TransportLimits) -> Mesh:
        return MemoryTransport(
            self.network,
            node_id,
            address or f"node-{node_id}:1",
            config=CONFIG,
            draw=random.Random(node_id).randrange,
            limits=limits,
            demands=Demands(PeerSecret([b"what all nodes of tests know"])),
        )


class TcpWorld(World):
    """On this host's loopback, in real time."""

    def transport(self, node_id: NodeId, address: str | None, limits: TransportLimits) -> Mesh:
        host, _, port = (address or "127.0.0.1:0").rpartition(":")
        return TcpTransport(
            node_id, host, int(port), config=CONFIG, draw=random.Random(node_id).randrange, limits=limits
        )


class UvloopWorld(TcpWorld):
    """The same, on the event loop that nodes use."""


WORLDS = [MemoryWorld, ProvingWorld, TcpWorld, UvloopWorld]


def tell(story: Callable[[Any], Awaitable[None]], world: type[World]) -> None:
    """Run a story in a new world; nothing may fail behind its back."""
    failures: list[dict[str, Any]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: failures.append(context))
        made = world()
        try:
            async with asyncio.timeout(STORY_S):  # in virtual time it is never that long
                await story(made)
        finally:
            await made.close()

    if issubclass(world, MemoryWorld):
        SimLoop().run(main())
    else:
        factory = pytest.importorskip("uvloop").new_event_loop if issubclass(world, UvloopWorld) else None
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())
    assert failures == []
