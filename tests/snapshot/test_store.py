"""Snapshots on disk: published whole or not at all, verified to the byte, pruned without taking what is needed."""

from __future__ import annotations

import posixpath
import random

import pytest

from raftkv.disk import RealDisk
from raftkv.disk.simulated import SimDisk
from raftkv.errors import DiskFull, FormatError, SafetyViolation, SnapshotCorruption
from raftkv.snapshot import Content, Manifest, SealedManifest, SnapshotFile, verify_directory
from tests.snapshot.worlds import CLUSTER, contents, meta, open_store, publish, read_files, write_files


@pytest.fixture(params=["simulated", "real"])
def store(request, tmp_path):
    """An empty store."""
    if request.param == "real":
        return open_store(RealDisk(), str(tmp_path / "snapshots"))
    return open_store(SimDisk(), "/data/snapshots")


def test_published_snapshots_are_there_after_a_restart(store):
    """Oldest first, the newest as `latest`, each with what it says of itself and the files that it was made of."""
    for index in (30, 10, 20):
        publish(store, meta(index), contents(index))
    again = open_store(store.disk, store.directory)
    for each in (store, again):
        assert each.list() == [meta(10), meta(20), meta(30)]
        assert each.latest() == meta(30)
        assert read_files(each, meta(20)) == contents(20)
        assert each.verify(meta(20)).is_sound


def test_a_snapshot_that_is_there_is_not_made_again(store):
    """The same state at the same index: the one that is there stays. Another state there is a violation (F61)."""
    publish(store, meta(10), contents(1))
    publish(store, meta(10), contents(2))
    assert read_files(store, meta(10)) == contents(1)
    with pytest.raises(SafetyViolation, match="two states"):
        publish(store, meta(10, digest=99), contents(3))


def test_what_is_inside_must_be_what_the_manifest_says(store):
    """The database's own index and digest are compared before anything is published (F61, F68)."""

    def say(**changed):
        content = {"index": 10, "term": 1, "digest": 30, "key_count": 5, **changed}
        return lambda directory: Content(**content)

    for wrong in ({"index": 9}, {"term": 2}, {"digest": 31}):
        draft = store.begin()
        write_files(store.disk, draft, contents(1))
        with pytest.raises(SnapshotCorruption):
            store.publish(draft, meta(10), cluster_id=CLUSTER, inspect=say(**wrong))
        assert store.list() == []
        assert not store.disk.exists(draft)
    draft = store.begin()
    write_files(store.disk, draft, contents(1))
    store.publish(draft, meta(10), cluster_id=CLUSTER, inspect=say())
    assert store.manifest(meta(10)).manifest.key_count == 5
    with pytest.raises(SnapshotCorruption, match="keys"):
        store.verify(meta(10), say(key_count=6))


def test_pruning_keeps_the_newest_and_the_pinned(store):
    """A snapshot that is being sent stays, however old it is, until it is let go."""
    for index in (10, 20, 30, 40):
        publish(store, meta(index), contents(index))
    store.pin(meta(10))
    store.pin(meta(10))
    store.prune(store.retire(2))
    assert store.list() == [meta(10), meta(30), meta(40)]
    store.unpin(meta(10))
    store.prune(store.retire(2))
    assert meta(10) in store.list()
    store.unpin(meta(10))
    store.prune(store.retire(1))
    assert store.list() == [meta(40)]
    assert open_store(store.disk, store.directory).list() == [meta(40)]
    with pytest.raises(SnapshotCorruption):
        store.manifest(meta(10))


def test_a_linked_copy_may_be_written_to(store):
    """What a database rewrites in its copy does not reach into the snapshot."""
    publish(store, meta(10), contents(1))
    copy = posixpath.join(store.directory, "..", "state")
    store.link_to(meta(10), copy)
    file = store.disk.open(posixpath.join(copy, "CURRENT"))
    file.pwrite([b"rewritten"], 0)
    file.close()
    assert store.verify(meta(10)).is_sound


def test_every_flipped_byte_is_found():
    """F70: in the manifest or in any file; the snapshot is reported, and never used."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    files = contents(1, sizes=(0, 1, 300, 200))
    publish(store, meta(10), files)
    directory = store.path(meta(10))
    for name in [*files, "MANIFEST"]:
        path = posixpath.join(directory, name)
        for offset in range(disk.size(path)):
            disk.flip(path, offset, offset % 8)
            with pytest.raises((SnapshotCorruption, FormatError)):
                open_store(disk, "/s").verify(meta(10))
            report = verify_directory(disk, "/s")
            assert not report.is_sound
            assert any(directory in problem for problem in report.problems)
            disk.flip(path, offset, offset % 8)
    assert verify_directory(disk, "/s").is_sound


def test_missing_strange_and_misnamed_things_are_found():
    """A file that is gone, one too many, another snapshot's directory under this name: each is said in words."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    publish(store, meta(10), contents(1))
    place = store.path(meta(10))
    disk.rename(f"{place}/000010.sst", "/s/away")
    assert "is missing" in "".join(verify_directory(disk, place).problems)
    disk.rename("/s/away", f"{place}/000010.sst")
    disk.write_atomic(f"{place}/stranger", b"x")
    assert "does not belong" in "".join(verify_directory(disk, place).problems)
    disk.remove(f"{place}/stranger")
    disk.rename(place, store.path(meta(99)))
    opened = open_store(disk, "/s")
    assert opened.list() == []
    assert list(opened.damaged()) == [posixpath.basename(store.path(meta(99)))]
    assert "holds the snapshot" in "".join(verify_directory(disk, "/s").problems)
    assert "is no directory" in "".join(verify_directory(disk, "/nowhere").problems)


def test_a_damaged_manifest_does_not_keep_others_from_being_used():
    """One of two can't be read: the other one is listed, and the damaged one goes when there are enough sound ones."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    publish(store, meta(10), contents(1))
    publish(store, meta(20), contents(2))
    disk.flip(f"{store.path(meta(20))}/MANIFEST", 30, 2)
    store = open_store(disk, "/s")
    assert store.list() == [meta(10)]
    publish(store, meta(30), contents(3))
    store.prune(store.retire(2))
    assert store.damaged() == {}
    assert store.list() == [meta(10), meta(30)]
    assert not disk.exists(store.path(meta(20)))


def test_a_manifest_of_another_version_names_both():
    """A snapshot of a newer raftkv stops the node by name; it is not taken for damage."""
    sealed = SealedManifest.seal(Manifest("c", meta(1), None, ()))
    data = bytearray(sealed.data)
    data[8] = 9
    import xxhash

    data[16:32] = xxhash.xxh3_128_digest(bytes(data[:16]) + bytes(data[32:]))
    with pytest.raises(FormatError, match="format version 9, this raftkv reads version 1"):
        SealedManifest.parse(bytes(data), "it")


@pytest.mark.parametrize("name", ["", "..", "a/b", "a\\b", "a\0b", "MANIFEST"])
def test_names_that_lead_out_of_the_directory_are_refused(name):
    """A manifest comes from another node: it must not be able to write anywhere else."""
    manifest = Manifest("c", meta(1), None, (SnapshotFile(name, 1, bytes(16)),))
    with pytest.raises(SnapshotCorruption, match="no name for a file"):
        SealedManifest.parse(SealedManifest.seal(manifest).data, "it")


def test_a_full_disk_leaves_no_draft():
    """F14: nothing is published, the draft is gone, and the snapshots that were there are as before."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    publish(store, meta(10), contents(1))
    draft = store.begin()
    write_files(disk, draft, contents(2))
    disk.capacity_bytes = disk.used_bytes() + 10
    with pytest.raises(DiskFull):
        store.publish(draft, meta(20), cluster_id=CLUSTER)
    assert not disk.exists(draft)
    assert store.list() == [meta(10)]


def crash_in_operation(number, work, dice):
    """Run `work` on a fresh disk with one snapshot, and cut the power before its `number`th operation.

    Returns the disk, and whether `work` came to its end.
    """
    disk = SimDisk()
    store = open_store(disk, "/s")
    publish(store, meta(10), contents(1))
    publish(store, meta(20), contents(2))
    left = number

    def fault(kind, path):
        nonlocal left
        left -= 1
        if left <= 0:
            raise ZeroDivisionError

    disk.fault = fault
    try:
        work(store)
        finished = True
    except ZeroDivisionError:
        finished = False
    disk.fault = None
    disk.crash(dice)
    return disk, finished


@pytest.mark.parametrize("keep", [None, 1, 2, 3])
def test_power_lost_at_any_operation_leaves_whole_snapshots(keep):
    """F59: while one is published and others are pruned: what is listed is sound, and there always is one."""

    def work(store):
        publish(store, meta(30), contents(3))
        store.prune(store.retire(1))

    number, finished = 0, False
    while not finished:
        number += 1
        dice = None if keep is None else random.Random(keep * 1000 + number)
        disk, finished = crash_in_operation(number, work, dice)
        store = open_store(disk, "/s")
        found = store.list()
        assert found, f"operation {number}: no snapshot is left"
        for snapshot in found:
            assert store.verify(snapshot).is_sound, f"operation {number}"
        if finished:
            assert found == [meta(30)]
        publish(store, meta(40), contents(4))
        assert store.latest() == meta(40)
    assert number > 20


def test_a_published_snapshot_survives_the_power():
    """Name and files are durable when it is published, though whoever filled the draft synced nothing (F59)."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    draft = store.begin()
    disk.mkdir(draft)
    for name, data in contents(1).items():
        file = disk.open(posixpath.join(draft, name), create=True)
        file.pwrite([data], 0)
        file.close()
    store.publish(draft, meta(10), cluster_id="c")
    disk.crash()
    again = open_store(disk, "/s")
    assert again.list() == [meta(10)]
    again.verify(meta(10))
    assert read_files(again, meta(10)) == contents(1)


def test_rot_in_a_shared_file_gets_no_new_checksum():
    """A file that two snapshots share was right when the first was made: what it is now is found, not blessed (F68)."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    publish(store, meta(10), contents(1))
    shared = posixpath.join(store.path(meta(10)), "000011.sst")
    disk.flip(shared, 77, 3)
    draft = store.begin()
    disk.mkdir(draft)
    disk.link(shared, posixpath.join(draft, "000011.sst"))
    store.publish(draft, meta(20), cluster_id="c")
    with pytest.raises(SnapshotCorruption, match=r"000011\.sst"):
        store.verify(meta(20))
