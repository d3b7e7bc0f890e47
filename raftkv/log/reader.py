"""A log's files as they lie there, read while no node runs: what they hold and what is damaged; nothing is mended."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from raftkv.disk import Disk
from raftkv.entry import Entry
from raftkv.errors import Corruption, FormatError, InvalidArgument
from raftkv.log.manifest import read_manifest
from raftkv.log.recovery import MANIFEST, segment_path
from raftkv.log.segment import Segment
from raftkv.model import Index, LogStart

Take: TypeAlias = Callable[[Index, list[Entry]], None]
"""Takes entries that stand behind an index; what was taken before from behind that index is void."""

_READ_BYTES = 4 << 20


class SegmentSeen(msgspec.Struct, kw_only=True):
    """One segment file, as far as it can be read."""

    path: str
    bytes: int = 0
    first_index: Index | None = None
    last_index: Index | None = None
    entries: int = 0
    problem: str | None = None


class LogSeen(msgspec.Struct, kw_only=True):
    """A log's directory, as far as it can be read."""

    segments: list[SegmentSeen] = []
    first_index: Index = 1
    last_index: Index = 0
    """Of the last segment that is sound."""
    torn_at: int | None = None
    """The size to which the next start cuts the last segment's file, because a crash has torn the write behind it."""
    manifest_problem: str | None = None

    @property
    def problems(self) -> list[str]:
        """What is damaged, in sentences that name the file."""
        found = [self.manifest_problem, *(segment.problem for segment in self.segments)]
        return [problem for problem in found if problem is not None]


def read_log(disk: Disk, directory: str, take: Take) -> LogSeen:
    """Read every byte of a log. Damage is reported, not raised; raises `InvalidArgument` where there is no log."""
    seen = LogSeen()
    manifest = posixpath.join(directory, MANIFEST)
    try:
        numbers = read_manifest(disk, manifest).numbers
    except FileNotFoundError:
        raise InvalidArgument(f"{directory} holds no log: {manifest} is missing") from None
    except (Corruption, FormatError) as exc:
        seen.manifest_problem = str(exc)
        return seen
    end: LogStart | None = None
    for number in numbers:
        found = SegmentSeen(path=segment_path(directory, number))
        seen.segments.append(found)
        try:
            segment = Segment.open(disk, found.path, number, 0)
            try:
                found.bytes = disk.size(found.path)
                segment.scan(is_last=number == numbers[-1])
                if len(seen.segments) == 1:
                    seen.first_index = segment.prev.index + 1
                end = _read_segment(segment, found, end, take)
            finally:
                segment.close()
            seen.last_index = end.index
            seen.torn_at = segment.end if segment.is_torn else None
        except (Corruption, FormatError) as exc:
            found.problem, end = str(exc), None
    return seen


def _read_segment(segment: Segment, found: SegmentSeen, before: LogStart | None, take: Take) -> LogStart:
    """Read it through, and return where it ends; `before` is where the one before ended, None when it is unknown."""
    at = segment.prev
    if before is not None and (at.index > before.index or (at.index == before.index and at != before)):
        raise Corruption(f"{found.path} does not continue the segment before it, which ends at entry {before.index}")
    found.first_index, found.last_index = at.index + 1, segment.last_index
    found.entries = segment.last_index - at.index
    take(at.index, [])  # it may replace the end of the one before
    while at.index < segment.last_index:
        entries = segment.read(at.index + 1, segment.last_index, _READ_BYTES, at.chain)
        take(at.index, entries)
        newest = entries[-1]
        at = LogStart(newest.index, newest.term, newest.chain, newest.time_ms)
    return at
