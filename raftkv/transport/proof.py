"""The handshake where a cluster secret is set: each side proves that it knows it, and the secret is never sent.

    dialler                                    acceptor
    Challenge(nonce)                 →
                                     ←         Challenge(another nonce)
    Proven(hello, proof)             →
                                     ←         Proven(reply, proof)

A proof is an HMAC-SHA256 over the role of who makes it, both nonces, whom it is meant for, and every byte of a hello
that was said up to there: cluster, ids, addresses and all. So one that was recorded is worth nothing on another
connection, nor is one that is sent back to who made it, or brought to another node or cluster; and whoever changes a
byte on the way makes both sides refuse. Nothing of a hello, a reply or a refusal counts before its proof was checked.

It authenticates, and does not encrypt: what follows can be read on the way, and changed by whoever can change what TCP
carries. TLS keeps that out.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.errors import FrameError, HandshakeRefused, WrongSecret
from raftkv.model import NodeId
from raftkv.transport.secret import PeerSecret
from raftkv.wire import (
    FRAME_HEAD_BYTES,
    Challenge,
    Hello,
    HelloReply,
    PeerMessage,
    Proven,
    decode_message,
    encode_message,
)

NONCE_BYTES = 32

TEXT_MAX = 300
"""Characters that are kept of a reason that anybody may have made up."""

_DIALLER, _ACCEPTOR = "raftkv dialler", "raftkv acceptor"

Nonce = Callable[[], bytes]
"""Draws `NONCE_BYTES` that nobody could know before."""


class _Transcript:
    """What was said on a connection, as both sides must have heard it for a proof to be one."""

    def __init__(self, secret: PeerSecret, nonces: tuple[bytes, bytes]) -> None:
        """The dialler's nonce is the first."""
        self._secret = secret
        self._said: list[object] = [*nonces]

    def prove(self, role: str, to: NodeId, message: Hello | HelloReply) -> Proven:
        """A message with the proof of its sender."""
        payload = encode_message(message)[FRAME_HEAD_BYTES:]
        return Proven(to, payload, self._secret.prove(self._with(role, to, payload)))

    def check(self, role: str, proven: Proven) -> PeerMessage | None:
        """The message of one who knows the secret; None when the proof is none."""
        if not self._secret.is_proof(proven.proof, self._with(role, proven.to, proven.message)):
            return None
        return decode_message(proven.message)

    def _with(self, role: str, to: NodeId, payload: bytes) -> bytes:
        self._said += [role, to, payload]
        return msgspec.msgpack.encode(self._said)


class DiallerProof:
    """The dialler's part: what it says first, and which reply counts."""

    def __init__(self, secret: PeerSecret | None, peer: NodeId, hello: Callable[[], Hello], nonce: Nonce) -> None:
        """`peer` is the node that should answer; `hello` gives what this one says of itself, when it is due."""
        self._secret = secret
        self._peer = peer
        self._hello = hello
        self._draw = nonce
        self._nonce = b""
        self._transcript: _Transcript | None = None

    def begin(self) -> Challenge | Hello:
        """The first message."""
        if self._secret is None:
            return self._hello()
        self._nonce = self._draw()
        return Challenge(self._nonce)

    def take(self, message: PeerMessage) -> Proven | HelloReply:
        """What to send next, or the reply that counts.

        Raises `WrongSecret` for one who can't prove that it knows the secret, `HandshakeRefused` when it says, without
        a proof, that it refuses this node, and `FrameError` for what is no part of a handshake.
        """
        secret, transcript = self._secret, self._transcript
        match message:
            case HelloReply() if secret is None:
                return message
            case Challenge() if secret is not None and transcript is None:
                return self._answer(secret, message)
            case Proven() if transcript is not None:
                return self._reply(transcript, message)
            case HelloReply(hello=None):
                # Perhaps nobody but somebody on the way says so: it is shown, and nothing else comes of it.
                text = message.refused[:TEXT_MAX] or "no reason given"
                raise HandshakeRefused(f"without a proof of the cluster secret, it says: {text}")
            case HelloReply():
                raise WrongSecret(
                    f"who answers as node {self._peer} does not prove that it knows the cluster secret: give all nodes "
                    "the same --peer-secret-file"
                )
            case _:
                raise FrameError(f"a {type(message).__name__} instead of the handshake's reply")

    def _answer(self, secret: PeerSecret, challenge: Challenge) -> Proven:
        _check_nonce(challenge)
        self._transcript = _Transcript(secret, (self._nonce, challenge.nonce))
        return self._transcript.prove(_DIALLER, self._peer, self._hello())

    def _reply(self, transcript: _Transcript, proven: Proven) -> HelloReply:
        reply = transcript.check(_ACCEPTOR, proven)
        if reply is None:
            raise WrongSecret(
                f"who answers as node {self._peer} has another cluster secret: give all nodes the same "
                "--peer-secret-file"
            )
        if not isinstance(reply, HelloReply):
            raise FrameError(f"a {type(reply).__name__} instead of the handshake's reply")
        return reply


class AcceptorProof:
    """The acceptor's part: which hello counts, and how it is answered."""

    def __init__(self, secret: PeerSecret | None, own: NodeId, nonce: Nonce) -> None:
        """`own` is the node that was dialled."""
        self._secret = secret
        self._own = own
        self._draw = nonce
        self._transcript: _Transcript | None = None
        self._dialler: NodeId | None = None
        """Who dials, once that is proven."""

    def take(self, message: PeerMessage) -> Challenge | Hello:
        """What to send next, or the hello that counts.

        Raises `WrongSecret` for one who does not prove that it knows the secret, `HandshakeRefused` for one who means
        another node, and `FrameError` for what is no part of a handshake.
        """
        secret, transcript = self._secret, self._transcript
        match message:
            case Hello() if secret is None:
                return message
            case Challenge() if secret is None:
                raise WrongSecret(
                    f"node {self._own} has no cluster secret, and who dials it has one: give all nodes the same "
                    "--peer-secret-file"
                )
            case Challenge() if secret is not None and transcript is None:
                _check_nonce(message)
                nonce = self._draw()
                self._transcript = _Transcript(secret, (message.nonce, nonce))
                return Challenge(nonce)
            case Hello() if transcript is None:
                raise WrongSecret(
                    f"node {self._own} demands a proof of the cluster secret, and node {message.node_id} gives none: "
                    "give all nodes the same --peer-secret-file"
                )
            case Proven() if transcript is not None and self._dialler is None:
                return self._hello(transcript, message)
            case _:
                raise FrameError(f"a {type(message).__name__} instead of a hello")

    def _hello(self, transcript: _Transcript, proven: Proven) -> Hello:
        hello = transcript.check(_DIALLER, proven)
        if hello is None:
            raise WrongSecret(
                f"node {self._own} has another cluster secret than who dials it: give all nodes the same "
                "--peer-secret-file"
            )
        if not isinstance(hello, Hello):
            raise FrameError(f"a {type(hello).__name__} instead of a hello")
        self._dialler = hello.node_id
        if proven.to != self._own:
            raise HandshakeRefused(
                f"node {self._own} answers at the address where node {hello.node_id} dials node {proven.to}: correct "
                "the address in the membership, or start the right node there"
            )
        return hello

    def answer(self, reply: HelloReply) -> HelloReply | Proven:
        """The reply as it is sent: proven to one who has proven itself."""
        if self._transcript is None or self._dialler is None:
            return reply
        return self._transcript.prove(_ACCEPTOR, self._dialler, reply)


def _check_nonce(challenge: Challenge) -> None:
    if len(challenge.nonce) != NONCE_BYTES:
        raise FrameError(f"a challenge of {len(challenge.nonce)} bytes")
