"""The newest entries in memory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.errors import SafetyViolation
from raftkv.log.cache import Cache
from raftkv.model import LogStart
from tests.log.logs import entries_behind, start_at

START = LogStart(7, 2, 99, 5)


def filled(count, bytes_max=10**6):
    """A cache with the entries 8 to 7 + count, and these."""
    cache = Cache(START.index, bytes_max)
    entries = entries_behind(START, 3, [40] * count)
    cache.stage(None, entries)
    return cache, entries


def test_an_empty_cache():
    """It knows where the log ends, and nothing else."""
    cache = Cache(7, 100)
    assert cache.last_index == 7
    assert cache.get(8, 7) == []
    assert cache.get(7, 7) is None
    assert cache.get(8, 8) is None
    assert not cache.has_unfinished


def test_any_range_that_is_there_is_given():
    """A range is given whole, or not at all."""
    cache, entries = filled(5)
    for first in range(7, 14):
        for last in range(first - 1, 14):
            is_there = first >= 8 and last <= 12
            assert cache.get(first, last) == (entries[first - 8 : last - 7] if is_there else None)


def test_what_is_not_durable_is_kept():
    """However small the cache is; and it goes when it is durable and something comes behind it (F31)."""
    cache, entries = filled(5, bytes_max=1)
    assert cache.get(8, 12) == entries
    more = entries_behind(entries[-1], 3, [40])
    write = cache.stage(None, more)
    assert cache.get(8, 13) == entries + more
    cache.written = write.number - 1
    cache.stage(None, entries_behind(more[-1], 3, [40]))
    assert cache.get(12, 12) is None
    assert cache.get(13, 13) == more


def test_a_large_cache_keeps_the_newest():
    """What is durable and too much goes at the old end, somewhat more than needed."""
    cache = Cache(0, 10 * 77)
    entries = entries_behind(LogStart(), 1, [40] * 40)
    for entry in entries:
        cache.written = cache.stage(None, [entry]).number
        assert cache.get(entry.index, entry.index) == [entry]
    kept = [entry for entry in entries if cache.get(entry.index, 40) is not None]
    assert kept == entries[-len(kept) :]
    assert 8 <= len(kept) <= 11


def test_cutting():
    """What is above goes at once, also what was never in memory; the rest stays."""
    cache, entries = filled(5)
    write = cache.stage(10, [])
    assert (write.number, write.truncate_from, write.entries) == (2, 10, [])
    assert cache.last_index == 9
    assert cache.get(8, 9) == entries[:2]
    assert cache.get(10, 10) is None
    cache.stage(4, [])
    assert cache.last_index == 3
    assert cache.get(4, 3) == []
    assert cache.get(3, 3) is None


@pytest.mark.parametrize("cut", [None, 11])
def test_a_gap_is_refused(cut):
    """Entries must continue what is there (§5.3)."""
    cache, entries = filled(5)
    stranger = entries_behind(start_at(entries[-1]), 4, [1, 1])[1:]
    with pytest.raises(SafetyViolation, match="14 to 14 don't continue a log that ends at"):
        cache.stage(cut, stranger)
    with pytest.raises(SafetyViolation, match=r"ends at .*, it can't be cut at 15"):
        cache.stage(15, [])


def test_writes_are_unfinished_until_they_are_written():
    """Numbers go up by one, and the last written one tells what is done."""
    cache, _ = filled(2)
    assert cache.has_unfinished
    cache.written = 1
    assert not cache.has_unfinished
    assert cache.stage(9, []).number == 2
    assert cache.has_unfinished


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 2_000),
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(0, 6)),
            st.lists(st.integers(0, 300), max_size=5),
            st.integers(0, 3),
        ),
        max_size=20,
    ),
)
def test_a_cache_is_the_end_of_a_list(bytes_max, steps):
    """Whatever is staged, cut and written: it gives what the list has, and always what is not durable."""
    cache = Cache(0, bytes_max)
    model, unfinished = [], []
    for term, (cut, sizes, done) in enumerate(steps, 1):
        truncate_from = None if cut is None else max(1, len(model) + 1 - cut)
        if truncate_from is not None:
            model = model[: truncate_from - 1]
        entries = entries_behind(model[-1] if model else LogStart(), term, sizes)
        model = model + entries
        unfinished.append(cache.stage(truncate_from, entries))
        assert cache.last_index == len(model)
        for first in range(1, len(model) + 1):
            got = cache.get(first, len(model))
            assert got is None or got == model[first - 1 :]
        for write in unfinished:
            for entry in write.entries:
                if entry in model:
                    assert cache.get(entry.index, entry.index) == [entry]
        for write in unfinished[:done]:
            cache.written = write.number
        del unfinished[:done]


def test_room_is_made_by_an_eighth_and_what_was_cut_off_takes_none():
    """Entries of equal size: of more than sixteen, fourteen stay; and it is counted what is there."""
    entries = entries_behind(LogStart(10, 1, 0, 0), 1, [40] * 17)
    size = len(entries[0].record)
    assert {len(entry.record) for entry in entries} == {size}
    cache = Cache(10, 16 * size)
    cache.written = cache.stage(None, entries[:16]).number
    assert cache.get(11, 26) == entries[:16], "as many as are allowed"
    cache.written = cache.stage(19, []).number
    cache.written = cache.stage(None, entries[8:16]).number
    assert cache.get(11, 26) == entries[:16], "those that were cut off have left room"
    cache.stage(None, entries[16:])
    assert cache.get(13, 13) is None
    assert cache.get(14, 27) == entries[3:]
    tight = Cache(10, 16 * size - 1)
    tight.written = tight.stage(None, entries[:15]).number
    tight.stage(None, entries[15:16])
    assert tight.get(11, 11) is None, "a byte is missing"
