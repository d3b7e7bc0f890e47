"""Nodes killed at failpoints: between two steps of a change of files, of an election, of a snapshot's way."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
from collections.abc import Sequence

from raftkv import failpoints
from raftkv.client import Admin, Client
from raftkv.errors import RaftKVError
from raftkv.kv import KeyValue
from raftkv.model import Member
from raftkv.processes.cluster import NodeProcess
from raftkv.processes.stage import POLL_S
from tests.chaos.damage import take_snapshot
from tests.chaos.fault import RealFault
from tests.chaos.power import cut, leave_behind, move_to, restore, until_answers
from tests.chaos.slowness import slowness
from tests.chaos.stage import ChaosStage

FRESH = ("cluster.before_save", "founding.listening")
"""Reached only by a node that is new."""

OFTEN = ("apply.", "answer.", "log.batch.", "propose.", "send.before", "send.after", "writer.before_told")
"""Reached all the time under load, so that any time of many may be the one."""

UPGRADING = "upgrade."
"""Reached while the application's version changes, which takes nodes of two versions (`tests/rolling`)."""

ORDERED = ("backup.", "recover.")
"""Reached when an operator orders it, and the latter by no node."""

INSTALLING = ("install.", "log.reset.", "receive.")
"""Reached by a follower that was left behind and gets a snapshot."""

LEADING = ("membership.", "propose.", "send.timeout_now", "transfer.", "transfer_leadership.")
"""Reached by a leader."""

TRY_S = 15.0
"""How long to wait for a failpoint before the node is started anew: some are reached only by certain starts."""

TRIES = 4

SPARES = 900
"""Ids from here on are of nodes that are never started, or only for a moment."""


def reached() -> list[str]:
    """The failpoints that nodes of one version reach by themselves."""
    return [name for name in failpoints.names() if not name.startswith((UPGRADING, *ORDERED))]


class KilledAt(RealFault):
    """A node is started with a failpoint armed, brought to it, and found killed there; then it goes on.

    The cluster must take small snapshots and keep little log.
    """

    kind = "a node killed at a failpoint"
    rows = "F1 F6 F7 F31 F45 F50 F59 F60"

    def __init__(self, dice: random.Random, names: Sequence[str] | None = None, times: int = 6) -> None:
        self._dice = dice
        self._names = list(names) if names is not None else dice.sample(reached(), k=times)
        self._spare = SPARES

    async def inject(self, stage: ChaosStage) -> None:
        for name in self._names:
            if name in FRESH:
                await self._kill_fresh(stage, name)
            else:
                leader = await stage.leader()
                others = sorted(stage.cluster.nodes.keys() - {leader.node_id})
                await self._kill(stage, stage.cluster.nodes[self._dice.choice(others)], name)
            stage.met(self.kind)
            stage.met(f"failpoint {name}")

    async def _kill_fresh(self, stage: ChaosStage, name: str) -> None:
        """A new node, which is killed, starts again, and is taken away: nobody has added it."""
        node = stage.cluster.add(self._next_spare(stage))
        try:
            arm(stage, node, f"{name}:kill")
            assert await ends(node, TRY_S * slowness()), f"a new node does not come to {name}"
            check_killed(stage, node, name)
            node.start()
            await until_answers(stage, node)
        finally:
            node.kill()
            del stage.cluster.nodes[node.node_id]

    async def _kill(self, stage: ChaosStage, node: NodeProcess, name: str) -> None:
        at = self._dice.randint(1, 40) if name.startswith(OFTEN) else 1
        stage.note(f"node {node.node_id} will be killed at {name}, time {at}")
        for _ in range(TRIES):
            node.kill()
            if name.startswith(INSTALLING):
                await leave_behind(stage, node)
            elif name.startswith("peers."):
                await self._meet_again(stage, node)
            arm(stage, node, f"{name}:kill@{at}")
            driving = asyncio.ensure_future(self._drive(stage, node, name))
            has_ended = await ends(node, TRY_S * slowness())
            driving.cancel()
            await asyncio.wait([driving])
            if has_ended:
                break
        check_killed(stage, node, name)
        await self._bring_back(stage, node)

    async def _bring_back(self, stage: ChaosStage, node: NodeProcess) -> None:
        node.start()
        await until_answers(stage, node)

    async def _meet_again(self, stage: ChaosStage, node: NodeProcess) -> None:
        """While a node is down another one starts anew, which is news to it."""
        other = self._dice.choice([each for each in stage.cluster.nodes.values() if each is not node])
        other.kill()
        other.start()
        await until_answers(stage, other)

    async def _drive(self, stage: ChaosStage, node: NodeProcess, name: str) -> None:
        """Do again and again what leads to the failpoint, until the node is killed there."""
        while True:
            with contextlib.suppress(RaftKVError):
                if name.startswith(LEADING):
                    async with Admin(_addresses(stage)) as admin:
                        if (await stage.leader()) is not node:
                            await admin.transfer_leadership(node.node_id, 5.0)
                if name.startswith("transfer."):
                    await self._send_snapshot(stage, node)
                elif name.startswith("membership."):
                    await self._change_members(stage)
                elif name.startswith(("send.timeout_now", "transfer_leadership.", "vote.", "writer.after_vote")):
                    async with Admin(_addresses(stage)) as admin:
                        await admin.transfer_leadership(None, 5.0)
                elif not name.startswith(INSTALLING):
                    await take_snapshot(node)
                    await self._open_session(stage)
            await asyncio.sleep(POLL_S)

    async def _send_snapshot(self, stage: ChaosStage, node: NodeProcess) -> None:
        """Leave another node behind, and have it come back while this one leads."""
        other = self._dice.choice([each for each in stage.cluster.nodes.values() if each is not node])
        try:
            other.kill()
            await leave_behind(stage, other)
        finally:
            if not other.is_running:
                other.start()
        await until_answers(stage, other)

    async def _change_members(self, stage: ChaosStage) -> None:
        spare = self._next_spare(stage)
        async with Admin(_addresses(stage)) as admin:
            try:
                await admin.add_learner(Member(spare, "127.0.0.1:1", "127.0.0.1:2"), 5.0)
            finally:
                with contextlib.suppress(RaftKVError):
                    await admin.remove(spare, 5.0)

    async def _open_session(self, stage: ChaosStage) -> None:
        client = Client(KeyValue, _addresses(stage))
        try:
            await client.call("put", b"session", b"opened")
        finally:
            await client.close()

    def _next_spare(self, stage: ChaosStage) -> int:
        self._spare = max(self._spare, SPARES + 10 * stage.fired[self.kind]) + 1
        return self._spare

    async def heal(self, stage: ChaosStage) -> None:
        stage.cluster.start_all()
        for node in stage.cluster.nodes.values():
            await until_answers(stage, node)
        await stage.until(lambda: self._has_no_spare(stage), "members without the spare ones")

    async def _has_no_spare(self, stage: ChaosStage) -> bool | None:
        """Whether those that were added are away, who was killed or cancelled before it removed them; if not, do it."""
        try:
            async with stage.admin() as admin:
                known = (await admin.status())["membership"]["learners"]
                spares = [node_id for node_id in known if node_id >= SPARES]
                for node_id in spares:
                    await admin.remove(node_id, 5.0)
        except RaftKVError as exc:
            stage.note(f"spare members are not away yet: {exc}")
            return None
        return not spares or None

    def describe(self) -> str:
        return f"{self.kind}: {', '.join(self._names)}"


class HandoverDropped(RealFault):
    """The message that hands over leadership is lost: the next one does it, or the old leader goes on (F45)."""

    kind = "the message of a handover dropped"
    rows = "F45"

    async def inject(self, stage: ChaosStage) -> None:
        node = await stage.leader()
        node.kill()
        arm(stage, node, "send.timeout_now:drop")
        await until_answers(stage, node)

        async def hand_over() -> bool | None:
            """To the node, and then away from it."""
            with contextlib.suppress(RaftKVError):
                async with Admin(_addresses(stage)) as admin:
                    if (await stage.leader()) is node:
                        await admin.transfer_leadership(None, 5.0)
                    else:
                        await admin.transfer_leadership(node.node_id, 5.0)
            return was_reached(stage, node, "send.timeout_now") or None

        await stage.until(hand_over, "a handover's message dropped")
        stage.met(self.kind)

    def describe(self) -> str:
        return self.kind


class PowerCutAt(KilledAt):
    """Like `KilledAt`, with a power cut at that moment: whatever the node had not synced is gone, names included."""

    rows = "F1 F6 F7 F12 F59 F60"

    def __init__(
        self, file_system: str, dice: random.Random, names: Sequence[str] | None = None, times: int = 6
    ) -> None:
        known = [name for name in reached() if name not in FRESH]
        super().__init__(dice, names if names is not None else dice.sample(known, k=times))
        self.kind = f"power cut at a failpoint, {file_system}"
        self._file_system = file_system

    async def inject(self, stage: ChaosStage) -> None:
        await move_to(stage, self._file_system)
        await super().inject(stage)

    async def _bring_back(self, stage: ChaosStage, node: NodeProcess) -> None:
        # Nobody has touched its files since it was killed, so this is the moment of the failpoint.
        await cut(stage, [node.node_id])
        await restore(stage, [node.node_id])


def _addresses(stage: ChaosStage) -> list[str]:
    return [node.own.client_address for node in stage.cluster.nodes.values()]


def arm(stage: ChaosStage, node: NodeProcess, value: str) -> None:
    """Start it once with failpoints armed, as the environment's variable has them."""
    armed = {failpoints.VARIABLE: value, failpoints.LOG_VARIABLE: str(stage.directory / "failpoints.log")}
    node.environment.update(armed)
    try:
        node.start()
    finally:
        for key in armed:
            del node.environment[key]


async def ends(node: NodeProcess, within_s: float) -> bool:
    """Whether the process ends by then."""
    assert node.process is not None
    try:
        await asyncio.to_thread(node.process.wait, within_s)
    except subprocess.TimeoutExpired:
        return False
    return True


def check_killed(stage: ChaosStage, node: NodeProcess, *names: str) -> None:
    """Raises `AssertionError` unless the process noted itself that it was killed at one of these."""
    assert node.process is not None
    code, known = node.process.poll(), " or ".join(names)
    assert any(was_reached(stage, node, name) for name in names), (
        f"node {node.node_id} was not killed at {known}; it ended with {code}"
    )
    assert code == -signal.SIGKILL, f"node {node.node_id} came to {known} and ended with {code}"


def was_reached(stage: ChaosStage, node: NodeProcess, name: str) -> bool:
    """Whether the node's last process has written down that the failpoint has fired."""
    assert node.process is not None
    log = stage.directory / "failpoints.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return any(line.startswith(f"{name}:") and line.endswith(f" pid={node.process.pid}") for line in lines)
