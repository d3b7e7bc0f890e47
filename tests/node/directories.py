"""A node's data directory at rest, on a simulated disk: its log, state and snapshots stand where a test says."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.model import EntryKind, HardState, LogStart, Member, Membership, SnapshotMeta
from raftkv.node import Options
from raftkv.node.directory import close_directory, open_directory
from raftkv.node.paths import Paths
from raftkv.node.statefiles import mark_unfit
from raftkv.state import Applied, MemoryStates
from raftkv.testing.world.settings import CONFIG
from tests.logged import capture_logs

FOUNDERS = tuple(Member(node_id, f"peer-{node_id}:1", f"client-{node_id}:1") for node_id in (1, 2, 3))
MEMBERSHIP = Membership(voters=(1, 2, 3), members=FOUNDERS)
TERM = 2


class Directory:
    """The directory of node 1. Its log has the entries behind `start` up to `last`; the state has applied `applied` of
    them, and `snapshots` were taken at these entries. All is durable, and nothing is open."""

    def __init__(self, *, last=12, start=0, applied=0, snapshots=(), **options):
        self.disk, self.paths, self.said = SimDisk(), Paths("/data"), []
        """`said` is what the last start has logged."""
        self.states = MemoryStates(self.disk)
        self.options = Options(node_id=1, data_dir="/data", members=FOUNDERS, config=CONFIG)
        self.entries = [LogStart()]
        for index in range(1, last + 1):
            before = self.entries[-1].chain
            self.entries.append(make_entry(index, TERM, 1_000, EntryKind.COMMAND, b"x", before))
        with capture_logs():
            opened = self.open(**options)
        for index in snapshots:
            self.publish(opened, self.meta(index))
        opened.vote.write(HardState(TERM, 1), 0)
        if start:
            opened.log.reset(LogStart(start, TERM, self.entries[start].chain, 1_000))
        if last > start:
            opened.log.write([opened.log.stage(None, self.entries[start + 1 :])])
        opened.vote.write(HardState(TERM, 1), last)
        if applied:
            opened.store.write({b"at": b"%d" % applied}, self.applied(applied))
            opened.store.flush()
        close_directory(opened)

    @property
    def world(self):
        """What a start uses of the world."""
        return SimpleNamespace(disk=self.disk, states=self.states, nonce="nonce")

    def applied(self, index):
        """What the state of that entry says of itself."""
        return Applied(index, TERM, 1_000, 1_000 + index) if index else Applied()

    def meta(self, index, **other):
        """What the snapshot at that entry says of itself, but for what is `other`."""
        found = SnapshotMeta(
            index=index,
            term=TERM,
            chain=self.entries[index].chain,
            time_ms=1_000,
            membership=MEMBERSHIP,
            digest=1_000 + index,
        )
        return msgspec.structs.replace(found, **other)

    def publish(self, opened, meta):
        """Take a snapshot that says `meta` of itself."""
        source = MemoryStates(self.disk).open("/source")
        source.write({b"at": b"%d" % meta.index}, Applied(meta.index, meta.term, meta.time_ms, meta.digest))
        draft = opened.snapshots.begin()
        source.checkpoint(draft)
        opened.snapshots.publish(draft, meta, cluster_id=opened.founding.cluster_id)
        self.disk.remove_tree("/source")

    def options_with(self, **options):
        """The node's options, but for these."""
        return msgspec.structs.replace(self.options, **options)

    def open(self, **options):
        """Open it as a start does, with these options."""
        return open_directory(self.options_with(**options), self.world)

    def start(self, **options):
        """Open it and close it again; `said` is what was logged meanwhile, and what was found is returned."""
        with capture_logs() as lines:
            try:
                opened = self.open(**options)
            finally:
                self.said = [line["event"] for line in lines]
        close_directory(opened)
        return opened

    def mark(self, error):
        """Write down that the state is unfit, as a node does that stops with `error`."""
        mark_unfit(self.disk, self.paths, error)

    def rot_state(self):
        """Damage the state's file."""
        self.disk.flip("/data/state/image", 20, 1)

    def rot_snapshot(self, index):
        """Damage the state in the snapshot at that entry."""
        (name,) = [each for each in self.disk.listdir(self.paths.snapshots) if int(each.split("-")[0]) == index]
        self.disk.flip(f"{self.paths.snapshots}/{name}/image", 20, 1)


def indexes(opened):
    """At which entries there are snapshots."""
    return [each.index for each in opened.snapshots.list()]


def found_in(opened):
    """At which entry the state stands, by what it says and by what is in it."""
    value = opened.store.get(b"at")
    return opened.store.applied.index, int(value) if value else 0
