"""The starts of a node on its data directory, each with a number and a word of chance: what tells it from its copies.

A copy that is put back and started often enough comes to any number, but not to the words that others have heard.
"""

from __future__ import annotations

import msgspec
import xxhash

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import Corruption

KEPT = 128
"""Starts that are remembered; who has not met the node for longer can't tell."""


def record_start(disk: Disk, path: str, boot: int, nonce: str) -> list[tuple[int, str]]:
    """Add a start; returns the newest ones, oldest first. Durable on return. Raises `Corruption`, `DiskError`."""
    starts = [*load_starts(disk, path), (boot, nonce)][-KEPT:]
    failpoints.reach("start.before_record")
    body = msgspec.msgpack.encode(starts)
    disk.write_atomic(path, xxhash.xxh3_64_digest(body) + body)
    return starts


def load_starts(disk: Disk, path: str) -> list[tuple[int, str]]:
    """What was recorded. Raises `Corruption`."""
    if not disk.exists(path):
        return []
    data = disk.read_bytes(path)
    try:
        if xxhash.xxh3_64_digest(data[8:]) == data[:8]:
            return msgspec.msgpack.decode(data[8:], type=list[tuple[int, str]])
    except msgspec.MsgspecError:
        pass
    raise Corruption(f"{path} is damaged: remove this node from the cluster and add it under a new id")


def is_continued(starts: list[tuple[int, str]], boot: int, nonce: str) -> bool:
    """Whether a directory with these starts had the start `boot`, with that word; also when that is too long ago."""
    found = dict(starts)
    return not found or boot < min(found) or found.get(boot) == nonce
