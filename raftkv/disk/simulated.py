"""A disk in memory that tells durable data from other data, and fails on request.

The model: readers see a write at once, but it is *pending* until its file is synced; a name
(create, rename, remove, link) is pending until its directory is synced. The end of a process leaves
pending changes as they are. A power cut (`crash`) keeps any subset of the pending writes, any of them
torn at sector boundaries, and the first few of the pending names, as a journal does. Synced data and
names always stay, except for the damage that a test does on purpose (rot, stale or misdirected writes).
"""

from __future__ import annotations

import posixpath
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

from raftkv.disk.interface import Disk, DiskSpace, File, Lock
from raftkv.errors import DataDirLocked, DiskError, DiskFull

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""

Fault: TypeAlias = Callable[[str, str], None]
"""Called before each operation with its kind and path; what it raises, the operation raises."""


class _Inode:
    """A file's bytes: as readers see them now, as they are durable, and the changes in between, oldest first."""

    __slots__ = ("content", "durable", "pending")

    def __init__(self) -> None:
        self.content = bytearray()
        self.durable = bytearray()
        self.pending: list[tuple[int, bytes | None]] = []  # (offset, data), or (size, None) for a truncation

    def change(self, offset: int, data: bytes | None) -> None:
        _change(self.content, offset, data)
        self.pending.append((offset, data))

    def sync(self) -> None:
        if self.pending:
            for offset, data in self.pending:
                _change(self.durable, offset, data)
            self.pending = []


def _change(target: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        if offset < len(target):
            del target[offset:]
        else:
            target.extend(bytes(offset - len(target)))
        return
    if data and len(target) < offset + len(data):
        target.extend(bytes(offset + len(data) - len(target)))
    target[offset : offset + len(data)] = data


class _Names:
    """A tree of names: files point to inodes, directories are just there."""

    def __init__(self) -> None:
        self.files: dict[str, _Inode] = {}
        self.dirs: set[str] = {"", "/", "."}

    def apply(self, operation: tuple[str, str, str, _Inode | None]) -> None:
        kind, path, target, inode = operation
        if kind == "set" and inode is not None:
            self.files[path] = inode
        elif kind == "remove":
            self.files.pop(path, None)
        elif kind == "mkdir":
            self.dirs.add(path)
        elif kind == "remove_tree":
            self._remove_tree(path)
        elif kind == "rename":
            self._rename(path, target)

    def _remove_tree(self, path: str) -> None:
        inside = path + "/"
        self.files = {name: inode for name, inode in self.files.items() if not name.startswith(inside)}
        self.dirs = {name for name in self.dirs if name != path and not name.startswith(inside)}

    def _rename(self, source: str, target: str) -> None:
        if source in self.files:
            self.files[target] = self.files.pop(source)
        elif source in self.dirs:
            inside = source + "/"
            self._remove_tree(target)
            for name in [name for name in self.files if name.startswith(inside)]:
                self.files[target + name[len(source) :]] = self.files.pop(name)
            moved = {name for name in self.dirs if name == source or name.startswith(inside)}
            self.dirs = (self.dirs - moved) | {target + name[len(source) :] for name in moved}

    def copy(self) -> _Names:
        copied = _Names()
        copied.files, copied.dirs = dict(self.files), set(self.dirs)
        return copied


class SimDisk(Disk):
    """The simulated disk. `operations` counts every call that changes anything; see the module for the model."""

    def __init__(self, capacity_bytes: int = 1 << 40) -> None:
        self.capacity_bytes = capacity_bytes
        self.fault: Fault | None = None
        self.read_fault: Fault | None = None
        """Like `fault`, for reads: they are not counted as operations, and a failed one poisons nothing."""
        self.failed_sync_keeps = False
        """Whether a sync that a fault makes fail saves the data nevertheless. If not, readers see the data until the
        power is cut, and no later sync saves them: page caches behave like that."""
        self.failed_write_keeps = 0.0
        """The fraction of a write that is written although a fault makes it fail: a write may be cut short."""
        self.harmed = False
        """Whether a test has damaged what was durable."""
        self.operations = 0
        self.times_full = 0
        self.lost_changes = 0
        """How many changes were not synced when the power was cut: of each, all is lost, or a part, or nothing."""
        self.generation = 0
        """Goes up at each crash; files and locks of an older one are dead."""
        self._now = _Names()
        self._durable = _Names()
        self._pending: list[tuple[str, str, str, _Inode | None]] = []
        self._locks: set[str] = set()
        self._open: set[SimFile] = set()

    def open(self, path: str, *, create: bool = False) -> File:
        path = _clean(path)
        if path in self._now.dirs:
            raise DiskError(f"opening {path}: it is a directory")
        inode = self._now.files.get(path)
        if inode is None:
            if not create:
                raise FileNotFoundError(path)
            self._need_dir(posixpath.dirname(path))
            self.before("create", path)
            inode = _Inode()
            self._change_names("set", path, inode=inode)
        file = SimFile(self, path, inode)
        self._open.add(file)
        return file

    def open_files(self) -> list[str]:
        """The paths under which this process has files open: one for each that was not closed."""
        return sorted(file.path for file in self._open)

    def closed(self, file: SimFile) -> None:
        """Note that a file was closed."""
        self._open.discard(file)

    def exists(self, path: str) -> bool:
        path = _clean(path)
        return path in self._now.files or path in self._now.dirs

    def is_dir(self, path: str) -> bool:
        return _clean(path) in self._now.dirs

    def listdir(self, path: str) -> list[str]:
        path = _clean(path)
        self._need_dir(path)
        inside = path + "/"
        names = [*self._now.files, *self._now.dirs]
        return sorted({name[len(inside) :].split("/")[0] for name in names if name.startswith(inside)})

    def mkdir(self, path: str) -> None:
        path = _clean(path)
        if path in self._now.files:
            raise DiskError(f"making the directory {path}: it is a file")
        if path not in self._now.dirs:
            self.mkdir(posixpath.dirname(path))
            self.before("mkdir", path)
            self._change_names("mkdir", path)
        self.sync_dir(posixpath.dirname(path))

    def remove(self, path: str) -> None:
        path = _clean(path)
        if path not in self._now.files:
            raise FileNotFoundError(path)
        self.before("remove", path)
        self._change_names("remove", path)

    def remove_tree(self, path: str) -> None:
        path = _clean(path)
        if path not in self._now.dirs:
            return
        inside = path + "/"
        for name in sorted(name for name in self._now.files if name.startswith(inside)):
            self.remove(name)  # one by one, as a crash may come in between
        self.before("remove_tree", path)
        self._change_names("remove_tree", path)

    def rename(self, source: str, target: str) -> None:
        source, target = _clean(source), _clean(target)
        if not self.exists(source):
            raise FileNotFoundError(source)
        self._need_dir(posixpath.dirname(target))
        if source in self._now.dirs and (target in self._now.files or self._has_names(target)):
            raise DiskError(f"renaming {source}: {target} is a file, or a directory that is not empty")
        if source in self._now.files and target in self._now.dirs:
            raise DiskError(f"renaming {source}: {target} is a directory")
        self.before("rename", source)
        self._change_names("rename", source, target)

    def link(self, source: str, target: str) -> None:
        source, target = _clean(source), _clean(target)
        inode = self._now.files.get(source)
        if inode is None:
            raise FileNotFoundError(source)
        self._need_dir(posixpath.dirname(target))
        if self.exists(target):
            raise DiskError(f"linking {source}: {target} exists")
        self.before("link", target)
        self._change_names("set", target, inode=inode)

    def same_file(self, path: str, other: str) -> bool:
        inode = self._now.files.get(_clean(path))
        return inode is not None and inode is self._now.files.get(_clean(other))

    def sync_dir(self, path: str) -> None:
        path = _clean(path)
        self._need_dir(path)
        self.before("sync_dir", path)
        touching = [at for at, op in enumerate(self._pending) if path in _directories(op)]
        if touching:
            # A journal commits in order: with the last change to this directory, all before it.
            done = touching[-1] + 1
            for operation in self._pending[:done]:
                self._durable.apply(operation)
            del self._pending[:done]

    def size(self, path: str) -> int:
        path = _clean(path)
        if path not in self._now.files:
            raise FileNotFoundError(path)
        return len(self._now.files[path].content)

    def free(self, path: str) -> DiskSpace:
        return DiskSpace(max(0, self.capacity_bytes - self.used_bytes()), self.capacity_bytes)

    def lock(self, path: str) -> Lock:
        path = _clean(path)
        if path in self._locks:
            raise DataDirLocked(f"{path} is locked: another node uses this data directory")
        self._locks.add(path)
        return _SimLock(self, path)

    def used_bytes(self) -> int:
        """Bytes in all files, hard links counted once."""
        return sum(len(inode.content) for inode in {id(i): i for i in self._now.files.values()}.values())

    def kill(self) -> None:
        """End the process without a power cut: open files and locks are dead, written data stays as it is."""
        self._locks.clear()
        self._open.clear()
        self.generation += 1

    def crash(self, choose: random.Random | None = None) -> None:
        """Cut the power. Without `choose` nothing pending survives; with it, a random part does."""
        for operation in self._surviving_names(choose):
            self._durable.apply(operation)
        self._pending = []
        inodes = {id(inode): inode for inode in [*self._now.files.values(), *self._durable.files.values()]}
        for inode in inodes.values():
            self.lost_changes += len(inode.pending)
            if choose is not None:
                for offset, data in inode.pending:
                    _keep_some(inode.durable, offset, data, choose)
            inode.pending = []
            inode.content = bytearray(inode.durable)
        self._now = self._durable.copy()
        self.kill()

    def _surviving_names(self, choose: random.Random | None) -> list[tuple[str, str, str, _Inode | None]]:
        if choose is None:
            return []
        return self._pending[: choose.randint(0, len(self._pending))]

    def flip(self, path: str, offset: int, bit: int = 0) -> None:
        """Rot: change one bit of a file, durably."""
        self.harmed = True
        inode = self._now.files[_clean(path)]
        for image in (inode.content, inode.durable):
            if offset < len(image):
                image[offset] ^= 1 << bit

    def overwrite(self, path: str, offset: int, data: bytes) -> None:
        """A stale or misdirected write: change bytes of a file, durably, without any caller having asked for it."""
        self.harmed = True
        inode = self._now.files[_clean(path)]
        for image in (inode.content, inode.durable):
            _change(image, offset, data)

    def lose(self, path: str) -> None:
        """Remove a file, durably, as a repair of the file system may do."""
        self.harmed = True
        for names in (self._now, self._durable):
            names.files.pop(_clean(path), None)

    def cut_short(self, path: str, size: int) -> None:
        """Let a file end after `size` bytes, durably: the rest was never written, or was lost."""
        self.harmed = True
        inode = self._now.files[_clean(path)]
        for image in (inode.content, inode.durable):
            del image[size:]

    def image(self) -> dict[str, bytes]:
        """Every file's content as readers see it now."""
        return {path: bytes(inode.content) for path, inode in sorted(self._now.files.items())}

    def excerpt(self, directory: str) -> SimDisk:
        """An independent disk with one directory as readers see it now; does not count as an operation here."""
        other = SimDisk()
        inside = _clean(directory) + "/"
        other.mkdir(directory)
        for path, inode in self._now.files.items():
            if path.startswith(inside):
                copied = other._now.files[path] = _Inode()
                copied.content = bytearray(inode.content)
        return other

    def copy(self) -> SimDisk:
        """An independent disk with the same durable content, as a backup or a copied directory would be."""
        other = SimDisk(self.capacity_bytes)
        for names in (other._now, other._durable):
            names.dirs = set(self._now.dirs)
        for path, inode in self._now.files.items():
            copied = _Inode()
            copied.content, copied.durable = bytearray(inode.content), bytearray(inode.content)
            other._now.files[path] = other._durable.files[path] = copied
        return other

    def before(self, kind: str, path: str) -> None:
        """Count an operation, and let a test make it fail."""
        self.operations += 1
        if self.fault is not None:
            self.fault(kind, path)

    def _change_names(self, kind: str, path: str, target: str = "", inode: _Inode | None = None) -> None:
        operation = (kind, path, target, inode)
        self._now.apply(operation)
        self._pending.append(operation)

    def _need_dir(self, path: str) -> None:
        if path not in self._now.dirs:
            raise FileNotFoundError(path)

    def _has_names(self, directory: str) -> bool:
        return any(name.startswith(directory + "/") for name in [*self._now.files, *self._now.dirs])


class SimFile(File):
    """An open file of a `SimDisk`; dead after a crash."""

    def __init__(self, disk: SimDisk, path: str, inode: _Inode) -> None:
        self._disk = disk
        self.path = path
        self._inode = inode
        self._generation = disk.generation
        self._poisoned = False
        self._closed = False

    def _check(self) -> None:
        if self._closed or self._generation != self._disk.generation:
            raise DiskError(f"{self.path}: the file is closed, or the power was cut")
        if self._poisoned:
            raise DiskError(f"{self.path}: unusable since an earlier failure")

    def _before(self, kind: str) -> None:
        try:
            self._disk.before(kind, self.path)
        except DiskError:
            self._poisoned = True
            raise

    def pread(self, size: int, offset: int) -> bytes:
        self._check()
        if self._disk.read_fault is not None:
            self._disk.read_fault("read", self.path)
        return bytes(self._inode.content[offset : offset + size])

    def pwrite(self, buffers: Sequence[bytes], offset: int, *, sync: bool = False) -> None:
        data = b"".join(buffers)
        grows = max(0, offset + len(data) - len(self._inode.content)) if data else 0
        self._check()
        try:
            self._before("write")
        except DiskError:
            self._inode.change(offset, data[: int(len(data) * self._disk.failed_write_keeps)])
            raise
        if grows and grows > self._disk.free("").free_bytes:
            self._poisoned = True
            self._disk.times_full += 1
            fits = max(0, len(data) - grows + self._disk.free("").free_bytes)
            self._inode.change(offset, data[:fits])
            raise DiskFull(f"writing {self.path}: the disk is full")
        self._inode.change(offset, data)
        if sync:
            self.sync()

    def sync(self) -> None:
        self._check()
        try:
            self._before("sync")
        except DiskError:
            if self._disk.failed_sync_keeps:
                self._inode.sync()
            self._inode.pending = []
            raise
        self._inode.sync()

    def truncate(self, size: int) -> None:
        self._check()
        self._before("truncate")
        self._inode.change(size, None)

    def size(self) -> int:
        self._check()
        return len(self._inode.content)

    def close(self) -> None:
        self._closed = True
        self._disk.closed(self)


class _SimLock(Lock):
    def __init__(self, disk: SimDisk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._generation = disk.generation

    def release(self) -> None:
        if self._generation == self._disk.generation:
            self._disk._locks.discard(self._path)
        self._generation = -1  # a second release must not undo the next holder's lock


def _clean(path: str) -> str:
    path = posixpath.normpath(path)
    return "" if path == "." else path


def _directories(operation: tuple[str, str, str, _Inode | None]) -> tuple[str, str]:
    """The directories whose names an operation changes."""
    _, path, target, _ = operation
    return posixpath.dirname(path), posixpath.dirname(target or path)


def _keep_some(image: bytearray, offset: int, data: bytes | None, choose: random.Random) -> None:
    """Let none, all, or some sectors of a pending change reach the disk."""
    fate = choose.randrange(4)
    if fate == 0:
        return
    if fate == 1 or data is None:
        _change(image, offset, data)
        return
    position = offset
    end = offset + len(data)
    keep_prefix = choose.randint(0, len(data) // SECTOR_BYTES + 1) if fate == 2 else None
    sector = 0
    while position < end:
        boundary = min(end, (position // SECTOR_BYTES + 1) * SECTOR_BYTES)
        kept = sector < keep_prefix if keep_prefix is not None else choose.random() < 0.5
        if kept:
            _change(image, position, data[position - offset : boundary - offset])
        position = boundary
        sector += 1
