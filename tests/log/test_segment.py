"""One segment by itself."""

from __future__ import annotations

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import Corruption, CorruptRecord, DiskError, FormatError
from raftkv.log import sealed
from raftkv.log import segment as segment_module
from raftkv.log.batch import BATCH_HEAD_BYTES, encode_head
from raftkv.log.segment import HEADER_BYTES, Segment
from raftkv.model import LogStart
from tests.log.logs import IDENTITY, entries_behind

PATH = "/d/7.log"
NUMBER = 7
PREV = LogStart(10, 2, 12345, 99)
FILL = 4_096


@pytest.fixture
def disk():
    """A disk with a directory."""
    disk = SimDisk()
    disk.mkdir("/d")
    return disk


def create(disk):
    """A new segment."""
    return Segment.create(disk, PATH, NUMBER, PREV, FILL, IDENTITY)


def reopen(disk, *, is_last=True):
    """The segment as it is found."""
    segment = Segment.open(disk, PATH, NUMBER, FILL)
    segment.scan(is_last=is_last)
    return segment


def write(segment, before, entries):
    """Write a batch of `entries` behind `before`."""
    segment.write(before.index + 1, len(entries), before.chain, b"".join(entry.record for entry in entries))


def filled(disk, sizes=((40, 40), (40,), (40, 40, 40))):
    """A segment with a batch for each tuple of payload sizes, and all its entries."""
    segment = create(disk)
    found = []
    for batch in sizes:
        before = found[-1] if found else PREV
        entries = entries_behind(before, 3, batch)
        write(segment, before, entries)
        found += entries
    return segment, found


def test_a_new_segment_is_empty(disk):
    """It says what comes before it, before and after it is opened again."""
    for segment in (create(disk), reopen(disk), reopen(disk, is_last=False)):
        assert segment.is_empty
        assert segment.last_index == PREV.index
        assert segment.prev == PREV
        segment.close()


def test_a_new_segment_is_durable_but_for_its_name(disk):
    """Its header and the zeros behind it survive a loss of power once the directory is synced (F12)."""
    create(disk)
    disk.sync_dir("/d")
    disk.crash()
    assert disk.size(PATH) == FILL
    assert reopen(disk).is_empty


def test_entries_are_found_again(disk):
    """All that was written, durable when `write` returns (F4)."""
    segment, entries = filled(disk)
    disk.sync_dir("/d")
    disk.crash()
    segment = reopen(disk)
    assert segment.last_index == 16
    assert not segment.is_empty
    assert segment.read(11, 16, 10**6) == entries


def test_later_batches_replace(disk):
    """A batch voids what came before from its first index on; one without entries is a truncation (§5.3)."""
    segment, entries = filled(disk)
    others = entries_behind(entries[2], 5, [10, 20])
    write(segment, entries[2], others)
    assert segment.read(11, segment.last_index, 10**6) == entries[:3] + others
    write(segment, entries[0], [])
    again = entries_behind(entries[0], 6, [1])
    write(segment, entries[0], again)
    for found in (segment, reopen(disk), reopen(disk, is_last=False)):
        assert found.last_index == 12
        assert found.read(11, 12, 10**6) == entries[:1] + again
    write(segment, PREV, [])
    for found in (segment, reopen(disk)):
        assert found.last_index == PREV.index
        assert not found.is_empty


def test_what_the_next_segment_replaced_is_clipped(disk):
    """A segment forgets what is above; what it does not have can't be what the next one continues (F11)."""
    segment, entries = filled(disk)
    segment.clip(14)
    assert segment.last_index == 14
    assert segment.read(11, 14, 10**6) == entries[:4]
    with pytest.raises(Corruption, match="does not hold entry 15"):
        segment.read(15, 15, 10)
    with pytest.raises(Corruption, match="ends at entry 14, the segment behind it goes on at 16"):
        segment.clip(15)


@pytest.mark.parametrize("sizes", [[(40,) * 9], [(40,)] * 9, [(40, 4_000, 40), (9_000,), (1,) * 5]])
def test_every_range_in_every_order(disk, sizes):
    """At least one entry, else no more than the bytes asked for, whichever was read before."""
    segment, entries = filled(disk, sizes)
    last = segment.last_index
    for first in [*range(last, PREV.index, -2), *range(PREV.index + 1, last + 1)]:
        for end in range(first, last + 1):
            for bytes_max in (0, 100, 160, 10**6):
                found = segment.read(first, end, bytes_max)
                assert found == entries[first - 11 : first - 11 + len(found)]
                size = sum(len(entry.record) for entry in found)
                assert len(found) == 1 or size <= bytes_max
                is_all = found[-1].index == end
                assert is_all or size + len(entries[found[-1].index - 10].record) > bytes_max


def test_reading_a_large_batch_in_parts(disk, monkeypatch):
    """Memory stays flat: no more is read at a time than was asked for, and reading on finds its place at once."""
    segment, entries = filled(disk, [(1_000,) * 400])
    reads = []
    pread = segment._file.pread
    monkeypatch.setattr(segment._file, "pread", lambda size, offset: (reads.append(size), pread(size, offset))[1])
    found = []
    while len(found) < 400:
        found += segment.read(11 + len(found), 410, 20_000)
    assert found == entries
    assert max(reads) <= 64 << 10
    assert sum(reads) < 6 * 1_037 * 400


def test_small_batches_find_zeros_written_ahead(disk):
    """The file grows by leaps, and never by batches that are too large to be written twice."""
    segment, entries = filled(disk, [(40,)])
    sizes = set()
    for _ in range(200):
        entries += entries_behind(entries[-1], 3, [40])
        write(segment, entries[-2], entries[-1:])
        sizes.add(disk.size(PATH))
    assert len(sizes) < 12
    before = disk.size(PATH)
    entries += entries_behind(entries[-1], 3, [100_000])
    write(segment, entries[-2], entries[-1:])
    assert disk.size(PATH) == segment.size_with(0) - BATCH_HEAD_BYTES > before
    assert reopen(disk).read(11, 212, 10**9) == entries


def test_scanning_changes_nothing_and_settling_cuts_off(disk):
    """A torn batch at the end is not seen, and is gone when the segment is settled; its place is free (F8)."""
    segment, entries = filled(disk)
    disk.sync_dir("/d")
    end = segment.size_with(0) - BATCH_HEAD_BYTES
    disk.overwrite(PATH, end, b"torn")
    before = disk.image()
    segment = reopen(disk)
    assert disk.image() == before
    assert segment.last_index == 16
    segment.settle()
    disk.crash()
    assert disk.size(PATH) == end
    segment = reopen(disk)
    more = entries_behind(entries[-1], 4, [40])
    write(segment, entries[-1], more)
    assert reopen(disk).read(11, 17, 10**6) == entries + more


def test_a_torn_first_batch_does_not_come_back(disk):
    """What was cut off is cut off durably, also where no batch is written anew (F8)."""
    create(disk)
    disk.sync_dir("/d")
    disk.overwrite(PATH, HEADER_BYTES, b"torn")
    reopen(disk).settle()
    disk.crash()
    assert disk.size(PATH) == HEADER_BYTES
    assert reopen(disk, is_last=False).is_empty


def test_what_was_read_is_durable_when_it_is_settled(disk):
    """The writer may have been killed before its sync, or the sync may have failed for good (F4, F15)."""
    for kind in ("kill", "fail"):
        segment, entries = filled(disk)
        disk.sync_dir("/d")

        def fault(operation, path, kind=kind):
            if operation == "sync":
                raise DiskError("EIO") if kind == "fail" else KeyboardInterrupt

        disk.fault = fault
        more = entries_behind(entries[-1], 3, [700, 700])
        with pytest.raises((DiskError, KeyboardInterrupt)):
            write(segment, entries[-1], more)
        disk.fault = None
        disk.kill()
        segment = reopen(disk)
        assert segment.last_index == 18
        segment.settle()
        disk.crash()
        assert reopen(disk).read(11, 18, 10**6) == entries + more


def test_only_the_last_segment_may_be_torn(disk):
    """The others were complete when their successor was made (F9)."""
    segment, _ = filled(disk)
    disk.overwrite(PATH, segment.size_with(0), b"torn")
    with pytest.raises(Corruption, match=r"is damaged at byte \d+, behind entry 16"):
        reopen(disk, is_last=False)


def test_damage_with_a_batch_behind_it_is_no_torn_write(disk):
    """A batch is written when the one before is durable, so no crash leaves this (F9)."""
    filled(disk)
    disk.flip(PATH, HEADER_BYTES + BATCH_HEAD_BYTES + 5)
    with pytest.raises(Corruption, match="damaged at byte 512, behind entry 10: an undamaged batch with entry 13"):
        reopen(disk)


def test_a_lost_write_is_noticed(disk):
    """A disk that said that a batch was written and left the zeros that were there before (F19)."""
    filled(disk)
    disk.overwrite(PATH, HEADER_BYTES, bytes(BATCH_HEAD_BYTES + 2 * 77))
    with pytest.raises(Corruption, match="an undamaged batch with entry 13 follows"):
        reopen(disk)


def test_a_batch_of_another_history_is_noticed(disk):
    """It is whole and in its place, but continues another entry than the one before it (F19, F21)."""
    segment, entries = filled(disk)
    other = entries_behind(LogStart(13, 3, 4711, 0), 3, [40])
    offset = HEADER_BYTES + 2 * BATCH_HEAD_BYTES + 3 * len(entries[0].record)
    records = other[0].record
    disk.overwrite(PATH, offset, encode_head(14, 1, 4711, records, offset, segment._salt) + records)
    segment = Segment.open(disk, PATH, NUMBER, FILL)
    disk.overwrite(PATH, offset + BATCH_HEAD_BYTES + len(records), bytes(FILL))
    segment.scan(is_last=True)
    assert segment.read(11, 13, 10**6) == entries[:3]
    with pytest.raises(Corruption, match="entry 14 does not continue entry 13"):
        segment.read(11, 14, 10**6)
    with pytest.raises(Corruption, match="entry 14 does not continue entry 13"):
        segment.read(14, 14, 10**6, entries[2].chain)


@pytest.mark.parametrize("first", [10, 14, 15])
def test_a_batch_that_cannot_stand_there_is_corruption(disk, first):
    """Its index is before the segment, or leaves a gap (F19)."""
    segment, entries = filled(disk, [(40, 40)])
    offset = segment.size_with(0) - BATCH_HEAD_BYTES
    records = entries[0].record
    disk.overwrite(PATH, offset, encode_head(first, 1, 0, records, offset, segment._salt) + records)
    with pytest.raises(Corruption, match=f"from entry {first} on can't stand behind entries 11 to 12"):
        reopen(disk)


def test_damage_while_it_is_open_is_noticed_by_whoever_reads(disk):
    """Entries are checked whenever they are read, not only when the log is opened (F9, F18)."""
    segment, entries = filled(disk, [(40,) * 6])
    disk.flip(PATH, HEADER_BYTES + BATCH_HEAD_BYTES + 3 * 77 + 50)
    with pytest.raises(CorruptRecord, match="entry 14 is damaged"):
        segment.read(11, 16, 10**6)
    disk.flip(PATH, HEADER_BYTES + BATCH_HEAD_BYTES + 3 * 77 + 50)
    assert segment.read(11, 16, 10**6) == entries


@pytest.mark.parametrize("size", [HEADER_BYTES, HEADER_BYTES + BATCH_HEAD_BYTES, HEADER_BYTES + BATCH_HEAD_BYTES + 100])
def test_a_file_that_is_cut_while_it_is_open(disk, size):
    """Reading ends with an error, and not never (F11)."""
    segment, _ = filled(disk, [(4_000,) * 60])
    disk.open(PATH).truncate(size)
    with pytest.raises(CorruptRecord, match="entry 11 is damaged"):
        segment.read(11, 70, 0)


def test_a_segment_under_another_name(disk):
    """Files that were swapped or copied are told by the number within (F19)."""
    filled(disk)
    disk.rename(PATH, "/d/8.log")
    with pytest.raises(Corruption, match="segment of number 7, under another's name"):
        Segment.open(disk, "/d/8.log", 8, FILL)
    with pytest.raises(Corruption, match=r"/d/7\.log is missing"):
        Segment.open(disk, PATH, NUMBER, FILL)


def test_a_segment_of_another_version(disk, monkeypatch):
    """Both versions are named, with what to do (F24)."""
    with monkeypatch.context() as patched:
        patched.setattr(sealed.seal, "__defaults__", (9,))
        create(disk)
    with pytest.raises(FormatError, match=r"has format version 9, this raftkv reads version 2: use the raftkv that"):
        Segment.open(disk, PATH, NUMBER, FILL)


def test_something_else_under_a_right_checksum_is_no_header(disk):
    """No version writes that."""
    create(disk)
    disk.write_atomic(PATH, sealed.seal(segment_module._MAGIC, b"\xc1").ljust(HEADER_BYTES, b"\0"))
    with pytest.raises(Corruption, match="has a header that no version of raftkv writes"):
        reopen(disk)


def test_a_segments_end_moves_only_when_the_batch_is_synced(disk):
    """Whoever reads it beside the writer takes what is before its end for durable."""
    segment, entries = filled(disk)
    end = segment.end
    seen = []
    disk.fault = lambda *_: seen.append(segment.end)
    write(segment, entries[-1], entries_behind(entries[-1], 3, (40,)))
    assert set(seen) == {end} and segment.end > end


@pytest.mark.parametrize("fitting", [1, 2, 4])
def test_a_range_is_bounded_to_the_byte(disk, fitting):
    """Entries that have just the bytes that are allowed come, and none that has one more."""
    segment, entries = filled(disk)
    size = sum(len(entry.record) for entry in entries[:fitting])
    assert segment.read(11, 16, size) == entries[:fitting]
    assert segment.read(11, 16, size - 1) == entries[: max(1, fitting - 1)]


def test_a_segment_that_is_settled_is_torn_no_more(disk):
    """What was torn is cut off, and a second time there is nothing to do but to write the last batch again."""
    segment, _ = filled(disk)
    file = disk.open(PATH)
    file.pwrite([b"torn"], segment.end)
    file.close()
    found = reopen(disk)
    assert found.is_torn
    found.settle()
    assert not found.is_torn
