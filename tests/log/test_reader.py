"""Reading a log's files without a node: everything is seen, also around damage, and nothing is changed."""

from __future__ import annotations

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import InvalidArgument
from raftkv.log.reader import read_log
from tests.log.logs import DIRECTORY, append, entries_behind, last_of, open_log, start_at


@pytest.fixture
def disk():
    """A log of several segments, the end of one of which is replaced from the next one on."""
    disk = SimDisk()
    disk.mkdir("/n")
    log = open_log(disk)
    for entry in entries_behind(last_of(log), 1, [600] * 8):
        append(log, [entry])
    kept = log.load(5, 5, 0)[0]
    log.write([log.stage(6, entries_behind(kept, 2, [1_900, 600]))])
    log.close()
    return disk


def read(disk):
    """What was seen, and the entries; reading changes nothing."""
    entries = []

    def take(behind, more):
        while entries and entries[-1].index > behind:
            entries.pop()
        entries.extend(more)

    before = disk.image()
    seen = read_log(disk, DIRECTORY, take)
    assert disk.image() == before
    return seen, entries


def segments_of(disk):
    """The files that hold entries, in order."""
    return sorted(f"{DIRECTORY}/{name}" for name in disk.listdir(DIRECTORY) if name.endswith(".log"))


def test_it_sees_what_the_log_holds(disk):
    """The same entries as a node that opens it, without those that were replaced."""
    seen, entries = read(disk)
    log = open_log(disk)
    assert entries == log.load(1, log.last_index, 1 << 20)
    assert [entry.term for entry in entries] == [1] * 5 + [2] * 2
    assert (seen.first_index, seen.last_index) == (1, 7)
    assert [found.path for found in seen.segments] == segments_of(disk)
    assert all(found.bytes == disk.size(found.path) for found in seen.segments)
    assert seen.segments[-1].last_index == 7 and sum(found.entries for found in seen.segments) > 7
    assert not seen.problems and seen.torn_at is None
    assert [found.entries for found in seen.segments] == [
        found.last_index - found.first_index + 1 for found in seen.segments
    ]


def test_it_sees_the_end_of_a_compacted_log(disk):
    """The first index is that behind what was cut off."""
    log = open_log(disk)
    log.compact(4)
    log.close()
    seen, entries = read(disk)
    assert seen.first_index == entries[0].index > 1
    assert seen.last_index == 7


def test_a_log_that_begins_behind_a_snapshot_is_empty(disk):
    """There is nothing before the first entry, and nothing behind it yet."""
    log = open_log(disk)
    log.reset(start_at(last_of(log)))
    log.close()
    seen, entries = read(disk)
    assert (seen.first_index, seen.last_index) == (8, 7)
    assert not entries and not seen.problems


def test_damage_is_named_and_what_is_around_it_read(disk):
    """One byte of the first segment: the others are seen as they are."""
    whole, _ = read(disk)
    first = segments_of(disk)[0]
    disk.flip(first, 700)
    seen, entries = read(disk)
    assert seen.problems == [seen.segments[0].problem]
    assert first in seen.problems[0]
    assert seen.segments[1:] == whole.segments[1:]
    assert entries[0].index == whole.segments[1].first_index and entries[-1].index == seen.last_index == 7


def test_a_missing_segment_is_named(disk):
    """It is in the manifest, so it was there."""
    last = segments_of(disk)[-1]
    disk.remove(last)
    seen, _ = read(disk)
    assert seen.problems == [f"{last} is missing"]
    assert seen.last_index == seen.segments[-2].last_index


def test_a_segment_of_another_log_is_named(disk):
    """Each is sound by itself, but one does not continue the other."""
    other = SimDisk()
    other.mkdir("/n")
    log = open_log(other)
    for entry in entries_behind(last_of(log), 7, [600] * 8):
        append(log, [entry])
    log.close()
    second = segments_of(disk)[1]
    data = other.image()[second]
    disk.overwrite(second, 0, data + bytes(disk.size(second) - len(data)))
    seen, _ = read(disk)
    assert "does not continue the segment before it" in seen.segments[1].problem


def test_a_torn_write_is_seen_and_left(disk):
    """A start would cut it off there, and that is no damage."""
    last = segments_of(disk)[-1]
    end = open_log(disk).written()[-1].end
    disk.overwrite(last, end, b"torn")
    seen, entries = read(disk)
    assert seen.torn_at == end
    assert not seen.problems
    assert entries[-1].index == 7


def test_only_the_last_segment_may_end_in_a_torn_write(disk):
    """Behind an earlier one all was durable, so there it is damage."""
    first = segments_of(disk)[0]
    disk.cut_short(first, open_log(disk).written()[0].end - 100)
    seen, _ = read(disk)
    assert first in seen.segments[0].problem
    assert seen.torn_at is None


def test_a_damaged_manifest_ends_it(disk):
    """Which segments are the log, nobody else knows."""
    disk.flip(f"{DIRECTORY}/MANIFEST", 20)
    seen, entries = read(disk)
    assert "MANIFEST" in seen.problems[0]
    assert not seen.segments and not entries


def test_where_there_is_no_log_that_is_said(disk):
    """It is whoever named the directory that is wrong."""
    disk.remove(f"{DIRECTORY}/MANIFEST")
    with pytest.raises(InvalidArgument, match="holds no log"):
        read(disk)


def test_an_end_that_was_only_cut_off_is_not_seen(disk):
    """The newest segment may say no more than where it goes on: what is behind that in older ones is void."""
    log = open_log(disk)
    log.write([log.stage(2, [])])
    log.close()
    seen, entries = read(disk)
    assert [entry.index for entry in entries] == [1]
    assert seen.last_index == 1
