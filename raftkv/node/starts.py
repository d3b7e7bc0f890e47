"""The starts of a node on its data directory, each with a number and a word of chance: what tells it from its copies.

A copy that is put back and started often enough comes to any number, but not to the words that others have heard.
"""

from __future__ import annotations

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import Corruption
from raftkv.log import Identity, load_own, save_owned

_MAGIC = b"RKVstrt\n"
_ADVICE = "Remove this node from the cluster and add it under a new id."

KEPT = 128
"""Starts that are remembered; who has not met the node for longer can't tell."""

failpoints.declare(
    __name__,
    {
        "start.before_record": "a start is about to be recorded",
    },
)


def record_start(
    disk: Disk, path: str, owner: Identity, before: list[tuple[int, str]], boot: int, nonce: str
) -> list[tuple[int, str]]:
    """Add a start to those `before`; returns the newest ones, oldest first. Durable on return. Raises `DiskError`."""
    starts = [*before, (boot, nonce)][-KEPT:]
    failpoints.reach("start.before_record")
    save_owned(disk, path, _MAGIC, owner, starts)
    return starts


def begin_starts(disk: Disk, path: str, owner: Identity) -> None:
    """Make the file of a directory that was never started: from then on it must be there. Durable on return."""
    save_owned(disk, path, _MAGIC, owner, [])


def load_starts(disk: Disk, path: str, owner: Identity) -> list[tuple[int, str]]:
    """What was recorded. Raises `Corruption`, `WrongDataDir`, `FormatError`."""
    try:
        return load_own(disk, path, _MAGIC, owner, list[tuple[int, str]]) or []
    except Corruption as exc:
        raise Corruption(f"{exc}. {_ADVICE}") from exc


def is_continued(starts: list[tuple[int, str]], boot: int, nonce: str) -> bool:
    """Whether a directory with these starts had the start `boot`, with that word; also when that is too long ago."""
    found = dict(starts)
    return not found or boot < min(found) or found.get(boot) == nonce
