"""Messages between nodes: whole round trips, and nothing but `FrameError` for anything else."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.entry import make_entries
from raftkv.errors import FrameError
from raftkv.model import Membership, SnapshotMeta
from raftkv.snapshot import (
    Refusal,
    SnapshotAck,
    SnapshotChunk,
    SnapshotDone,
    SnapshotNeed,
    SnapshotOffer,
    SnapshotPreparing,
    SnapshotRefused,
)
from raftkv.wire import (
    Acquaintance,
    Acquaintances,
    Challenge,
    DigestReport,
    DigestRequest,
    DivergedNotice,
    FrameDecoder,
    Hello,
    HelloReply,
    NoAgreementNotice,
    Ping,
    Pong,
    Proven,
    decode_message,
    encode_message,
)

ENTRIES = make_entries(6, 3, 1234, 1, [b"a", b"", b"ccc"], 99)
APPEND = AppendEntries(1, 2, 3, 5, 2, 99, 8, 4, 17, ENTRIES)
HELLO = Hello(
    1, "cluster", 1, "incarnation", 2, "nonce", "machine", False, 7, "127.0.0.1:5", {2: Acquaintance("i", 1, "n")}
)
META = SnapshotMeta(5, 2, 77, 1000, Membership.of((1, 2), (3,)), 88)
MESSAGES = [
    RequestVote(1, 2, 3, 4, 5, True, True),
    RequestVoteReply(1, 2, 3, True, True),
    APPEND,
    AppendEntries(1, 2, 3, 5, 2, 99, 5, 4, 17, []),
    AppendReply(1, 2, 3, 4, 5, True, 6, 7, 8, True),
    InstallSnapshot(1, 2, 3, META),
    TimeoutNow(1, 2, 3),
    ReadIndex(1, 2, 3, 4),
    ReadIndexReply(1, 2, 3, 4, None),
    SnapshotOffer(1, 2, 3, 1, b"manifest"),
    SnapshotPreparing(1, 2, 3, b"digest", 5),
    SnapshotNeed(1, 2, 3, b"digest", 1, 2, [(0, 5)]),
    SnapshotChunk(1, 2, 3, b"digest", 1, 2, [(0, 5, 4)], 9, b"data"),
    SnapshotAck(1, 2, 3, b"digest", 1, 2),
    SnapshotDone(1, 2, 3, b"digest"),
    SnapshotRefused(1, 2, 3, b"digest", Refusal.BUSY, "later"),
    HELLO,
    HelloReply(HELLO, ""),
    HelloReply(None, "no"),
    Challenge(b"nonce"),
    Proven(2, b"hello", b"proof"),
    Ping(5),
    Pong(5),
    DigestReport(5, 2**64 - 1),
    DigestRequest(5),
    DivergedNotice(5),
    NoAgreementNotice(5, 4, ((1,), (2, 3))),
    Acquaintances({3: Acquaintance("incarnation", 4, "nonce")}),
]


def payload_of(message):
    """A message's payload, out of its frame."""
    (payload,) = FrameDecoder(1 << 20).feed(encode_message(message))
    return payload


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_arrives_as_it_was_sent(message):
    """Every kind of message survives the way, entries with their records byte for byte."""
    assert decode_message(payload_of(message)) == message


def test_every_kind_of_message_is_tried():
    """A message that is added to the union must be added here, too."""
    from raftkv.wire.peer import PeerMessage

    assert {type(message) for message in MESSAGES} == set(PeerMessage.__args__)


def test_encoding_leaves_the_message_alone():
    """The same append may be sent to several followers."""
    encode_message(APPEND)
    assert APPEND.entries == ENTRIES


@given(st.data())
def test_damaged_entries_are_refused(data):
    """A record that is not what the leader chained is no entry, even in a frame whose checksum holds."""
    payload = bytearray(payload_of(APPEND))
    records = sum(len(entry.record) for entry in ENTRIES)
    position = data.draw(st.integers(len(payload) - records, len(payload) - 1))
    payload[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(FrameError):
        decode_message(bytes(payload))


def test_an_append_that_holds_other_entries_than_it_says_is_refused():
    """Its range and its entries must agree, or the core would trust a number."""
    with pytest.raises(FrameError, match="holds 3"):
        decode_message(payload_of(msgspec.structs.replace(APPEND, last_index=9)))


def test_an_append_whose_entries_start_elsewhere_is_refused():
    """Entries stand where `prev_index` says, or nowhere."""
    with pytest.raises(FrameError):
        decode_message(payload_of(msgspec.structs.replace(APPEND, prev_index=4, last_index=7)))


def test_bytes_behind_a_message_are_refused():
    """Only appends carry anything behind their head."""
    with pytest.raises(FrameError, match="behind a Ping"):
        decode_message(payload_of(Ping(5)) + b"x")


@given(st.binary(max_size=60))
def test_noise_is_refused(noise):
    """Whatever arrives is a message or a `FrameError`."""
    with contextlib.suppress(FrameError):
        decode_message(noise)
