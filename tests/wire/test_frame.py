"""Frames: any cut of the stream gives the same payloads, and no damage passes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.errors import FrameError
from raftkv.wire import FRAME_HEAD_BYTES, FrameDecoder, encode_frame

payloads = st.lists(st.binary(max_size=40), max_size=6)


@given(payloads, st.lists(st.integers(0, 300)))
def test_however_the_stream_is_cut_the_payloads_are_the_same(sent, cuts):
    """TCP keeps no boundaries: pieces of any size give what was sent, and nothing stays behind."""
    stream = b"".join(map(encode_frame, sent))
    decoder = FrameDecoder(1000)
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    received = []
    for start, end in itertools.pairwise(places):
        received += decoder.feed(stream[start:end])
    assert received == sent
    assert not decoder.has_partial


@given(st.binary(min_size=1, max_size=30), st.data())
def test_no_flipped_bit_passes(payload, data):
    """A frame with one wrong bit is never taken for a payload."""
    frame = bytearray(encode_frame(payload))
    position = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[position // 8] ^= 1 << position % 8
    decoder = FrameDecoder(1000)
    try:
        assert decoder.feed(bytes(frame)) == []
        assert decoder.has_partial, "it waits for a longer frame"
    except FrameError:
        pass


def test_a_frame_that_is_too_long_is_refused_by_its_length_alone():
    """Nobody makes a node hold more than one allowed frame."""
    decoder = FrameDecoder(100)
    with pytest.raises(FrameError, match="at most 100"):
        decoder.feed(encode_frame(bytes(101))[:FRAME_HEAD_BYTES])


def test_a_frame_in_pieces_waits_for_its_end():
    """A frame that is cut short is no frame yet."""
    decoder = FrameDecoder(100)
    frame = encode_frame(b"hello")
    assert decoder.feed(frame[:-1]) == []
    assert decoder.has_partial
    assert decoder.feed(frame[-1:] + frame) == [b"hello", b"hello"]


def test_an_answer_in_http_is_named() -> None:
    """Somebody has given the wrong one of a node's ports to a client or a node: it says which one each needs."""
    with pytest.raises(FrameError, match=r"HTTP is spoken there.*clients \(--listen\).*nodes \(--peer-listen\)"):
        FrameDecoder(1 << 20).feed(b"HTTP/1.0 400 HTTP is spoken here\r\n")
