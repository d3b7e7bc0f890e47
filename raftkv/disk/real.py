"""Files of the operating system."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raftkv import failpoints
from raftkv.disk.advice import AGAIN, advice
from raftkv.disk.interface import Disk, DiskSpace, File, Lock
from raftkv.errors import DataDirLocked, DiskError, DiskFull
from raftkv.forks import let_go, tell_of_fork

_DSYNC: int | None = getattr(os, "RWF_DSYNC", None)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_FLAGS = (errno.EOPNOTSUPP, errno.ENOSYS)
_BUFFERS_MAX = 512  # well below IOV_MAX (1,024 on Linux)

failpoints.declare(
    __name__,
    {
        "disk.before_sync": "a file's data was written, and is not synced",
    },
    raises=DiskError,
)


@contextmanager
def _translated(what: str, path: str) -> Iterator[None]:
    """The one place where the system's errors become ours."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as exc:
        then = f"{advice(exc.errno)}, {AGAIN}"
        if exc.errno in _FULL:
            raise DiskFull(f"{what} {path}: the disk is full; {then}") from exc
        raise DiskError(f"{what} {path}: {exc.strerror or exc}; {then}") from exc


class RealFile(File):
    """A file descriptor."""

    def __init__(self, path: str, descriptor: int) -> None:
        self._path = path
        self._fd = descriptor
        self._poisoned: str | None = None
        self._dsync = _DSYNC

    def _check(self) -> None:
        if self._poisoned is not None:
            raise DiskError(f"{self._path}: unusable since an earlier failure ({self._poisoned})")

    @contextmanager
    def _changing(self, what: str) -> Iterator[None]:
        self._check()
        try:
            with _translated(what, self._path):
                yield
        except DiskError as exc:
            self._poisoned = str(exc)
            raise

    def pread(self, size: int, offset: int) -> bytes:
        self._check()
        with _translated("reading", self._path):
            data = os.pread(self._fd, size, offset)
            while len(data) < size:
                more = os.pread(self._fd, size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            return data

    def pwrite(self, buffers: Sequence[bytes], offset: int, *, sync: bool = False) -> None:
        with self._changing("writing"):
            if sync and len(buffers) <= _BUFFERS_MAX and self._pwrite_synced(buffers, offset):
                return
            for at in range(0, len(buffers), _BUFFERS_MAX):
                offset = self._pwrite(buffers[at : at + _BUFFERS_MAX], offset, 0)
            if sync:
                os.fdatasync(self._fd)

    def _pwrite_synced(self, buffers: Sequence[bytes], offset: int) -> bool:
        """Write and sync in one call. False, without writing anything, where the system has no such call."""
        if self._dsync is None:
            return False
        try:
            self._pwrite(buffers, offset, self._dsync)
        except OSError as exc:
            if exc.errno not in _NO_FLAGS:
                raise
            self._dsync = None  # this file system refuses the flag before it writes anything
            return False
        return True

    def _pwrite(self, buffers: Sequence[bytes], offset: int, flags: int) -> int:
        """Write all buffers, even if the kernel takes less at a time; returns the offset behind the last byte."""
        total = sum(map(len, buffers))
        written = os.pwritev(self._fd, buffers, offset, flags)
        if written < total:
            rest = memoryview(b"".join(buffers))[written:]
            while rest:
                count = os.pwritev(self._fd, [rest], offset + total - len(rest), flags)
                if count == 0:
                    raise OSError(errno.EIO, "nothing more could be written")
                rest = rest[count:]
        return offset + total

    def sync(self) -> None:
        with self._changing("syncing"):
            failpoints.reach("disk.before_sync")
            os.fdatasync(self._fd)

    def truncate(self, size: int) -> None:
        with self._changing("truncating"):
            os.ftruncate(self._fd, size)

    def size(self) -> int:
        self._check()
        with _translated("measuring", self._path):
            return os.fstat(self._fd).st_size

    def close(self) -> None:
        descriptor, self._fd = self._fd, -1  # first, as the number may be another file's when closing fails
        if descriptor >= 0:
            with _translated("closing", self._path):
                os.close(descriptor)


class _FileLock(Lock):
    def __init__(self, descriptor: int) -> None:
        self._fd = descriptor
        tell_of_fork(self)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def after_fork(self) -> None:
        """In a child: don't unlock. Both processes share the open file, and the parent must keep its lock."""
        let_go(self._fd)
        self._fd = -1


class RealDisk(Disk):
    """The file systems of this machine."""

    def open(self, path: str, *, create: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        with _translated("opening", path):
            return RealFile(path, os.open(path, flags, 0o600))

    def open_to_read(self, path: str) -> File:
        with _translated("opening", path):
            return RealFile(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def exists(self, path: str) -> bool:
        return _mode(path) is not None

    def is_dir(self, path: str) -> bool:
        mode = _mode(path)
        return mode is not None and stat.S_ISDIR(mode)

    def listdir(self, path: str) -> list[str]:
        with _translated("listing", path):
            return sorted(os.listdir(path))

    def mkdir(self, path: str) -> None:
        path = os.path.abspath(path)
        missing = []
        while not self.is_dir(path):
            missing.append(path)
            path = os.path.dirname(path)
        self._sync_parent(path)
        for directory in reversed(missing):
            with _translated("making the directory", directory):
                try:
                    os.mkdir(directory, 0o700)
                except FileExistsError:  # another node's process may have made what they share meanwhile
                    if not self.is_dir(directory):
                        raise
            self.sync_dir(os.path.dirname(directory))

    def _sync_parent(self, path: str) -> None:
        """Make the name of an existing directory durable: the process that made it may have been killed before."""
        try:
            self.sync_dir(os.path.dirname(path))
        except DiskError as exc:
            if not isinstance(exc.__cause__, PermissionError):
                raise
            # A parent that we may not even read was not made by us.

    def remove(self, path: str) -> None:
        with _translated("removing", path):
            os.remove(path)

    def remove_tree(self, path: str) -> None:
        if self.is_dir(path):
            with _translated("removing", path):
                shutil.rmtree(path)

    def rename(self, source: str, target: str) -> None:
        with _translated("renaming", source):
            os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        with _translated("linking", source):
            os.link(source, target)

    def same_file(self, path: str, other: str) -> bool:
        try:
            with _translated("looking at", path):
                return os.path.samefile(path, other)
        except FileNotFoundError:
            return False

    def sync_dir(self, path: str) -> None:
        with _translated("syncing the directory", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def size(self, path: str) -> int:
        with _translated("measuring", path):
            return os.stat(path).st_size

    def free(self, path: str) -> DiskSpace:
        with _translated("measuring the space of", path):
            found = os.statvfs(path)
        return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    def lock(self, path: str) -> Lock:
        with _translated("opening", path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return _locked(descriptor, path, fcntl.LOCK_EX)

    def lock_to_read(self, path: str) -> Lock:
        with _translated("opening", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return _locked(descriptor, path, fcntl.LOCK_SH)


def _locked(descriptor: int, path: str, kind: int) -> Lock:
    try:
        with _translated("locking", path):
            _flock(descriptor, path, kind)
    except BaseException:
        os.close(descriptor)
        raise
    return _FileLock(descriptor)


def _flock(descriptor: int, path: str, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise DataDirLocked(
            f"{path} is locked: another process uses this data directory. Stop it, or use another directory."
        ) from exc


def _mode(path: str) -> int | None:
    """The mode of a file, None when there is none. When that can't be told it raises, in order not to say missing."""
    with _translated("looking at", path):
        try:
            return os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
