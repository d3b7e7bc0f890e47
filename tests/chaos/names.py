"""Members that are addressed by names whose lookup takes long, fails, or gives another node's address."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from raftkv.errors import RaftKVError
from raftkv.node.status import PeerStatus
from raftkv.processes.cluster import NodeProcess
from tests.chaos import host
from tests.chaos.fault import RealFault
from tests.chaos.host import LookupAnswer
from tests.chaos.stage import DEADLINE_S, ChaosStage

ANSWERS = {
    "slow": LookupAnswer(after_s=3.0),
    "never": LookupAnswer(address=None, after_s=60.0),
    "unknown": LookupAnswer(address=None),
    "elsewhere": LookupAnswer(address="127.0.0.9"),
}
"""Results of looking a name up: the answer takes longer than a dial may, or doesn't come in time, and so on."""

REACHED = ("slow",)
"""With these results the member is reached nevertheless."""


class NamesLost(RealFault):
    """A member is addressed by a name whose lookups change, while another node restarts and has to look it up.

    That node answers requests and can be stopped all the while. It says why it does not reach the member, unless the
    member has reached it, as a link serves both. When the name is right they are connected.
    """

    kind = "a member's name that is slow, unknown or wrong"
    rows = "F81"

    def __init__(self, dice: random.Random, states: list[str] | None = None) -> None:
        self._dice = dice
        self._states = states if states is not None else dice.sample(sorted(ANSWERS), k=2)
        self._named: NodeProcess | None = None
        self._path = Path()
        self._name = ""

    async def inject(self, stage: ChaosStage) -> None:
        named, other = self._dice.sample([*stage.cluster.nodes.values()], k=2)
        self._named, self._path = named, stage.directory / "names.json"
        self._name = f"n{named.node_id}.raftkv.test"
        self._say(LookupAnswer())
        for node in list(stage.cluster.nodes.values()):
            node.module = host.MODULE
            node.environment[host.NAMES] = str(self._path)
            await stage.leader()
            await stage.restart(node)
        port = named.member.peer_address.rpartition(":")[2]
        await self._update(stage, f"{self._name}:{port}")
        for state in self._states:
            await self._look_up(stage, other, state)

    async def _look_up(self, stage: ChaosStage, node: NodeProcess, state: str) -> None:
        """Start a node while the name is in that state, and then make it right."""
        answer = ANSWERS[state]
        stage.note(f"node {node.node_id} has to look up {self._name}, which is {state}")
        await stage.leader()
        self._say(answer)
        await stage.restart(node)
        assert node.process is not None
        line = host.line_of(node.process.pid, self._name, answer)

        async def is_met() -> bool | None:
            if line not in host.log_of(self._path).read_text():
                return None
            peer = await self._peer(stage, node)
            return (
                peer is not None and (peer.connected or (peer.unreached is not None and state not in REACHED))
            ) or None

        await stage.until(is_met, f"node {node.node_id} with a name that is {state}")
        if (peer := await self._peer(stage, node)) is not None and peer.unreached is not None:
            stage.note(f"node {node.node_id}: {peer.unreached}")
        stage.met(self.kind)
        stage.met(f"name {state}")
        self._say(LookupAnswer())
        if answer.after_s > DEADLINE_S / 2:
            await stage.restart(node)  # it still waits for the lookup, and ends in time
        await stage.until(lambda: self._is_reached(stage, node), f"node {node.node_id} with a name that is right")

    def _say(self, answer: LookupAnswer) -> None:
        host.say(self._path, {self._name: answer})

    async def _peer(self, stage: ChaosStage, node: NodeProcess) -> PeerStatus | None:
        assert self._named is not None
        status = await stage.status(node.node_id)
        peers = status.peers if status is not None else []
        return next((peer for peer in peers if peer.node_id == self._named.node_id), None)

    async def _is_reached(self, stage: ChaosStage, node: NodeProcess) -> bool | None:
        peer = await self._peer(stage, node)
        return (peer is not None and peer.connected) or None

    async def _update(self, stage: ChaosStage, peer_address: str) -> None:
        assert self._named is not None
        member = msgspec.structs.replace(self._named.member, peer_address=peer_address)

        async def ask() -> bool | None:
            try:
                async with stage.admin() as admin:
                    await admin.update_member(member, 10.0)
            except RaftKVError as exc:
                stage.note(f"{peer_address} is not taken yet: {exc}")
                return None
            return True

        await stage.until(ask, f"node {member.node_id} at {peer_address}")

    async def heal(self, stage: ChaosStage) -> None:
        """Address the member by its number again; nodes with changed names get the right ones when restarted."""
        if self._named is None:
            return
        self._say(LookupAnswer())
        stage.cluster.start_all()
        await self._update(stage, self._named.member.peer_address)
        for node in stage.cluster.nodes.values():
            node.module = "raftkv"
            node.environment.pop(host.NAMES, None)

    def describe(self) -> str:
        return f"{self.kind}: {', '.join(self._states)}"
