"""A data directory as it would be after a start of its node: all that the start writes is kept in memory.

So a directory can be judged by the very code that opens it, and nothing on disk changes.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence

from raftkv.disk import Disk, DiskSpace, File, Lock, RealDisk
from raftkv.errors import DataDirLocked, DiskError, DiskFull, RaftKVError
from raftkv.state import OWNER_FILE, MemoryStates, States, Store

WRITTEN_MAX = 256 << 20
"""Bytes that are kept in memory at most: a start writes some small files, and the last batch of its log again."""


class MadeAnew(RaftKVError):
    """A start would make the state of `directory` from a snapshot's files, and go on with that."""

    def __init__(self, directory: str) -> None:
        super().__init__(f"the state in {directory} would be made from a snapshot")


class _Content:
    """A file's bytes: those on disk, if it is there, under those that were written since. Two names may share one."""

    def __init__(self, real: str | None, size: int) -> None:
        self.real = real
        self.size = self.limit = size
        """How long it is, and how much of what is on disk counts."""
        self.patches: list[tuple[int, bytes]] = []

    def read(self, disk: RealDisk, size: int, offset: int) -> bytes:
        size = max(0, min(size, self.size - offset))
        found = bytearray(size)
        if self.real is not None and size and offset < self.limit:
            file = disk.open_to_read(self.real)
            try:
                data = file.pread(min(size, self.limit - offset), offset)
            finally:
                file.close()
            found[: len(data)] = data
        for at, patch in self.patches:
            begin, end = max(at, offset), min(at + len(patch), offset + size)
            if begin < end:
                found[begin - offset : end - offset] = patch[begin - at : end - at]
        return bytes(found)


class _ShadowFile(File):
    def __init__(self, disk: ShadowDisk, path: str, content: _Content) -> None:
        self._disk = disk
        self._path = path
        self._open: _Content | None = content

    @property
    def _content(self) -> _Content:
        if self._open is None:
            raise DiskError(f"{self._path} was closed")
        return self._open

    def pread(self, size: int, offset: int) -> bytes:
        return self._content.read(self._disk.real, size, offset)

    def pwrite(self, buffers: Sequence[bytes], offset: int, *, sync: bool = False) -> None:
        data, content = b"".join(buffers), self._content
        if not data:
            return
        content.size = max(content.size, offset + len(data))
        if content.read(self._disk.real, len(data), offset) != data:  # a start writes much again that it has read
            self._disk.keep(len(data))
            content.patches.append((offset, data))

    def sync(self) -> None:
        """Nothing here becomes durable."""
        self.size()  # which raises when the file was closed

    def truncate(self, size: int) -> None:
        content = self._content
        if size < content.size:
            if content.real == self._path and any(content.read(self._disk.real, content.size - size, size)):
                self._disk.cuts.append(f"{self._path} is cut off at byte {size}, where a crash has torn a write")
            content.patches = [(at, data[: size - at]) for at, data in content.patches if at < size]
            content.limit = min(content.limit, size)
        content.size = size

    def size(self) -> int:
        return self._content.size

    def close(self) -> None:
        self._open = None


class _ShadowLock(Lock):
    """The lock of a file that is there is held for real; one of a file that is not, among users of the shadow only."""

    def __init__(self, held: set[str], path: str, real: Lock | None) -> None:
        self._held: set[str] | None = held
        self._path = path
        self._real = real
        held.add(path)

    def release(self) -> None:
        if self._held is not None:
            self._held.discard(self._path)
            self._held = None
        if self._real is not None:
            self._real.release()


class ShadowDisk(Disk):
    """The real disk under `root`, with changes that only this object sees; elsewhere it only reads."""

    def __init__(self, root: str) -> None:
        self.real = RealDisk()
        self.cuts: list[str] = []
        """Torn writes at which a file would be cut off, in sentences."""
        self._root = posixpath.normpath(root)
        self._kept = 0
        self._locked: set[str] = set()
        self._files: dict[str, _Content] = {}
        self._dirs: set[str] = set()
        self._changed: set[str] = set()
        """Directories that are not what is on disk under their names."""
        for directory, _, names in os.walk(self._root):
            self._dirs.add(directory)
            for name in names:
                path = posixpath.join(directory, name)
                self._files[path] = _Content(path, self.real.size(path))

    def keep(self, count: int) -> None:
        """Count bytes that stay in memory. Raises `DiskFull` when there are too many."""
        self._kept += count
        if self._kept > WRITTEN_MAX:
            raise DiskFull(f"a start would write more than {WRITTEN_MAX} bytes, which are not kept here")

    def is_as_on_disk(self, directory: str) -> bool:
        """Whether the directory is there, and nothing in it was written, moved or removed here."""
        directory = posixpath.normpath(directory)
        return directory in self._dirs and directory not in self._changed

    def open(self, path: str, *, create: bool = False) -> File:
        path = posixpath.normpath(path)
        if path in self._dirs:
            raise DiskError(f"opening {path}: it is a directory")
        content = self._files.get(path)
        if content is None:
            if not create or posixpath.dirname(path) not in self._dirs:
                raise FileNotFoundError(path)
            content = self._files[path] = _Content(None, 0)
            self._changed.add(posixpath.dirname(path))
        return _ShadowFile(self, path, content)

    def exists(self, path: str) -> bool:
        path = posixpath.normpath(path)
        return path in self._files or path in self._dirs

    def is_dir(self, path: str) -> bool:
        return posixpath.normpath(path) in self._dirs

    def listdir(self, path: str) -> list[str]:
        path = posixpath.normpath(path)
        if path not in self._dirs:
            raise FileNotFoundError(path)
        return sorted(posixpath.basename(each) for each in (*self._files, *self._dirs) if _parent(each) == path)

    def mkdir(self, path: str) -> None:
        path = posixpath.normpath(path)
        if path in self._files:
            raise DiskError(f"making the directory {path}: there is a file of that name")
        while path not in self._dirs and path.startswith(self._root):
            self._dirs.add(path)
            self._changed.add(path)
            path = posixpath.dirname(path)

    def remove(self, path: str) -> None:
        path = posixpath.normpath(path)
        if path not in self._files:
            raise FileNotFoundError(path)
        del self._files[path]
        self._changed.add(posixpath.dirname(path))

    def remove_tree(self, path: str) -> None:
        path = posixpath.normpath(path)
        self._files = {each: content for each, content in self._files.items() if not _is_in(each, path)}
        self._dirs = {each for each in self._dirs if not _is_in(each, path)}

    def rename(self, source: str, target: str) -> None:
        source, target = posixpath.normpath(source), posixpath.normpath(target)
        if source not in self._files and source not in self._dirs:
            raise FileNotFoundError(source)
        if (source in self._files and target in self._dirs) or (source in self._dirs and self._holds(target)):
            raise DiskError(f"renaming {source}: {target} is in the way")
        self.remove_tree(target)
        self._files = {_moved(each, source, target): content for each, content in self._files.items()}
        moved = {_moved(each, source, target) for each in self._dirs}
        self._changed |= moved - self._dirs
        self._changed |= {posixpath.dirname(source), posixpath.dirname(target)}
        self._dirs = moved

    def _holds(self, path: str) -> bool:
        """Whether a directory of that name would not be replaced: it is a file, or has something in it."""
        return path in self._files or (path in self._dirs and bool(self.listdir(path)))

    def link(self, source: str, target: str) -> None:
        source, target = posixpath.normpath(source), posixpath.normpath(target)
        if source not in self._files:
            raise FileNotFoundError(source)
        if target in self._files:
            raise DiskError(f"linking {source}: {target} is there already")
        self._files[target] = self._files[source]
        self._changed.add(posixpath.dirname(target))

    def same_file(self, path: str, other: str) -> bool:
        one, two = (self._files.get(posixpath.normpath(each)) for each in (path, other))
        if one is None or two is None:
            return False
        return one is two or (one.real is not None and two.real is not None and self.real.same_file(one.real, two.real))

    def sync_dir(self, path: str) -> None:
        """Nothing here becomes durable."""
        if posixpath.normpath(path) not in self._dirs and not self.real.is_dir(path):
            raise FileNotFoundError(path)

    def size(self, path: str) -> int:
        path = posixpath.normpath(path)
        if path not in self._files:
            raise FileNotFoundError(path)
        return self._files[path].size

    def free(self, path: str) -> DiskSpace:
        return self.real.free(path)

    def lock(self, path: str) -> Lock:
        """For real, if the file is there: what a running node is just writing would look damaged."""
        path = posixpath.normpath(path)
        if path in self._locked:
            raise DataDirLocked(f"{path} is locked: something uses this data directory")
        return _ShadowLock(self._locked, path, self.real.lock_to_read(path) if self.real.exists(path) else None)


def _parent(path: str) -> str:
    return posixpath.dirname(path)


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _moved(path: str, source: str, target: str) -> str:
    return target + path[len(source) :] if _is_in(path, source) else path


class ShadowStates(States):
    """The states of a shadow: the one that is there is only read, and one that would be made is empty."""

    def __init__(self, disk: ShadowDisk, look: States) -> None:
        """`look` opens real directories; it changes nothing on disk."""
        self._disk = disk
        self._look = look
        self._new = MemoryStates(disk)
        self.made = False
        """Whether an empty state was made, to be filled from the log."""

    def open(self, directory: str) -> Store:
        """Raises `MadeAnew` for a state that would be a snapshot's."""
        if self._disk.is_as_on_disk(directory):
            return self._look.open(directory)
        if self._disk.is_dir(directory) and self._disk.listdir(directory) != [OWNER_FILE]:
            raise MadeAnew(directory)
        self.made = True
        return self._new.open(directory)

    def destroy(self, directory: str) -> None:
        self._disk.remove_tree(directory)
