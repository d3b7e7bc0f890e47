"""A segment: one file of the log, a header and then batches (`raftkv.log.batch`) one behind the other.

The header is a block of its own. It says which entry comes before the segment's first, so a segment can
be checked without the one before it. Zeros are written ahead of small batches: to overwrite a part of a
file is about twice as fast as to make the file longer. For large batches this is not worth it, as it would write as
much again.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec
import xxhash

from raftkv import failpoints
from raftkv.disk import Disk, File
from raftkv.entry import Entry, parse_record
from raftkv.errors import Corruption, CorruptRecord, DiskError
from raftkv.log.batch import BATCH_HEAD_BYTES, BatchHead, encode_head, find_head, is_whole, parse_head
from raftkv.log.owned import Identity, check_owner
from raftkv.log.sealed import seal, unseal
from raftkv.model import Index, LogStart

FILL_BYTES = 1 << 20
"""How far zeros are written ahead."""

HEADER_BYTES = 512
"""One sector, which a disk writes whole or not at all."""

_MAGIC = b"RKVsegm\n"
_SMALL_BATCH_BYTES = 64 << 10
_READ_BYTES_MIN = 64 << 10

failpoints.declare(
    __name__,
    {
        "log.settle.before_rewrite": "a log was read at start, and its last batch is not certainly durable",
    },
    raises=DiskError,
)


class _Header(msgspec.Struct, frozen=True, array_like=True):
    owner: Identity
    number: int
    prev: LogStart


class _Span(msgspec.Struct, frozen=True):
    """Consecutive records in the file: the entries `first` to `last` begin at `at`. Void ones may follow."""

    first: Index
    last: Index
    at: int
    end: int
    prev_chain: int


class Segment:
    """One open segment file. Used by one thread at a time.

    Invariants: `_spans` are consecutive from `prev.index + 1` on, without a gap or overlap; everything in
    them is durable; the next batch goes to `_end`, and behind `_end` there are nothing but zeros.
    """

    def __init__(self, file: File, path: str, number: int, prev: LogStart, fill_bytes: int) -> None:
        self.path = path
        self.number = number
        self.prev = prev
        self._file = file
        self._fill_bytes = fill_bytes
        self._salt = xxhash.xxh3_64_intdigest(prev.chain.to_bytes(8, "little"), number)
        self._end = HEADER_BYTES
        self._filled = file.size()
        self._spans: list[_Span] = []
        self._last_batch_at = HEADER_BYTES
        self._is_torn = False

    @classmethod
    def create(cls, disk: Disk, path: str, number: int, prev: LogStart, fill_bytes: int, owner: Identity) -> Segment:
        """Make a segment of `owner` that begins behind `prev`. On return its content is durable, but not its name."""
        header = seal(_MAGIC, msgspec.msgpack.encode(_Header(owner, number, prev)))
        assert len(header) <= HEADER_BYTES, f"a header of {len(header)} bytes does not fit its sector"
        file = disk.open(path, create=True)
        try:
            file.truncate(0)
            file.pwrite([header.ljust(max(HEADER_BYTES, fill_bytes), b"\0")], 0, sync=True)
            return cls(file, path, number, prev, fill_bytes)
        except BaseException:
            file.close()
            raise

    @classmethod
    def open(cls, disk: Disk, path: str, number: int, fill_bytes: int, owner: Identity | None = None) -> Segment:
        """Open a segment, which must be of `owner` unless that is None; `scan` comes next.

        Raises `Corruption`, `WrongDataDir`, `FormatError`, `DiskError`.
        """
        try:
            file = disk.open(path)
        except FileNotFoundError as exc:
            raise Corruption(f"{path} is missing") from exc
        try:
            if file.size() < HEADER_BYTES:
                raise Corruption(f"{path} is cut short to {file.size()} bytes")
            header = _decode_header(file.pread(HEADER_BYTES, 0), path)
            if owner is not None:
                check_owner(path, header.owner, owner)
            if header.number != number:
                raise Corruption(f"{path} is the segment of number {header.number}, under another's name")
            return cls(file, path, number, header.prev, fill_bytes)
        except BaseException:
            file.close()
            raise

    @property
    def last_index(self) -> Index:
        return self._spans[-1].last if self._spans else self.prev.index

    @property
    def salt(self) -> int:
        """The seed of its batches' checksums, along with their place."""
        return self._salt

    @property
    def is_empty(self) -> bool:
        """Whether no batch was ever written."""
        return self._end == HEADER_BYTES

    @property
    def end(self) -> int:
        """Bytes of the file up to the last batch's end, without the zeros written ahead."""
        return self._end

    @property
    def last_batch_at(self) -> int:
        """Where the last whole batch begins: from there on, damage looks like a write that a crash has torn."""
        return self._last_batch_at

    @property
    def is_torn(self) -> bool:
        """Whether a crash has cut the last write short; it begins at `end`."""
        return self._is_torn

    def size_with(self, size: int) -> int:
        """The file's bytes if a batch with `size` bytes of records were added."""
        return self._end + BATCH_HEAD_BYTES + size

    def scan(self, *, is_last: bool, end: int = 0) -> None:
        """Find the batches, and change nothing. Only the last segment may end in a torn one, see `settle`.

        A batch is written only when the one before is durable. So a damaged batch was not torn by a crash when a whole
        one follows it, or when it lies before `end`, up to where batches were durable: that raises `Corruption`.
        """
        data = self._file.pread(self._file.size(), 0)
        while (head := parse_head(data, self._end, self._salt)) is not None and is_whole(head, data, self._salt):
            self._last_batch_at = self._end
            self._note(head.first_index, head.count, head)
        behind = find_head(data, self._end, self._salt)
        if behind is not None:
            raise Corruption(
                f"{self.path} is damaged at byte {self._end}, behind entry {self.last_index}: "
                f"an undamaged batch with entry {behind.first_index} follows"
            )
        if self._end < end:
            raise Corruption(
                f"{self.path} is damaged at byte {self._end}, behind entry {self.last_index}: it had {end} bytes"
            )
        self._is_torn = any(data[self._end :])
        if self._is_torn and not is_last:
            raise Corruption(f"{self.path} is damaged at byte {self._end}, behind entry {self.last_index}")

    def settle(self) -> None:
        """Cut off a torn batch, and make the last whole one durable.

        The process that wrote the last batch may have been killed before its sync, or the sync failed. Then the batch
        can be read, but only from memory, and a loss of power would take it. A sync does not save what an earlier
        one gave up, so the batch is written once more.
        """
        if self._is_torn:
            self._file.truncate(self._end)
            self._file.sync()
            self._filled = self._end
            self._is_torn = False
        if not self.is_empty:
            data = self._file.pread(self._end - self._last_batch_at, self._last_batch_at)
            failpoints.reach("log.settle.before_rewrite")
            self._file.pwrite([data], self._last_batch_at, sync=True)

    def clip(self, index: Index) -> None:
        """Forget what is above `index`: the next segment goes on from there."""
        if index > self.last_index:
            raise Corruption(
                f"{self.path} ends at entry {self.last_index}, the segment behind it goes on at {index + 1}"
            )
        self._cut(index + 1)

    def _note(self, first: Index, count: int, head: BatchHead) -> None:
        if not self.prev.index < first <= self.last_index + 1:
            raise Corruption(
                f"{self.path}: a batch from entry {first} on can't stand behind entries "
                f"{self.prev.index + 1} to {self.last_index}"
            )
        self._cut(first)
        if count:
            self._spans.append(_Span(first, first + count - 1, head.records_at, head.end, head.prev_chain))
        self._end = head.end

    def _cut(self, index: Index) -> None:
        """Make the entries from `index` on void."""
        spans = self._spans
        while spans and spans[-1].first >= index:
            spans.pop()
        if spans and spans[-1].last >= index:
            spans[-1] = msgspec.structs.replace(spans[-1], last=index - 1)

    def write(self, first: Index, count: int, prev_chain: int, records: bytes) -> None:
        """Write a batch: `count` records from index `first` on, which replace earlier ones there. Durable on return.

        Without records it is a truncation. Raises `DiskError`; then nothing is known of the file any more.
        """
        offset = self._end
        head = encode_head(first, count, prev_chain, records, offset, self._salt)
        end = offset + len(head) + len(records)
        buffers = [head, records]
        if end > self._filled:
            self._filled = end
            if len(records) <= _SMALL_BATCH_BYTES:
                self._filled += self._fill_bytes
                buffers.append(bytes(self._fill_bytes))
        self._file.pwrite(buffers, offset, sync=True)
        self._note(first, count, BatchHead(first, count, prev_chain, offset + len(head), len(records), 0))

    def close(self) -> None:
        """Close the file; everything in it is durable."""
        self._file.close()

    def read(self, first: Index, last: Index, bytes_max: int, chain: int | None = None) -> list[Entry]:
        """Entries from `first` on: at least one, else at most `bytes_max` bytes of records and none behind `last`.

        `chain` is the chain value before `first`, if that is known. Raises `Corruption` when they are
        damaged or do not continue each other, `DiskError`.
        """
        found: list[Entry] = []
        size = 0
        index = first
        while index <= last:
            self._check_chain(index, found[-1].chain if found else chain)
            for entry in self._read_span(index, bytes_max):
                if entry.index < first:
                    continue
                size += len(entry.record)
                if entry.index > last or (found and size > bytes_max):
                    return found
                found.append(entry)
            index = max(index, found[-1].index + 1 if found else index)
        return found

    def _check_chain(self, index: Index, chain: int | None) -> None:
        span = self._spans[self._find(index)]
        if chain is not None and span.first == index and span.prev_chain != chain:
            raise Corruption(f"{self.path}: entry {index} does not continue entry {index - 1}")

    def _read_span(self, index: Index, bytes_max: int) -> list[Entry]:
        """Some entries from the beginning of the span with `index` on; the span is split behind them.

        So reading on finds its place at once, and memory stays flat even if a batch is large.
        """
        number = self._find(index)
        span = self._spans[number]
        entries: list[Entry] = []
        size = max(bytes_max, _READ_BYTES_MIN)
        while not entries:
            is_all = size >= span.end - span.at
            data = self._file.pread(min(size, span.end - span.at), span.at)
            entries = self._parse(span, data, is_all=is_all)
            size *= 4
        newest = entries[-1]
        if newest.index < span.last:
            behind = span.at + sum([len(entry.record) for entry in entries])
            self._spans[number : number + 1] = [
                msgspec.structs.replace(span, last=newest.index),
                msgspec.structs.replace(span, first=newest.index + 1, at=behind, prev_chain=newest.chain),
            ]
        return entries

    def _parse(self, span: _Span, data: bytes, *, is_all: bool) -> list[Entry]:
        """The entries that are whole in `data`; raises `Corruption` when they are not what the span says."""
        entries: list[Entry] = []
        offset, chain = 0, span.prev_chain
        for index in range(span.first, span.last + 1):
            try:
                entry = parse_record(data, offset, chain)
            except CorruptRecord as exc:
                if not is_all:
                    return entries  # the rest of the batch was not read; what is damaged shows when it is
                raise CorruptRecord(f"{self.path}: entry {index} is damaged: {exc}") from exc
            if entry.index != index:
                raise CorruptRecord(f"{self.path}: entry {entry.index} stands where {index} belongs")
            entries.append(entry)
            offset, chain = offset + len(entry.record), entry.chain
        return entries

    def _find(self, index: Index) -> int:
        number = bisect_right(self._spans, index, key=lambda span: span.first) - 1
        if number < 0 or self._spans[number].last < index:
            raise Corruption(f"{self.path} does not hold entry {index}")
        return number


def _decode_header(data: bytes, path: str) -> _Header:
    try:
        return msgspec.msgpack.decode(unseal(_MAGIC, data, path), type=_Header)
    except msgspec.DecodeError as exc:
        raise Corruption(f"{path} has a header that no version of raftkv writes: {exc}") from exc
