"""The framing of batches: what is one, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.log.batch import BATCH_HEAD_BYTES, encode_head, find_head, is_whole, parse_head

SALT = 0x1234567890ABCDE0


def batch(records, offset, *, first=5, count=2, chain=77, salt=SALT):
    """A whole batch, to stand at `offset`."""
    return encode_head(first, count, chain, records, offset, salt) + records


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.binary(max_size=100),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_a_batch_is_read_as_it_was_written(records, before, first, chain, count, salt):
    """Every field, at any place in a file."""
    offset = len(before)
    data = before + batch(records, offset, first=first, count=count, chain=chain, salt=salt)
    head = parse_head(data, offset, salt)
    assert (head.first_index, head.count, head.prev_chain) == (first, count, chain)
    assert data[head.records_at : head.end] == records
    assert head.end == len(data)
    assert is_whole(head, data, salt)


def test_a_batch_that_is_changed_or_cut_is_none():
    """Each flipped bit is noticed, in the head as well as in the records, and each missing byte (F8, F9)."""
    data = b"??" + batch(b"some records", 2)
    for at in range(2, len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            head = parse_head(bytes(changed), 2, SALT)
            assert (head is None) == (at < 2 + BATCH_HEAD_BYTES), "a damaged head is none, damaged records are its own"
            assert head is None or not is_whole(head, bytes(changed), SALT)
    for size in range(2, len(data)):
        head = parse_head(data[:size], 2, SALT)
        assert (head is None) == (size < 2 + BATCH_HEAD_BYTES)
        assert head is None or not is_whole(head, data[:size], SALT)


def test_a_batch_in_another_place_is_none():
    """Neither at another offset nor in another segment, as a misdirected write would put it (F19)."""
    data = batch(b"records", 0)
    assert parse_head(data, 0, SALT) is not None
    assert parse_head(b"x" + data, 1, SALT) is None
    assert parse_head(data, 0, SALT + 1) is None


def test_the_next_batch_is_found_behind_anything():
    """Behind garbage and other magic numbers, but never the one at the offset itself (F9)."""
    lone_magic = batch(b"", 0)[:4]
    garbage = lone_magic * 3 + b"\xb5R" + lone_magic
    data = batch(b"one", 0) + garbage
    second = len(data)
    data += batch(b"two", second, first=9)
    assert find_head(data, 0, SALT).first_index == 9
    assert find_head(data, second - 1, SALT).first_index == 9
    assert find_head(data, second, SALT) is None
    assert find_head(b"", 0, SALT) is None


@pytest.mark.parametrize("depth", [1, 2])
def test_a_batch_within_a_command_is_none(depth):
    """Whoever writes a whole batch, or a whole segment, as a value does not end up with more entries."""
    inner = batch(b"evil", 0)
    for _ in range(depth):
        inner = batch(b"record:" + inner, 0)
    assert find_head(inner, 0, SALT) is None
