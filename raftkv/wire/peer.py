"""What nodes say to each other: the core's messages, snapshots' chunks, and what links need for themselves.

A message is a length (u32), msgpack, and, for `AppendEntries`, its entries' records behind that: the same
bytes that are on the sender's disk and will be on the receiver's. `decode_message` checks them, chain included.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec

from raftkv.core.messages import AppendEntries, Message
from raftkv.entry import parse_records
from raftkv.errors import UNREADABLE, CorruptRecord, FrameError
from raftkv.model import Index, NodeId, Term
from raftkv.snapshot import SnapshotMessage
from raftkv.wire.frame import encode_frame


class Acquaintance(msgspec.Struct, frozen=True, array_like=True):
    """What a node said of itself when another node last met it; the fields are those of `Hello`."""

    incarnation: str
    boot: int
    nonce: str
    later: tuple[int, str] | None = None
    """A later start (boot and nonce) that only other nodes have met: the next hello must know of that one, too."""
    doubt: str = ""
    """Why every node that says to be this one is refused; empty for almost all."""


class Hello(msgspec.Struct, array_like=True, tag=60):
    """The first message on a connection: who its sender is. Each side refuses a node that doesn't belong."""

    version: int
    cluster_id: str
    """Empty for a node that has not joined a cluster yet."""
    node_id: NodeId
    incarnation: str
    """Made with the data directory: the same id with another incarnation is a wiped or another node."""
    boot: int
    """How often this node was started on its data directory."""
    nonce: str
    """Made by this process: the same incarnation and boot with another nonce means a copied data directory."""
    fingerprint: str
    """The state machine's (`StateMachine.fingerprint`)."""
    lease_reads: bool
    """Leases hold only if everybody grants them, so all nodes must agree."""
    durable_index: Index
    address: str = ""
    """Where the node listens for peers. A node that has not joined yet learns from it where to dial back."""
    known: dict[NodeId, Acquaintance] = {}
    """Whom the node has met: a new node must be able, too, to tell a wiped directory from the one that acknowledged."""
    starts: list[tuple[int, str]] = []
    """The boots and nonces of the newest starts on its data directory: a copy lacks those that others have met."""
    cluster_name: str = ""
    """What its cluster is called; empty where that is not known."""
    client_address: str = ""
    """Where the node says that it listens for clients: not what the membership says when the node has moved."""
    oldest: int = 0
    newest: int = 0
    """The versions of the application that the node's class can run are these two, and what is between them; 0 from a
    node of an older raftkv."""
    active: int = 0
    """The version that is active in the node's state; 0 for none."""
    declared: bytes = b""
    """The schema of `newest`, as the node's class declares it."""
    knows_users: bool = False
    """Whether it can read changes of users and roles in the log."""


class Removal(msgspec.Struct, frozen=True, array_like=True):
    """Says that the cluster has removed the node that dials; the node `teller` knows that from a committed entry."""

    cluster_id: str
    teller: NodeId
    incarnation: str
    """The teller's data directory."""
    index: Index
    """The entry that removed the node, or a later membership."""
    term: Term
    """The teller's term."""
    leads: bool
    """Whether the teller leads that term."""


class HelloReply(msgspec.Struct, array_like=True, tag=61):
    """The answer: either the other side's `hello`, or why the connection is refused."""

    hello: Hello | None
    refused: str
    removal: Removal | None = None
    """Set when the node that dialled is certainly no member any more."""


class Challenge(msgspec.Struct, array_like=True, tag=69):
    """What each side says first where a cluster secret is set: prove that you know it."""

    nonce: bytes


class Proven(msgspec.Struct, array_like=True, tag=70):
    """A `Hello` or `HelloReply` with the proof that its sender knows the cluster secret."""

    to: NodeId
    """Whom it is meant for."""
    message: bytes
    """As a frame's payload."""
    proof: bytes


class Ping(msgspec.Struct, array_like=True, tag=62):
    """Asks for a sign of life. `sent_us` is the sender's clock, and comes back with the `Pong`."""

    sent_us: int


class Pong(msgspec.Struct, array_like=True, tag=63):
    """The answer to a `Ping`, with what that said."""

    sent_us: int


class DigestReport(msgspec.Struct, array_like=True, tag=64):
    """The state's digest after the entry `index`, for the leader to compare."""

    index: Index
    digest: int


class DivergedNotice(msgspec.Struct, array_like=True, tag=65):
    """From the leader: your state differs from the majority's at the entry `index`. Stop."""

    index: Index


class DigestRequest(msgspec.Struct, array_like=True, tag=67):
    """From the leader, when replicas differ: what is your state's digest after the entry `index`?"""

    index: Index


class NoAgreementNotice(msgspec.Struct, array_like=True, tag=68):
    """From the leader: the states differ at the entry `index` and none has a majority. Everybody stops."""

    index: Index
    agreed_index: Index
    sides: tuple[tuple[NodeId, ...], ...]


class Acquaintances(msgspec.Struct, array_like=True, tag=66):
    """The nodes that the sender has met since its `Hello`."""

    known: dict[NodeId, Acquaintance]


PeerMessage: TypeAlias = (
    Message
    | SnapshotMessage
    | Hello
    | HelloReply
    | Challenge
    | Proven
    | Ping
    | Pong
    | DigestReport
    | DigestRequest
    | DivergedNotice
    | NoAgreementNotice
    | Acquaintances
)
"""Everything that travels between nodes."""

_LENGTH = struct.Struct("<I")
_COPIED_BYTES_MAX = 4096
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[PeerMessage] = msgspec.msgpack.Decoder(PeerMessage)


def encode_message(message: PeerMessage) -> bytes:
    """A message as a whole frame."""
    records = b""
    if type(message) is AppendEntries and message.entries:
        records = b"".join([entry.record for entry in message.entries])
        message = msgspec.structs.replace(message, entries=[])
    head = _encoder.encode(message)
    payload = _LENGTH.pack(len(head)) + head
    return encode_frame(payload + records if records else payload)


def decode_message(payload: bytes) -> PeerMessage:
    """The message in a frame's payload. Raises `FrameError` for what no correct node sends."""
    total = len(payload)
    if total < _LENGTH.size:
        raise FrameError(f"a message of {total} bytes")
    end = _LENGTH.size + _LENGTH.unpack_from(payload)[0]
    # To copy the few bytes of most messages is quicker than to make a view of them.
    head = payload[_LENGTH.size : end] if end <= _COPIED_BYTES_MAX else memoryview(payload)[_LENGTH.size : end]
    try:
        message = _decoder.decode(head)
        if type(message) is AppendEntries:
            return _with_entries(message, memoryview(payload)[end:] if total > end else b"")
    except UNREADABLE as exc:
        raise FrameError(f"a message that can't be read: {exc}") from exc
    except CorruptRecord as exc:
        raise FrameError(f"an append with damaged entries: {exc}") from exc
    if total > end:
        raise FrameError(f"{total - end} bytes behind a {type(message).__name__}")
    return message


def _with_entries(message: AppendEntries, records: memoryview | bytes) -> AppendEntries:
    entries = parse_records(records, message.prev_index, message.prev_chain) if records else []
    if message.entries or message.last_index != message.prev_index + len(entries):
        raise FrameError(
            f"an append of entries {message.prev_index + 1} to {message.last_index} that holds {len(entries)}"
        )
    message.entries = entries
    return message
