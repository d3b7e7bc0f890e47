"""Recovery of a data directory, piece by piece."""

from __future__ import annotations

import copy
import itertools
import random
from types import SimpleNamespace

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import SafetyViolation
from raftkv.model import EntryKind, HardState, LogStart, Member, Membership, SnapshotMeta, encode_membership
from raftkv.node import Options
from raftkv.node.directory import close_directory, open_directory
from raftkv.node.paths import Paths
from raftkv.node.statefiles import restore_state
from raftkv.state import Applied, MemoryStates
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.workers import Crash
from tests.snapshot.worlds import OWNER, open_store

APPLIED = Applied(7, 2, 1_000, 0xABC)


@pytest.mark.parametrize(("index", "digest"), [(7, 0xABC), (6, 0xABC), (7, 0xABD)])
def test_a_snapshot_that_is_another_state_than_it_says_is_not_installed(index, digest):
    """F61: the state in it is compared with what the manifest says, by index and digest."""
    disk = SimDisk()
    paths, states = Paths("/data"), MemoryStates(disk)
    disk.mkdir("/data")
    snapshots = open_store(disk, paths.snapshots)
    source = states.open("/source")
    source.write({b"key": b"value"}, APPLIED)
    draft = snapshots.begin()
    source.checkpoint(draft)
    membership = Membership(voters=(1,), members=(Member(1),))
    meta = SnapshotMeta(index=index, term=2, chain=5, time_ms=1_000, membership=membership, digest=digest)
    snapshots.publish(draft, meta, cluster_id="c")
    world = SimpleNamespace(disk=disk, states=states)
    if (index, digest) == (APPLIED.index, APPLIED.digest):
        assert restore_state(world, paths, snapshots, meta, OWNER).applied == APPLIED
        return
    with pytest.raises(SafetyViolation, match="holds the state at 7"):
        restore_state(world, paths, snapshots, meta, OWNER)


FOUNDERS = tuple(Member(node_id, f"peer-{node_id}:1", f"client-{node_id}:1") for node_id in (1, 2, 3))
OLD, DISCARDED, NEW = (
    Membership(voters=voters, members=tuple(Member(each, f"peer-{each}:1") for each in voters))
    for voters in ((1, 2, 3), (1, 2), (2, 3, 4, 5, 6))
)
TAIL, BASE = 12, 9
"""Where the log ends that a received snapshot replaces, and where the snapshot stands: its log is the shorter one."""


def opened_on(disk):
    """Open node 1's directory on `disk`, as a start does."""
    world = SimpleNamespace(disk=disk, states=MemoryStates(disk), nonce="nonce")
    return open_directory(Options(node_id=1, data_dir="/data", members=FOUNDERS, config=CONFIG), world)


def between_publishing_and_reset(*, tail=TAIL, base=BASE, membership_at=5, term=3):
    """The disk of a node at the moment in which the power went: a leader's snapshot has arrived and is published, and
    the log, which conflicts with it and holds a membership of its own, is still there. All of it is durable, and the
    vote file counts on all of the log."""
    disk = SimDisk()
    opened = opened_on(disk)
    last, entries = LogStart(), []
    for index in range(1, tail + 1):
        is_change = index == membership_at
        kind, payload = (EntryKind.MEMBERSHIP, encode_membership(DISCARDED)) if is_change else (EntryKind.COMMAND, b"x")
        entries.append(last := make_entry(index, 2, 1_000, kind, payload, last.chain))
    opened.vote.write(HardState(2, 1), 0)
    opened.log.write([opened.log.stage(None, entries)])
    opened.vote.write(HardState(2, 1), tail)
    source = MemoryStates(disk).open("/source")
    applied = Applied(base, term, 2_000, 0xABC)
    source.write({b"key": b"value"}, applied)
    draft = opened.snapshots.begin()
    source.checkpoint(draft)
    meta = SnapshotMeta(index=base, term=term, chain=77, time_ms=2_000, membership=NEW, digest=0xABC)
    opened.snapshots.publish(draft, meta, cluster_id=opened.founding.cluster_id)
    opened.snapshots.expect(meta)
    disk.crash(random.Random(1))
    return disk, meta


def check_is_the_snapshot(opened, meta):
    """The node goes on from the snapshot, and from nothing else."""
    view = opened.view
    assert (view.membership, view.membership_index) == (NEW, meta.index), "a membership that was discarded is in force"
    assert view.start == opened.log.start == meta.log_start
    assert (view.last_index, opened.log.last_index, opened.log.durable_index) == (meta.index,) * 3
    assert (view.last_term, view.last_chain) == (meta.term, meta.chain)
    assert opened.vote.durable_index <= meta.index
    assert opened.vote.hard_state.term >= meta.term
    assert opened.snapshot == meta
    assert (opened.store.applied.index, opened.store.get(b"key")) == (meta.index, b"value")


PLACES = [(12, 9, 5), (12, 9, 9), (12, 9, 12), (9, 9, 9), (9, 9, 1), (8, 9, 8), (3, 9, 2)]
"""Where the log ends, where the snapshot stands, and where the membership that is discarded stood."""


@pytest.mark.parametrize(("tail", "base", "membership_at"), PLACES)
def test_a_membership_of_a_log_that_a_snapshot_replaces_is_not_in_force(tail, base, membership_at):
    """F60: the node crashed between the publishing of the snapshot and the log's reset. Were the old membership in
    force, the node could elect a leader together with others who know of it, beside that of the new one."""
    disk, meta = between_publishing_and_reset(tail=tail, base=base, membership_at=membership_at)
    for _ in range(2):
        opened = opened_on(disk)
        check_is_the_snapshot(opened, meta)
        close_directory(opened)


@pytest.mark.parametrize("term", [2, 3])
def test_the_vote_of_a_term_that_the_node_knew_survives_a_snapshot_that_takes_the_logs_place(term):
    """F4, F60: a snapshot of the same term brings no newer term, so the vote stands; a newer one has no vote yet."""
    disk, _ = between_publishing_and_reset(term=term)
    opened = opened_on(disk)
    assert opened.vote.hard_state == HardState(term, 1 if term == 2 else None)
    close_directory(opened)


@pytest.mark.parametrize(("tail", "base", "membership_at"), [(12, 9, 5), (9, 9, 9), (3, 9, 2)])
def test_a_start_that_puts_a_snapshot_in_the_logs_place_may_be_cut_off_anywhere(tail, base, membership_at):
    """F60, F88: the vote file counts on a log that is longer than the snapshot. The power goes at each operation on the
    disk, and at each of the start behind that one."""
    image, meta = between_publishing_and_reset(tail=tail, base=base, membership_at=membership_at)
    for number in itertools.count(1):
        disk = copy.deepcopy(image)
        if not cut_off(disk, number):
            break
        for again in (2, 6, 10):
            once_more = copy.deepcopy(disk)
            cut_off(once_more, again)
            opened = opened_on(once_more)
            check_is_the_snapshot(opened, meta)
            close_directory(opened)
    assert number > 10


def cut_off(disk, number):
    """Start, and let the power go at the `number`th operation on the disk; returns whether it was reached."""
    left = number

    def fault(kind, path):
        nonlocal left
        left -= 1
        if left == 0:
            raise Crash

    disk.fault = fault
    try:
        close_directory(opened_on(disk))
    except Crash:
        return True
    finally:
        disk.fault = None
        if left <= 0:
            disk.crash(random.Random(number))
    return False
