"""Malformed input for a node's ports, drawn from dice, so that a seed stands for a conversation."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import msgspec

from raftkv.core.messages import AppendReply, ReadIndexReply, RequestVoteReply
from raftkv.snapshot.messages import SnapshotAck, SnapshotDone, SnapshotNeed, SnapshotOffer
from raftkv.wire import (
    PROTOCOL_VERSION,
    ClientHello,
    DigestReport,
    Hello,
    HelloReply,
    Ping,
    Pong,
    RequestKind,
    encode_client_hello,
    encode_frame,
    encode_message,
)

_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<IQ")
_pack = msgspec.msgpack.encode

NEST = b"\x91"
"""The beginning of an array of one: a few thousand of these are a message that never gets to the point."""

BOMBS = (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff")
"""An array, a map, bytes and a text that say to be of four thousand million parts."""

ODD = (b"\xc1", b"\xa1\xff", b"\xd4\x7f\x00", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6))
"""What is no msgpack, text that is none, an extension, the largest and the smallest number, and not a number."""


class Piece(msgspec.Struct, frozen=True):
    """A malformed piece to send, after whatever must be sent first for a node to read it."""

    kind: str
    data: bytes
    is_answered: bool = False
    """Whether the node must answer it with an error, instead of closing the connection."""


def noise(dice: random.Random) -> bytes:
    """Bytes, with a head that can't be one of a frame."""
    return dice.randbytes(dice.randrange(12, 300)) if dice.random() < 0.5 else b"GET / HTTP/1.1\r\nHost: node\r\n\r\n"


def truncated(dice: random.Random) -> bytes:
    """A true frame without its end."""
    frame = encode_frame(dice.randbytes(dice.randrange(1, 200)))
    return frame[: dice.randrange(1, len(frame))]


def oversized(dice: random.Random) -> bytes:
    """A head whose length is more than any node takes."""
    return _HEAD.pack(dice.choice((2**32 - 1, 2**31, 19 * 2**20)), dice.getrandbits(64)) + dice.randbytes(64)


def miscounted(dice: random.Random) -> bytes:
    """A frame that does not match its checksum."""
    frame = bytearray(encode_frame(dice.randbytes(dice.randrange(1, 200))))
    frame[dice.randrange(_LENGTH.size, len(frame))] ^= 1 << dice.randrange(8)
    return bytes(frame)


def _hostile_packs(dice: random.Random) -> bytes:
    """msgpack that is deep, endless, or none."""
    match dice.randrange(4):
        case 0:
            return NEST * dice.choice((100, 990, 1100, 60_000))
        case 1:
            return dice.choice(BOMBS) + dice.randbytes(dice.randrange(20))
        case 2:
            return dice.choice(ODD)
        case _:
            return _pack([dice.randrange(-(2**63), 2**64) for _ in range(dice.randrange(12))])[: dice.randrange(1, 90)]


STREAMS: dict[str, Callable[[random.Random], bytes]] = {
    "noise": noise,
    "truncated": truncated,
    "oversized": oversized,
    "checksum": miscounted,
}
"""Pieces that are wrong at every port."""


def _as_message(head: bytes, rest: bytes = b"") -> bytes:
    return encode_frame(_LENGTH.pack(len(head)) + head + rest)


class PeerTalk:
    """Malformed input for the peer port, from a stranger that got hold of a true `hello`."""

    def __init__(self, hello: Hello) -> None:
        self._hello = hello

    def greeting(self) -> bytes:
        """What a peer says first."""
        return encode_message(self._hello)

    def piece(self, dice: random.Random, *, greeted: bool) -> Piece:
        """Something wrong at this place."""
        kinds = {**STREAMS, "nesting": self._hostile, "version": self._version, "order": self._out_of_order}
        kind = dice.choice(list(kinds))
        if kind == "order":
            return Piece(kind, self._late(dice) if greeted else self._out_of_order(dice))
        return Piece(kind, kinds[kind](dice))

    def _hostile(self, dice: random.Random) -> bytes:
        pack = _hostile_packs(dice)
        tagged = _pack(dice.choice((1, 3, 4, 40, 43, 60, 61, 64, 66, 255)))
        return _as_message(pack if dice.random() < 0.5 else b"\x9a" + tagged + pack, dice.randbytes(dice.randrange(9)))

    def _version(self, dice: random.Random) -> bytes:
        version = dice.choice((0, PROTOCOL_VERSION + 1, 2**63, -1))
        return encode_message(msgspec.structs.replace(self._hello, version=version))

    def _out_of_order(self, dice: random.Random) -> bytes:
        return encode_message(dice.choice((HelloReply(None, "no"), Ping(1), Pong(1), DigestReport(1, 1))))

    def _late(self, dice: random.Random) -> bytes:
        return encode_message(dice.choice((self._hello, HelloReply(self._hello, ""), Pong(2**62))))

    def untimely(self, dice: random.Random, to: int) -> bytes:
        """A true message that answers nothing: a correct node hears it and does nothing."""
        sender, digest = self._hello.node_id, dice.randbytes(16)
        return encode_message(
            dice.choice(
                (
                    AppendReply(sender, to, 0, dice.randrange(99), dice.randrange(2**40)),
                    RequestVoteReply(sender, to, 0, True),
                    ReadIndexReply(sender, to, 0, dice.randrange(99), dice.randrange(2**40)),
                    SnapshotOffer(sender, to, 0, 1, dice.randbytes(40)),
                    SnapshotNeed(sender, to, 0, digest, 1, 1, [(dice.randrange(99), dice.randrange(2**40))]),
                    SnapshotAck(sender, to, 0, digest, 1, dice.randrange(2**40)),
                    SnapshotDone(sender, to, 0, digest),
                    DigestReport(2**62, dice.getrandbits(64)),
                )
            )
        )


class ClientTalk:
    """Malformed input for the client port."""

    def greeting(self) -> bytes:
        """What a client says first."""
        return encode_client_hello(ClientHello(PROTOCOL_VERSION))

    def piece(self, dice: random.Random, *, greeted: bool) -> Piece:
        """Something wrong at this place."""
        kinds = {**STREAMS, "nesting": self._hostile, "version": self._version, "order": self._out_of_order}
        if greeted:
            del kinds["version"]
        kind = dice.choice(list(kinds))
        return Piece(kind, kinds[kind](dice))

    def _hostile(self, dice: random.Random) -> bytes:
        return encode_frame(dice.choice((b"", b"\x95\x01", b"\x92\x01\x63")) + _hostile_packs(dice))

    def _version(self, dice: random.Random) -> bytes:
        version = dice.choice((0, PROTOCOL_VERSION + 1, 2**63, -1))
        return encode_client_hello(ClientHello(version, "x" * dice.randrange(99)))

    def _out_of_order(self, dice: random.Random) -> bytes:
        """A request instead of a hello; behind it, a hello instead of a request."""
        return dice.choice((encode_frame(_pack([1])), encode_frame(_pack([1, 99, b"", False, 1]))))

    def request(self, dice: random.Random, request_id: int) -> Piece:
        """A request whose frame is in order and whose payload is not: an answer is due."""
        kind = dice.choice((RequestKind.COMMAND, RequestKind.QUERY, RequestKind.ADD_LEARNER, RequestKind.REMOVE))
        stale, deadline_ms = dice.random() < 0.5, dice.choice((-1, 0, 1, 1000, 2**63 - 1))
        body = _pack([request_id, int(kind), self._payload(dice, kind), stale, deadline_ms])
        return Piece("payload", encode_frame(body), is_answered=True)

    def _payload(self, dice: random.Random, kind: RequestKind) -> bytes:
        hostile = _hostile_packs(dice)
        if kind is RequestKind.COMMAND and dice.random() < 0.7:
            numbers = b"".join(_pack(dice.choice((0, -1, 1, 2**64 - 1, -(2**63)))) for _ in range(3))
            name = dice.choice((b"\xa1\xff", _pack("no such command"), _pack("get"), _pack("*nothing")))
            return b"\x95" + numbers + name + hostile
        if kind is RequestKind.QUERY and dice.random() < 0.7:
            return b"\x92" + dice.choice((b"\xa1\xff", _pack("no such query"), _pack("get"))) + hostile
        return b"\x93" + _pack(-1) + hostile if dice.random() < 0.5 else hostile


_LINES = (
    b"GET /metrics HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"BREW /metrics HTTP/1.1\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
    b"GET http://[::1 HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
)


def http_piece(dice: random.Random) -> Piece:
    """A request that is none."""
    match dice.randrange(4):
        case 0:
            return Piece("noise", dice.randbytes(dice.randrange(1, 300)) + b"\n\n")
        case 1:
            return Piece("oversized", b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n")
        case 2:
            return Piece("nesting", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 150 + b"\r\n")
        case _:
            return Piece("order", dice.choice(_LINES))
