"""Opening a log's directory: which files are the log, what is left over, what is missing."""

from __future__ import annotations

import itertools
import posixpath

import msgspec

from raftkv.disk import Disk
from raftkv.errors import Corruption
from raftkv.log.manifest import read_manifest, write_manifest
from raftkv.log.segment import HEADER_BYTES, Segment
from raftkv.model import Index, LogStart

MANIFEST = "MANIFEST"
_SUFFIX = ".log"


class Recovered(msgspec.Struct):
    """The log's segments, scanned, and the number that the next new one gets."""

    segments: list[Segment]
    next_number: int


def segment_path(directory: str, number: int) -> str:
    """Where a segment is; numbers are never used again."""
    return posixpath.join(directory, f"{number:016d}{_SUFFIX}")


def recover(disk: Disk, directory: str, fill_bytes: int, durable_index: Index) -> Recovered:
    """Open what is there, or make an empty log. Raises `Corruption`, `FormatError`, `DiskError`."""
    disk.mkdir(directory)
    present = _segment_numbers(disk, directory)
    manifest = posixpath.join(directory, MANIFEST)
    try:
        numbers = read_manifest(disk, manifest)
    except FileNotFoundError:
        numbers = _create(disk, directory, manifest, present, fill_bytes, durable_index)
    if not numbers:
        raise Corruption(f"{manifest} names no segment")
    _remove_leftovers(disk, directory, numbers)
    segments = [Segment.open(disk, segment_path(directory, number), number, fill_bytes) for number in numbers]
    for segment in segments:
        segment.scan(is_last=segment is segments[-1])
    for segment, following in itertools.pairwise(segments):
        segment.clip(following.prev.index)
    return Recovered(segments, max([*present, *numbers]) + 1)


def _segment_numbers(disk: Disk, directory: str) -> list[int]:
    stems = [name.removesuffix(_SUFFIX) for name in disk.listdir(directory) if name.endswith(_SUFFIX)]
    return [int(stem) for stem in stems if stem.isdecimal()]


def _create(
    disk: Disk, directory: str, manifest: str, present: list[int], fill_bytes: int, durable_index: Index
) -> list[int]:
    """Make an empty log, unless there was one before."""
    if durable_index > 0 or any(not _is_unused(disk, directory, number, fill_bytes) for number in present):
        raise Corruption(f"{manifest} is missing")
    number = max(present, default=0) + 1
    Segment.create(disk, segment_path(directory, number), number, LogStart(), fill_bytes).close()
    disk.sync_dir(directory)
    write_manifest(disk, manifest, [number])
    return [number]


def _is_unused(disk: Disk, directory: str, number: int, fill_bytes: int) -> bool:
    """Whether a segment is what an interrupted creation leaves: a log's beginning without any batch."""
    path = segment_path(directory, number)
    data = disk.read_bytes(path)
    if data == bytes(len(data)):
        return True
    try:
        segment = Segment.open(disk, path, number, fill_bytes)
        segment.scan(is_last=True)
    except Corruption:
        # The header is torn, which no segment that was ever used has. What follows it are zeros then.
        return not any(data[HEADER_BYTES:])
    segment.close()
    return segment.is_empty and segment.prev == LogStart()


def _remove_leftovers(disk: Disk, directory: str, numbers: list[int]) -> None:
    """Finish what a crash interrupted: files outside the manifest are not part of the log."""
    expected = {posixpath.basename(segment_path(directory, number)) for number in numbers} | {MANIFEST}
    removed = False
    for name in disk.listdir(directory):
        if name not in expected and name.endswith((_SUFFIX, ".tmp")):
            disk.remove(posixpath.join(directory, name))
            removed = True
    if removed:
        disk.sync_dir(directory)
