"""The interface through which all file work goes: what is durable when, and what may be lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from raftkv import failpoints
from raftkv.errors import DiskError

failpoints.declare(
    __name__,
    {
        "atomic.before_rename": "the new content of a small file is durable under its temporary name",
        "atomic.after_rename": "a small file has its new content, and its name is not durable yet",
    },
    raises=DiskError,
)


class DiskSpace(msgspec.Struct, frozen=True):
    """Free and total bytes of a file system."""

    free_bytes: int
    total_bytes: int


class Lock(ABC):
    """A data directory's lock, held until `release` or the end of the process."""

    @abstractmethod
    def release(self) -> None:
        """Let others have the directory."""


class File(ABC):
    """An open file with positional reads and writes.

    After a failed write or sync nobody knows what is on disk, so the file is poisoned: every later
    call raises `DiskError`. An fsync is never retried, as the kernel may have dropped the data.
    """

    @abstractmethod
    def pread(self, size: int, offset: int) -> bytes:
        """Read up to `size` bytes at `offset`; fewer only at the file's end. Raises `DiskError`."""

    @abstractmethod
    def pwrite(self, buffers: Sequence[bytes], offset: int, *, sync: bool = False) -> None:
        """Write all of `buffers`, one behind the other, at `offset`; durable on return if `sync`.

        Raises `DiskError` (`DiskFull` when there is no space); then any part of it may be on disk.
        """

    @abstractmethod
    def sync(self) -> None:
        """Make what was written durable (not the file's name: see `Disk.sync_dir`)."""

    @abstractmethod
    def truncate(self, size: int) -> None:
        """Cut the file, or extend it with zeros."""

    @abstractmethod
    def size(self) -> int:
        """Bytes in the file."""

    @abstractmethod
    def close(self) -> None:
        """Close it; what was not synced may be lost."""


class Disk(ABC):
    """All file work. Paths are strings; a missing file is `FileNotFoundError`, anything else a `DiskError`.

    Names (create, rename, remove, link) are durable only after `sync_dir` of their directory, unless
    a method says otherwise.
    """

    @abstractmethod
    def open(self, path: str, *, create: bool = False) -> File:
        """Open a file for reading and writing; `create` makes it, and its name is not durable yet."""

    def open_to_read(self, path: str) -> File:
        """Open a file that this process may not be allowed to write."""
        return self.open(path)

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is a file or directory of that name."""

    @abstractmethod
    def is_dir(self, path: str) -> bool:
        """Whether it is a directory."""

    @abstractmethod
    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""

    @abstractmethod
    def mkdir(self, path: str) -> None:
        """Make a directory and its parents; durable on return, also those that exist already."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file's name."""

    @abstractmethod
    def remove_tree(self, path: str) -> None:
        """Remove a directory with all its content; nothing happens when it is missing."""

    @abstractmethod
    def rename(self, source: str, target: str) -> None:
        """Give a file or directory another name, atomically; a target file or an empty target directory is replaced."""

    @abstractmethod
    def link(self, source: str, target: str) -> None:
        """Give a file a second name, which must not be taken."""

    def same_file(self, path: str, other: str) -> bool:
        """Whether two names are hard links to one file; False also when one is missing or this disk can't tell."""
        return False

    @abstractmethod
    def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""

    @abstractmethod
    def size(self, path: str) -> int:
        """Bytes in a file."""

    @abstractmethod
    def free(self, path: str) -> DiskSpace:
        """Space on the file system that holds `path`."""

    @abstractmethod
    def lock(self, path: str) -> Lock:
        """Lock by a file, without waiting; raises `DataDirLocked`."""

    def lock_to_read(self, path: str) -> Lock:
        """Keep whoever would `lock` it away while this process reads; it need not be allowed to write there.

        The file must exist. Several may read at once. Raises `DataDirLocked`.
        """
        return self.lock(path)

    def read_bytes(self, path: str) -> bytes:
        """A whole file."""
        file = self.open(path)
        try:
            return file.pread(file.size(), 0)
        finally:
            file.close()

    def write_synced(self, path: str, data: bytes) -> None:
        """Write a file where a torn one does no harm; content (not the name) durable on return."""
        file = self.open(path, create=True)
        try:
            file.truncate(0)
            file.pwrite([data], 0)
            file.sync()
        finally:
            file.close()

    def write_atomic(self, path: str, data: bytes) -> None:
        """Replace a file's content: a crash leaves either the old or the new one, whole. Durable on return."""
        temporary = path + ".tmp"
        self.write_synced(temporary, data)
        failpoints.reach("atomic.before_rename")
        self.rename(temporary, path)
        failpoints.reach("atomic.after_rename")
        self.sync_dir(path.rpartition("/")[0] or ".")
