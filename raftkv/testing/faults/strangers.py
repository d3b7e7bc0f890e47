"""Processes that dial a cluster and must be refused: of another cluster or version, or on a copy of a directory."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from raftkv.disk.simulated import SimDisk
from raftkv.errors import DataDirLocked, RaftKVError
from raftkv.model import Member, NodeId
from raftkv.node.directory import close_directory, open_directory
from raftkv.testing.world.cluster import SimCluster, SimNode
from raftkv.transport import MemoryTransport
from raftkv.wire import PROTOCOL_VERSION, Hello, PeerMessage, Removal

if TYPE_CHECKING:
    from raftkv.node import Node

KNOCKS_S = 3.0
"""How long a stranger tries, in virtual seconds; it tries again whenever a node would."""

OTHER_CLUSTER, OTHER_VERSION, SECOND_PROCESS = "node of another cluster", "node of another version", "copied directory"
SAME_DIRECTORY = "directory in use"

STRANGERS = (OTHER_CLUSTER, OTHER_VERSION)

REFUSALS = {
    OTHER_CLUSTER: ("belongs to the cluster",),
    OTHER_VERSION: ("of the protocol",),
    SECOND_PROCESS: ("two processes run as", "older copy of its data directory"),
}
"""By kind of stranger: what of the text that it hears shows that it was refused for the right reason."""


class Strangers:
    """Sends strangers to a cluster, one after the other. Each has its own address in the network."""

    def __init__(self, cluster: SimCluster, dice: random.Random, spawn: Callable[..., None]) -> None:
        self._dice = dice
        self._cluster = cluster
        self._spawn = spawn
        self._places = itertools.count(1)
        self.kinds: dict[str, Callable[[], Awaitable[bool]]] = {
            **{kind: self._knocking(kind) for kind in STRANGERS},
            SAME_DIRECTORY: self._start_twice,
        }

    def _knocking(self, kind: str) -> Callable[[], Awaitable[bool]]:
        async def knock() -> bool:
            self._spawn(self._knock(kind), changes=False)
            return True

        return knock

    async def _knock(self, kind: str) -> None:
        """A process with a hello that belongs to another cluster, or speaks another version, dials every node."""
        nodes = {node.node_id: node for node in self._cluster.running}
        hosts = {node_id: node for node_id, node in nodes.items() if node.cluster_id}
        if not hosts:
            return
        model = self._dice.choice(list(hosts.values()))
        name = self._dice.choice([*hosts, max(self._cluster.nodes) + 100])
        changed = {"cluster_id": "another"} if kind == OTHER_CLUSTER else {"version": PROTOCOL_VERSION + 1}
        hello = msgspec.structs.replace(
            model.links.hello(), node_id=name, incarnation="strange", nonce="strange", known={}, **changed
        )
        place = -next(self._places)
        stranger = _Stranger(self._cluster, hello, kind)
        address = f"stranger{place}:1"
        transport = MemoryTransport(
            self._cluster.network, name, address, config=self._cluster.config, draw=self._dice.randrange, place=place
        )
        await transport.start(stranger)
        try:
            transport.set_peers({host: self._cluster.nodes[host].member.peer_address for host in hosts if host != name})
            await self._until_refused(kind, lambda: [link.refused for link in transport.links().values()])
        finally:
            transport.abort()
            self._cluster.network.drop(place)

    async def _start_twice(self) -> bool:
        """A second process starts in the directory of a node that runs. Only the lock keeps them apart, so it has to be
        taken before anything is changed."""
        used = [node for node in self._cluster.running if not node.is_closing]
        if not used:
            return False
        node = self._dice.choice(used)
        disk = self._cluster.nodes[node.node_id].disk
        before, fault, disk.fault = disk.image(), disk.fault, None
        try:
            close_directory(open_directory(node.body.options, node.body.world))
        except DataDirLocked:
            if disk.image() != before:
                self._cluster.wrongs.append(f"a {SAME_DIRECTORY} was refused, but changed")
        else:
            self._cluster.wrongs.append(f"a second process was let into the directory of node {node.node_id}")
        finally:
            disk.fault = fault
        return True

    async def run_copy(self, original: SimNode, disk: SimDisk) -> None:
        """Run a second process of a node for a while, on a copy of its disk that all others know to be old."""
        cluster, place = self._cluster, -next(self._places)
        member = Member(original.node_id, f"copy{place}-peer:1", f"copy{place}:1")
        second = SimNode(cluster, member, place)
        second.disk, second.machine = disk, original.machine
        cluster.copies.append(second)
        try:
            node = await second.start()
            await self._until_refused(SECOND_PROCESS, lambda: _refusals(node))
        except RaftKVError:
            pass  # it found out by itself, or could not start
        finally:
            second.crash()
            cluster.copies.remove(second)

    async def _until_refused(self, kind: str, heard: Callable[[], list[str | None]]) -> None:
        end = self._cluster.loop.time() + KNOCKS_S
        while self._cluster.loop.time() < end:
            texts = [text for text in heard() if text]
            if any(said in text for text in texts for said in REFUSALS[kind]):
                self._cluster.fired[kind] += 1
                return
            await asyncio.sleep(0.05)


def _refusals(node: Node) -> list[str | None]:
    return [link.refused for link in node.transport.links().values()]


class _Stranger:
    """A `TransportHandler` that lets every node in. A node that lets this one in has been deceived."""

    def __init__(self, cluster: SimCluster, hello: Hello, kind: str) -> None:
        self._cluster = cluster
        self._hello = hello
        self._kind = kind

    def hello(self) -> Hello:
        return self._hello

    def check_hello(self, hello: Hello) -> None:
        """Accepts every hello."""

    def on_connected(self, peer: NodeId) -> None:
        if self._cluster.nodes[peer].harm is None:
            self._cluster.wrongs.append(f"node {peer} took a {self._kind} for a peer")

    def on_message(self, sender: NodeId, message: PeerMessage) -> None:
        self._cluster.wrongs.append(f"node {sender} sent a {type(message).__name__} to a {self._kind}")

    def on_lost(self, peer: NodeId, reason: str) -> None:
        """Ignores lost connections."""

    def on_removed(self, peer: NodeId, removal: Removal) -> None:
        """Ignores removals: it was never a member."""
