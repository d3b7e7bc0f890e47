"""The simulated disk loses what a disk may lose, and nothing else."""

from __future__ import annotations

import contextlib
import random

import pytest

from raftkv.disk.simulated import SECTOR_BYTES, SimDisk
from raftkv.errors import DataDirLocked, DiskError, DiskFull

OLD, NEW = b"o", b"n"


class PowerCut(BaseException):
    """Ends whatever runs."""


@pytest.fixture
def disk():
    """A disk with a directory."""
    disk = SimDisk()
    disk.mkdir("/d")
    return disk


def synced(disk, path, data):
    """A file that survives everything; it is left open."""
    file = disk.open(path, create=True)
    file.pwrite([data], 0, sync=True)
    disk.sync_dir("/d")
    return file


def failing_at(disk, number, error):
    """Make the `number`th operation from now fail."""
    left = [number]

    def fault(kind, path):
        left[0] -= 1
        if left[0] == 0:
            raise error(f"{kind} of {path}")

    disk.fault = fault


def outcomes(prepare, look, seeds=200):
    """What `look` sees after crashes with as many seeds, each of them on a disk of its own."""
    found = set()
    for seed in range(seeds):
        disk = SimDisk()
        disk.mkdir("/d")
        prepare(disk)
        disk.crash(random.Random(seed))
        found.add(look(disk))
    return found


def test_synced_data_survive_and_others_may_go(disk):
    """Without a choice, exactly what was synced is left (F4, F12)."""
    file = synced(disk, "/d/f", b"abc")
    file.pwrite([b"XYZ"], 0)
    file.pwrite([b"more"], 3)
    assert disk.read_bytes("/d/f") == b"XYZmore"
    disk.crash()
    assert disk.read_bytes("/d/f") == b"abc"


@pytest.mark.parametrize("how", ["sync", "synced write"])
def test_a_sync_makes_all_of_the_file_durable(disk, how):
    """Also what was written or cut before."""
    file = synced(disk, "/d/f", b"abcdef")
    file.truncate(2)
    file.pwrite([b"X"], 0)
    if how == "sync":
        file.sync()
    else:
        file.pwrite([b"Y"], 1, sync=True)
    disk.crash(random.Random(1))
    assert disk.read_bytes("/d/f") == (b"Xb" if how == "sync" else b"XY")


def test_unsynced_writes_reach_the_disk_in_any_selection():
    """Each of them is kept or lost by itself: none, one, the other, both (F7)."""

    def prepare(disk):
        file = synced(disk, "/d/f", bytes(2 * SECTOR_BYTES))
        file.pwrite([b"1"], 0)
        file.pwrite([b"2"], SECTOR_BYTES)

    def look(disk):
        data = disk.read_bytes("/d/f")
        return data[0:1], data[SECTOR_BYTES : SECTOR_BYTES + 1]

    assert outcomes(prepare, look) == {(a, b) for a in (b"\0", b"1") for b in (b"\0", b"2")}


def test_a_write_is_torn_between_sectors_only():
    """Three sectors: each selection occurs, and none is ever half old and half new (F8)."""
    size = 3 * SECTOR_BYTES

    def prepare(disk):
        synced(disk, "/d/f", OLD * size).pwrite([NEW * size], 0)

    def look(disk):
        data = disk.read_bytes("/d/f")
        sectors = [data[at : at + SECTOR_BYTES] for at in range(0, size, SECTOR_BYTES)]
        assert all(len(set(sector)) == 1 for sector in sectors)
        return b"".join(sector[:1] for sector in sectors)

    assert outcomes(prepare, look) == {a + b + c for a in (OLD, NEW) for b in (OLD, NEW) for c in (OLD, NEW)}


def test_a_torn_write_knows_the_sectors_of_the_disk_not_its_own():
    """A write that begins within a sector is torn at that sector's end (F8)."""

    def prepare(disk):
        synced(disk, "/d/f", OLD * 2 * SECTOR_BYTES).pwrite([NEW * SECTOR_BYTES], 100)

    def look(disk):
        data = disk.read_bytes("/d/f")
        assert data[:100] + data[100 + SECTOR_BYTES :] == OLD * SECTOR_BYTES
        return data[100:SECTOR_BYTES], data[SECTOR_BYTES : 100 + SECTOR_BYTES]

    first, second = SECTOR_BYTES - 100, 100
    assert outcomes(prepare, look) == {(a * first, b * second) for a in (OLD, NEW) for b in (OLD, NEW)}


def test_a_file_that_grew_may_have_holes():
    """A lost sector behind which another was kept reads as zeros (F8)."""

    def prepare(disk):
        synced(disk, "/d/f", b"").pwrite([NEW * 2 * SECTOR_BYTES], 0)

    found = outcomes(prepare, lambda disk: disk.read_bytes("/d/f"))
    assert found == {
        b"",
        NEW * SECTOR_BYTES,
        NEW * 2 * SECTOR_BYTES,
        bytes(SECTOR_BYTES) + NEW * SECTOR_BYTES,
    }


def test_a_cut_may_be_lost():
    """An unsynced truncation has happened or not (F8)."""

    def prepare(disk):
        synced(disk, "/d/f", b"abc").truncate(1)

    assert outcomes(prepare, lambda disk: disk.read_bytes("/d/f")) == {b"abc", b"a"}


def test_the_same_choice_gives_the_same_disk(disk):
    """A crash is replayed by its seed."""
    images = []
    for _ in range(2):
        disk = SimDisk()
        disk.mkdir("/d")
        for number in range(5):
            disk.open(f"/d/{number}", create=True).pwrite([NEW * 2_000], 0)
        disk.crash(random.Random(7))
        images.append(disk.image())
    assert images[0] == images[1]
    assert images[0]


def test_a_name_without_a_sync_of_its_directory_may_go(disk):
    """Also that of a file whose data are synced (F12)."""
    file = disk.open("/d/f", create=True)
    file.pwrite([b"abc"], 0, sync=True)
    disk.crash()
    assert disk.listdir("/d") == []


def test_names_are_durable_with_their_directory(disk):
    """New, second, other and removed names: after the sync no crash changes them (F12)."""
    for name in "abc":
        synced(disk, f"/d/{name}", name.encode())
    disk.link("/d/a", "/d/second")
    disk.rename("/d/b", "/d/other")
    disk.remove("/d/c")
    disk.sync_dir("/d")
    disk.crash(random.Random(3))
    assert disk.image() == {"/d/a": b"a", "/d/other": b"b", "/d/second": b"a"}
    assert disk.same_file("/d/a", "/d/second")


def test_names_are_lost_from_the_end():
    """As a journal does: the first few changes are there, all or none of the rest (F12)."""

    def prepare(disk):
        synced(disk, "/d/f", OLD)
        synced(disk, "/d/g", NEW)
        disk.rename("/d/f", "/d/h")
        disk.rename("/d/g", "/d/f")
        disk.remove("/d/h")

    found = outcomes(prepare, lambda disk: tuple(disk.image().items()))
    assert found == {
        (("/d/f", OLD), ("/d/g", NEW)),
        (("/d/g", NEW), ("/d/h", OLD)),
        (("/d/f", NEW), ("/d/h", OLD)),
        (("/d/f", NEW),),
    }


def test_a_replaced_file_is_the_old_or_the_new_one():
    """Never an empty one, as its data are durable before its name (F12)."""

    def replace_until(disk, number):
        disk.write_atomic("/d/f", b"old")
        if number is not None:
            failing_at(disk, number, PowerCut)
        with contextlib.suppress(PowerCut):
            disk.write_atomic("/d/f", b"new")

    found = [
        outcomes(lambda disk, number=number: replace_until(disk, number), lambda disk: disk.read_bytes("/d/f"), 20)
        for number in (1, 2, 3, 4, 5, 6, None)
    ]
    assert found == [*[{b"old"}] * 5, {b"old", b"new"}, {b"new"}]


def test_a_directory_is_durable_when_it_is_made(disk):
    """With its parents, and a killed process's successor need not know how far that one came (F12)."""
    for number in range(1, 7):
        disk = SimDisk()
        failing_at(disk, number, PowerCut)
        with contextlib.suppress(PowerCut):
            disk.mkdir("/a/b")
        disk.fault = None
        disk.kill()
        disk.mkdir("/a/b")
        disk.crash()
        assert disk.is_dir("/a/b")


def test_a_removed_tree_may_come_back_in_part():
    """Its files go one by one, so a crash leaves any rest of it (F59)."""

    def prepare(disk):
        disk.mkdir("/d/t")
        for name in "ab":
            disk.open(f"/d/t/{name}", create=True).close()
        disk.sync_dir("/d/t")
        disk.remove_tree("/d/t")

    found = outcomes(prepare, lambda disk: tuple(disk.listdir("/d/t")) if disk.is_dir("/d/t") else None)
    assert found == {("a", "b"), ("b",), (), None}


def test_the_power_takes_files_and_locks_with_it(disk):
    """Handles of the time before are dead, and so are their locks (F22)."""
    file = synced(disk, "/d/f", b"abc")
    lock = disk.lock("/d/LOCK")
    disk.crash()
    with pytest.raises(DiskError, match="power"):
        file.pread(1, 0)
    again = disk.lock("/d/LOCK")
    lock.release()
    with pytest.raises(DataDirLocked):
        disk.lock("/d/LOCK")
    again.release()


def test_a_killed_process_loses_nothing_until_the_power_goes(disk):
    """What it wrote is read by the next one, and is still not durable (F4)."""
    file = synced(disk, "/d/f", b"abc")
    disk.lock("/d/LOCK")
    file.pwrite([b"X"], 0)
    disk.open("/d/new", create=True).close()
    disk.kill()
    with pytest.raises(DiskError):
        file.sync()
    disk.lock("/d/LOCK")
    assert disk.read_bytes("/d/f") == b"Xbc"
    assert disk.exists("/d/new")
    disk.crash()
    assert disk.read_bytes("/d/f") == b"abc"
    assert not disk.exists("/d/new")


def test_the_nth_operation_fails_and_has_no_effect():
    """Every call that changes something is counted, and can be the last one."""

    def work(disk):
        disk.mkdir("/d")
        file = disk.open("/d/f", create=True)
        file.pwrite([b"abc"], 0, sync=True)
        file.truncate(1)
        file.sync()
        disk.sync_dir("/d")
        disk.link("/d/f", "/d/g")
        disk.rename("/d/g", "/d/h")
        disk.remove("/d/h")
        disk.remove_tree("/d")

    whole = SimDisk()
    work(whole)
    kinds = []
    for number in range(1, whole.operations + 1):
        disk = SimDisk()
        failing_at(disk, number, PowerCut)
        with pytest.raises(PowerCut) as caught:
            work(disk)
        kinds.append(str(caught.value).split()[0])
        assert disk.operations == number
    assert kinds == [
        *("sync_dir", "mkdir", "sync_dir", "create", "write", "sync", "truncate", "sync", "sync_dir"),
        *("link", "rename", "remove", "remove", "remove_tree"),
    ]


def test_a_failed_write_changes_nothing_and_poisons(disk):
    """Every later call of that handle is refused; another handle is not (F13, F15)."""
    file = synced(disk, "/d/f", b"abc")
    failing_at(disk, 1, DiskError)
    with pytest.raises(DiskError):
        file.pwrite([b"X"], 0)
    for call in (lambda: file.pread(1, 0), file.sync, file.size, lambda: file.truncate(0)):
        with pytest.raises(DiskError, match="unusable"):
            call()
    assert disk.read_bytes("/d/f") == b"abc"


@pytest.mark.parametrize("keeps", [False, True])
def test_what_a_failed_sync_did_not_save_no_other_sync_saves(disk, keeps):
    """It is read as if it were there, from the page cache; a crash tells, either way (F15)."""
    disk.failed_sync_keeps = keeps
    file = synced(disk, "/d/f", b"abc")
    file.pwrite([b"X"], 0)
    failing_at(disk, 1, DiskError)
    with pytest.raises(DiskError):
        file.sync()
    with pytest.raises(DiskError, match="unusable"):
        file.sync()
    again = disk.open("/d/f")
    assert again.pread(3, 0) == b"Xbc"
    again.sync()
    disk.crash()
    assert disk.read_bytes("/d/f") == (b"Xbc" if keeps else b"abc")


def test_a_full_disk_takes_a_part(disk):
    """What fits is written, the handle is poisoned, and what does not grow still works (F13)."""
    file = synced(disk, "/d/f", b"abc")
    disk.capacity_bytes = 5
    with pytest.raises(DiskFull, match="full"):
        file.pwrite([b"12", b"345"], 2, sync=True)
    with pytest.raises(DiskError, match="unusable"):
        file.pwrite([b"1"], 0)
    assert disk.read_bytes("/d/f") == b"ab123"
    assert disk.free("/d").free_bytes == 0
    again = disk.open("/d/f")
    again.pwrite([b"X"], 0, sync=True)
    disk.capacity_bytes = 6
    again.pwrite([b"!"], 5, sync=True)
    disk.crash()
    assert disk.read_bytes("/d/f") == b"Xb123!"


def test_a_failed_read_poisons_nothing(disk):
    """And is not counted among the operations that change something (F18)."""
    file = synced(disk, "/d/f", b"abc")
    before = disk.operations

    def fault(kind, path):
        raise DiskError(f"{kind} of {path}")

    disk.read_fault = fault
    with pytest.raises(DiskError, match="read of /d/f"):
        file.pread(1, 0)
    disk.read_fault = None
    assert file.pread(3, 0) == b"abc"
    assert disk.operations == before


def test_a_write_that_is_cut_short_leaves_a_part(disk):
    """The call fails, a part of the data is there nevertheless, and the handle is of no use any more (F17)."""
    file = synced(disk, "/d/f", b"abcdef")
    disk.failed_write_keeps = 0.5
    failing_at(disk, 1, DiskError)
    with pytest.raises(DiskError, match="write of /d/f"):
        file.pwrite([b"UV", b"WXYZ"], 2)
    assert disk.read_bytes("/d/f") == b"abUVWf"
    with pytest.raises(DiskError, match="unusable"):
        file.pwrite([b"!"], 0)
    disk.crash()
    assert disk.read_bytes("/d/f") == b"abcdef"


def test_a_lost_file_does_not_come_back(disk):
    """Neither its name nor its content, whatever was pending (F11)."""
    synced(disk, "/d/f", b"abc").pwrite([b"X"], 0)
    disk.lose("/d/f")
    assert not disk.exists("/d/f")
    disk.crash(random.Random(1))
    assert not disk.exists("/d/f")
    assert disk.harmed


def test_rot_and_misdirected_writes_are_durable(disk):
    """What a test damages stays so, whatever was pending (F9, F19)."""
    file = synced(disk, "/d/f", b"abc")
    file.pwrite([b"X"], 2)
    disk.flip("/d/f", 0, bit=1)
    disk.overwrite("/d/f", 1, b"?")
    assert disk.read_bytes("/d/f") == b"c?X"
    disk.crash()
    assert disk.read_bytes("/d/f") == b"c?c"


def test_a_copy_is_another_disk(disk):
    """A copied directory goes its own way (F21, F22)."""
    synced(disk, "/d/f", b"abc")
    disk.lock("/d/LOCK")
    other = disk.copy()
    other.lock("/d/LOCK")
    other.open("/d/f").pwrite([b"X"], 0, sync=True)
    assert disk.image() == {"/d/f": b"abc"}
    other.crash()
    assert other.image() == {"/d/f": b"Xbc"}


def test_links_are_counted_once(disk):
    """Two names of one file take the space of one."""
    synced(disk, "/d/f", b"abc")
    disk.link("/d/f", "/d/g")
    assert disk.used_bytes() == 3
