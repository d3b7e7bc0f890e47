"""Reading, hashing and copying whole files in pieces, so that memory stays flat whatever their size."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

import xxhash

from raftkv.disk import Disk
from raftkv.snapshot.manifest import SnapshotFile

READ_BYTES = 1 << 20
"""Large enough that calls cost little compared with the copying, small enough for the processor's cache."""

IMMUTABLE_SUFFIXES = (".sst", ".blob")
"""Files that nobody ever writes again once they are complete.

Only these may be shared by hard links between a snapshot and a directory in which a database is
opened: others (configuration, current-file pointers) are rewritten in place when the database is opened,
and that would change the snapshot.
"""


def hash_forward(disk: Disk, path: str, hasher: xxhash.xxh3_128, *, sync: bool = False) -> Iterator[int]:
    """Feed a file to `hasher`, a piece at each step; yields their bytes. With `sync` its content is durable then."""
    file = disk.open(path)
    try:
        offset = 0
        while data := file.pread(READ_BYTES, offset):
            hasher.update(data)
            offset += len(data)
            yield len(data)
        if sync:
            file.sync()
    finally:
        file.close()


def checksum_of(disk: Disk, path: str, *, sync: bool = False) -> tuple[int, bytes]:
    """Size and xxh3-128 of a file; with `sync` its content is durable on return.

    Raises `FileNotFoundError`, `DiskError`.
    """
    hasher = xxhash.xxh3_128()
    size = sum(hash_forward(disk, path, hasher, sync=sync))
    return size, hasher.digest()


def copy_synced(disk: Disk, source: str, target: str) -> None:
    """Copy a file in pieces; content (not the name) durable on return."""
    reading = disk.open(source)
    try:
        writing = disk.open(target, create=True)
        try:
            offset = 0
            while data := reading.pread(READ_BYTES, offset):
                writing.pwrite([data], offset)
                offset += len(data)
            writing.sync()
        finally:
            writing.close()
    finally:
        reading.close()


def link_files(disk: Disk, source: str, files: tuple[SnapshotFile, ...], target: str) -> None:
    """Make `target` a directory with the same files, to be opened by a database; durable on return.

    Immutable files are hard links, the others copies (see `IMMUTABLE_SUFFIXES`). Raises `DiskError`.
    """
    disk.mkdir(target)
    for file in files:
        old, new = posixpath.join(source, file.name), posixpath.join(target, file.name)
        if file.name.endswith(IMMUTABLE_SUFFIXES):
            disk.link(old, new)
        else:
            copy_synced(disk, old, new)
    disk.sync_dir(target)
