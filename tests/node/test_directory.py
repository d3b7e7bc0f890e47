"""Recovery of a data directory, piece by piece."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import SafetyViolation
from raftkv.model import Member, Membership, SnapshotMeta
from raftkv.node.paths import Paths
from raftkv.node.statefiles import restore_state
from raftkv.state import Applied, MemoryStates
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
