"""Makes a data directory of another cluster; files of it are put into a node's own directory by mistake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raftkv.disk import Disk
from raftkv.errors import Unavailable
from raftkv.model import Member, SnapshotMeta
from raftkv.node import Options, Worker, World
from raftkv.node.directory import Opened, close_directory, open_directory
from raftkv.state import Applied, States

AHEAD = Applied(index=1_000_000, term=1_000, time_ms=1, digest=1)
"""Its snapshot is of a later term and entry than any world comes to, so whoever believes it wins every vote."""


def found_elsewhere(disk: Disk, states: States, data_dir: str, node_id: int) -> None:
    """Make the directory of a node with that id, which is the only member of another cluster, and has a snapshot of a
    high index. Blocking."""
    world = World(
        disk=disk,
        states=states,
        log_worker=_NoWorker(),
        background_worker=_NoWorker(),
        transfer_worker=_NoWorker(),
        scan_workers=(),
        clock=lambda: 0.0,
        pause=lambda _: None,
        now_ms=lambda: 0,
        monotonic_ms=lambda: 0,
        draw=lambda _: 0,
        nonce=f"elsewhere-{node_id}",
    )
    member = Member(node_id, "elsewhere:1", "elsewhere:2")
    opened = open_directory(
        Options(node_id=node_id, data_dir=data_dir, members=(member,), cluster_name="elsewhere"), world
    )
    try:
        _take_snapshot(opened)
    finally:
        close_directory(opened)


def _take_snapshot(opened: Opened) -> None:
    opened.store.write({b"\x02elsewhere": b"elsewhere"}, AHEAD)
    opened.store.flush()
    opened.store.freeze()
    draft = opened.snapshots.begin()
    try:
        opened.store.checkpoint(draft)
    finally:
        opened.store.thaw()
    snapshot = SnapshotMeta(
        index=AHEAD.index,
        term=AHEAD.term,
        chain=1,
        time_ms=AHEAD.time_ms,
        membership=opened.founding.membership,
        digest=AHEAD.digest,
    )
    opened.snapshots.publish(draft, snapshot, cluster_id=opened.founding.cluster_id)


class _NoWorker(Worker):
    """A worker for a directory that is only opened and closed, which takes no work."""

    def run(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> asyncio.Future[Any]:
        raise Unavailable("nothing is done beside the opening of a directory")

    async def close(self) -> None:
        """There is nothing to wait for."""
