"""A connection that this node dialled: the handshake, sending, and whether the peer is still there."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Protocol, cast

from raftkv.errors import FrameError, HandshakeRefused, PeerError, WrongSecret
from raftkv.forks import let_go_of
from raftkv.model import NodeId
from raftkv.transport.connections import Connections
from raftkv.transport.handshake import check_version
from raftkv.transport.interface import PeerTraffic
from raftkv.transport.proof import DiallerProof
from raftkv.transport.reasons import Reason, Unreached, reason_of
from raftkv.transport.shared import Shared
from raftkv.transport.tuning import set_no_delay
from raftkv.wire import FrameDecoder, HelloReply, Ping, Pong, Proven, decode_message, encode_message


class OutgoingOwner(Protocol):
    """What a connection that a link has dialled tells the link, and asks of it."""

    @property
    def peer(self) -> NodeId:
        """The node that should answer."""

    @property
    def address(self) -> str:
        """Where it was dialled."""

    @property
    def traffic(self) -> PeerTraffic:
        """Counts what goes there."""

    def on_established(self) -> None:
        """Both sides have accepted each other."""

    def on_refused(self, text: str, *, here: bool) -> None:
        """This side (`here`) or the other one has refused."""

    def on_end(self, why: Unreached, was_established: bool) -> None:
        """The connection is gone, or was never made."""


class Outgoing(asyncio.Protocol):
    """Says Hello, then sends messages and pings; only the reply and pongs ever come back.

    Invariants: `established` is true from an accepted reply to the end, and messages are written only
    then. `ended` is done exactly when the owner has been told of the end.
    """

    def __init__(self, shared: Shared, connections: Connections, owner: OutgoingOwner) -> None:
        self._shared = shared
        self._connections = connections
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # The other side never sends anything but its hello and pongs.
        self._decoder = FrameDecoder(shared.limits.hello_bytes_max)
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._written = 0
        self._left = 0
        self._was_backed_up = False
        self._heard_at = shared.beat
        self.established = False
        self._is_answered = False
        self._proof = DiallerProof(shared.demands.secret, owner.peer, shared.handler.hello, shared.nonce)
        self._is_wanted = False
        """Whether the peer has accepted this node: from then on only this node may refuse."""
        self.rtt_ms: float | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def after_fork(self) -> None:
        """In a child: the peer is the parent's."""
        let_go_of(self._transport)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the base class
        if self.ended.done():
            transport.abort()
            return
        self._transport = transport
        self._connections.opened(self)
        set_no_delay(transport)
        self._heard_at = self._shared.beat
        self.write(encode_message(self._proof.begin()))

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.gone(self)
        self.fail(exc)

    def fail(self, exc: BaseException | None) -> None:
        """Close because of an error, or because the other side has closed (None)."""
        text = "the connection was closed" if exc is None else self._shared.streams.explain(exc)
        self.end(text, reason_of(exc))

    def end(self, text: str, reason: Reason = Reason.CLOSED) -> None:
        """Close at once, without sending what waits, and tell the owner."""
        if self.ended.done():
            return
        self.ended.set_result(None)
        was_established, self.established = self.established, False
        self._out.clear()
        self._out_bytes = 0
        if self._transport is not None:
            self._transport.abort()
        self._owner.on_end(Unreached(reason, text), was_established)

    def abort(self) -> None:
        """Close at once; the link is going away too."""
        self.end("closed by this node")

    def check_time(self) -> None:
        """Ping; end the connection when the peer has not answered for too long."""
        if self._transport is None or self.ended.done():
            return
        limits = self._shared.limits
        if not self.established:
            if self._shared.beat - self._heard_at >= limits.handshake_beats:
                self._shared.stats.slow_closed += 1
                self.end(f"no answer to the handshake for {limits.handshake_s:g} s", Reason.TIMEOUT)
            return
        self._see_progress()
        if self._shared.beat - self._heard_at >= limits.silence_beats:
            self._shared.stats.slow_closed += 1
            self.end(f"no sign of life for {limits.silence_s:g} s", Reason.TIMEOUT)
        else:
            self._ping()

    def _see_progress(self) -> None:
        """A peer that takes in a long queue is alive, though its pong has to wait behind that.

        Bytes count only when they leave a queue that was backed up: others merely go into a buffer of this host,
        which says nothing about the peer.
        """
        assert self._transport is not None
        backlog = self._transport.get_write_buffer_size()
        left = self._written - backlog
        if self._was_backed_up and left > self._left:
            self._heard_at = self._shared.beat
        self._left = left
        self._was_backed_up = backlog > 0

    def data_received(self, data: bytes) -> None:
        """Take in the reply and pongs."""
        if self.ended.done():
            return
        stats = self._shared.stats
        self._heard_at = self._shared.beat
        try:
            for payload in self._decoder.feed(data):
                stats.frames_received += 1
                self._take(payload)
        except HandshakeRefused as exc:
            self._refused(exc)
        except PeerError as exc:
            stats.garbage_closed += 1
            self.end(f"it sent garbage: {exc}", Reason.HANDSHAKE)

    def _take(self, payload: bytes) -> None:
        if self.ended.done():
            return
        message = decode_message(payload)
        if not self.established:
            if self._is_answered:
                raise FrameError(f"a {type(message).__name__} behind the handshake's reply")
            heard = self._proof.take(message)
            if isinstance(heard, Proven):
                self.write(encode_message(heard))
                return
            self._is_answered = True
            self._accept(heard)
            return
        self._shared.presence.heard(self._owner.peer)
        if not isinstance(message, Pong):
            raise FrameError(f"a {type(message).__name__} on a connection that only sends")
        rtt_us = self._loop.time() * 1e6 - message.sent_us
        if rtt_us < 0:
            raise FrameError("a pong to a ping that was not sent yet")
        self.rtt_ms = rtt_us / 1000
        self._owner.traffic.round_trips.note(rtt_us / 1e6)

    def _accept(self, reply: HelloReply) -> None:
        """Finish the handshake: at once, or once the content of the peer's hello is on disk."""
        waiting = self._check_reply(reply)
        if waiting is not None:
            waiting.add_done_callback(partial(self._kept, reply))
            return
        self.established = True
        # With this the handshake is finished for the acceptor.
        self._ping()
        self._owner.on_established()

    def _kept(self, reply: HelloReply, kept: asyncio.Future[None]) -> None:
        """Check the reply again, as this node may have heard more of that peer meanwhile."""
        if self.ended.done():
            return
        if kept.cancelled():
            self.end("this node could not keep who it is")
            return
        try:
            self._accept(reply)
        except HandshakeRefused as exc:
            self._refused(exc)

    def _refused(self, why: HandshakeRefused) -> None:
        self._shared.stats.refused_handshake(why, asyncio.get_running_loop().time())
        self._owner.on_refused(str(why), here=self._is_wanted or isinstance(why, WrongSecret))
        self.end(f"handshake refused: {why}", Reason.HANDSHAKE)

    def _check_reply(self, reply: HelloReply) -> asyncio.Future[None] | None:
        """Raises `HandshakeRefused` unless both sides accept each other; may return a future to await first."""
        if reply.hello is None:
            if reply.removal is not None:
                self._shared.handler.on_removed(self._owner.peer, reply.removal)
            raise HandshakeRefused(reply.refused or "no reason given")
        self._is_wanted = True
        check_version(self._shared.handler, reply.hello)
        if reply.hello.node_id != self._owner.peer:
            raise HandshakeRefused(
                f"node {reply.hello.node_id} answers at {self._owner.address}, where node {self._owner.peer} "
                "should be: correct the address in the membership, or start the right node there"
            )
        return self._shared.handler.check_hello(reply.hello)

    @property
    def queued_bytes(self) -> int:
        """Bytes that were written and have not left this process."""
        if self._transport is None or self.ended.done():
            return 0
        return self._out_bytes + self._transport.get_write_buffer_size()

    def write(self, frame: bytes) -> None:
        """Send a frame at the end of this turn of the loop, together with all others written in it."""
        if not self._out:
            self._connections.flush_later(self)
        self._out.append(frame)
        self._out_bytes += len(frame)

    def flush(self) -> None:
        """Send what was written in this turn of the loop, in one write."""
        out, self._out = self._out, []
        if not out or self._transport is None:
            return
        size, self._out_bytes = self._out_bytes, 0
        self._written += size
        self._owner.traffic.sent_bytes += size
        self._shared.stats.frames_sent += len(out)
        self._transport.write(out[0] if len(out) == 1 else b"".join(out))

    def _ping(self) -> None:
        self.write(encode_message(Ping(int(self._loop.time() * 1e6))))
