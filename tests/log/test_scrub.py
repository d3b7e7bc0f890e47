"""Segments that are read again while they are in use: what is sound stays unsaid, and no damage does."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import CorruptRecord
from raftkv.log import scrub
from raftkv.log.segment import HEADER_BYTES
from tests.log.logs import entries_behind, entry_behind, last_of, open_log

SIZES = [40, 300, 3, 900, 60, 60, 700, 10]


@pytest.fixture(params=[64, 200, 256 << 10])
def log(request, monkeypatch):
    """A log with several segments on a disk, read in small steps, so that batches are larger than one, or in one."""
    monkeypatch.setattr(scrub, "STEP_BYTES", request.param)
    disk = SimDisk()
    log = open_log(disk)
    last = log.start
    for turn in range(6):
        entries = entries_behind(last, 1, SIZES[turn:] + SIZES[:turn])
        log.write([log.stage(None, entries)])
        last = entries[-1]
    return disk, log


def read(disk, part):
    """Read all of it; how many bytes."""
    return sum(scrub.scrub_segment(disk, part))


def test_sound_segments_are_read_to_their_end(log):
    """Also the one that is being written, as far as it was durable when the reading began."""
    disk, log = log
    assert len(log.written()) > 2
    parts = log.written()
    entries = entries_behind(log.load(log.durable_index, log.durable_index, 0)[0], 1, SIZES)
    log.write([log.stage(None, entries)])
    for part in [*parts, *log.written()]:
        assert read(disk, part) >= part.end - HEADER_BYTES - 64


def test_every_damaged_byte_behind_the_header_is_found(log):
    """Named with the file; whether it is a head, a record, or the last byte of either."""
    disk, log = log
    for part in log.written():
        for at in range(HEADER_BYTES, part.end, 37 if scrub.STEP_BYTES > 64 else 211):
            disk.flip(part.path, at, at % 8)
            with pytest.raises(CorruptRecord, match=part.path):
                read(disk, part)
            disk.flip(part.path, at, at % 8)
        read(disk, part)


def test_a_segment_that_is_gone_or_cut_short_is_found(log):
    """The first is for the caller to judge, who knows what was compacted meanwhile."""
    disk, log = log
    part = log.written()[0]
    file = disk.open(part.path)
    file.truncate(part.end - 5)
    file.close()
    with pytest.raises(CorruptRecord, match=part.path):
        read(disk, part)
    disk.remove(part.path)
    with pytest.raises(FileNotFoundError):
        read(disk, part)


def test_what_lies_behind_the_part_is_not_looked_at(log):
    """It is being written: whatever is half there is no damage."""
    disk, log = log
    part = log.written()[-1]
    file = disk.open(part.path)
    beginning = file.pread(part.end - HEADER_BYTES, HEADER_BYTES)
    file.pwrite([beginning], part.end)
    file.close()
    assert read(disk, part) == part.end - HEADER_BYTES


def test_damage_is_told_with_its_entries(log):
    """Whoever reads that must find them: the batch's first and last, and where in the file it begins."""
    disk, log = log
    part = log.written()[0]
    count = len(SIZES)
    disk.flip(part.path, part.end - 1)
    with pytest.raises(CorruptRecord) as caught:
        read(disk, part)
    last = int(str(caught.value).partition(" to ")[2].split()[0])
    first = int(str(caught.value).partition("the entries ")[2].split()[0])
    assert last - first == count - 1 and last % count == 0


def test_small_batches_that_are_read_at_once_are_checked_each_at_its_place():
    """Its checksum is seeded with that: what is sound is sound, and damage is told with where its batch begins."""
    disk = SimDisk()
    log = open_log(disk)
    begins = []
    for _ in range(3):
        begins.append(log.written()[0].end)
        log.write([log.stage(None, [entry_behind(last_of(log), 1)])])
    [part] = log.written()
    assert read(disk, part) == part.end - HEADER_BYTES
    disk.flip(part.path, begins[2] - 1)
    with pytest.raises(CorruptRecord, match=f"damaged behind byte {begins[1]}: the entries 2 to 2 "):
        read(disk, part)


def test_a_part_that_ends_inside_a_batch_is_no_sound_one(log):
    """Its end was cut off and written anew in the meantime: that is for the caller to judge, who knows of it."""
    disk, log = log
    for part in log.written():
        with pytest.raises(CorruptRecord, match=part.path):
            read(disk, msgspec.structs.replace(part, end=part.end - 5))
