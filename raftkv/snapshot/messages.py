"""What a sender and a receiver of a snapshot say to each other.

    sender                      receiver
    SnapshotOffer        →                       the manifest; repeated until answered
                         ←      SnapshotPreparing   looking for files that are here already
                         ←      SnapshotNeed        what is missing; begins a *round* of chunks
    SnapshotChunk  ×n    →
                         ←      SnapshotAck  ×n
                         ←      SnapshotDone        published and durable, or
                         ←      SnapshotRefused     with a reason

Any message may be lost, repeated, delayed or reordered. Only the receiver's `SnapshotNeed` says how far a transfer
is: whenever something does not fit, the receiver sends a new one, and a new round begins. A chunk says by file and
byte where it belongs, so even one of another round or another leader can't be put in the wrong place.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec
import xxhash

from raftkv.model import NodeId, Term


class Refusal(IntEnum):
    """Why a receiver does not want a snapshot."""

    WRONG_CLUSTER = 1
    """It is another cluster's."""
    BAD_MANIFEST = 2
    """The manifest is damaged."""
    FORMAT = 3
    """The manifest is of a version of raftkv that the receiver does not read."""
    BAD_FILE = 4
    """A file came whole twice, and twice it was not what the manifest says: verify the sender's copy."""
    DISK_FULL = 5
    """There is not enough space; try again later."""
    BUSY = 6
    """Another transfer is under way there. Only a node says this; a receiver itself lets the newer offer win."""
    STALE = 7
    """The sender is deposed, or its snapshot is of no use any more. Only a node says this, as it knows the term."""


class SnapshotOffer(msgspec.Struct, array_like=True, tag=40):
    """The leader offers a snapshot. `attempt` counts its offers; the answer repeats that number."""

    sender: NodeId
    to: NodeId
    term: Term
    attempt: int
    manifest: bytes
    """The manifest as it is on disk, checksum included."""


class SnapshotPreparing(msgspec.Struct, array_like=True, tag=41):
    """The receiver looks for files that it has already; `examined_bytes` grows as long as it makes progress."""

    sender: NodeId
    to: NodeId
    term: Term
    digest: bytes
    examined_bytes: int


class SnapshotNeed(msgspec.Struct, array_like=True, tag=42):
    """What is missing: (number of the file in the manifest, first missing byte), each up to the file's end."""

    sender: NodeId
    to: NodeId
    term: Term
    digest: bytes
    attempt: int
    round: int
    missing: list[tuple[int, int]]


class SnapshotChunk(msgspec.Struct, array_like=True, tag=43):
    """Bytes of one or, when they are small, many files: `pieces` are (file, offset, size) of what `data` joins.

    `sequence` counts the chunks of a round from 0.
    """

    sender: NodeId
    to: NodeId
    term: Term
    digest: bytes
    round: int
    sequence: int
    pieces: list[tuple[int, int, int]]
    checksum: int
    data: bytes

    def compute_checksum(self) -> int:
        """What `checksum` must be; it covers the data and the pieces' places."""
        place = msgspec.msgpack.encode((self.digest, self.round, self.sequence, self.pieces))
        return xxhash.xxh3_64_intdigest(self.data, xxhash.xxh3_64_intdigest(place))


class SnapshotAck(msgspec.Struct, array_like=True, tag=44):
    """Every chunk of the round up to `sequence` is written (not yet durable), so more may be sent."""

    sender: NodeId
    to: NodeId
    term: Term
    digest: bytes
    round: int
    sequence: int


class SnapshotDone(msgspec.Struct, array_like=True, tag=45):
    """The snapshot is published at the receiver: complete, verified, durable."""

    sender: NodeId
    to: NodeId
    term: Term
    digest: bytes


class SnapshotRefused(msgspec.Struct, array_like=True, tag=46):
    """The receiver won't take it; `text` is for people. `digest` is empty when the manifest could not be read."""

    sender: NodeId
    to: NodeId
    term: Term
    digest: bytes
    reason: Refusal
    text: str


SnapshotReply: TypeAlias = SnapshotPreparing | SnapshotNeed | SnapshotAck | SnapshotDone | SnapshotRefused
"""What a receiver says."""

SnapshotMessage: TypeAlias = SnapshotOffer | SnapshotChunk | SnapshotReply
"""Both directions; for the wire's union of messages."""
