"""Checks a world's invariants while work is done in it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from raftkv.core.roles import Leader
from raftkv.model import NodeId
from raftkv.testing.judging.check import Check, is_working
from raftkv.testing.judging.failure import Failure
from raftkv.testing.world.cluster import SimCluster, SimNode
from raftkv.testing.world.loop import Timer

T = TypeVar("T")

LOOK_S = 0.02
"""Virtual seconds between two looks."""


async def watched(
    cluster: SimCluster, checks: Sequence[Check], work: Coroutine[Any, Any, T], look_s: float = LOOK_S
) -> T:
    """Do `work`, and hold the cluster to `checks` meanwhile. Raises `Failure`, or what `work` does."""
    __tracebackhide__ = True
    loop = cluster.loop
    task = asyncio.ensure_future(work)
    watch, seen = Watch(cluster, checks), loop.create_future()

    timer: Timer

    def look_again() -> None:
        # A timer and no task, as this is what an idle world does most often.
        nonlocal timer
        try:
            watch.look()
        except BaseException as exc:  # noqa: BLE001 (whoever waits below gets it)
            seen.set_exception(exc)
        else:
            timer = loop.call_later(look_s, look_again)

    timer = loop.call_later(look_s, look_again)
    try:
        await asyncio.wait([task, seen], return_when=asyncio.FIRST_COMPLETED)
        if seen.done():
            seen.result()
        return task.result()
    finally:
        timer.cancel()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def look(cluster: SimCluster, checks: Sequence[Check]) -> None:
    """Look once. Raises `Failure`."""
    Watch(cluster, checks).look()


class Watch:
    """Runs checks on a cluster again and again, but none while nothing has changed. A check of single nodes is run only
    on those that have changed."""

    def __init__(self, cluster: SimCluster, checks: Sequence[Check]) -> None:
        self._cluster = cluster
        self._of_nodes = [check for check in checks if type(check).look is Check.look]
        self._of_all = [check for check in checks if type(check).look is not Check.look]
        self._seen: dict[NodeId, tuple[object, ...]] = {}
        self._failures = -1

    def look(self) -> None:
        """Run the checks once. Raises `Failure`."""
        changed = [sim for sim in self._cluster.nodes.values() if self._has_changed(sim)]
        failures = len(getattr(self._cluster.loop, "failures", ()))
        if not changed and failures == self._failures:
            return
        self._failures = failures
        nodes = [sim.node for sim in changed if sim.node is not None and is_working(sim)]
        check = None
        try:
            for check in self._of_nodes:
                for node in nodes:
                    check.look_at(node)
            for check in self._of_all:
                check.look(self._cluster)
        except AssertionError as exc:
            assert check is not None
            raise Failure(f"{check.name}: {exc}\n{self._cluster.describe()}") from exc

    def _has_changed(self, sim: SimNode) -> bool:
        """Whether anything that checks read has changed at this machine since the last look."""
        now = _sample(sim)
        before = self._seen.get(sim.node_id)
        self._seen[sim.node_id] = now
        return now != before


def _sample(sim: SimNode) -> tuple[object, ...]:
    node = sim.node
    if node is None:
        return node, sim.harm, sim.durable_index
    raft, opened = node.raft, node.opened
    role = raft.role
    return (
        node,
        node.failure,
        node.is_closing,
        sim.harm,
        raft.term,
        role,
        raft.commit_index,
        raft.log.last_chain,
        raft.log.start.index,
        raft.durability.index,
        opened.log.durable_index,
        node.applier.runner.applied,
        raft.snapshot,
        raft.installing,
        opened.snapshots.count,
        [progress.match_index for progress in role.progress.values()] if isinstance(role, Leader) else None,
    )
