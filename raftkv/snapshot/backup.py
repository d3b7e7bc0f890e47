"""A backup: one snapshot in one file, and what is needed to begin a cluster with it.

    head     what it is, and the snapshot's manifest, in an envelope with an xxh3-128
    content  the snapshot's files, one behind the other, in the manifest's order
    tail     the head's checksum, in an envelope of its own: where it is, the file is whole

The manifest has the size and xxh3-128 of each file, so every byte of a backup is under a checksum. While a backup is
written its name ends with `.part`; it gets its own when it is complete, checked and durable.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import msgspec
import xxhash

from raftkv.disk import Disk, File, Lock
from raftkv.errors import UNREADABLE, DataDirLocked, FormatError, InvalidArgument, SnapshotCorruption
from raftkv.log.sealed import Envelope
from raftkv.model import SnapshotMeta
from raftkv.snapshot.files import READ_BYTES
from raftkv.snapshot.manifest import CHECKSUM_BYTES, Manifest, SealedManifest, SnapshotFile

PART = ".part"
"""What the name of a backup ends with that is not complete."""

FORMAT_VERSION = 1
HEAD_BYTES_MAX = 256 << 20
"""Above any real manifest; a longer head is a damaged length."""
SYNC_BYTES = 16 << 20
"""Written data is synced in steps of this size, so that the last sync does not take long."""

_HEAD = Envelope(
    magic=b"RKVback\n",
    version=FORMAT_VERSION,
    checksum=xxhash.xxh3_128_digest,
    checksum_bytes=CHECKSUM_BYTES,
    damaged=SnapshotCorruption,
)
_TAIL = msgspec.structs.replace(_HEAD, magic=b"RKVbend\n")
TAIL_BYTES = _TAIL.body_at + CHECKSUM_BYTES


class BackupHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup is: where it comes from, what runs on it, and the snapshot in it."""

    cluster_id: str
    cluster_name: str
    """Empty where the node did not know it."""
    node_id: int
    """The node that took the snapshot."""
    machine: str
    """The state machine's name."""
    version: int
    """The version of the application that is active in it; 0 when none is yet."""
    schema: str
    """The digest of what that version declares; empty when none is active."""
    raftkv: str
    """The version of raftkv that the node ran."""
    made_ms: int
    """When it was made, by the node's clock, in milliseconds since the epoch."""
    manifest: bytes
    """The snapshot's manifest, sealed."""


class SealedHead(msgspec.Struct, frozen=True, kw_only=True):
    """A head with its encoding, and the manifest in it."""

    head: BackupHead
    sealed: SealedManifest
    data: bytes

    @classmethod
    def seal(cls, head: BackupHead) -> SealedHead:
        """Raises `SnapshotCorruption`, `FormatError` when the manifest in it can't be used."""
        sealed = SealedManifest.parse(head.manifest, "the backup's manifest")
        return cls(head=head, sealed=sealed, data=_HEAD.seal(msgspec.msgpack.encode(head)))

    @classmethod
    def read(cls, file: File, path: str) -> SealedHead:
        """The head with which a backup begins. Raises `SnapshotCorruption`, `FormatError`, `DiskError`."""
        begun = file.pread(_HEAD.body_at, 0)
        size = _HEAD.size_of(begun)
        if not 0 < size <= HEAD_BYTES_MAX:
            raise SnapshotCorruption(f"{path} is no backup of raftkv, or its beginning is damaged")
        data = file.pread(size, 0)
        body = _HEAD.unseal(data, path)
        try:
            head = msgspec.msgpack.decode(body, type=BackupHead)
        except UNREADABLE as exc:
            raise FormatError(f"{path} has a head that this version of raftkv can't read: {exc}") from exc
        return cls(head=head, sealed=SealedManifest.parse(head.manifest, f"the manifest in {path}"), data=data)

    @property
    def manifest(self) -> Manifest:
        return self.sealed.manifest

    @property
    def snapshot(self) -> SnapshotMeta:
        return self.sealed.manifest.snapshot

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for this snapshot, its files included."""
        return self.sealed.digest

    @property
    def size(self) -> int:
        """How many bytes the whole backup has."""
        return len(self.data) + self.manifest.total_bytes + TAIL_BYTES

    @property
    def tail(self) -> bytes:
        return _TAIL.seal(_HEAD.checksum_of(self.data))


def read_head(disk: Disk, path: str) -> SealedHead:
    """What the backup at `path` is. Raises `InvalidArgument` when there is none, and as `SealedHead.read`."""
    file = _open(disk, path)
    try:
        return SealedHead.read(file, path)
    finally:
        file.close()


def _open(disk: Disk, path: str) -> File:
    try:
        if disk.is_dir(path):
            raise InvalidArgument(f"{path} is a directory: name the backup's file")
        return disk.open_to_read(path)
    except FileNotFoundError as exc:
        raise InvalidArgument(f"{path}: there is no such file") from exc


def pieces(manifest: Manifest, offset: int, size: int) -> list[tuple[int, int, int]]:
    """Where `size` bytes of a backup's content from `offset` on lie: (number of the file, offset in it, size) each."""
    found = []
    begin = 0
    for number, file in enumerate(manifest.files):
        first, last = max(offset, begin), min(offset + size, begin + file.size)
        if first < last:
            found.append((number, first - begin, last - first))
        begin += file.size
    return found


class BackupWriter:
    """A backup that is being written, from its first byte to its last; every call does file work.

    Invariants: `position` bytes of the content are in the file, and fed to the hash of the file that they belong to;
    each file that is complete has matched its checksum.
    """

    def __init__(self, disk: Disk, path: str, head: SealedHead) -> None:
        """Takes up `path` + `.part`, if that was begun with the same head, and begins it anew otherwise.

        Raises `InvalidArgument` when there is a file at `path` already; `DiskError`.
        """
        self.path = path
        self._disk = disk
        self._part = path + PART
        self._check_free()
        self._lock = _lock(disk, self._part)
        try:
            self._begin(head)
        except BaseException:
            self._lock.release()
            raise
        self.resumed = self.position
        """How many bytes of the content were there already."""

    def _begin(self, head: SealedHead) -> None:
        self._check_free()
        begun = _begun(self._disk, self._part)
        is_new = begun is None or begun.digest != head.digest
        self.head = head if begun is None or is_new else begun
        self._files = self.head.manifest.files
        self.position = 0
        self._number = 0
        """The file that grows …"""
        self._filled = 0
        """… and how many bytes of it there are."""
        self._hasher = xxhash.xxh3_128()
        self._unsynced = 0
        self._file = self._disk.open(self._part, create=True)
        try:
            if is_new:
                self._file.truncate(0)
                self._file.pwrite([head.data], 0, sync=True)
            self._take_up()
        except BaseException:
            self._file.close()
            raise

    def _check_free(self) -> None:
        if self._disk.exists(self.path):
            raise InvalidArgument(f"{self.path} exists already: give another name, or remove it")

    @property
    def total(self) -> int:
        return self.head.manifest.total_bytes

    def _take_up(self) -> None:
        """Check what is there; from the first file on that is not what it should be, it is fetched again."""
        self._skip_empty()
        while self.position < self.total:
            data = self._file.pread(self._left(READ_BYTES), len(self.head.data) + self.position)
            if not data or not self._count(data):
                break
        self._file.truncate(len(self.head.data) + self.position)

    def _left(self, size: int) -> int:
        return min(size, self._files[self._number].size - self._filled)

    def append(self, data: bytes) -> None:
        """Add the next bytes of the content; nothing is durable yet.

        Raises `SnapshotCorruption` when a file is complete and does not match its checksum: `position` is at that
        file's beginning again. `DiskError`, `DiskFull`.
        """
        if len(data) > self.total - self.position:
            raise SnapshotCorruption(f"{len(data)} bytes came where {self.total - self.position} were missing")
        at = 0
        while at < len(data):
            taken = data[at : at + self._left(len(data))]
            number = self._number
            self._file.pwrite([taken], len(self.head.data) + self.position)
            if not self._count(taken):
                raise SnapshotCorruption(f"{self._files[number].name} does not match its checksum in the manifest")
            at += len(taken)
            self._unsynced += len(taken)
        if self._unsynced >= SYNC_BYTES:
            self._file.sync()
            self._unsynced = 0

    def _count(self, data: bytes) -> bool:
        """Note bytes of the file that grows; False when that completes it with a wrong checksum."""
        self._hasher.update(data)
        self.position += len(data)
        self._filled += len(data)
        file = self._files[self._number]
        if self._filled < file.size:
            return True
        if self._hasher.digest() != file.checksum:
            self.position -= self._filled
            self._filled = 0
            self._hasher = xxhash.xxh3_128()
            return False
        self._number += 1
        self._filled = 0
        self._hasher = xxhash.xxh3_128()
        self._skip_empty()
        return True

    def _skip_empty(self) -> None:
        while self._number < len(self._files) and not self._files[self._number].size:
            self._number += 1

    def finish(self) -> None:
        """Give the complete backup its name; durable on return. Raises `DiskError`."""
        assert self.position == self.total, f"{self.position} of {self.total} bytes are there"
        self._file.pwrite([self.head.tail], len(self.head.data) + self.total)
        self._file.truncate(self.head.size)
        self._file.sync()
        self._check_free()
        self._disk.rename(self._part, self.path)
        self._disk.sync_dir(posixpath.dirname(self.path) or ".")

    def close(self) -> None:
        """Close the file; what is there stays, to be taken up. May be called twice."""
        self._file.close()
        self._lock.release()


def _lock(disk: Disk, part: str) -> Lock:
    """Two that wrote one file would each find what they wrote themselves sound."""
    try:
        return disk.lock(part)
    except DataDirLocked as exc:
        raise InvalidArgument(f"{part} is being written by another process: wait for it, or name another file") from exc


def _begun(disk: Disk, part: str) -> SealedHead | None:
    """The head of a backup that was begun; None when there is none that can be read."""
    if not disk.exists(part):
        return None
    file = disk.open(part)
    try:
        return SealedHead.read(file, part)
    except (SnapshotCorruption, FormatError):
        return None
    finally:
        file.close()


def begun_digest(disk: Disk, path: str) -> bytes:
    """The digest of the backup that was begun for `path`; empty when there is none that can be taken up."""
    begun = _begun(disk, path + PART)
    return begun.digest if begun is not None else b""


def content_of(file: File, path: str, head: SealedHead) -> Iterator[tuple[SnapshotFile, Iterator[bytes]]]:
    """Each file in a backup with its content in pieces, in order, and at last the tail.

    Take all pieces of a file before the next file. Raises `SnapshotCorruption` when a file does not match its
    checksum, or the backup is cut short, or goes on behind its end; `DiskError`.
    """
    at = len(head.data)
    for described in head.manifest.files:
        yield described, _pieces_of(file, path, at, described)
        at += described.size
    tail = file.pread(TAIL_BYTES + 1, at)
    if tail != head.tail:
        raise SnapshotCorruption(f"{path} has no proper end: it was cut off, or something was written behind it")


def _pieces_of(file: File, path: str, at: int, described: SnapshotFile) -> Iterator[bytes]:
    hasher = xxhash.xxh3_128()
    done = 0
    while done < described.size:
        data = file.pread(min(READ_BYTES, described.size - done), at + done)
        if not data:
            raise SnapshotCorruption(f"{path} is cut short: it ends in the middle of {described.name}")
        hasher.update(data)
        done += len(data)
        yield data
    if hasher.digest() != described.checksum:
        raise SnapshotCorruption(f"{path} is damaged: {described.name} in it does not match its checksum")


def check_backup(disk: Disk, path: str) -> SealedHead:
    """Read every byte of a backup and compare it with its checksums; returns what it is.

    Raises `SnapshotCorruption`, `FormatError`, `InvalidArgument` when there is no file, `DiskError`.
    """
    file = _open(disk, path)
    try:
        head = SealedHead.read(file, path)
        for _, content in content_of(file, path, head):
            for _ in content:
                pass
        return head
    finally:
        file.close()


def unpack_backup(disk: Disk, path: str, directory: str) -> SealedHead:
    """Make `directory` the database that is in a backup; durable on return, every byte checked. Raises as
    `check_backup`; then the directory is not complete."""
    file = _open(disk, path)
    try:
        head = SealedHead.read(file, path)
        disk.mkdir(directory)
        for described, content in content_of(file, path, head):
            target = disk.open(posixpath.join(directory, described.name), create=True)
            try:
                offset = 0
                for data in content:
                    target.pwrite([data], offset)
                    offset += len(data)
                target.sync()
            finally:
                target.close()
        disk.sync_dir(directory)
        return head
    finally:
        file.close()
