"""The starts of a data directory, each with its number (boot) and a random word (nonce), which show that it is no copy.

A copy that is put back and started often enough reaches any number, but not the nonces that others have met.
"""

from __future__ import annotations

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import Corruption
from raftkv.log import Identity, load_own, save_owned

_MAGIC = b"RKVstrt\n"
_ADVICE = "Remove this node from the cluster and add it under a new id."

KEPT = 128
"""How many starts are remembered. A peer that last met the node before all of these can't tell it from a copy."""

failpoints.declare(
    __name__,
    {
        "start.before_record": "a start is about to be recorded",
    },
)


def record_start(
    disk: Disk, path: str, owner: Identity, before: list[tuple[int, str]], boot: int, nonce: str
) -> list[tuple[int, str]]:
    """Add a start to those `before`; returns the last `KEPT`, oldest first. Durable on return. Raises `DiskError`."""
    starts = [*before, (boot, nonce)][-KEPT:]
    failpoints.reach("start.before_record")
    save_owned(disk, path, _MAGIC, owner, starts)
    return starts


def begin_starts(disk: Disk, path: str, owner: Identity) -> None:
    """Make the file for a new directory; from then on a missing file is an error. Durable on return."""
    save_owned(disk, path, _MAGIC, owner, [])


def load_starts(disk: Disk, path: str, owner: Identity) -> list[tuple[int, str]]:
    """The recorded starts, oldest first. Raises `Corruption`, `WrongDataDir`, `FormatError`."""
    try:
        return load_own(disk, path, _MAGIC, owner, list[tuple[int, str]]) or []
    except Corruption as exc:
        raise Corruption(f"{exc}. {_ADVICE}") from exc


def is_continued(starts: list[tuple[int, str]], boot: int, nonce: str) -> bool:
    """Whether a directory with these starts had the start `boot` with this nonce, or might have had it before them."""
    found = dict(starts)
    return not found or boot < min(found) or found.get(boot) == nonce
