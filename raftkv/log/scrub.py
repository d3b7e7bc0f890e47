"""Reading a log's files again while the log is in use, to find what has rotted before somebody needs it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import msgspec
import xxhash

from raftkv.disk import Disk, File
from raftkv.errors import CorruptRecord
from raftkv.log.batch import BATCH_HEAD_BYTES, BatchHead, parse_head
from raftkv.log.segment import HEADER_BYTES, Segment

STEP_BYTES = 256 << 10
"""How much is read at once: it takes a millisecond of the disk's and of the thread's time."""


class Written(msgspec.Struct, frozen=True):
    """The part of a segment's file that will never be written again."""

    path: str
    salt: int
    end: int


def written(segment: Segment) -> Written:
    """The part of `segment` that is durable now. Any thread: a segment's end moves only once a batch is synced."""
    return Written(segment.path, segment.salt, segment.end)


def scrub_segment(disk: Disk, part: Written) -> Iterator[int]:
    """Read and check a part, at most `STEP_BYTES` at each step; yields the bytes of each step.

    Raises `CorruptRecord`, which names the file and the entries, `FileNotFoundError`, `DiskError`. Between two steps
    the file is not open, so it may be removed.
    """
    offset = HEADER_BYTES
    while offset < part.end:
        data = _read(disk, part.path, min(STEP_BYTES, part.end - offset), offset)
        yield len(data)
        size = _check_whole(part, data, offset)
        offset += size if size else (yield from _scrub_large(disk, part, data, offset))


def _check_whole(part: Written, data: bytes, offset: int) -> int:
    """Check the batches that are whole in `data`, which begins at `offset`; returns their bytes."""
    at = 0
    while (head := _head(part, data, at, offset)) is not None and head.end <= len(data):
        found = xxhash.xxh3_64_intdigest(memoryview(data)[head.records_at : head.end], part.salt ^ (offset + at))
        _check(part, head, offset + at, found)
        at = head.end
    return at


def _scrub_large(disk: Disk, part: Written, data: bytes, offset: int) -> Generator[int, None, int]:
    """Check a batch of which `data` is only the beginning, reading on; returns the batch's bytes."""
    head = _head(part, data, 0, offset)
    if head is None or offset + head.end > part.end:
        raise CorruptRecord(f"{part.path} is damaged at byte {offset}: a batch should begin there, and none does")
    hasher = xxhash.xxh3_64(data[head.records_at :], seed=part.salt ^ offset)
    at = len(data)
    while at < head.end:
        more = _read(disk, part.path, min(STEP_BYTES, head.end - at), offset + at)
        if not more:
            raise CorruptRecord(f"{part.path} is cut short to {offset + at} bytes, it had {part.end}")
        hasher.update(more)
        at += len(more)
        yield len(more)
    _check(part, head, offset, hasher.intdigest())
    return head.end


def _head(part: Written, data: bytes, at: int, offset: int) -> BatchHead | None:
    """The head at `at` in `data`, which begins at `offset` of the file; its places are those in `data`."""
    # The head's checksum is seeded with its place in the file, so the head is parsed as if it stood alone.
    head = parse_head(data[at : at + BATCH_HEAD_BYTES], 0, part.salt ^ (offset + at))
    return msgspec.structs.replace(head, records_at=at + head.records_at) if head is not None else None


def _check(part: Written, head: BatchHead, offset: int, found: int) -> None:
    if found != head.checksum:
        last = head.first_index + max(0, head.count - 1)
        raise CorruptRecord(
            f"{part.path} is damaged behind byte {offset}: the entries {head.first_index} to {last} do not match "
            "their checksum"
        )


def _read(disk: Disk, path: str, size: int, offset: int) -> bytes:
    file: File = disk.open(path)
    try:
        return file.pread(size, offset)
    finally:
        file.close()
