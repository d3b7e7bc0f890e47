"""Segments that are read again while they are in use: what is sound stays unsaid, and no damage does."""

from __future__ import annotations

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import CorruptRecord
from raftkv.log import scrub
from raftkv.log.segment import HEADER_BYTES
from tests.log.logs import entries_behind, open_log

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
