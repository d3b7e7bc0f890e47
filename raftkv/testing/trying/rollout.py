"""Plays a script in a world whose nodes are restarted with another version of the application, one after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from raftkv.config import KIB
from raftkv.entry import Entry
from raftkv.errors import (
    Indeterminate,
    InvalidArgument,
    NodeStopped,
    NotAccepted,
    NotActive,
    Rejected,
    SessionExpired,
)
from raftkv.machine import Activation, StateMachine, decode_change
from raftkv.machine.payloads import decode_command
from raftkv.model import EntryKind
from raftkv.testing.faults.nemesis import Nemesis
from raftkv.testing.judging.check import Check
from raftkv.testing.judging.failure import Failure
from raftkv.testing.trying.applied import AppliedEntries
from raftkv.testing.trying.pair import method_of_call, speaker
from raftkv.testing.trying.replica import Effect, Replica
from raftkv.testing.trying.script import Call, Fault, Script
from raftkv.testing.trying.scripted import ScriptedWorld
from raftkv.testing.trying.sides import UPGRADE
from raftkv.testing.world.cluster import SimCluster, SimNode
from raftkv.testing.world.settings import CONFIG

NEWER, OLDER = "newer", "older"
MOVES = (NEWER, OLDER)
"""One node is restarted with the newer class, or with the older one as long as another node still has that."""

BREAKS = ("crash", "crash of all", "kill", "graceful stop", "pause", "cut", "partition", "reset", "slow network")
"""Faults that meet nodes of either class."""

SNAPSHOTS = msgspec.structs.replace(
    CONFIG, snapshot_entries=8, snapshot_interval_s=0.2, keep_entries=0, chunk_bytes=KIB
)
"""Settings with which whoever was away for a moment needs a snapshot, so that nodes get those of the other class."""


class Heard(NamedTuple):
    """A command that was acknowledged: its encoded arguments, and the rejection or the encoded result."""

    call: Call
    args: bytes
    outcome: tuple[str, ...] | bytes | None


class Rollout(ScriptedWorld):
    """One script with nodes and clients of two versions."""

    def __init__(
        self,
        old: type[StateMachine],
        new: type[StateMachine],
        script: Script,
        observe: Callable[[SimCluster], None] | None,
    ) -> None:
        super().__init__(script, observe)
        self._old, self._new = old, new
        self._log = AppliedEntries()
        self._heard: list[Heard] = []

    def _cluster(self, seed: int) -> SimCluster:
        cluster = SimCluster(self._old, self._script.size, seed=seed, config=SNAPSHOTS)
        cluster.on_started.append(self._log.follow)
        return cluster

    def _class_of(self, call: Call) -> type[StateMachine]:
        return speaker(self._old, self._new, call)

    async def _run(self) -> SimCluster:
        cluster = await super()._run()
        self._judge(cluster)
        return cluster

    def _more_checks(self) -> list[Check]:
        return [self._log]

    async def _settle(self, cluster: SimCluster) -> None:
        if all(sim.machine is self._new for sim in cluster.nodes.values()):
            await cluster.until(lambda: self._is_upgraded(cluster), 60, f"version {self._new.version} is active")

    def _is_upgraded(self, cluster: SimCluster) -> bool:
        active = [node.applier.runner.active for node in cluster.running]
        return all(each.version == self._new.version and not each.is_upgrading for each in active)

    async def _strike(self, cluster: SimCluster, nemesis: Nemesis, fault: Fault) -> None:
        nodes = list(cluster.nodes.values())
        if fault.kind == UPGRADE:
            dice = random.Random(fault.chance)
            dice.shuffle(nodes)
            for sim in nodes:
                await self._install(sim, self._new, power=bool(fault.chance % 2))
                # Long enough, at times, for one of those that are new already to lead those that are not.
                await asyncio.sleep(dice.choice([0, 0.3, 2]))
        elif fault.kind in MOVES:
            sim = nodes[fault.chance % len(nodes)]
            if fault.kind == NEWER or self._may_go_back(cluster, sim):
                machine = self._new if fault.kind == NEWER else self._old
                await self._install(sim, machine, power=bool(fault.chance // len(nodes) % 2))
        else:
            await super()._strike(cluster, nemesis, fault)

    def _may_go_back(self, cluster: SimCluster, sim: SimNode) -> bool:
        """Whether the newer version can't have become active: another node can't run it."""
        return any(other is not sim and other.machine is self._old for other in cluster.nodes.values())

    async def _install(self, sim: SimNode, machine: type[StateMachine], *, power: bool) -> None:
        """Restart a node with another class."""
        if sim.machine is machine:
            return
        sim.cluster.note(f"node {sim.node_id} gets version {machine.version}")
        sim.crash(power=power)
        sim.machine = machine
        try:
            await sim.start()
        except NodeStopped as exc:
            if type(exc) is not NodeStopped:  # else it crashed while it started, and is started again
                raise

    async def _call(self, client: Any, call: Call) -> None:
        method = method_of_call(self._old, self._new, call)
        try:
            result = await client.call(call.name, *call.args)
        except (Indeterminate, SessionExpired, NotAccepted, NotActive, InvalidArgument):
            return
        except Rejected as rejected:
            heard: tuple[str, ...] | bytes = rejected.error_type, ""  # each version may have its text
        else:
            heard = method.encode_result(result)
        if not method.is_query:
            self._heard.append(Heard(call, method.encode_args(call.args, {}), heard))

    def _judge(self, cluster: SimCluster) -> None:
        """Apply the log to one replica: the cluster must have its state, and all that clients have heard is in it."""
        replica, left = Replica(self._old), list(self._heard)
        last = max(node.applier.runner.applied.index for node in cluster.running)
        for index in range(1, last + 1):
            entry = self._log.entries.get(index)
            if entry is None:
                return  # a node got it with a snapshot in the very moment in which the others were gone
            if entry.kind == EntryKind.UPGRADE and isinstance(decode_change(entry.payload), Activation):
                replica = Replica(self._new, replica.tables)
            effect = replica.apply(entry)
            if effect.failed is not None:
                raise Failure(f"the entry {index} can't be applied again: {effect.failed}")
            if entry.kind == EntryKind.COMMAND:
                self._tick_off(left, entry, effect)
        digests = {node.applier.runner.applied.digest for node in cluster.running}
        if digests != {replica.runner.applied.digest}:
            raise Failure(
                "the nodes' state is not what their log comes to, applied to one replica\n" + cluster.describe()
            )
        if left:
            raise Failure(f"{left[0].call.described} was acknowledged, and is not in the log\n{cluster.describe()}")

    def _tick_off(self, left: list[Heard], entry: Entry, effect: Effect) -> None:
        command = decode_command(entry.payload)
        for heard in left:
            if heard.call.name == command.name and heard.args == bytes(command.args):
                method = method_of_call(self._old, self._new, heard.call)
                outcome: tuple[str, ...] | bytes | None = effect.without_text().rejected
                if effect.result is not None:
                    outcome = method.encode_result(method.decode_result(effect.result))
                if outcome == heard.outcome:
                    left.remove(heard)
                    return
