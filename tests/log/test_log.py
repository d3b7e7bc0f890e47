"""The log as a list of entries, and what only shows while it is open."""

from __future__ import annotations

from functools import partial
from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.disk import RealDisk
from raftkv.disk.simulated import SimDisk
from raftkv.errors import Corruption, DiskError, FormatError, SafetyViolation
from raftkv.log import Log, log, sealed
from raftkv.model import LogStart
from tests.log.logs import (
    DIRECTORY,
    IDENTITY,
    SEGMENT_BYTES,
    append,
    entries_behind,
    entry_behind,
    last_of,
    open_log,
    read_all,
    start_at,
)

SIZES = st.lists(st.integers(0, 900), max_size=5)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(st.tuples(st.none() | st.integers(0, 8), SIZES), min_size=1, max_size=3)),
        st.tuples(st.just("compact"), st.integers(-3, 12)),
        st.tuples(st.just("reset"), st.integers(-5, 5)),
        st.tuples(st.just("reopen"), st.integers(0, 3)),
        st.tuples(st.just("load"), st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 3_000))),
    ),
    max_size=25,
)


class Twin:
    """A log on `disk` and, as a plain list, what it must hold."""

    def __init__(self, disk, directory):
        self.disk = disk
        self.directory = directory
        self.start = LogStart()
        self.entries = []
        self.term = 0
        self.log = open_log(disk, directory=directory)

    @property
    def last(self):
        """The last entry, or the start."""
        return self.entries[-1] if self.entries else self.start

    def write(self, stages):
        """Stage all, then write them as one."""
        writes = []
        for back, sizes in stages:
            self.term += 1
            cut = None if back is None else max(self.start.index + 1, self.last.index + 1 - back)
            if cut is not None:
                del self.entries[cut - self.start.index - 1 :]
            entries = entries_behind(self.last, self.term, sizes)
            self.entries += entries
            writes.append(self.log.stage(cut, entries))
            assert self.log.last_index == self.last.index
            if entries:
                assert self.log.cached(entries[0].index, entries[-1].index) == entries
        self.log.write(writes)

    def compact(self, where):
        """Compact up to somewhere in the log, or beside it."""
        index = self.start.index + where
        self.log.compact(index)
        start = self.log.start
        assert self.start.index <= start.index <= max(index, self.start.index)
        if start != self.start:
            assert start == start_at(self.entries[start.index - self.start.index - 1])
            del self.entries[: start.index - self.start.index]
            self.start = start

    def reset(self, distance):
        """Begin anew behind a snapshot that is older or newer than the last entry."""
        self.term += 1
        self.start = LogStart(max(0, self.last.index + distance), self.term, 1_000 + self.term, self.term)
        self.entries = []
        self.log.reset(self.start)

    def reopen(self, how):
        """Restart it: in good order, or after the end of the process or of the power."""
        if how == 0:
            self.log.close()
        if how == 1 and isinstance(self.disk, SimDisk):
            self.disk.kill()
        if how == 2 and isinstance(self.disk, SimDisk):
            self.disk.crash()
        self.log = open_log(self.disk, self.last.index, directory=self.directory)

    def load(self, place):
        """Load a range, of any number of segments; the first entry may be anywhere. All that fits comes."""
        first, count, bytes_max = place
        first += self.start.index
        wanted = self.entries[first - self.start.index - 1 :][: count + 1] if first > self.start.index else []
        if not wanted:
            with pytest.raises(Corruption, match=f"entry {first} is not in the log"):
                self.log.load(first, first + count, bytes_max)
            return
        sizes = accumulate(len(entry.record) for entry in wanted)
        fitting = sum(size <= bytes_max for size in sizes)
        assert self.log.load(first, first + count, bytes_max) == wanted[: max(1, fitting)]

    def check(self):
        """Log and list are the same, in memory and on disk."""
        assert self.log.start == self.start
        assert self.log.first_index == self.start.index + 1
        assert self.log.last_index == self.log.durable_index == self.last.index
        assert read_all(self.log) == self.entries
        cached = self.log.cached(self.log.last_index, self.log.last_index)
        assert cached is None or not self.entries or cached == self.entries[-1:]


def run(twin, steps):
    """Do all steps, looking after each."""
    for name, argument in steps:
        getattr(twin, name)(argument)
        twin.check()
    twin.reopen(0)
    twin.check()
    twin.log.close()


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_a_log_is_a_list(steps):
    """Whatever is done to it, with segments so small that most writes begin a new one (F32)."""
    run(Twin(SimDisk(), DIRECTORY), steps)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_a_log_is_a_list_on_a_real_disk_too(tmp_path_factory, steps):
    """The same on files of the operating system."""
    run(Twin(RealDisk(), str(tmp_path_factory.mktemp("log"))), steps)


def test_a_new_log_is_empty():
    """And durable: with the power gone, it is still an empty log and no missing one."""
    disk = SimDisk()
    first = open_log(disk)
    assert (first.start, first.first_index, first.last_index, first.durable_index) == (LogStart(), 1, 0, 0)
    disk.crash()
    open_log(disk)


def test_what_is_staged_is_in_memory_and_not_durable():
    """The event loop goes on with it at once; `durable_index` moves when it is written (F4, F5)."""
    disk = SimDisk()
    found = open_log(disk)
    entries = entries_behind(LogStart(), 1, [40] * 3)
    operations = disk.operations
    write = found.stage(None, entries)
    assert disk.operations == operations
    assert (found.last_index, found.durable_index) == (3, 0)
    assert found.cached(1, 3) == entries
    with pytest.raises(Corruption, match="entry 1 is not in the log"):
        found.load(1, 3, 100)
    found.write([write])
    assert found.durable_index == 3
    disk.crash()
    assert read_all(open_log(disk, 3)) == entries


def test_any_number_of_writes_is_one_write_and_one_sync():
    """What piles up while the disk works costs as much as one of them (group commit)."""
    disk = SimDisk()
    found = open_log(disk, segment_bytes=10**6)
    kinds = []
    disk.fault = lambda kind, path: kinds.append(kind)
    writes = []
    for number in range(50):
        cut = found.last_index if number % 7 == 6 else None
        before = found.start if found.last_index == 0 else found.cached(found.last_index, found.last_index)[0]
        if cut is not None:
            before = found.cached(cut - 1, cut - 1)[0]
        writes.append(found.stage(cut, [entry_behind(before, number, 10)]))
    found.write(writes)
    assert kinds == ["write", "sync"]
    assert [entry.term for entry in read_all(found)] == [n for n in range(50) if n == 49 or n % 7 != 5]


def test_a_truncation_behind_what_another_cut_off():
    """A later stage may cut what an earlier one has appended, or deeper (F31)."""
    disk = SimDisk()
    found = open_log(disk)
    first = entries_behind(LogStart(), 1, [40] * 3)
    second = entries_behind(first[1], 2, [40] * 3)
    third = entries_behind(second[0], 3, [40])
    fourth = entries_behind(first[0], 4, [40])
    found.write([found.stage(None, first), found.stage(3, second), found.stage(4, third)])
    assert read_all(found) == first[:2] + second[:1] + third
    found.write([found.stage(2, []), found.stage(None, fourth), found.stage(3, [])])
    assert read_all(found) == first[:1] + fourth
    disk.crash()
    assert read_all(open_log(disk)) == first[:1] + fourth


def test_writing_nothing_touches_nothing():
    """Neither an empty stage nor a cut at the end is a change."""
    disk = SimDisk()
    found = open_log(disk)
    append(found, entries_behind(LogStart(), 1, [1]))
    operations = disk.operations
    found.write([found.stage(None, []), found.stage(2, [])])
    assert disk.operations == operations
    assert found.durable_index == 1


def test_a_cut_into_an_earlier_segment():
    """What the segments behind held is gone, in memory and on disk, also from the one that was cut (§5.3)."""
    disk = SimDisk()
    found = open_log(disk)
    old = entries_behind(LogStart(), 1, [300] * 12)
    for at in range(0, 12, 4):
        append(found, old[at : at + 4])
    assert len(disk.listdir(DIRECTORY)) == 4
    new = entries_behind(old[1], 2, [10])
    found.write([found.stage(3, new)])
    assert found.load(1, 3, 10**6) == old[:2] + new
    assert read_all(found) == old[:2] + new
    assert len(disk.listdir(DIRECTORY)) == 3
    disk.crash()
    assert read_all(open_log(disk, 3)) == old[:2] + new


@pytest.mark.parametrize("fitting", range(1, 13))
def test_a_range_over_many_segments_comes_whole(fitting):
    """As many entries as fit, wherever segments end: a follower refuses what was to come behind a part (§5.3, F32)."""
    found = open_log(SimDisk())
    written = entries_behind(LogStart(), 1, [300] * 12)
    for at in range(0, 12, 4):
        append(found, written[at : at + 4])
    size = sum(len(entry.record) for entry in written[:fitting])
    assert found.load(1, 12, size) == found.load(1, 12, size + 1) == written[:fitting]
    assert found.load(1, fitting, 10**6) == written[:fitting]


def test_a_very_large_batch_is_split(monkeypatch):
    """What piled up beyond what one batch can say becomes two (F32)."""
    monkeypatch.setattr(log, "_BATCH_BYTES_MAX", 300)
    disk = SimDisk()
    found = open_log(disk, segment_bytes=10**6)
    entries = entries_behind(LogStart(), 1, [40] * 21)
    found.write([found.stage(None, entries)])
    others = entries_behind(entries[9], 2, [100] * 9)
    found.write([found.stage(11, others)])
    assert read_all(found) == entries[:10] + others
    disk.crash()
    assert read_all(open_log(disk, 19, segment_bytes=10**6)) == entries[:10] + others


def test_an_entry_larger_than_a_segment():
    """It has a segment of its own (F33)."""
    disk = SimDisk()
    found = open_log(disk)
    entries = entries_behind(LogStart(), 1, [10, 5 * SEGMENT_BYTES, 10])
    for entry in entries:
        append(found, [entry])
    assert read_all(found) == entries
    assert len(disk.listdir(DIRECTORY)) == 4
    found.compact(3)
    assert found.start == start_at(entries[1])


def test_what_cannot_be_staged():
    """A gap, and a cut into what is compacted, are refused: going on would lose committed entries."""
    found = open_log(SimDisk())
    for _ in range(4):
        append(found, [entry_behind(last_of(found), 1, 1_500)])
    found.compact(2)
    assert found.start.index == 2
    with pytest.raises(SafetyViolation, match=r"entry 2 is compacted \(up to 2\)"):
        found.stage(2, [])
    with pytest.raises(SafetyViolation, match="don't continue a log that ends at 4"):
        found.stage(None, entries_behind(entry_behind(last_of(found), 1), 1, [1]))


def test_no_reset_while_a_write_is_under_way():
    """What the disk worker does not know of yet would come back behind the snapshot (F60, F63)."""
    found = open_log(SimDisk())
    write = found.stage(None, entries_behind(LogStart(), 1, [1]))
    with pytest.raises(SafetyViolation, match="while a write is under way"):
        found.reset(LogStart(9, 1, 1, 1))
    found.write([write])
    found.reset(LogStart(9, 1, 1, 1))
    assert (found.start.index, found.last_index) == (9, 9)


def test_compaction_drops_whole_segments_only():
    """Nothing above the index goes, and the files of what went are gone (F35)."""
    disk = SimDisk()
    found = open_log(disk)
    entries = entries_behind(LogStart(), 1, [900] * 9)
    for entry in entries:
        append(found, [entry])
    for index in range(10):
        found.compact(index)
        assert index - 2 < found.start.index <= index
        assert read_all(found) == entries[found.start.index :]
    assert len(disk.listdir(DIRECTORY)) == 2
    assert found.start.index == 8


def test_a_failed_read_is_an_error_of_the_disk():
    """It is not taken for damage, nothing is skipped, and the log goes on when it works again (F18)."""
    disk = SimDisk()
    found = open_log(disk)
    entries = entries_behind(LogStart(), 1, [40] * 3)
    append(found, entries)

    def fault(kind, path):
        raise DiskError(f"reading {path}: no")

    disk.read_fault = fault
    with pytest.raises(DiskError, match="no"):
        found.load(1, 3, 1_000)
    with pytest.raises(DiskError, match="no"):
        Log.open(disk, DIRECTORY, owner=IDENTITY, segment_bytes=SEGMENT_BYTES, cache_bytes=0, durable_index=0)
    disk.read_fault = None
    assert found.load(1, 3, 1_000) == entries


def test_damage_found_while_it_is_open_says_what_to_do():
    """Whoever reads a damaged entry, recovery or the leader's replication, gets the same advice (F9)."""
    disk = SimDisk()
    found = open_log(disk)
    append(found, entries_behind(LogStart(), 1, [40] * 3))
    path = f"{DIRECTORY}/{disk.listdir(DIRECTORY)[0]}"
    disk.flip(path, disk.read_bytes(path).index(b"2@1;"))
    with pytest.raises(Corruption, match=r"entry 2 is damaged.*remove it from the cluster and add it again under a"):
        found.load(1, 3, 1_000)


def test_a_closed_log_is_of_no_use():
    """Closing is the last call, and leaves no segment open."""
    disk = SimDisk()
    found = open_log(disk)
    entries = entries_behind(LogStart(), 1, [900] * 6)
    for entry in entries:
        append(found, [entry])
    assert len(set(disk.open_files())) > 2
    found.close()
    assert disk.open_files() == []
    with pytest.raises(DiskError, match="it is closed"):
        found.write([found.stage(None, [entry_behind(entries[-1], 1)])])


def test_a_log_of_another_version_is_refused(monkeypatch):
    """Both versions are named, and nothing is changed: the right raftkv can still read it (F24)."""
    disk = SimDisk()
    with monkeypatch.context() as patched:
        patched.setattr(sealed.seal, "__defaults__", (3,))
        patched.setattr(sealed, "Envelope", partial(sealed.Envelope, version=3))
        found = open_log(disk)
        append(found, entries_behind(LogStart(), 1, [40]))
        found.close()
    before = disk.image()
    with pytest.raises(
        FormatError, match=r"MANIFEST has format version 3, this raftkv reads version 2: use the raftkv"
    ):
        open_log(disk)
    assert disk.image() == before


def test_other_files_in_the_directory_are_left_alone():
    """Only what looks like the log's own is removed, and only when it is not part of the log."""
    disk = SimDisk()
    open_log(disk).close()
    for name in ("notes.txt", "0000000000000099.log", "MANIFEST.tmp"):
        disk.open(f"{DIRECTORY}/{name}", create=True).close()
    open_log(disk)
    assert disk.listdir(DIRECTORY) == ["0000000000000001.log", "MANIFEST", "notes.txt"]


def test_a_new_segments_name_is_durable_before_the_manifest_names_it():
    """Names may become durable in any order: a manifest that names a file which the power took is the end (F12)."""
    disk = SimDisk()
    found = open_log(disk)
    done = []
    disk.fault = lambda kind, path: done.append((kind, path))
    append(found, entries_behind(last_of(found), 1, [700] * 6))
    for entry in entries_behind(last_of(found), 2, [700] * 6):
        append(found, [entry])
    made = [number for number, (kind, path) in enumerate(done) if kind == "create" and path.endswith(".log")]
    assert made
    for number in made:
        renamed = next(at for at in range(number, len(done)) if done[at][0] == "rename")
        assert ("sync_dir", DIRECTORY) in done[number:renamed]


def test_nothing_is_removed_before_what_was_found_is_durable():
    """What a killed process has left may be taken back by a power cut, and then the leftovers are the log (F12)."""
    disk = SimDisk()
    found = open_log(disk)
    append(found, entries_behind(last_of(found), 1, [40] * 3))
    found.close()
    disk.open(f"{DIRECTORY}/0000000000000099.log", create=True).close()
    done = []
    disk.fault = lambda kind, path: done.append((kind, path))
    open_log(disk, 3)
    removed = next(at for at, (kind, _) in enumerate(done) if kind == "remove")
    assert ("sync_dir", DIRECTORY) in done[:removed]


def test_what_goes_behind_the_last_entry_in_the_same_file_is_taken_at_once():
    """Neither more than is allowed at once, nor what would need a new segment; a first entry always fits."""
    found = open_log(SimDisk())
    assert found.takes_at_once(3 * SEGMENT_BYTES, 3 * SEGMENT_BYTES), "into an empty segment"
    append(found, entries_behind(LogStart(), 1, [SEGMENT_BYTES // 2]))
    assert found.takes_at_once(100, 100)
    assert not found.takes_at_once(101, 100)
    while len(found.written()) < 4:
        before, entry = len(found.written()), entry_behind(last_of(found), 1, 300)
        takes = found.takes_at_once(len(entry.record), 1_000)
        append(found, [entry])
        assert takes == (len(found.written()) == before)


def test_two_entries_that_are_too_much_for_one_batch_are_two(monkeypatch):
    """However few they are, each half is shorter than the whole."""
    monkeypatch.setattr(log, "_BATCH_BYTES_MAX", 300)
    found = open_log(SimDisk(), segment_bytes=10**6)
    entries = entries_behind(LogStart(), 1, [200, 200])
    append(found, entries)
    assert read_all(found) == entries


def test_a_first_segment_whose_creation_was_interrupted_is_made_anew():
    """Nothing was ever written behind a header that is not whole; what has entries is not thrown away."""
    disk = SimDisk()
    open_log(disk).close()
    [path] = [f"{DIRECTORY}/{name}" for name in disk.listdir(DIRECTORY) if name.endswith(".log")]
    disk.remove(f"{DIRECTORY}/MANIFEST")
    open_log(disk).close()
    assert disk.open_files() == []
    [path] = [f"{DIRECTORY}/{name}" for name in disk.listdir(DIRECTORY) if name.endswith(".log")]
    disk.remove(f"{DIRECTORY}/MANIFEST")
    disk.flip(path, 20)
    found = open_log(disk)
    append(found, entries_behind(LogStart(), 1, [40]))
    found.close()
    disk.remove(f"{DIRECTORY}/MANIFEST")
    with pytest.raises(Corruption, match="MANIFEST is missing"):
        open_log(disk)


@pytest.mark.parametrize("fitting", [2, 4])
def test_a_load_is_bounded_to_the_byte(fitting):
    """Over several segments, too: entries that have just the bytes that are allowed come, and none beyond."""
    found = open_log(SimDisk())
    entries = entries_behind(LogStart(), 1, [900] * 6)
    for entry in entries:
        append(found, [entry])
    assert len(found.written()) > 2
    size = sum(len(entry.record) for entry in entries[:fitting])
    assert found.load(1, 6, size) == entries[:fitting]
    assert found.load(1, 6, size - 1) == entries[: fitting - 1]
