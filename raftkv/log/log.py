"""The durable Raft log: segments of batches, written by one thread and read by two.

Two threads use a `Log`, and each method says which. The event loop stages what is to be written and
reads the newest entries from memory; the disk worker makes staged writes durable, reads old entries,
compacts and resets. They share nothing but single attributes that one of them assigns.

The disk changes in two ways only, and a crash leaves each of them done or not done: a batch is added to the last
segment, or the manifest is replaced (which makes a segment the next one, compacts, resets, or truncates into an
earlier segment).

*Deviation*: a truncation (§5.3) does not remove anything from a segment; a later batch says from
which index on it replaces what came before. So truncating and writing anew are one atomic write.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.entry import Entry
from raftkv.errors import Corruption, DiskError, SafetyViolation
from raftkv.log.cache import Cache, Write
from raftkv.log.manifest import LogManifest, write_manifest
from raftkv.log.owned import Identity
from raftkv.log.recovery import MANIFEST, FoundLog, recover, segment_path, settle
from raftkv.log.scrub import Written, written
from raftkv.log.segment import FILL_BYTES, Segment
from raftkv.model import Index, LogStart

_RECOVERY_CHUNK_BYTES = 4 << 20
_LOSS = (
    "Entries that this node acknowledged may be lost here: stop it for good, keep its files for a look, remove it "
    "from the cluster and add it again under a new id; it gets all from the others."
)
_BATCH_BYTES_MAX = 1 << 30  # far below what a batch's length field holds; what piles up in memory bounds a batch

failpoints.declare(
    __name__,
    {
        "log.batch.before_sync": "a batch of entries is known in memory only",
        "log.batch.after_sync": "a batch of entries is durable, and nobody was told",
        "log.roll.before": "a segment is full, or the log is cut into an earlier one",
        "log.roll.after": "there is a new segment with nothing in it",
        "log.segment.created": "a segment has its file, whose name is not durable",
        "log.manifest.before": "the log's list of segments is about to change",
        "log.manifest.after": "the log's list of segments has changed, and files that it had are still there",
        "log.segment.removed": "a segment's file was removed, and that is not durable",
        "log.compact.begun": "the log's beginning has moved in memory only",
        "log.reset.before": "the whole log is about to go, for a snapshot",
        "log.reset.after": "the log begins anew behind a snapshot",
    },
    raises=DiskError,
)


class Log:
    """The log of one node. `open` makes it.

    Invariants: `start.index` ≤ `durable_index` ≤ what was staged; the entries in `start.index` + 1 to
    `durable_index` are durable and chained without a gap.

    `start` is the entry before the log's first (what lies before is compacted); the worker replaces
    it, and either thread may read it.
    """

    def __init__(self, disk: Disk, directory: str, recovered: FoundLog, segment_bytes: int, cache_bytes: int) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._cache_bytes = cache_bytes
        self._fill_bytes = min(FILL_BYTES, segment_bytes)
        self._segments = recovered.segments
        self._next_number = recovered.next_number
        self._manifest = recovered.manifest
        self._owner = recovered.owner
        self._failed: str | None = None
        self.start = self._segments[0].prev
        self._tail = self._segments[-1].prev
        self._cache = Cache(self.start.index, cache_bytes)

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        *,
        owner: Identity,
        segment_bytes: int,
        cache_bytes: int,
        durable_index: Index,
        on_start: Callable[[LogStart], None] | None = None,
        on_entries: Callable[[list[Entry]], object] | None = None,
    ) -> Log:
        """Open the log in `directory`, or make an empty one; to be called before the other thread knows of it.

        Every entry is read and checked. `on_start` gets what lies before the first one, then
        `on_entries` all entries, in order, some megabytes at a time. A torn batch at the end is cut
        off. Every file must be of `owner`. `durable_index` is what the vote file says: a log that ends before it
        has lost entries. On return all of the log is durable; when it raises, the damaged files are as they were.

        Raises `Corruption` (with what to do), `WrongDataDir`, `FormatError`, `DiskError`.
        """
        fill_bytes = min(FILL_BYTES, segment_bytes)
        with _with_advice():
            recovered = recover(disk, directory, fill_bytes, durable_index, owner)
            log = cls(disk, directory, recovered, segment_bytes, cache_bytes)
            try:
                if on_start is not None:
                    on_start(log.start)
                log._replay(on_entries)
                if log._tail.index < durable_index:
                    raise Corruption(
                        f"the log in {directory} ends at entry {log._tail.index}, but {durable_index} had been durable"
                    )
                settle(disk, directory, recovered.segments)
            except BaseException:
                log._close_files()
                raise
        return log

    def _replay(self, on_entries: Callable[[list[Entry]], object] | None) -> None:
        """Read all, and check the chain, also from one segment to the next."""
        last = self._segments[-1].last_index
        at = self.start
        while at.index < last:
            entries = self._read(at.index + 1, last, _RECOVERY_CHUNK_BYTES, at.chain)
            at = _start_behind(entries[-1])
            self._cache.extend(entries)
            if on_entries is not None:
                on_entries(entries)
        newest_segment = self._segments[-1]
        if last == newest_segment.prev.index and at != newest_segment.prev:
            raise Corruption(f"{newest_segment.path} does not continue the log: {at} is before it")
        self._tail = at

    @property
    def first_index(self) -> Index:
        """The first entry's index. Either thread; compaction moves it."""
        return self.start.index + 1

    @property
    def last_index(self) -> Index:
        """The last entry that was staged. Event loop's thread."""
        return self._cache.last_index

    def written(self) -> list[Written]:
        """The parts of the files that are durable and won't be written again. Any thread; see `raftkv.log.scrub`."""
        return [written(segment) for segment in self._segments]

    def stage(self, truncate_from: Index | None, entries: list[Entry]) -> Write:
        """Cut the log at `truncate_from` (if given) and append `entries`: at once for `cached` and `last_index`.

        Event loop's thread. Nothing is durable; the result is to be handed to `write`, in order.
        Raises `SafetyViolation` when that would leave a gap or cut off what is compacted.
        """
        if truncate_from is not None and truncate_from <= self.start.index:
            raise SafetyViolation(f"entry {truncate_from} is compacted (up to {self.start.index}), it can't be cut off")
        return self._cache.stage(truncate_from, entries)

    def cached(self, first: Index, last: Index) -> list[Entry] | None:
        """The entries `first` to `last` if all are in memory, else None. Event loop's thread."""
        return self._cache.get(first, last)

    @property
    def durable_index(self) -> Index:
        """The last entry on disk. Either thread; only `write` and `reset` move it."""
        return self._tail.index

    def takes_at_once(self, size: int, size_max: int) -> bool:
        """Whether records of so many bytes, at most `size_max`, only go behind the last ones, into the same file."""
        return size <= size_max and not self._is_full_for(size)

    def _is_full_for(self, size: int) -> bool:
        """Whether a batch with so many bytes of records begins another file."""
        segment = self._segments[-1]
        return not segment.is_empty and segment.size_with(size) > self._segment_bytes

    def write(self, writes: Sequence[Write]) -> None:
        """Do staged writes, in order, as one batch with one sync; durable on return. Disk worker's thread.

        Raises `DiskError` (`DiskFull`); then the log is unusable until it is opened again, and the
        writes may be durable or not.
        """
        with self._changing():
            first, entries = _merge(writes, self._tail.index)
            if entries or first <= self._tail.index:
                self._write(first, entries)
            self._cache.written = writes[-1].number

    def _write(self, first: Index, entries: list[Entry]) -> None:
        before = self._tail if first > self._tail.index else self._entry_id(first - 1)
        records = b"".join([entry.record for entry in entries])
        if len(records) > _BATCH_BYTES_MAX:
            half = len(entries) // 2
            self._write(first, entries[:half])
            self._write(entries[half].index, entries[half:])
            return
        segment = self._segments[-1]
        if self._is_full_for(len(records)) or before.index < segment.prev.index:
            failpoints.reach("log.roll.before")
            segment = self._roll(before)
            failpoints.reach("log.roll.after")
        failpoints.reach("log.batch.before_sync")
        segment.write(first, len(entries), before.chain, records)
        failpoints.reach("log.batch.after_sync")
        if entries:
            before = _start_behind(entries[-1])
        self._tail = before

    def _roll(self, prev: LogStart) -> Segment:
        """Go on behind `prev` in a new segment. Segments that hold nothing at or before `prev` leave the log."""
        kept = [segment for segment in self._segments if segment.prev.index < prev.index]
        self._replace_segments([*kept, self._create_segment(prev)])
        self._tail = prev
        for segment in kept[-1:]:
            segment.clip(prev.index)
        return self._segments[-1]

    def load(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        """Entries from `first` on, from disk: at least one, else at most `bytes_max` and none behind `last`.

        Disk worker's thread. These entries are on disk, but a staged truncation may already have made them void.
        Raises `Corruption` when they are damaged (with what to do) or not there (compacted), `DiskError`.
        """
        self._check()
        if not self.start.index < first <= self._tail.index:
            raise Corruption(f"entry {first} is not in the log ({self.start.index}, {self._tail.index}]")
        with _with_advice():
            return self._read(first, min(last, self._tail.index), bytes_max, None)

    def _read(self, first: Index, last: Index, bytes_max: int, chain: int | None) -> list[Entry]:
        """Read on from the segment that holds `first`; `chain` is the chain value before it, if that is known."""
        found: list[Entry] = []
        size = 0
        while not found or (found[-1].index < last and size < bytes_max):
            if found:
                first, chain = found[-1].index + 1, found[-1].chain
            segment = next(s for s in reversed(self._segments) if s.prev.index < first)
            more = segment.read(first, min(last, segment.last_index), bytes_max - size, chain)
            size += sum([len(entry.record) for entry in more])
            if found and size > bytes_max:
                break  # a segment gives one entry at least, and this one is too large
            found += more
        return found

    def compact(self, index: Index) -> None:
        """Drop the oldest segments that hold nothing above `index`; durable on return. Disk worker's thread.

        Whole segments only: `start` tells how far it went. Raises `DiskError`, see `write`.
        """
        with self._changing():
            kept = self._segments[:]
            while len(kept) > 1 and kept[1].prev.index <= index:
                del kept[0]
            if len(kept) < len(self._segments):
                # Before anything else: from now on nobody may ask for what is about to go.
                self.start = kept[0].prev
                failpoints.reach("log.compact.begun")
                self._replace_segments(kept)

    def reset(self, start: LogStart) -> None:
        """Drop everything: the log begins behind `start`, a snapshot's last entry (§7); durable on return.

        Disk worker's thread, while no staged write is under way, and the event loop stages nothing
        until it is done. The vote file's `durable_index` must not be above `start.index`.
        Raises `SafetyViolation` when a write is under way; `DiskError`, see `write`.
        """
        if self._cache.has_unfinished:
            raise SafetyViolation(f"the log can't begin anew at {start.index} while a write is under way")
        with self._changing():
            failpoints.reach("log.reset.before")
            self._replace_segments([self._create_segment(start)])
            failpoints.reach("log.reset.after")
            self._tail = start
            self.start = start
            self._cache = Cache(start.index, self._cache_bytes)

    def close(self) -> None:
        """Note how far the log reaches, and close the files. Disk worker's thread, as the last call."""
        if self._failed is None and self._manifest.end != self._segments[-1].end:
            with suppress(DiskError):  # all entries are durable without it
                self._write_manifest(self._segments)
        self._close_files()

    def _close_files(self) -> None:
        for segment in self._segments:
            segment.close()
        self._failed = "it is closed"

    def _create_segment(self, prev: LogStart) -> Segment:
        """A new file that is not part of the log yet; durable with its name."""
        number = self._next_number
        self._next_number += 1
        path = segment_path(self._directory, number)
        segment = Segment.create(self._disk, path, number, prev, self._fill_bytes, self._owner)
        failpoints.reach("log.segment.created")
        self._disk.sync_dir(self._directory)
        return segment

    def _replace_segments(self, segments: list[Segment]) -> None:
        """Commit a new list of segments, then remove the files that are not in it any more."""
        failpoints.reach("log.manifest.before")
        self._write_manifest(segments)
        failpoints.reach("log.manifest.after")
        dropped = [segment for segment in self._segments if segment not in segments]
        self._segments = segments
        for segment in dropped:
            segment.close()
            self._disk.remove(segment.path)
            failpoints.reach("log.segment.removed")
        if dropped:
            self._disk.sync_dir(self._directory)

    def _write_manifest(self, segments: list[Segment]) -> None:
        self._manifest = LogManifest(self._owner, [segment.number for segment in segments], segments[-1].end)
        write_manifest(self._disk, posixpath.join(self._directory, MANIFEST), self._manifest)

    def _entry_id(self, index: Index) -> LogStart:
        if index == self.start.index:
            return self.start
        return _start_behind(self._read(index, index, 0, None)[0])

    def _check(self) -> None:
        if self._failed is not None:
            raise DiskError(f"the log in {self._directory} is unusable: {self._failed}")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """After a failed change nobody knows what is on disk, so later ones are refused (a sync is never retried)."""
        self._check()
        try:
            yield
        except BaseException as exc:
            self._failed = f"an earlier change failed ({exc})"
            raise


def _start_behind(entry: Entry) -> LogStart:
    return LogStart(entry.index, entry.term, entry.chain, entry.time_ms)


@contextmanager
def _with_advice() -> Iterator[None]:
    """Add what to do to an error that says that entries are damaged."""
    try:
        yield
    except Corruption as exc:
        raise Corruption(f"{exc}. {_LOSS}") from exc


def _merge(writes: Sequence[Write], last_index: Index) -> tuple[Index, list[Entry]]:
    """What `writes`, one after the other, come to: the first index that changes, and the entries from there on."""
    first = last_index + 1
    entries: list[Entry] = []
    for write in writes:
        cut = write.truncate_from
        if cut is not None:
            if cut <= first:
                first, entries = cut, []
            else:
                entries = entries[: cut - first]
        entries = entries + write.entries if entries else write.entries
    return first, entries
