"""Opening a log's directory: which files are the log, what is left over, what is missing."""

from __future__ import annotations

import itertools
import posixpath

import msgspec

from raftkv.disk import Disk
from raftkv.errors import Corruption
from raftkv.log.manifest import LogManifest, read_manifest, write_manifest
from raftkv.log.owned import Identity, check_owner
from raftkv.log.segment import HEADER_BYTES, Segment
from raftkv.model import Index, LogStart

MANIFEST = "MANIFEST"
_SUFFIX = ".log"


class FoundLog(msgspec.Struct):
    """A log as it was found: its segments, scanned, the number for the next new one, and the manifest on disk."""

    owner: Identity
    segments: list[Segment]
    next_number: int
    manifest: LogManifest


def segment_path(directory: str, number: int) -> str:
    """The path of a segment; numbers are never used again."""
    return posixpath.join(directory, f"{number:016d}{_SUFFIX}")


def recover(disk: Disk, directory: str, fill_bytes: int, durable_index: Index, owner: Identity) -> FoundLog:
    """Open what is there, or make an empty log. Raises `Corruption`, `WrongDataDir`, `FormatError`, `DiskError`.

    Changes no file that is there, so that damaged ones can be looked at. `settle` comes once all of the log was read
    and is sound.
    """
    disk.mkdir(directory)
    present = _segment_numbers(disk, directory)
    path = posixpath.join(directory, MANIFEST)
    try:
        manifest = read_manifest(disk, path)
    except FileNotFoundError:
        manifest = _create(disk, directory, path, present, fill_bytes, durable_index, owner)
    check_owner(path, manifest.owner, owner)
    numbers = manifest.numbers
    _check_is_newest(disk, directory, path, numbers, present)
    segments: list[Segment] = []
    try:
        for number in numbers:
            segments.append(Segment.open(disk, segment_path(directory, number), number, fill_bytes, owner))
            is_last = number == numbers[-1]
            segments[-1].scan(is_last=is_last, end=manifest.end if is_last else 0)
        for segment, following in itertools.pairwise(segments):
            segment.clip(following.prev.index)
    except BaseException:
        for segment in segments:
            segment.close()
        raise
    return FoundLog(owner, segments, max([*present, *numbers]) + 1, manifest)


def settle(disk: Disk, directory: str, segments: list[Segment]) -> None:
    """Make durable what `recover` found, then finish what a crash interrupted. Raises `DiskError`.

    The previous process may have been killed between a change and its sync, so what can be read need not be durable.
    Names come first: the manifest must be durable before files that it no longer names are removed.
    """
    disk.sync_dir(directory)
    segments[-1].settle()
    _remove_leftovers(disk, directory, {posixpath.basename(segment.path) for segment in segments} | {MANIFEST})


def _check_is_newest(disk: Disk, directory: str, path: str, numbers: list[int], present: list[int]) -> None:
    """Segments get batches only once the manifest names them durably: if a later one has any, this is an old one."""
    for number in present:
        if number > max(numbers) and any(disk.read_bytes(segment_path(directory, number))[HEADER_BYTES:]):
            raise Corruption(f"{path} is an old one: it ends with segment {max(numbers)}, but {number} has entries too")


def _segment_numbers(disk: Disk, directory: str) -> list[int]:
    stems = [name.removesuffix(_SUFFIX) for name in disk.listdir(directory) if name.endswith(_SUFFIX)]
    return [int(stem) for stem in stems if stem.isdecimal()]


def _create(
    disk: Disk, directory: str, path: str, present: list[int], fill_bytes: int, durable_index: Index, owner: Identity
) -> LogManifest:
    """Make an empty log, unless there was one before."""
    if durable_index > 0 or any(not _is_unused(disk, directory, number, fill_bytes, owner) for number in present):
        raise Corruption(f"{path} is missing")
    number = max(present, default=0) + 1
    Segment.create(disk, segment_path(directory, number), number, LogStart(), fill_bytes, owner).close()
    disk.sync_dir(directory)
    manifest = LogManifest(owner, [number], HEADER_BYTES)
    write_manifest(disk, path, manifest)
    return manifest


def _is_unused(disk: Disk, directory: str, number: int, fill_bytes: int, owner: Identity) -> bool:
    """Whether a segment is what an interrupted creation leaves: the first one, without any batch."""
    path = segment_path(directory, number)
    data = disk.read_bytes(path)
    if data == bytes(len(data)):
        return True
    if any(data[HEADER_BYTES:]):
        return False
    try:
        segment = Segment.open(disk, path, number, fill_bytes, owner)
    except Corruption:
        return True  # its header is torn: a segment that was ever used has a whole one
    segment.close()
    return segment.prev == LogStart()


def _remove_leftovers(disk: Disk, directory: str, expected: set[str]) -> None:
    """Remove segments that the manifest does not name: they are not part of the log."""
    removed = False
    for name in disk.listdir(directory):
        if name not in expected and name.endswith((_SUFFIX, ".tmp")):
            disk.remove(posixpath.join(directory, name))
            removed = True
    if removed:
        disk.sync_dir(directory)
