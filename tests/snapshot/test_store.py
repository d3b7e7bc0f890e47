"""Snapshots on disk: published whole or not at all, verified to the byte, pruned without taking what is needed."""

from __future__ import annotations

import posixpath
import random

import pytest

from raftkv.disk import RealDisk
from raftkv.disk.simulated import SimDisk
from raftkv.errors import DiskFull, FormatError, SafetyViolation, SnapshotCorruption
from raftkv.snapshot import (
    Content,
    Manifest,
    Receipts,
    SealedManifest,
    SnapshotFile,
    SnapshotStore,
    verify_directory,
)
from raftkv.snapshot.verify import snapshot_name
from tests.snapshot.worlds import CLUSTER, OWNER, Ends, contents, meta, open_store, publish, read_files, write_files


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
        assert (each.size(meta(20)), each.size(meta(40))) == (35_001, 0)


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
    assert store.disk.listdir(store.directory) == [posixpath.basename(store.path(meta(40)))]
    assert open_store(store.disk, store.directory).list() == [meta(40)]
    with pytest.raises(SnapshotCorruption):
        store.manifest(meta(10))


def test_older_ones_that_are_far_larger_may_be_retired_whatever_their_number(store):
    """Never the newest, nor a pinned one, nor one that is not much larger: the state has shrunk, and they hold it."""
    for index, size in ((10, 100_000), (20, 50_000), (30, 100_000), (40, 20_000)):
        publish(store, meta(index), contents(index, (0, 1, size)))
    assert store.outsized(100_000) == []
    store.pin(meta(30))
    assert len(store.outsized(0)) == 2
    store.prune(store.retire_outsized(30_000))
    assert store.list() == [meta(20), meta(30), meta(40)]
    store.unpin(meta(30))
    store.prune(store.retire_outsized(0))
    assert store.list() == [meta(40)] and store.outsized(0) == []


def test_a_linked_copy_may_be_written_to(store):
    """What a database rewrites in its copy does not reach into the snapshot."""
    publish(store, meta(10), contents(1))
    copy = posixpath.join(store.directory, "..", "state")
    store.link_to(meta(10), copy)
    file = store.disk.open(posixpath.join(copy, "CURRENT"))
    file.pwrite([b"rewritten"], 0)
    file.close()
    assert store.verify(meta(10)).is_sound


def test_a_linked_copy_survives_the_power():
    """A node opens its state there, and counts on it when it says that the snapshot is installed (F59)."""
    disk = SimDisk()
    store = open_store(disk, "/data/snapshots")
    publish(store, meta(10), contents(1))
    store.link_to(meta(10), "/data/state")
    assert disk.open_files() == []
    disk.crash()
    for name, data in contents(1).items():
        assert disk.read_bytes(f"/data/state/{name}") == data


def test_a_look_inside_leaves_nothing_behind(store):
    """The copy that is opened for it goes again, also when the look fails; what an earlier process left there is no
    part of it."""
    publish(store, meta(10), contents(1))
    copies = []

    def inspect(directory):
        copies.append(store.disk.listdir(directory))
        if len(copies) == 2:
            raise SnapshotCorruption("the database is damaged")
        left = posixpath.join(store.directory, f"tmp-inspect-{posixpath.basename(store.path(meta(10)))}")
        assert directory == left
        return Content(10, 1, 30)

    store.verify(meta(10), inspect)
    assert not [name for name in store.disk.listdir(store.directory) if name.startswith("tmp")]
    with pytest.raises(SnapshotCorruption, match="damaged"):
        store.verify(meta(10), inspect)
    assert not [name for name in store.disk.listdir(store.directory) if name.startswith("tmp")]
    write_files(store.disk, posixpath.join(store.directory, f"tmp-inspect-{snapshot_name(meta(10))}"), {"old": b"x"})
    store.verify(meta(10), inspect)
    assert copies == [sorted(contents(1))] * 3


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


def test_every_problem_of_a_snapshot_is_said():
    """A file that is gone does not hide one that is cut short; a directory without a manifest, or without anything, is
    no sound one."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    assert "holds no snapshot" in "".join(verify_directory(disk, "/s").problems)
    publish(store, meta(10), contents(1))
    place = store.path(meta(10))
    disk.lose(f"{place}/000010.sst")
    disk.cut_short(f"{place}/000011.sst", 100)
    disk.write_synced(f"{place}/CURRENT", b"not empty")
    problems = verify_directory(disk, "/s").problems
    assert len(problems) == 3
    assert "has 100 bytes instead of 30000" in "".join(problems)
    disk.lose(f"{place}/MANIFEST")
    with pytest.raises(SnapshotCorruption, match="MANIFEST is missing"):
        store.verify(meta(10))


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


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"snapshot": meta(-1)}, "index -1"),
        ({"snapshot": meta(1, term=-1)}, "term -1"),
        ({"files": (SnapshotFile("000001.sst", -1, bytes(16)),)}, "size -1"),
        ({"files": (SnapshotFile("000001.sst", 1, b""),)}, "no checksum"),
        ({"files": (SnapshotFile("b", 1, bytes(16)), SnapshotFile("a", 1, bytes(16)))}, "not sorted"),
    ],
)
def test_a_manifest_that_cannot_be_is_refused(changed, problem):
    """Whoever sent it: nobody acts on a size or an index that there is not."""
    sound = {"cluster_id": "c", "snapshot": meta(1, term=0), "key_count": None, "files": ()}
    SealedManifest.parse(SealedManifest.seal(Manifest(**sound)).data, "it")
    with pytest.raises(SnapshotCorruption, match=problem):
        SealedManifest.parse(SealedManifest.seal(Manifest(**{**sound, **changed})).data, "it")


def test_a_file_that_is_not_in_a_manifest_is_not_found_in_it():
    """Nor is its neighbour taken for it."""
    files = tuple(SnapshotFile(name, 1, bytes(16)) for name in ("000001.sst", "000003.sst"))
    manifest = Manifest("c", meta(1), None, files)
    names = [f"00000{number}.sst" for number in range(5)]
    assert [manifest.file(name) for name in names] == [None, files[0], None, files[1], None]


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


def test_a_damaged_snapshot_makes_way_for_the_same_one():
    """It is made again, and nothing is said of damage any more."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    publish(store, meta(10), contents(1))
    store.mark_damaged(meta(10), "rot")
    assert (store.list(), list(store.damaged().values())) == ([], ["rot"])
    publish(store, meta(10), contents(1))
    for each in (store, open_store(disk, "/s")):
        assert (each.list(), each.damaged()) == ([meta(10)], {})
    assert read_files(store, meta(10)) == contents(1)


def test_a_snapshot_counts_with_a_receipt_only():
    """One that was copied here is refused by name until one takes its place; one that was pruned and is brought back is
    a stranger's, too."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    for index in (10, 20):
        publish(store, meta(index), contents(index))
    kept = {name: data for name, data in disk.image().items() if name.startswith(store.path(meta(10)))}
    store.prune(store.retire(1))
    disk.mkdir(store.path(meta(10)))
    for path, data in kept.items():
        disk.write_synced(path, data)
    store = open_store(disk, "/s")
    assert store.list() == [meta(20)]
    assert "neither taken nor received" in store.refused()[snapshot_name(meta(10))]
    publish(store, meta(10), contents(10))
    assert store.list() == [meta(10), meta(20)]
    assert store.refused() == {}


def test_a_snapshot_whose_receipt_is_lost_is_admitted():
    """When the log confirms it; it is then one that this node has taken, and may not be ahead of the log."""
    disk = SimDisk()
    assert Receipts.open(disk, "/s.receipts", OWNER).is_missing
    publish(open_store(disk, "/s"), meta(10), contents(1))
    assert not Receipts.open(disk, "/s.receipts", OWNER).is_missing
    disk.lose("/s.receipts")
    receipts = Receipts.open(disk, "/s.receipts", OWNER)
    assert receipts.is_missing
    store = SnapshotStore.open(disk, "/s", receipts)
    (found,) = store.foreign()
    store.admit(found)
    assert (store.list(), store.refused()) == ([meta(10)], {})
    assert not store.has_arrived(meta(10))
    receipts.begin()
    assert not receipts.is_missing
    again = open_store(disk, "/s")
    assert again.list() == [meta(10)]
    assert not again.has_arrived(meta(10))


def test_only_the_snapshot_that_is_expected_may_be_ahead_of_the_log():
    """One at a time, and none once it is settled; a restart knows it."""
    disk = SimDisk()
    store = open_store(disk, "/s")
    snapshots = [meta(index) for index in range(10, 100, 10)]
    for snapshot in snapshots:
        publish(store, snapshot, contents(snapshot.index, (0, 1)))
    for snapshot in snapshots:
        assert not any(map(store.has_arrived, snapshots))
        store.expect(snapshot)
        for each in (store, open_store(disk, "/s")):
            assert [one for one in snapshots if each.has_arrived(one)] == [snapshot]
        store.settle()
        store = open_store(disk, "/s")


@pytest.mark.parametrize(("index", "stays"), [(9, True), (10, False), (11, False)])
def test_a_part_that_is_newer_than_any_snapshot_here_stays(index, stays):
    """What an interrupted transfer left is gone on from, until there is a snapshot as new."""
    ends = Ends()
    channel = ends.channel()
    while channel.sender.progress.sent_bytes < 10_000:
        channel.turn()
    ends.restart()
    ends.target.prune([])
    assert [name for name in ends.disk.listdir("/t") if name.startswith("staging")]
    publish(ends.target, meta(index), contents(9))
    ends.target.prune([])
    assert bool([name for name in ends.disk.listdir("/t") if name.startswith("staging")]) == stays


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
