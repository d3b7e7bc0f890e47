"""Builds the data directory of a node whose cluster does not begin empty: with a snapshot, and entries behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from raftkv.config import Config
from raftkv.entry import Entry
from raftkv.log import Identity, Log, VoteFile
from raftkv.model import HardState, SnapshotMeta
from raftkv.node.identity import Founding, save_founding
from raftkv.node.paths import Paths
from raftkv.node.starts import begin_starts
from raftkv.node.statefiles import restore_state
from raftkv.node.world import World
from raftkv.snapshot import Receipts, SnapshotStore


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """What a directory is to begin with."""

    owner: Identity
    founding: Founding
    hard_state: HardState
    snapshot: SnapshotMeta | None
    """What the log goes on behind; None for a log from its first entry on."""
    fill: Callable[[str], None]
    """Makes a directory with the snapshot's files."""
    key_count: int | None = None
    entries: Callable[[], Iterable[list[Entry]]] = tuple
    """What is behind the snapshot, some entries at a time."""


def build_directory(world: World, config: Config, paths: Paths, beginning: Beginning) -> None:
    """Make a data directory from which a node can start; durable on return, but for the directory's own name.

    Blocking. A directory that is half built can't be told from a whole one: build it under another name. The snapshot
    is checked to be the state that it says. Raises `Corruption`, `SafetyViolation`, `DiskError`.
    """
    disk, owner = world.disk, beginning.owner
    disk.mkdir(paths.root)
    begin_starts(disk, paths.starts, owner)
    receipts = Receipts.open(disk, paths.receipts, owner)
    receipts.begin()
    snapshots = SnapshotStore.open(disk, paths.snapshots, receipts)
    if beginning.snapshot is not None:
        _begin_state(world, paths, snapshots, beginning, beginning.snapshot)
    last_index = _write_log(world, config, paths, beginning)
    vote = VoteFile.create(disk, paths.vote, owner, beginning.hard_state)
    try:
        vote.write(beginning.hard_state, last_index)
    finally:
        vote.close()
    save_founding(disk, paths.founding, owner, beginning.founding)
    disk.sync_dir(paths.root)


def _begin_state(
    world: World, paths: Paths, snapshots: SnapshotStore, beginning: Beginning, snapshot: SnapshotMeta
) -> None:
    draft = snapshots.begin()
    beginning.fill(draft)
    snapshots.publish(draft, snapshot, cluster_id=beginning.founding.cluster_id, key_count=beginning.key_count)
    store = restore_state(world, paths, snapshots, snapshot, beginning.owner)
    try:
        store.verify()
    finally:
        store.close()


def _write_log(world: World, config: Config, paths: Paths, beginning: Beginning) -> int:
    """Returns the last index, which is durable."""
    log = Log.open(
        world.disk,
        paths.log,
        owner=beginning.owner,
        segment_bytes=config.segment_bytes,
        cache_bytes=config.log_cache_bytes,
        durable_index=0,
    )
    try:
        if beginning.snapshot is not None:
            log.reset(beginning.snapshot.log_start)
        for entries in beginning.entries():
            log.write([log.stage(None, entries)])
        return log.durable_index
    finally:
        log.close()
