"""Counts snapshots that come to a log which goes on behind them: with the same entries, or with others (F63, F64)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from raftkv.core.messages import InstallSnapshot, Message
from raftkv.core.snapshots import agrees

if TYPE_CHECKING:
    from raftkv.core.raft import Raft
    from raftkv.node import Node
    from raftkv.testing.world.cluster import SimCluster

DROPPED, KEPT = "snapshot for a log that differs", "snapshot for a log that goes on"

TAILS = (DROPPED, KEPT)


class Tails:
    """Looks at a core's log before and after each snapshot that a leader has sent."""

    def __init__(self, fired: Counter[str]) -> None:
        self._fired = fired

    def attach(self, cluster: SimCluster) -> None:
        """Look at every node that starts from now on."""
        cluster.on_started.append(self._follow)

    def _follow(self, node: Node) -> None:
        raft = node.raft
        raft.step = partial(self._step, raft, raft.step)  # type: ignore[method-assign]
        raft.snapshot_installed = partial(self._installed, raft, raft.snapshot_installed)  # type: ignore[method-assign]

    def _step(self, raft: Raft, step: Callable[[Message], None], message: Message) -> None:
        """The core commits what it has of the snapshot, and nothing is installed."""
        commit, last, was_idle = raft.commit_index, raft.log.last_index, raft.installing is None
        step(message)
        if isinstance(message, InstallSnapshot) and was_idle and raft.installing is None:
            index = message.snapshot.index
            if commit < index == raft.commit_index < last == raft.log.last_index:
                self._fired[KEPT] += 1

    def _installed(self, raft: Raft, installed: Callable[[], None]) -> None:
        snapshot, last = raft.installing, raft.log.last_index
        assert snapshot is not None, "no snapshot was being installed"
        was_the_same = agrees(raft, snapshot)
        installed()
        if was_the_same and raft.log.last_index == last > snapshot.index:
            self._fired[KEPT] += 1
        elif not was_the_same and last >= snapshot.index == raft.log.last_index:
            self._fired[DROPPED] += 1
