"""The contract of a disk, over all kinds."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.disk import RealDisk
from raftkv.disk.simulated import SimDisk
from raftkv.doctor.shadow import ShadowDisk
from raftkv.errors import DataDirLocked, DiskError


@pytest.fixture(params=["real", "simulated", "shadow"])
def place(request, tmp_path):
    """A disk, and an empty directory on it."""
    if request.param == "real":
        return RealDisk(), str(tmp_path)
    if request.param == "shadow":
        return ShadowDisk(str(tmp_path)), str(tmp_path)
    disk = SimDisk()
    disk.mkdir("/data")
    return disk, "/data"


def write(disk, path, data):
    """A file with that content."""
    file = disk.open(path, create=True)
    file.pwrite([data], 0, sync=True)
    file.close()


def test_what_is_written_is_read(place):
    """Buffers come one behind the other at their offset, a gap is zeros, and only the file's end cuts a read short."""
    disk, root = place
    file = disk.open(f"{root}/f", create=True)
    file.pwrite([b"ab", b"", b"cd"], 3)
    file.pwrite([b"X"], 4, sync=True)
    assert file.size() == disk.size(f"{root}/f") == 7
    assert file.pread(100, 0) == b"\0\0\0aXcd"
    assert file.pread(2, 4) == b"Xc"
    assert file.pread(5, 7) == file.pread(5, 100) == b""
    file.close()
    assert disk.read_bytes(f"{root}/f") == b"\0\0\0aXcd"


def test_more_buffers_than_one_call_takes(place):
    """A write of any number of buffers is one write, synced or not."""
    disk, root = place
    buffers = [b"%04d" % number for number in range(2_500)]
    for name, sync in (("f", False), ("g", True)):
        file = disk.open(f"{root}/{name}", create=True)
        file.pwrite(buffers, 1, sync=sync)
        file.close()
        assert disk.read_bytes(f"{root}/{name}") == b"\0" + b"".join(buffers)


def test_a_file_is_cut_and_extended(place):
    """What was cut off does not come back when the file grows again."""
    disk, root = place
    file = disk.open(f"{root}/f", create=True)
    file.pwrite([b"abcdef"], 0)
    file.truncate(2)
    file.truncate(4)
    file.sync()
    assert file.pread(10, 0) == b"ab\0\0"
    file.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 40), st.lists(st.binary(max_size=9), max_size=4), st.booleans()),
            st.integers(0, 50),
        ),
        max_size=12,
    )
)
def test_a_file_is_an_array_of_bytes(place, changes):
    """Any writes and truncations come to what they do to a bytearray."""
    disk, root = place
    model = bytearray()
    file = disk.open(f"{root}/f", create=True)
    file.truncate(0)
    for change in changes:
        if isinstance(change, int):
            file.truncate(change)
            model = model[:change] + bytes(max(0, change - len(model)))
            continue
        offset, buffers, sync = change
        file.pwrite(buffers, offset, sync=sync)
        data = b"".join(buffers)
        if data:
            model += bytes(max(0, offset + len(data) - len(model)))
            model[offset : offset + len(data)] = data
        assert file.pread(100, 0) == model
    file.close()
    assert disk.read_bytes(f"{root}/f") == model


def test_a_missing_file_is_not_an_error_of_the_disk(place):
    """Whoever opens, measures, renames, links or removes what is not there can tell that from a broken disk."""
    disk, root = place
    missing = f"{root}/nowhere/f"
    for call in (
        lambda: disk.open(missing),
        lambda: disk.open(missing, create=True),
        lambda: disk.read_bytes(missing),
        lambda: disk.size(missing),
        lambda: disk.remove(missing),
        lambda: disk.rename(missing, f"{root}/g"),
        lambda: disk.link(missing, f"{root}/g"),
        lambda: disk.listdir(f"{root}/nowhere"),
        lambda: disk.sync_dir(f"{root}/nowhere"),
    ):
        with pytest.raises(FileNotFoundError):
            call()
    assert not disk.exists(missing)
    assert not disk.is_dir(missing)
    assert not disk.same_file(missing, missing)
    disk.remove_tree(missing)


def test_opening_does_not_change_a_file(place):
    """`create` means "if it is missing"."""
    disk, root = place
    write(disk, f"{root}/f", b"abc")
    disk.open(f"{root}/f", create=True).close()
    assert disk.read_bytes(f"{root}/f") == b"abc"


def test_directories(place):
    """They are made with their parents, listed in order, and removed with all that is in them."""
    disk, root = place
    disk.mkdir(f"{root}/a/b/c")
    disk.mkdir(f"{root}/a/b")
    write(disk, f"{root}/a/z", b"")
    write(disk, f"{root}/a/b/c/deep", b"")
    assert disk.listdir(f"{root}/a") == ["b", "z"]
    assert disk.exists(f"{root}/a/b")
    assert disk.is_dir(f"{root}/a/b")
    assert disk.exists(f"{root}/a/z")
    assert not disk.is_dir(f"{root}/a/z")
    disk.remove(f"{root}/a/z")
    assert disk.listdir(f"{root}/a") == ["b"]
    disk.remove_tree(f"{root}/a")
    assert not disk.exists(f"{root}/a/b/c/deep")
    assert not disk.is_dir(f"{root}/a")
    assert disk.listdir(root) == []


def test_a_file_is_no_directory_and_the_other_way_round(place):
    """What stands in the way is an error of the disk, and stays as it was."""
    disk, root = place
    write(disk, f"{root}/f", b"abc")
    disk.mkdir(f"{root}/d")
    for call in (
        lambda: disk.mkdir(f"{root}/f"),
        lambda: disk.open(f"{root}/d"),
        lambda: disk.open(f"{root}/d", create=True),
        lambda: disk.rename(f"{root}/f", f"{root}/d"),
        lambda: disk.rename(f"{root}/d", f"{root}/f"),
    ):
        with pytest.raises(DiskError):
            call()
    assert not disk.exists(f"{root}/f/below")
    assert disk.listdir(root) == ["d", "f"]
    assert disk.read_bytes(f"{root}/f") == b"abc"


def test_renaming(place):
    """A file takes another's place; a directory goes with all its files, but not over others."""
    disk, root = place
    write(disk, f"{root}/f", b"new")
    write(disk, f"{root}/g", b"old")
    disk.rename(f"{root}/f", f"{root}/g")
    assert disk.listdir(root) == ["g"]
    assert disk.read_bytes(f"{root}/g") == b"new"
    disk.mkdir(f"{root}/a/b")
    write(disk, f"{root}/a/b/f", b"deep")
    disk.mkdir(f"{root}/full/x")
    with pytest.raises(DiskError):
        disk.rename(f"{root}/a", f"{root}/full")
    disk.mkdir(f"{root}/empty")
    disk.rename(f"{root}/a", f"{root}/empty")
    assert disk.read_bytes(f"{root}/empty/b/f") == b"deep"
    assert disk.listdir(root) == ["empty", "full", "g"]


def test_a_link_is_a_second_name(place):
    """Both names show every change, and one lives on without the other; a taken name is left alone."""
    disk, root = place
    write(disk, f"{root}/f", b"abc")
    write(disk, f"{root}/other", b"abc")
    disk.link(f"{root}/f", f"{root}/g")
    assert disk.same_file(f"{root}/f", f"{root}/g")
    assert not disk.same_file(f"{root}/f", f"{root}/other")
    with pytest.raises(DiskError):
        disk.link(f"{root}/f", f"{root}/other")
    write(disk, f"{root}/g", b"X")
    assert disk.read_bytes(f"{root}/f") == b"Xbc"
    disk.remove(f"{root}/f")
    assert disk.read_bytes(f"{root}/g") == b"Xbc"


def test_a_file_is_replaced_as_a_whole(place):
    """Nothing of the old content and no temporary name is left, nor of an earlier attempt (F12)."""
    disk, root = place
    write(disk, f"{root}/f.tmp", b"a longer one, left over from a crash")
    disk.write_atomic(f"{root}/f", b"first")
    disk.write_atomic(f"{root}/f", b"2nd")
    assert disk.read_bytes(f"{root}/f") == b"2nd"
    assert disk.listdir(root) == ["f"]


def test_a_directory_is_locked_once(place):
    """A second lock is refused with what to do, until the first is released (F22)."""
    disk, root = place
    lock = disk.lock(f"{root}/LOCK")
    with pytest.raises(DataDirLocked, match="uses this data directory"):
        disk.lock(f"{root}/LOCK")
    disk.lock(f"{root}/OTHER").release()
    lock.release()
    lock.release()
    again = disk.lock(f"{root}/LOCK")
    lock.release()  # an old lock has no say any more
    with pytest.raises(DataDirLocked):
        disk.lock(f"{root}/LOCK")
    again.release()


def test_a_closed_file_is_of_no_use(place):
    """Every call but another `close` is refused."""
    disk, root = place
    file = disk.open(f"{root}/f", create=True)
    file.close()
    file.close()
    for call in (
        lambda: file.pread(1, 0),
        lambda: file.pwrite([b"a"], 0),
        file.sync,
        file.size,
        lambda: file.truncate(0),
    ):
        with pytest.raises(DiskError):
            call()


def test_there_is_space(place):
    """What is free is a part of what there is."""
    disk, root = place
    space = disk.free(root)
    assert 0 <= space.free_bytes <= space.total_bytes
