"""An entry of the log and its one encoding, shared by memory, disk and wire.

An entry is encoded once, by the leader; the same bytes (its *record*) go to its own disk, over the
wire, and to the followers' disks. A record is, little endian:

====== ===== ==========================================================================
offset bytes what
====== ===== ==========================================================================
0      8     chain: xxh3-64 of all that follows, seeded with the previous record's chain
8      4     payload length
12     8     index
20     8     term
28     8     leader's time, milliseconds since the epoch
36     1     kind (`EntryKind`)
37     ...   payload
====== ===== ==========================================================================

Because the checksum is chained, equal chain values mean equal logs up to that entry: log matching
(§5.3) is verified by comparing one number, not assumed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgspec
import xxhash

from raftkv.errors import CorruptRecord
from raftkv.model import EntryId, EntryKind

_HEADER = struct.Struct("<QIQQQB")
_BODY = struct.Struct("<IQQQB")
_CHAIN = struct.Struct("<Q")

HEADER_BYTES = _HEADER.size
CHAIN_BYTES = _CHAIN.size

_xxh3 = xxhash.xxh3_64_intdigest
_KINDS = tuple(EntryKind)


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry. `record` is its encoding (see the module); `chain` binds everything before it."""

    index: int
    term: int
    time_ms: int
    kind: int
    chain: int
    record: bytes

    @property
    def payload(self) -> bytes:
        return self.record[HEADER_BYTES:]

    @property
    def id(self) -> EntryId:
        return EntryId(term=self.term, index=self.index)

    def __repr__(self) -> str:
        kind = EntryKind(self.kind).name.lower()
        return f"<{self.index}@{self.term} {kind} {len(self.record) - HEADER_BYTES} bytes>"


def make_entry(index: int, term: int, time_ms: int, kind: int, payload: bytes, prev_chain: int) -> Entry:
    """Encode a new entry behind one whose chain value is `prev_chain`."""
    body = _BODY.pack(len(payload), index, term, time_ms, kind) + payload
    chain = _xxh3(body, prev_chain)
    return Entry(index, term, time_ms, kind, chain, _CHAIN.pack(chain) + body)


def make_entries(
    first_index: int, term: int, time_ms: int, kind: int, payloads: Sequence[bytes], prev_chain: int
) -> list[Entry]:
    """Encode consecutive entries of one term, time and kind: `make_entry` for a whole batch."""
    entries = []
    index = first_index
    chain = prev_chain
    for payload in payloads:
        body = _BODY.pack(len(payload), index, term, time_ms, kind) + payload
        chain = _xxh3(body, chain)
        entries.append(Entry(index, term, time_ms, kind, chain, _CHAIN.pack(chain) + body))
        index += 1
    return entries


def parse_record(buffer: bytes | memoryview, offset: int, prev_chain: int) -> Entry:
    """The entry at `offset`; `CorruptRecord` when it is cut short or its chain value is wrong."""
    try:
        chain, length, index, term, time_ms, kind = _HEADER.unpack_from(buffer, offset)
    except struct.error:
        raise CorruptRecord(f"a record's header at byte {offset} is cut short") from None
    end = offset + HEADER_BYTES + length
    if end > len(buffer):
        raise CorruptRecord(f"the record at byte {offset} says {length} payload bytes, more than there are")
    record = bytes(buffer[offset:end])
    if _xxh3(memoryview(record)[CHAIN_BYTES:], prev_chain) != chain:
        raise CorruptRecord(f"the record at byte {offset} does not match its checksum")
    if kind >= len(_KINDS):
        raise CorruptRecord(f"the record at byte {offset} has kind {kind}, of a newer version of raftkv")
    return Entry(index, term, time_ms, kind, chain, record)


def parse_records(buffer: bytes | memoryview, prev_index: int, prev_chain: int) -> list[Entry]:
    """All entries in `buffer`, which must hold whole, consecutive records and nothing else.

    Raises `CorruptRecord` when a record is cut short, fails its chained checksum or is out of order.
    """
    entries = []
    offset = 0
    index = prev_index
    chain = prev_chain
    total = len(buffer)
    while offset < total:
        entry = parse_record(buffer, offset, chain)
        index += 1
        if entry.index != index:
            raise CorruptRecord(f"a record of index {entry.index} stands where {index} belongs")
        entries.append(entry)
        chain = entry.chain
        offset += len(entry.record)
    return entries
