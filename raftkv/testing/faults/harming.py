"""Which bytes of a node's disk a world may damage, so that the damage can be noticed.

If a log did not end well, damage in its last whole batch looks like a batch that a crash has torn: it is cut off, and
what it held is on the other nodes only (see the README's limits). So only what comes before that batch may be damaged,
unless a majority of the others holds it (`at_the_end`).
"""

from __future__ import annotations

import posixpath
import random

import msgspec

from raftkv.disk.simulated import SECTOR_BYTES, SimDisk
from raftkv.errors import Corruption, FormatError
from raftkv.log.manifest import read_manifest
from raftkv.log.recovery import MANIFEST, segment_path
from raftkv.log.segment import Segment

LOG = "/data/log"
VOTE = "/data/vote"
STATE = "/data/state"
SNAPSHOTS = "/data/snapshots/0"
"""What the paths of all files of snapshots begin with."""


class HarmedBytes(msgspec.Struct, frozen=True):
    """A place in a file, and the bytes that were put there."""

    path: str
    at: int
    data: bytes


def harmable(disk: SimDisk) -> dict[str, bytes]:
    """The files that may be damaged, each up to where damage must be noticed."""
    ends = _log_ends(disk)
    files = {path: data[: ends.get(path)] for path, data in disk.image().items() if not path.endswith("LOCK")}
    return {path: data for path, data in files.items() if data}


def _log_ends(disk: SimDisk) -> dict[str, int]:
    """For each file that may end in a torn batch: where its last whole batch begins."""
    segment = _open_segment(disk)
    if segment is None:
        return {path: 0 for path in disk.image() if posixpath.dirname(path) == LOG}
    return {segment.path: segment.last_batch_at}


def _open_segment(disk: SimDisk) -> Segment | None:
    """The log's last segment, read. None if there is no log yet, or it is damaged: then it is to be left as it is."""
    try:
        numbers = read_manifest(disk, posixpath.join(LOG, MANIFEST)).numbers
        segment = Segment.open(disk, segment_path(LOG, numbers[-1]), numbers[-1], 0)
        segment.scan(is_last=True)
    except (FileNotFoundError, Corruption, FormatError):
        return None
    return segment


def lose_state(disk: SimDisk, *, with_snapshots: bool = True) -> None:
    """The files of the state are gone, and those of all snapshots."""
    lost = (f"{STATE}/", SNAPSHOTS) if with_snapshots else (f"{STATE}/",)
    for path in disk.image():
        if path.startswith(lost):
            disk.lose(path)


def at_the_end(disk: SimDisk, dice: random.Random) -> HarmedBytes | None:
    """Any byte of the log's newest whole batch with another value."""
    segment = _open_segment(disk)
    if segment is None or segment.is_empty:
        return None
    at = dice.randrange(segment.last_batch_at, segment.end)
    return HarmedBytes(segment.path, at, disk.image()[segment.path][at : at + 1])


def any_byte(disk: SimDisk, dice: random.Random) -> HarmedBytes | None:
    """Any byte of these files with another value, as rot leaves it."""
    files = harmable(disk)
    if not files:
        return None
    path = dice.choice(list(files))
    at = dice.randrange(len(files[path]))
    return HarmedBytes(path, at, files[path][at : at + 1])


def misdirected(disk: SimDisk, dice: random.Random) -> HarmedBytes | None:
    """A sector with the bytes of another sector, as a misdirected write leaves it."""
    files = {path: data for path, data in harmable(disk).items() if len(data) >= SECTOR_BYTES}
    if not files:
        return None
    path = dice.choice(list(files))
    sector = _sector(files[path], dice)
    other = files[dice.choice(list(files))]
    begin = _sector(other, dice)
    piece = other[begin : begin + SECTOR_BYTES]
    return HarmedBytes(path, sector, piece) if piece != files[path][sector : sector + SECTOR_BYTES] else None


def _sector(data: bytes, dice: random.Random) -> int:
    """Draw a whole sector; returns where it begins."""
    return dice.randrange(len(data) // SECTOR_BYTES) * SECTOR_BYTES


def stale(disk: SimDisk, older: list[SimDisk], dice: random.Random) -> HarmedBytes | None:
    """A sector with the bytes that it had in one of the `older` images, as a lost write leaves it.

    Only files that are written in place have such sectors; other files are replaced as a whole.
    """
    found: list[HarmedBytes] = []
    for path, data in harmable(disk).items():
        if posixpath.dirname(path) != LOG and path != VOTE:
            continue
        for then in (image.image().get(path, b"") for image in older):
            whole = min(len(data), len(then)) // SECTOR_BYTES * SECTOR_BYTES
            for at in range(0, whole, SECTOR_BYTES):
                piece = then[at : at + SECTOR_BYTES]
                if piece != data[at : at + SECTOR_BYTES]:
                    found.append(HarmedBytes(path, at, piece))
    return dice.choice(found) if found else None
