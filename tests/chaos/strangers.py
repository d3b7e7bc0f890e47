"""Faults by those who connect to nodes: nonsense at every port, slow strangers, crowds that vanish."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Sequence

from raftkv.model import NodeId
from raftkv.processes.cluster import NodeProcess
from raftkv.transport.tcp import split_address
from raftkv.wire import encode_frame
from tests.chaos.fault import RealFault
from tests.chaos.generators import Crowd, storm
from tests.chaos.malformed import ClientTalk
from tests.chaos.probe import events, usage
from tests.chaos.stage import ChaosStage
from tests.chaos.storm import StormHeard

MIB = 1024 * 1024

GROWTH_MAX = 128 * MIB
"""By so much a node may grow while strangers talk to it and clients write: caches of the log and of tables fill."""

CROWD_S = 60.0
"""For a crowd to be connected."""

REFUSALS = ("client_refused", "stranger_refused", "http_refused", "peer_refused")

LINES_MAX = 500
"""Refusals in a node's log that one fault may cause; each kind is said a few times every ten seconds."""


class StrangerFault(RealFault):
    """Somebody outside does something wrong, and no node may die of it, grow by it, or fill its log with it."""

    def __init__(self) -> None:
        self._before: dict[NodeId, tuple[int, int]] = {}

    def watch(self, stage: ChaosStage) -> None:
        """Remember how nodes are before it begins."""
        self._before = {node.node_id: (usage(node).rss_bytes, _refusals(node)) for node in _running(stage)}

    def judge(self, stage: ChaosStage) -> None:
        """Raises `AssertionError` for a node that is not as it was."""
        for node_id, (rss_bytes, refusals) in self._before.items():
            node = stage.cluster.nodes[node_id]
            assert node.is_running, f"{self.kind}: node {node_id} has ended"
            grown = usage(node).rss_bytes - rss_bytes
            assert grown < GROWTH_MAX, f"{self.kind}: node {node_id} has grown by {grown // MIB} MiB"
            lines = _refusals(node) - refusals
            assert lines < LINES_MAX, f"{self.kind}: node {node_id} wrote {lines} lines about refusals"


def _running(stage: ChaosStage) -> list[NodeProcess]:
    return [node for node in stage.cluster.nodes.values() if node.is_running]


def _refusals(node: NodeProcess) -> int:
    said = events(node)
    return sum(said[event] for event in REFUSALS)


def http_address(node: NodeProcess) -> str | None:
    """Where the node serves HTTP, if it was told to."""
    arguments = node.arguments
    return arguments[arguments.index("--http") + 1] if "--http" in arguments else None


class Malformed(StrangerFault):
    """So many malformed frames of all kinds at all ports of all nodes; each counts that a node has reacted to."""

    kind = "malformed frames"
    rows = "fuzz"

    def __init__(self, dice: random.Random, frames: int = 20_000, *, seconds: float = 60.0) -> None:
        super().__init__()
        self._seed = dice.randrange(2**32)
        self._frames = frames
        self._seconds = seconds
        self._storm: asyncio.Task[StormHeard] | None = None
        self.told: StormHeard | None = None
        """What came of it, when it is over."""

    async def inject(self, stage: ChaosStage) -> None:
        self.watch(stage)
        nodes = _running(stage)
        https = [address for node in nodes if (address := http_address(node)) is not None]
        self._storm = asyncio.ensure_future(
            storm(nodes, https, seed=self._seed, frames=self._frames, seconds=self._seconds)
        )

    async def heal(self, stage: ChaosStage) -> None:
        """Waits for the last of them. Raises `AssertionError` for what no node has reacted to."""
        assert self._storm is not None, "it has not begun"
        told = self.told = await self._storm
        assert not told.ignored, f"nodes did not react to {told.ignored}"
        assert not told.refused, f"nodes did not take {told.refused} connections"
        self.judge(stage)
        stage.met(self.kind, sum(told.heard.values()))

    def describe(self) -> str:
        return f"{self.kind}: {self._frames}, seed {self._seed}"


class SlowStrangers(StrangerFault):
    """Many at each port who say nothing, or the beginning of something, and hang up on one side or not at all."""

    kind = "slow strangers"
    rows = "slow loris, half-open, port scan"

    def __init__(self, dice: random.Random, each: int = 100) -> None:
        super().__init__()
        self._each = each
        self._dice = dice
        self._held: list[socket.socket] = []

    async def inject(self, stage: ChaosStage) -> None:
        self.watch(stage)
        greeting = ClientTalk().greeting()
        beginnings = [b"", b"\x10", b"GET / HT", greeting, greeting + encode_frame(bytes(99))[:40]]
        for node in _running(stage):
            http = http_address(node)
            for address in [node.own.client_address, node.own.peer_address, *([http] if http is not None else [])]:
                for _ in range(self._each):
                    await self._come(address, self._dice.choice(beginnings))

    async def _come(self, address: str, beginning: bytes) -> None:
        one = socket.socket()
        one.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(one, split_address(address))
        try:
            await loop.sock_sendall(one, beginning)
            match self._dice.randrange(4):
                case 0:
                    one.close()  # a port scan
                    return
                case 1:
                    one.shutdown(socket.SHUT_WR)
        except OSError:  # it was one too many, and closed at once
            pass
        self._held.append(one)

    async def heal(self, stage: ChaosStage) -> None:
        held, self._held = self._held, []
        for one in held:
            one.close()
        self.judge(stage)
        stage.met(self.kind, len(held))

    def describe(self) -> str:
        return f"{self.kind}: {self._each} at each port"


class VanishingCrowd(StrangerFault):
    """Many clients, with requests outstanding when SIGKILL ends all of them at once."""

    kind = "a crowd that vanishes"
    rows = "F34"

    def __init__(self, dice: random.Random, connections: int | None = None) -> None:
        super().__init__()
        self._connections = connections if connections is not None else dice.choice((200, 500, 1_000, 2_000))
        self._outstanding = dice.choice((1, 2, 5))
        self._crowd: Crowd | None = None

    async def inject(self, stage: ChaosStage) -> None:
        self.watch(stage)
        self._crowd = await Crowd.start(
            addresses(_running(stage)), connections=self._connections, outstanding=self._outstanding, rest_s=1.0
        )
        await asyncio.wait_for(self._crowd.standing(), CROWD_S)

    async def heal(self, stage: ChaosStage) -> None:
        assert self._crowd is not None, "it has not begun"
        standing = await self._crowd.standing()
        await self._crowd.vanish()
        self.judge(stage)
        if sum(standing.answers.values()) > self._connections // 2:
            stage.met(self.kind)

    def describe(self) -> str:
        return f"{self.kind}: {self._connections} connections with {self._outstanding} requests each"


def addresses(nodes: Sequence[NodeProcess]) -> list[str]:
    """Where clients reach these nodes past any proxy."""
    return [node.own.client_address for node in nodes]
