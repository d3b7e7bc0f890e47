"""What nodes say to each other: the core's messages, snapshots' chunks, and what links need for themselves.

A message is its length (u32), msgpack, and, for `AppendEntries`, its entries' records behind that: the same
bytes that are on the sender's disk and will be on the receiver's. They are checked, chain and all, here.
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
    """What a node said of itself the last time that somebody met it; the fields are those of `Hello`."""

    incarnation: str
    boot: int
    nonce: str
    later: tuple[int, str] | None = None
    """A later start (boot and nonce) that only others have met: who comes next has to have had that one, too."""
    doubt: str = ""
    """Why nobody counts as this node any more; empty for almost all."""


class Hello(msgspec.Struct, array_like=True, tag=60):
    """The first message on a connection: who I am. Both sides check it, and refuse who doesn't belong."""

    version: int
    cluster_id: str
    """Empty for a node that has not joined a cluster yet."""
    node_id: NodeId
    incarnation: str
    """Made with the data directory: the same id with another one is a wiped or another node."""
    boot: int
    """How often this node was started on its data directory."""
    nonce: str
    """Of this process: the same incarnation and boot with another one is a copied data directory."""
    fingerprint: str
    """The state machine's."""
    lease_reads: bool
    """Leases hold only if everybody grants them, so all nodes must agree."""
    durable_index: Index
    address: str = ""
    """Where the node listens for peers: how one that has not joined yet finds those who dial it."""
    known: dict[NodeId, Acquaintance] = {}
    """Whom the node has met: a new one must know a wiped directory from the one that acknowledged, too."""
    starts: list[tuple[int, str]] = []
    """The boots and nonces of the newest starts on its data directory: a copy has not had those that others met."""
    cluster_name: str = ""
    """What its cluster is called; empty where that is not known."""
    client_address: str = ""
    """Where the node listens for clients, as it sees it: another place than the membership says when it has moved."""


class Removal(msgspec.Struct, frozen=True, array_like=True):
    """That the cluster has removed whoever dials, as the node `teller` knows it from a committed entry."""

    cluster_id: str
    teller: NodeId
    incarnation: str
    """The teller's data directory."""
    index: Index
    """Of the entry since which it is so, or of a later one of the kind."""
    term: Term
    """The teller's."""
    leads: bool
    """Whether the teller leads that term."""


class HelloReply(msgspec.Struct, array_like=True, tag=61):
    """The answer: the other side's `hello`, or why the connection is refused (and then no hello)."""

    hello: Hello | None
    refused: str
    removal: Removal | None = None
    """That who dialled is no member any more, when that is certain."""


class Ping(msgspec.Struct, array_like=True, tag=62):
    """Is anybody there? `sent_us` is the sender's clock, and comes back with the `Pong`."""

    sent_us: int


class Pong(msgspec.Struct, array_like=True, tag=63):
    """Yes."""

    sent_us: int


class DigestReport(msgspec.Struct, array_like=True, tag=64):
    """The state's digest after the entry `index`, for the leader to compare."""

    index: Index
    digest: int


class DivergedNotice(msgspec.Struct, array_like=True, tag=65):
    """From the leader: your state differs from the majority's at the entry `index`. Stop."""

    index: Index


class Acquaintances(msgspec.Struct, array_like=True, tag=66):
    """Whom the sender has met since its `Hello`."""

    known: dict[NodeId, Acquaintance]


PeerMessage: TypeAlias = (
    Message | SnapshotMessage | Hello | HelloReply | Ping | Pong | DigestReport | DivergedNotice | Acquaintances
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
    """The message in a frame's payload. Raises `FrameError`: whoever sent it made a mistake, or is no node."""
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
