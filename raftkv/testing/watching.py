"""Looks at a world while something is done in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from raftkv.model import NodeId
from raftkv.testing.checks import Check, working
from raftkv.testing.cluster import SimCluster
from raftkv.testing.failure import Failure

if TYPE_CHECKING:
    from raftkv.node import Node

T = TypeVar("T")

LOOK_S = 0.02
"""Virtual seconds between two looks."""


async def watched(cluster: SimCluster, checks: Sequence[Check], work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and hold the cluster to `checks` meanwhile. Raises `Failure`, or what `work` does."""
    __tracebackhide__ = True
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_watch(cluster, checks))
    try:
        await asyncio.wait([task, watcher], return_when=asyncio.FIRST_COMPLETED)
        if watcher.done():
            watcher.result()
        return task.result()
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _watch(cluster: SimCluster, checks: Sequence[Check]) -> None:
    watch = Watch(cluster, checks)
    while True:
        await asyncio.sleep(LOOK_S)
        watch.look()


def look(cluster: SimCluster, checks: Sequence[Check]) -> None:
    """Look once. Raises `Failure`."""
    Watch(cluster, checks).look()


class Watch:
    """Holds a cluster to checks, again and again; what is of one node is looked at only when that node has changed."""

    def __init__(self, cluster: SimCluster, checks: Sequence[Check]) -> None:
        self._cluster = cluster
        self._of_nodes = [check for check in checks if type(check).look is Check.look]
        self._of_all = [check for check in checks if type(check).look is not Check.look]
        self._seen: dict[NodeId, tuple[object, ...]] = {}

    def look(self) -> None:
        """Look once. Raises `Failure`."""
        changed = [node for node in working(self._cluster) if self._has_changed(node)]
        for check in self._of_nodes:
            for node in changed:
                self._hold(check, check.look_at, node)
        for check in self._of_all:
            self._hold(check, check.look, self._cluster)

    def _has_changed(self, node: Node) -> bool:
        raft, runner = node.raft, node.applier.runner
        now = (
            node,
            raft.term,
            raft.role,
            raft.commit_index,
            raft.log.last_chain,
            raft.log.start.index,
            raft.durability.index,
            runner.applied.index,
            raft.snapshot,
            raft.installing,
        )
        before = self._seen.get(node.node_id)
        self._seen[node.node_id] = now
        return now != before

    def _hold(self, check: Check, look: Callable[[Any], None], at: Node | SimCluster) -> None:
        try:
            look(at)
        except AssertionError as exc:
            raise Failure(f"{check.name}: {exc}\n{self._cluster.describe()}") from exc


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be logged: a simulated cluster has much to say, and nobody reads it."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False)
    try:
        yield
    finally:
        if before is not None:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
