"""Where the files of one snapshot arrive: what is there, what is missing, and the hash of each as it grows.

The directory is named by the manifest's digest and holds the leader's manifest, so after a restart, or
from another leader with the same snapshot, the transfer goes on where it was. A file is complete when
it has its size *and* its checksum; a shorter one is a prefix to go on from. Nothing here counts before
the whole directory is renamed, so a file that a crash has torn is merely noticed and fetched again.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from typing import TypeAlias

import msgspec
import xxhash

from raftkv.disk import Disk, File
from raftkv.snapshot.files import hash_forward
from raftkv.snapshot.manifest import MANIFEST_NAME, SealedManifest

STAGING = "staging-"

SYNC_BYTES = 256 << 10
"""Written data is synced in steps of this size: one large sync would stall the log's writes on the same disk."""

SYNC_FILES = 64
"""Small files are synced this many at a time, so that they share the file system's journal commits."""


class Source(msgspec.Struct, frozen=True):
    """A file on this disk that should have a certain content; `may_be_partial` when it was being received itself."""

    path: str
    may_be_partial: bool


Sources: TypeAlias = dict[tuple[int, bytes], list[Source]]
"""Files on this disk by size and checksum; their names don't matter."""


class Staging:
    """The files of one snapshot under way; all methods do file work (*worker*) but `missing`, `position` and counts.

    Invariants:
    - `position(n)` bytes of file n are written, and fed to its hasher, in order;
    - a complete file matched its checksum, and is never written again: it may be a hard link.
    """

    def __init__(self, disk: Disk, directory: str, sealed: SealedManifest) -> None:
        self.directory = directory
        self.sealed = sealed
        self.files = sealed.manifest.files
        self.received_bytes = 0
        """In all files, linked ones included."""
        self.complete_files = 0
        self._disk = disk
        self._positions = [0] * len(self.files)
        self._complete = bytearray(len(self.files))
        self._hashers: dict[int, xxhash.xxh3_128] = {}
        self._current: tuple[int, File] | None = None
        self._unsynced: list[File] = []
        self._unsynced_bytes = 0

    def prepare(self, sources: Sources) -> Iterator[int]:
        """Find what need not be sent. Takes long; yields the bytes examined at each step.

        Files from an earlier attempt are checked and kept; others are looked for by checksum anywhere
        on this disk, checked, and hard-linked. Raises `DiskError`, `DiskFull`.
        """
        self._disk.mkdir(self.directory)
        manifest = posixpath.join(self.directory, MANIFEST_NAME)
        if not self._disk.exists(manifest) or self._disk.read_bytes(manifest) != self.sealed.data:
            self._disk.write_atomic(manifest, self.sealed.data)
        known = {MANIFEST_NAME, *(file.name for file in self.files)}
        present = set(self._disk.listdir(self.directory))
        for name in sorted(present - known):
            self._disk.remove(posixpath.join(self.directory, name))
        for number, file in enumerate(self.files):
            if file.name in present:
                yield from self._examine(number, self._path(number), sync=True)
                if not self._complete[number] and not self._positions[number]:
                    self._disk.remove(self._path(number))
            if file.size == 0 and not self._complete[number]:
                self._write_empty(number)  # quicker than to look for an empty file elsewhere
            elif not self._complete[number]:
                yield from self._find(number, sources.get(file.content, []))
            yield 0

    def _examine(self, number: int, path: str, *, sync: bool) -> Iterator[int]:
        """Take over the file at `path` if it is whole, or may be the file's beginning.

        With `sync`, because an earlier process may have received it and never synced it.
        """
        file = self.files[number]
        hasher = xxhash.xxh3_128()
        size = 0
        for count in hash_forward(self._disk, path, hasher, sync=sync):
            size += count
            yield count
        if size < file.size:
            self._set(number, size, hasher)
        elif size == file.size and hasher.digest() == file.checksum:
            self._set(number, size, None)

    def _find(self, number: int, sources: list[Source]) -> Iterator[int]:
        """Take the file from elsewhere on this disk: linked when it is whole, moved when it is a prefix."""
        file, here = self.files[number], self._path(number)
        for source in sources:
            if not self._disk.exists(source.path):
                continue
            size = self._disk.size(source.path)
            is_prefix = source.may_be_partial and self._positions[number] < size < file.size
            if size != file.size and not is_prefix:
                continue
            before = self._positions[number]
            yield from self._examine(number, source.path, sync=source.may_be_partial)
            if self._positions[number] == before:
                continue
            if before:
                self._disk.remove(here)
            if self._complete[number]:
                self._disk.link(source.path, here)
                return
            self._disk.rename(source.path, here)

    def _write_empty(self, number: int) -> None:
        self._park(self._disk.open(self._path(number), create=True))
        self._set(number, 0, None)

    def _set(self, number: int, position: int, hasher: xxhash.xxh3_128 | None) -> None:
        """Note that `position` bytes of a file are there; `hasher` is None when the file is complete and checked."""
        self.received_bytes += position - self._positions[number]
        self._positions[number] = position
        if hasher is not None:
            self._hashers[number] = hasher
            return
        self._hashers.pop(number, None)
        self._complete[number] = 1
        self.complete_files += 1

    def missing(self) -> list[tuple[int, int]]:
        """(number in the manifest, first missing byte) of each file that is not complete."""
        return [(number, self._positions[number]) for number in range(len(self.files)) if not self._complete[number]]

    def position(self, number: int) -> int:
        """How many bytes of a file are there, from its beginning."""
        return self._positions[number]

    def is_complete(self, number: int) -> bool:
        return bool(self._complete[number])

    def write(self, number: int, data: bytes) -> bool:
        """Append `data` to a file. False when that completes it with a wrong checksum: then the file starts anew.

        Nothing is durable yet. Raises `DiskError`, `DiskFull`.
        """
        assert not self._complete[number], f"{self.files[number].name} is complete"
        handle = self._open(number)
        handle.pwrite([data], self._positions[number])
        hasher = self._hashers.get(number)
        if hasher is None:
            hasher = self._hashers[number] = xxhash.xxh3_128()
        hasher.update(data)
        self._set(number, self._positions[number] + len(data), hasher)
        self._unsynced_bytes += len(data)
        if self._positions[number] < self.files[number].size:
            if self._unsynced_bytes >= SYNC_BYTES:
                handle.sync()  # only the content: a file whose name a crash takes away is sent again
                self._unsynced_bytes = 0
            return True
        self._current = None
        if hasher.digest() != self.files[number].checksum:
            handle.close()
            self._forget(number)
            return False
        self._set(number, self._positions[number], None)
        self._park(handle)
        return True

    def _open(self, number: int) -> File:
        """The handle of the file that is growing; chunks come in order, so there is one at a time."""
        if self._current is not None:
            if self._current[0] == number:
                return self._current[1]
            self._park(self._current[1])
            self._current = None
        handle = self._disk.open(self._path(number), create=True)
        self._current = (number, handle)
        return handle

    def _forget(self, number: int) -> None:
        self._disk.remove(self._path(number))
        self.received_bytes -= self._positions[number]
        self._positions[number] = 0
        self._hashers.pop(number, None)

    def _park(self, handle: File) -> None:
        """Sync and close a file later, together with others."""
        self._unsynced.append(handle)
        if len(self._unsynced) >= SYNC_FILES or self._unsynced_bytes >= SYNC_BYTES:
            self._sync()

    def _sync(self) -> None:
        """Make what is parked durable, names included."""
        while self._unsynced:
            handle = self._unsynced.pop()
            try:
                handle.sync()
            finally:
                handle.close()
        self._disk.sync_dir(self.directory)
        self._unsynced_bytes = 0

    def make_durable(self) -> None:
        """Sync all that is left; every file must be complete. Raises `DiskError`, `DiskFull`."""
        assert not self.missing(), f"{self.directory}: files are missing"
        self._sync()

    def close(self) -> None:
        """Let go of open files; what was received stays, durable or not."""
        if self._current is not None:
            self._current[1].close()
            self._current = None
        while self._unsynced:
            self._unsynced.pop().close()

    def _path(self, number: int) -> str:
        return posixpath.join(self.directory, self.files[number].name)
