"""A connection that a peer dialled: the handshake, and then the peer's messages."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol, cast

from raftkv.core.messages import AppendEntries, AppendReply
from raftkv.errors import FrameError, HandshakeRefused, PeerError, WrongSecret
from raftkv.forks import let_go_of
from raftkv.model import NodeId
from raftkv.transport.handshake import check_version, removal_of
from raftkv.transport.proof import AcceptorProof
from raftkv.transport.refusals import address_text
from raftkv.transport.shared import Shared
from raftkv.transport.tuning import set_no_delay
from raftkv.wire import (
    NO_VERSION,
    Challenge,
    FrameDecoder,
    Hello,
    HelloReply,
    PeerMessage,
    Ping,
    Pong,
    Proven,
    decode_message,
    encode_message,
)

PONGS_BYTES_MAX = 64 * 1024
"""Unread pongs at which a connection is closed: some thousand of them, while a living peer reads every one."""


class IncomingOwner(Protocol):
    """What a connection that a peer dialled tells the transport, and asks of it."""

    node_id: NodeId
    """The node that was dialled."""

    def admit(self, connection: Incoming) -> bool:
        """Whether a new connection may stay."""

    def incoming_gone(self, connection: Incoming) -> None:
        """A connection is closed on this side for good."""

    def incoming_established(self, connection: Incoming, peer: NodeId) -> None:
        """The handshake with `peer` is complete."""

    def incoming_lost(self, connection: Incoming, reason: str) -> None:
        """An established connection has ended."""

    def refused_stranger(self, connection: Incoming, kind: str, reason: str) -> None:
        """A stranger, who is no peer (yet), did something wrong."""

    def refused_incoming(self, connection: Incoming, peer: NodeId, reason: str) -> None:
        """A node that says that it is `peer` was refused."""

    def told(self, peer: NodeId) -> str | None:
        """Where the membership has a peer; None when it does not have it."""


class Incoming(asyncio.Protocol):
    """Hears a Hello, then messages and pings; sends nothing but the reply and pongs.

    Whatever a stranger does wrong closes its connection, is counted, and has no other effect. Until the dialler
    has accepted the reply, which its first ping says, the connection is a stranger's.

    Invariants: `peer` is None until a Hello was accepted and its content is on disk; `established` implies that
    this is the one connection from `peer` that its owner knows.
    """

    def __init__(self, shared: Shared, owner: IncomingOwner) -> None:
        self._shared = shared
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(shared.limits.hello_bytes_max)
        self._over = False
        self._since = self._heard_at = shared.beat
        self.peer: NodeId | None = None
        self.established = False
        self._is_greeted = False
        self._proof = AcceptorProof(shared.demands.secret, owner.node_id, shared.nonce)

    @property
    def address(self) -> str:
        """The address from which the peer dialled."""
        return address_text(self._transport.get_extra_info("peername") if self._transport is not None else None)

    @property
    def may_go(self) -> bool:
        """Whether it has said nothing that counts yet, or was turned away."""
        return self._over or not self._is_greeted

    def after_fork(self) -> None:
        """In a child: the peer is the parent's."""
        let_go_of(self._transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the base class
        self._transport = transport
        if not self._owner.admit(self):
            self._over = True
            transport.abort()
            return
        set_no_delay(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.incoming_gone(self)
        self.end("the connection was closed" if exc is None else self._shared.streams.explain(exc))

    def end(self, reason: str) -> None:
        """Close at once; a peer whose connection this was is reported as lost."""
        if self._over:
            return
        self.abort()
        if self.established:
            self._owner.incoming_lost(self, reason)

    def abort(self) -> None:
        """Close at once, and report nothing."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def check_time(self) -> None:
        """End the connection when its handshake takes too long, or when its peer does not even ping."""
        limits, beat = self._shared.limits, self._shared.beat
        if self._over:
            # It was refused, but does not go: it doesn't read why.
            if beat - self._since >= limits.handshake_beats and self._transport is not None:
                self._transport.abort()
        elif not self.established:
            if beat - self._since >= limits.handshake_beats:
                self._shared.stats.slow_closed += 1
                self._refuse("slow", f"no handshake for {limits.handshake_s:g} s")
        elif beat - self._heard_at >= limits.silence_beats:
            self._shared.stats.slow_closed += 1
            self.end(f"no sign of life for {limits.silence_s:g} s")

    def data_received(self, data: bytes) -> None:
        """Take in the messages that are complete."""
        if self._over:
            return
        stats = self._shared.stats
        self._heard_at = self._shared.beat
        if self.established and self.peer is not None:
            self._shared.presence.heard(self.peer)
            if (traffic := self._shared.traffic.get(self.peer)) is not None:
                traffic.received_bytes += len(data)
        try:
            for payload in self._decoder.feed(data):
                stats.frames_received += 1
                self._take(payload)
        except PeerError as exc:
            stats.garbage_closed += 1
            self._refuse("garbage", f"it sent garbage: {exc}")

    def _refuse(self, kind: str, reason: str) -> None:
        """Close because of what the other side did. For strangers nothing else would report it."""
        is_stranger = not self.established and not self._over
        self.end(reason)
        if is_stranger:
            self._owner.refused_stranger(self, kind, reason)

    def _take(self, payload: bytes) -> None:
        if self._over:
            return
        message = decode_message(payload)
        if self.peer is None:
            if self._is_greeted:
                raise FrameError("more than a hello, before it was answered")
            self._introduce(message)
            return
        if not self.established:
            self.established = True
            self._owner.incoming_established(self, self.peer)
        match message:
            case AppendEntries() | AppendReply():  # first, as most messages are these
                self._shared.handler.on_message(self.peer, message)
            case Ping():
                self._pong(message)
            case Hello() | HelloReply() | Challenge() | Proven() | Pong():
                raise FrameError(f"a {type(message).__name__} behind the handshake")
            case _:
                self._shared.handler.on_message(self.peer, message)

    def _introduce(self, message: PeerMessage) -> None:
        """Answer a challenge, or the hello that counts. One whose sender has not proven itself has no effect."""
        if isinstance(message, Hello) and message.version == NO_VERSION:
            # A leader asks so before it writes an address into the membership. It does not try to come in, so nobody
            # is warned of somebody without the secret.
            self._close_with(HelloReply(None, f"node {self._owner.node_id} listens for nodes here"))
            return
        try:
            heard = self._proof.take(message)
        except HandshakeRefused as exc:
            self._turn_away(exc)
            self._owner.refused_stranger(self, "secret" if isinstance(exc, WrongSecret) else "handshake", str(exc))
            return
        if isinstance(heard, Challenge):
            self._write(heard)
            return
        self._is_greeted = True
        self._greet(heard)

    def _turn_away(self, why: HandshakeRefused) -> None:
        """Say why, and close."""
        self._shared.stats.refused_handshake(why, asyncio.get_running_loop().time())
        self._close_with(self._proof.answer(HelloReply(None, str(why), removal_of(self._shared.handler, why))))

    def _close_with(self, last: PeerMessage) -> None:
        """Close behind this message."""
        self._write(last)
        self._over = True
        assert self._transport is not None
        self._transport.close()

    def _check_certificate(self, hello: Hello) -> None:
        if (names := self._shared.demands.names) is not None:
            assert self._transport is not None
            names.check(self._transport.get_extra_info("ssl_object"), hello, self._owner.told(hello.node_id))

    def _greet(self, hello: Hello) -> None:
        """Answer a hello: at once, or once its content is on disk."""
        try:
            check_version(self._shared.handler, hello)
            self._check_certificate(hello)
            waiting = self._shared.handler.check_hello(hello)
        except HandshakeRefused as exc:
            self._turn_away(exc)
            self._owner.refused_incoming(self, hello.node_id, str(exc))
            return
        if self._decoder.has_partial:
            raise FrameError("more than a hello, before it was answered")
        if waiting is not None:
            waiting.add_done_callback(partial(self._kept, hello))
            return
        self.peer = hello.node_id
        # Only a node that belongs here may make this one keep a large frame in memory.
        self._decoder = FrameDecoder(self._shared.limits.frame_bytes_max)
        self._write(self._proof.answer(HelloReply(self._shared.handler.hello(), "")))

    def _kept(self, hello: Hello, kept: asyncio.Future[None]) -> None:
        """Check the hello again, as this node may have heard more of that peer meanwhile."""
        if self._over:
            return
        if kept.cancelled():
            self.end("this node could not keep who it is")
            return
        try:
            self._greet(hello)
        except PeerError as exc:
            self._shared.stats.garbage_closed += 1
            self._refuse("garbage", f"it sent garbage: {exc}")

    def _pong(self, ping: Ping) -> None:
        assert self._transport is not None
        self._write(Pong(ping.sent_us))
        if self._transport.get_write_buffer_size() > PONGS_BYTES_MAX:
            self._shared.stats.slow_closed += 1
            self.end("it does not read its pongs")

    def _write(self, message: PeerMessage) -> None:
        assert self._transport is not None
        frame = encode_message(message)
        self._shared.stats.frames_sent += 1
        self._transport.write(frame)
