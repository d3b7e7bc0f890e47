"""The manifest: which segments make up the log. Replacing it is what commits every change of that list.

A segment file that the manifest does not name is left over from a change that did not happen, or
that has happened and was not cleaned up: either way it is not part of the log. One that it names
and that is missing is a loss.

It also says up to which byte the last segment certainly reached, and a log that is closed writes that anew: damage
to the last batch looks like a write that a crash has torn, unless the manifest remembers that the batch was whole.
"""

from __future__ import annotations

import msgspec

from raftkv.disk import Disk
from raftkv.errors import Corruption
from raftkv.log.owned import Identity
from raftkv.log.sealed import seal, unseal

_MAGIC = b"RKVlist\n"


class LogManifest(msgspec.Struct, frozen=True, array_like=True):
    """The log's owner, its segments' numbers in order, and how many bytes of the last one were durable at the time."""

    owner: Identity
    numbers: list[int]
    end: int


def write_manifest(disk: Disk, path: str, manifest: LogManifest) -> None:
    """Make it the log's manifest; durable on return. Raises `DiskError`."""
    disk.write_atomic(path, seal(_MAGIC, msgspec.msgpack.encode(manifest)))


def read_manifest(disk: Disk, path: str) -> LogManifest:
    """The log's manifest. Raises `FileNotFoundError`, `Corruption`, `FormatError`, `DiskError`."""
    data = disk.read_bytes(path)
    try:
        manifest = msgspec.msgpack.decode(unseal(_MAGIC, data, path), type=LogManifest)
    except msgspec.DecodeError as exc:
        raise Corruption(f"{path} is no list of segments: {exc}") from exc
    if not manifest.numbers:
        raise Corruption(f"{path} names no segment")
    return manifest
