"""The manifest: whose state a snapshot is, at which entry, and which files it has, under one checksum.

It is the same bytes on disk and on the wire: msgpack in an envelope with an xxh3-128 of 16 bytes. The
checksum is also the manifest's *digest*: two nodes with equal digests hold, or receive, the very same snapshot.
"""

from __future__ import annotations

import posixpath
from bisect import bisect_left

import msgspec
import xxhash

from raftkv.disk import Disk
from raftkv.errors import UNREADABLE, SnapshotCorruption
from raftkv.log.sealed import Envelope
from raftkv.model import SnapshotMeta

MANIFEST_NAME = "MANIFEST"
FORMAT_VERSION = 1
CHECKSUM_BYTES = 16

_ENVELOPE = Envelope(
    magic=b"RKVsnap\n",
    version=FORMAT_VERSION,
    checksum=xxhash.xxh3_128_digest,
    checksum_bytes=CHECKSUM_BYTES,
    damaged=SnapshotCorruption,
)
_RESERVED = frozenset({"", ".", "..", MANIFEST_NAME, MANIFEST_NAME + ".tmp"})


class SnapshotFile(msgspec.Struct, frozen=True, array_like=True):
    """One file: its name, its size in bytes, the xxh3-128 of its content."""

    name: str
    size: int
    checksum: bytes

    @property
    def content(self) -> tuple[int, bytes]:
        """Size and checksum: files with equal ones are the same, whatever their names."""
        return self.size, self.checksum


class Manifest(msgspec.Struct, frozen=True):
    """A snapshot's description. `files` are sorted by name; `key_count` is None when the keys were not counted."""

    cluster_id: str
    snapshot: SnapshotMeta
    key_count: int | None
    files: tuple[SnapshotFile, ...]

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def file(self, name: str) -> SnapshotFile | None:
        """The file of that name."""
        at = bisect_left(self.files, name, key=lambda file: file.name)
        return self.files[at] if at < len(self.files) and self.files[at].name == name else None

    def problems(self) -> list[str]:
        """What makes it unusable, in words. File names may not lead out of the directory: that would be an attack."""
        found = []
        names = [file.name for file in self.files]
        if names != sorted(set(names)):
            found.append("its files are not sorted by name, or a name occurs twice")
        found += [f"{name!r} is no name for a file" for name in names if name in _RESERVED or not _is_plain(name)]
        found += [f"{file.name} has size {file.size}" for file in self.files if file.size < 0]
        found += [f"{file.name} has no checksum" for file in self.files if len(file.checksum) != CHECKSUM_BYTES]
        if self.snapshot.index < 0 or self.snapshot.term < 0:
            found.append(f"it is of index {self.snapshot.index} and term {self.snapshot.term}")
        return found


class SealedManifest(msgspec.Struct, frozen=True):
    """A manifest together with its encoding on disk and on the wire."""

    manifest: Manifest
    data: bytes

    @classmethod
    def seal(cls, manifest: Manifest) -> SealedManifest:
        """Encode `manifest`; equal manifests give equal bytes."""
        return cls(manifest, _ENVELOPE.seal(msgspec.msgpack.encode(manifest)))

    @classmethod
    def parse(cls, data: bytes, what: str) -> SealedManifest:
        """Decode a manifest; `what` names it in errors.

        Raises `SnapshotCorruption` when it is not what was written, `FormatError` when it is whole but
        of another version of raftkv.
        """
        body = _ENVELOPE.unseal(data, what)
        if len(data) > _ENVELOPE.body_at + len(body):
            raise SnapshotCorruption(f"{what} does not match its checksum")
        try:
            manifest = msgspec.msgpack.decode(body, type=Manifest)
        except UNREADABLE as exc:
            raise SnapshotCorruption(f"{what} is no manifest: {exc}") from exc
        if problems := manifest.problems():
            raise SnapshotCorruption(f"{what} can't be used: {'; '.join(problems)}")
        return cls(manifest, data)

    @property
    def digest(self) -> bytes:
        """16 bytes that stand for this snapshot, files included."""
        return _ENVELOPE.checksum_of(self.data)


def read_manifest(disk: Disk, directory: str) -> SealedManifest:
    """The manifest in `directory`. Raises `SnapshotCorruption` (also for a missing one), `FormatError`, `DiskError`."""
    path = posixpath.join(directory, MANIFEST_NAME)
    try:
        data = disk.read_bytes(path)
    except FileNotFoundError as exc:
        raise SnapshotCorruption(f"{path} is missing") from exc
    return SealedManifest.parse(data, path)


def _is_plain(name: str) -> bool:
    return "/" not in name and "\\" not in name and "\0" not in name
