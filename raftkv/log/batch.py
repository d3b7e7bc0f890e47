"""A batch: what one write and one sync put into a segment.

====== ===== ==========================================================================
offset bytes what
====== ===== ==========================================================================
0      4     magic
4      4     length of the records in bytes
8      4     number of records
12     8     index of the first record; entries at and above it that came earlier are void
20     8     chain value before the first record
28     8     xxh3-64 of the records
36     8     xxh3-64 of the bytes above
44     ...   records (`raftkv.entry`), byte for byte
====== ===== ==========================================================================

Both checksums are seeded with the segment's salt and the batch's offset, so that neither a batch in
the wrong place nor a copy of one inside a command's payload is ever taken for a batch.
"""

from __future__ import annotations

import struct

import msgspec
import xxhash

_MAGIC = b"\xb5Rk\x01"
_HEAD = struct.Struct("<4sIIQQQ")
_SUM = struct.Struct("<Q")
BATCH_HEAD_BYTES = _HEAD.size + _SUM.size

_xxh3 = xxhash.xxh3_64_intdigest


class BatchHead(msgspec.Struct, frozen=True):
    """A batch's header, decoded; `records_at` is where its records begin in the file."""

    first_index: int
    count: int
    prev_chain: int
    records_at: int
    length: int
    checksum: int

    @property
    def end(self) -> int:
        return self.records_at + self.length


def encode_head(first_index: int, count: int, prev_chain: int, records: bytes, offset: int, salt: int) -> bytes:
    """The header for `records` in a batch that is written at `offset`."""
    seed = salt ^ offset
    head = _HEAD.pack(_MAGIC, len(records), count, first_index, prev_chain, _xxh3(records, seed))
    return head + _SUM.pack(_xxh3(head, seed))


def parse_head(data: bytes, offset: int, salt: int) -> BatchHead | None:
    """The batch that begins at `offset`, or None when none does. Its records may still be damaged."""
    if offset + BATCH_HEAD_BYTES > len(data):
        return None
    magic, length, count, first_index, prev_chain, checksum = _HEAD.unpack_from(data, offset)
    if (
        magic != _MAGIC
        or _xxh3(data[offset : offset + _HEAD.size], salt ^ offset) != _SUM.unpack_from(data, offset + _HEAD.size)[0]
    ):
        return None
    return BatchHead(first_index, count, prev_chain, offset + BATCH_HEAD_BYTES, length, checksum)


def is_whole(head: BatchHead, data: bytes, salt: int) -> bool:
    """Whether the batch's records are all there and undamaged."""
    if head.end > len(data):
        return False
    offset = head.records_at - BATCH_HEAD_BYTES
    return _xxh3(memoryview(data)[head.records_at : head.end], salt ^ offset) == head.checksum


def find_head(data: bytes, offset: int, salt: int) -> BatchHead | None:
    """The next batch anywhere behind `offset`, or None."""
    while (offset := data.find(_MAGIC, offset + 1)) >= 0:
        if (head := parse_head(data, offset, salt)) is not None:
            return head
    return None
