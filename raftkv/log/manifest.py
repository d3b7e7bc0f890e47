"""The manifest: which segments make up the log. Replacing it is what commits every change of that list.

A segment file that the manifest does not name is left over from a change that did not happen, or
that has happened and was not cleaned up: either way it is not part of the log. One that it names
and that is missing is a loss.
"""

from __future__ import annotations

import msgspec

from raftkv.disk import Disk
from raftkv.errors import Corruption
from raftkv.log.sealed import seal, unseal

_MAGIC = b"RKVlist\n"


def write_manifest(disk: Disk, path: str, numbers: list[int]) -> None:
    """Make `numbers`, in their order, the log's segments; durable on return."""
    disk.write_atomic(path, seal(_MAGIC, msgspec.msgpack.encode(numbers)))


def read_manifest(disk: Disk, path: str) -> list[int]:
    """The log's segments. Raises `FileNotFoundError`, `Corruption`, `FormatError`, `DiskError`."""
    data = disk.read_bytes(path)
    try:
        return msgspec.msgpack.decode(unseal(_MAGIC, data, path), type=list[int])
    except msgspec.DecodeError as exc:
        raise Corruption(f"{path} is no list of segments: {exc}") from exc
