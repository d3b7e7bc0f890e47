"""What only the operating system's files show: its errors, its flags, its locks."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from raftkv.disk import RealDisk, real
from raftkv.disk.advice import advice_in
from raftkv.errors import DataDirLocked, DiskError, DiskFull


@pytest.fixture
def disk():
    """The disk under test."""
    return RealDisk()


def failing(number):
    """A stand-in for a function of `os` that fails the first time."""

    def call(*args, **kwargs):
        if not failed:
            failed.append(number)
            raise OSError(number, os.strerror(number))

    failed = []
    return call


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.EACCES, "chown"),
        (errno.EPERM, "chown"),
        (errno.EROFS, "mount"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "file-max"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENOSPC, "free some space"),
        (errno.EIO, "check the disk"),
    ],
)
def test_an_error_says_what_to_do_about_it(disk, tmp_path, monkeypatch, number, what):
    """Most errors of files are no fault of the disk, and nobody is to look for one there."""
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing(number))
        with pytest.raises(DiskError, match="then start the node again") as caught:
            disk.open(str(tmp_path / "f"), create=True)
    assert what in str(caught.value)
    assert ("check the disk" in str(caught.value)) == (number == errno.EIO)
    assert what in advice_in(f"IO error: While opening a file: x: {os.strerror(number)}")


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, DiskError)]
)
@pytest.mark.parametrize("sync", [False, True])
def test_a_failed_write_poisons_the_file(disk, tmp_path, monkeypatch, number, kind, sync):
    """Nobody knows what is on disk then, so every later call is refused with the first reason (F13, F15)."""
    path = str(tmp_path / "f")
    file = disk.open(path, create=True)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", failing(number))
        with pytest.raises(kind, match="then start the node again") as caught:
            file.pwrite([b"abc"], 0, sync=sync)
    assert path in str(caught.value)
    assert (type(caught.value) is DiskFull) == (kind is DiskFull)
    for call in (
        lambda: file.pwrite([b"abc"], 0, sync=sync),
        lambda: file.pread(1, 0),
        file.sync,
        file.size,
        lambda: file.truncate(0),
    ):
        with pytest.raises(DiskError, match=r"unusable since an earlier failure \(writing"):
            call()
    file.close()
    assert disk.read_bytes(path) == b"", "another handle is not poisoned"


@pytest.mark.parametrize("name", ["fdatasync", "ftruncate"])
def test_a_failed_sync_is_not_retried(disk, tmp_path, monkeypatch, name):
    """The kernel drops what it could not write, and a second sync would say that all is well (F15)."""
    file = disk.open(str(tmp_path / "f"), create=True)
    file.pwrite([b"abc"], 0)
    call = failing(errno.EIO)
    monkeypatch.setattr(os, name, call)
    change = file.sync if name == "fdatasync" else lambda: file.truncate(0)
    with pytest.raises(DiskError):
        change()
    with pytest.raises(DiskError, match="unusable"):
        change()


def test_a_full_disk(disk):
    """The device that is always full is told from one that is broken (F13)."""
    file = disk.open("/dev/full")
    with pytest.raises(DiskFull, match="free some space"):
        file.pwrite([b"abc"], 0)
    file.close()


@pytest.mark.parametrize("taken", [1, 2, 5])
@pytest.mark.parametrize("sync", [False, True])
def test_a_short_write_goes_on(disk, tmp_path, monkeypatch, taken, sync):
    """The kernel may take less than it was given; what is left follows, with the same flags (F17)."""
    write = os.pwritev
    flags = set()

    def short(descriptor, buffers, offset, flag=0):
        flags.add(flag)
        return write(descriptor, [b"".join(buffers)[:taken]], offset, flag)

    monkeypatch.setattr(os, "pwritev", short)
    file = disk.open(str(tmp_path / "f"), create=True)
    file.pwrite([b"abc", b"", b"defg"], 1, sync=sync)
    assert file.pread(100, 0) == b"\0abcdefg"
    assert len(flags) == 1
    file.close()


def test_a_write_that_gets_nowhere_fails(disk, tmp_path, monkeypatch):
    """A call that takes nothing is an error, not an endless loop (F17)."""
    monkeypatch.setattr(os, "pwritev", lambda *args: 0)
    file = disk.open(str(tmp_path / "f"), create=True)
    with pytest.raises(DiskError):
        file.pwrite([b"abc"], 0)


def test_a_short_read_goes_on(disk, tmp_path, monkeypatch):
    """The kernel may give less than was asked for; only the end of the file ends a read (F17)."""
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, size, offset: read(descriptor, min(size, 2), offset))
    file = disk.open(str(tmp_path / "f"), create=True)
    file.pwrite([b"abcdefg"], 0)
    assert file.pread(6, 0) == b"abcdef"
    assert file.pread(60, 1) == b"bcdefg"


@pytest.mark.parametrize("how", ["no such flag", "the file system refuses it"])
def test_where_no_write_syncs_a_sync_follows(disk, tmp_path, monkeypatch, how):
    """Without RWF_DSYNC, be it unknown here or refused there, a synced write is a write and an fdatasync."""
    write, sync = os.pwritev, os.fdatasync
    calls = []

    def pwritev(descriptor, buffers, offset, flags=0):
        calls.append("synced write" if flags else "write")
        if flags:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return write(descriptor, buffers, offset)

    def fdatasync(descriptor):
        calls.append("sync")
        sync(descriptor)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    monkeypatch.setattr(real, "_DSYNC", None if how == "no such flag" else 2)
    file = disk.open(str(tmp_path / "f"), create=True)
    file.pwrite([b"abc"], 0, sync=True)
    file.pwrite([b"def"], 3, sync=True)
    assert file.pread(9, 0) == b"abcdef"
    attempts = [] if how == "no such flag" else ["synced write"]
    assert calls == [*attempts, "write", "sync", "write", "sync"]


def test_errors_of_reading(disk, tmp_path, monkeypatch):
    """They are the disk's, and leave the file usable: nothing was changed (F18)."""
    file = disk.open(str(tmp_path / "f"), create=True)
    file.pwrite([b"abc"], 0)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", failing(errno.EIO))
        with pytest.raises(DiskError, match="reading"):
            file.pread(3, 0)
    assert file.pread(3, 0) == b"abc"


def test_a_failed_close_is_an_error_of_the_disk(disk, tmp_path, monkeypatch):
    """And the number of the closed file, which may be another's by now, is not closed a second time."""

    def close(descriptor):
        original(descriptor)
        raise OSError(errno.EIO, "written late, and in vain")

    original = os.close
    file = disk.open(str(tmp_path / "f"), create=True)
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        with pytest.raises(DiskError, match="closing"):
            file.close()
    file.close()


@pytest.mark.parametrize("name", ["exists", "is_dir"])
def test_what_cannot_be_told_is_not_missing(disk, tmp_path, monkeypatch, name):
    """An error where a vote file is looked for must not look like a first start (F11)."""
    (tmp_path / "f").write_bytes(b"")
    monkeypatch.setattr(os, "stat", failing(errno.EIO))
    with pytest.raises(DiskError, match="looking at"):
        getattr(disk, name)(str(tmp_path / "f"))


@pytest.mark.parametrize("name", ["fdatasync", "rename"])
def test_replacing_a_file_fails_and_leaves_the_old_one(disk, tmp_path, monkeypatch, name):
    """Until the new content is durable, nothing is renamed; the next attempt works (F12)."""
    path = str(tmp_path / "f")
    disk.write_atomic(path, b"old")
    with monkeypatch.context() as patched:
        patched.setattr(os, name, failing(errno.EIO))
        with pytest.raises(DiskError):
            disk.write_atomic(path, b"new")
    assert disk.read_bytes(path) == b"old"
    disk.write_atomic(path, b"new")
    assert disk.read_bytes(path) == b"new"


def test_the_order_of_replacing_a_file(disk, tmp_path, monkeypatch):
    """Its data are synced before it gets its name, and its name after (F12)."""
    calls = []

    def noted(name):
        original = getattr(os, name)

        def call(*args, **kwargs):
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("pwritev", "fdatasync", "rename", "fsync"):
        noted(name)
    disk.write_atomic(str(tmp_path / "f"), b"new")
    assert calls == ["pwritev", "fdatasync", "rename", "fsync"]


def test_a_new_directory_is_durable(disk, tmp_path, monkeypatch):
    """The directory above each new one is synced, also for one that somebody made who was killed (F12)."""
    synced = []
    sync_dir = disk.sync_dir
    monkeypatch.setattr(disk, "sync_dir", lambda path: (synced.append(path), sync_dir(path)))
    root = str(tmp_path)
    disk.mkdir(f"{root}/a/b")
    assert synced == [str(tmp_path.parent), root, f"{root}/a"]
    del synced[:]
    disk.mkdir(f"{root}/a/b")
    assert synced == [f"{root}/a"]


def test_two_processes_make_a_directory_that_they_share(disk, tmp_path, monkeypatch):
    """Nodes that start at once make the same parent: the slower one goes on with what the other has made."""
    make, root = os.mkdir, str(tmp_path)

    def made_by_another(path, mode):
        make(path, mode)
        monkeypatch.undo()
        make(path, mode)

    monkeypatch.setattr(os, "mkdir", made_by_another)
    disk.mkdir(f"{root}/a/b")
    assert disk.is_dir(f"{root}/a/b")


def test_a_directory_in_one_that_may_not_be_read(disk, tmp_path, monkeypatch):
    """A data directory whose parent is somebody else's can be used all the same."""
    directory = tmp_path / "data"
    directory.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", failing(errno.EACCES))
        disk.mkdir(str(directory))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(errno.EIO))
        with pytest.raises(DiskError):
            disk.mkdir(str(directory))


_HOLDER = (
    "import sys; from raftkv.disk import RealDisk; lock = RealDisk().lock(sys.argv[1]); print('got it', flush=True)"
)


def test_another_process_holds_the_lock_until_it_ends(disk, tmp_path):
    """Two processes never use one data directory, and one that was killed leaves no lock behind (F22)."""
    path = str(tmp_path / "LOCK")
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER + "; sys.stdin.read()", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "got it\n"
        with pytest.raises(DataDirLocked, match="Stop it, or use another directory"):
            disk.lock(path)
        holder.kill()
        holder.wait()
        disk.lock(path).release()


def test_a_lock_that_cannot_be_had_for_another_reason(disk, tmp_path, monkeypatch):
    """Where locking does not work, nobody is told that another process runs; the file is closed again."""

    def flock(descriptor, operation):
        asked.append(descriptor)
        raise OSError(errno.ENOLCK, "no locks available")

    asked = []
    monkeypatch.setattr(real.fcntl, "flock", flock)
    with pytest.raises(DiskError, match="locking"):
        disk.lock(str(tmp_path / "LOCK"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(asked[0])


def test_several_may_read_under_a_lock_that_keeps_writers_away(disk, tmp_path):
    """The file is not opened to be written, and not made; who writes keeps readers away, too."""
    path = str(tmp_path / "LOCK")
    with pytest.raises(FileNotFoundError):
        disk.lock_to_read(path)
    disk.lock(path).release()
    os.chmod(path, 0o400)
    one, two = disk.lock_to_read(path), disk.lock_to_read(path)
    one.release()
    os.chmod(path, 0o600)
    with pytest.raises(DataDirLocked):
        disk.lock(path)
    two.release()
    lock = disk.lock(path)
    with pytest.raises(DataDirLocked):
        disk.lock_to_read(path)
    lock.release()
