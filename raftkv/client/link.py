"""A client's connection to one node: handshake, requests out, answers in, and what to do when the node is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol, cast

from raftkv.client.call import PendingCall
from raftkv.client.options import ClientOptions
from raftkv.errors import (
    FrameError,
    HandshakeRefused,
    RaftKVError,
    Unauthenticated,
    Unavailable,
    WrongCluster,
)
from raftkv.forks import let_go_of
from raftkv.wire import (
    NOTICE_ID,
    PROTOCOL_VERSION,
    ClientHello,
    FrameDecoder,
    Members,
    Request,
    RequestKind,
    Response,
    ServerHello,
    Status,
    decode_members,
    decode_response,
    decode_server_hello,
    encode_client_hello,
    encode_request,
)

PROBE_ID = 0
"""The request id of probes, which ask for a sign of life; the ids of calls begin at 1."""


class LinkOwner(Protocol):
    """The owner of links, which hears what happens on them."""

    def on_room(self, link: Link) -> None:
        """The link can send calls again."""

    def on_response(self, link: Link, call: PendingCall, response: Response) -> None:
        """The node has answered `call`."""

    def on_members(self, link: Link, members: Members) -> None:
        """The node has sent the members' addresses."""

    def on_dismissed(self, link: Link, error: Unauthenticated) -> None:
        """The node takes no more calls over this link; it answers those that it has taken, and ends it."""

    def on_lost(self, link: Link, error: RaftKVError, calls: Sequence[PendingCall]) -> None:
        """The link is gone; `calls` were sent, and won't be answered."""


def wrong_cluster(found: str, wanted: str) -> WrongCluster:
    """Why a node that belongs to the cluster `found` is not used."""
    if not found:
        return WrongCluster(f"it has not joined a cluster, and this client is one of {wanted!r}")
    return WrongCluster(f"it belongs to cluster {found!r}, not to {wanted!r}")


class Link(asyncio.Protocol):
    """A connection to `address`. All requests of one turn of the loop leave in one write.

    Invariants: `outstanding` has exactly the calls whose `link` this is. After `close`, or after the connection was
    lost, it is empty, and the owner hears no more.
    """

    def __init__(
        self, address: str, owner: LinkOwner, options: ClientOptions, cluster_id: str = "", *, born: int = 0
    ) -> None:
        """`cluster_id` is the cluster that the node must belong to; empty when any will do. `born` is its place in the
        order in which its owner has begun links and calls."""
        self.address = address
        self.born = born
        self.cluster_id = ""
        self._wanted_cluster_id = cluster_id
        self.outstanding: dict[int, PendingCall] = {}
        self._owner = owner
        self._options = options
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[ServerHello] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._decoder = FrameDecoder(options.frame_bytes_max)
        self._out: list[bytes] = []
        self._next_id = 0
        self._writable = True
        self._was_full = False
        self._owed = 0
        """Outstanding calls that should be answered soon."""
        self._parked = 0
        """Outstanding calls that are answered when something happens."""
        self._heard_at = 0.0
        """When the last answer came, or became due when none was before."""
        self._alive_at = 0.0
        """The same, but a sign of life counts as well."""
        self._probed = False
        """Whether nothing at all has come since its node was asked for a sign of life."""
        self.fell_silent = False
        """Whether it was given up because its node gave no sign of life."""
        self._watch: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def is_ready(self) -> bool:
        ready = self.ready
        return not self._closed and ready.done() and not ready.cancelled() and ready.exception() is None

    @property
    def has_room(self) -> bool:
        """Whether a call may be sent now. If not, `on_room` is called when it may."""
        room = self._writable and len(self.outstanding) - self._parked < self._options.in_flight_max
        self._was_full |= not room
        return room

    def send(self, call: PendingCall) -> None:
        """Send a call. The owner hears of its answer, or of the loss of the connection."""
        now = self._loop.time()
        if not call.patient:
            if self._owed == 0 and (self._parked == 0 or not call.parks):
                self._heard_at = self._alive_at = now  # silence counts from now: there was no unanswered call before
            self._owed += not call.parks
            self._parked += call.parks
        self._next_id = request_id = self._next_id + 1
        self.outstanding[request_id] = call
        call.link = self
        call.request_id = request_id
        deadline_ms = max(1, int((call.deadline - now) * 1000))
        self._write(encode_request(Request(request_id, call.kind, call.payload, call.stale, deadline_ms)))

    def forget(self, call: PendingCall) -> None:
        """The caller of `call` has gone: ignore the answer. Where it waits at the node, that is told."""
        request_id = call.request_id
        if self._take_out(request_id) is not None and call.parks and self.is_ready and self.ready.result().cancels:
            self._write(encode_request(Request(request_id, RequestKind.CANCEL, b"", False, 1)))
        self._tell_room()

    def _take_out(self, request_id: int) -> PendingCall | None:
        call = self.outstanding.pop(request_id, None)
        if call is not None:
            call.link = None
            self._owed -= not call.patient and not call.parks
            self._parked -= call.parks
        return call

    def close(self) -> list[PendingCall]:
        """Close the connection at once; returns the calls that were not answered."""
        self._closed = True
        calls = self._drop()
        if self._transport is not None:
            self._transport.abort()
        if not self.ready.done():
            self.ready.cancel()
        return calls

    def after_fork(self) -> None:
        """In a child, drop the connection without closing it: it is the parent's."""
        self._closed = True
        let_go_of(self._transport)

    def _drop(self) -> list[PendingCall]:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        calls = list(self.outstanding.values())
        self.outstanding.clear()
        self._owed = self._parked = 0
        for call in calls:
            call.link = None
        return calls

    def _tell_room(self) -> None:
        if self._was_full and self.is_ready and self.has_room:
            self._was_full = False
            self._owner.on_room(self)

    def _write(self, frame: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self._closed:
            self._transport.write(b"".join(out))

    def pause_writing(self) -> None:
        """Called when the node reads too slowly: send no more calls."""
        self._writable = False

    def resume_writing(self) -> None:
        """Called when the node has caught up."""
        self._writable = True
        self._tell_room()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the hello."""
        transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the base class
        self._transport = transport
        if self._closed:
            transport.abort()
            return
        transport.set_write_buffer_limits(self._options.write_bytes_max)
        self._write(encode_client_hello(ClientHello(PROTOCOL_VERSION, self._wanted_cluster_id, self._options.sign_in)))

    def data_received(self, data: bytes) -> None:
        """Hand each answer to its call."""
        self._alive_at = now = self._loop.time()
        self._probed = False
        try:
            for frame in self._decoder.feed(data):
                if self._closed:
                    return
                if self.ready.done():
                    response = decode_response(frame)
                    if response.id > PROBE_ID:
                        self._heard_at = now
                        self._answered(response)
                    elif response.id == NOTICE_ID:
                        self._noticed(response)
                else:
                    self._greeted(decode_server_hello(frame))
        except (FrameError, HandshakeRefused) as exc:
            self._lose(exc)
            return
        self._tell_room()

    def _greeted(self, hello: ServerHello) -> None:
        if self._wanted_cluster_id and hello.cluster_id != self._wanted_cluster_id:
            raise wrong_cluster(hello.cluster_id, self._wanted_cluster_id)
        if hello.refused:
            raise HandshakeRefused(hello.refused)
        self.cluster_id = hello.cluster_id
        self.ready.set_result(hello)
        self._watch = self._loop.call_later(self._options.probe_s, self._check_silence)

    def _noticed(self, response: Response) -> None:
        """The node says something of itself."""
        if response.status is Status.UNAUTHENTICATED:
            self._owner.on_dismissed(self, Unauthenticated(response.payload.decode("utf-8", "replace")))
            return
        self._owner.on_members(self, decode_members(response.payload))

    def _answered(self, response: Response) -> None:
        call = self._take_out(response.id)
        if call is not None:  # else the caller has gone
            self._owner.on_response(self, call, response)

    def _check_silence(self) -> None:
        """While calls wait and nothing comes, probe for a sign of life; without one, close the link."""
        options, now = self._options, self._loop.time()
        answer_due = self._heard_at + options.silence_s if self._owed else now + options.probe_s
        quiet_s = options.probe_s if self._owed else options.probe_parked_s
        if not self._owed and not self._parked:
            due = now + options.probe_s
        elif now >= answer_due:
            self._lose(Unavailable(f"no answer for {options.silence_s:g} s"))
            return
        elif now < self._alive_at + quiet_s:
            due = min(self._alive_at + quiet_s, answer_due)
        elif not self._probed:
            due = now + options.probe_answer_s
            self._probed = True
            # Where thousands of connections only wait, the cheapest answer will do; nor may everybody see the status.
            kind = RequestKind.STATUS if self._owed and not self.ready.result().asks_who else RequestKind.MEMBERS
            self._write(encode_request(Request(PROBE_ID, kind, b"", False, 1_000)))
        else:
            self.fell_silent = True
            self._lose(Unavailable(f"no sign of life for {now - self._alive_at:.1f} s"))
            return
        self._watch = self._loop.call_at(due, self._check_silence)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection broke, or was closed here."""
        # A node that speaks TLS, or another program, hangs up when it gets a hello in clear.
        hint = (
            ""
            if self.ready.done()
            else " before a greeting (is this a node's port for clients, and does it speak TLS?)"
        )
        self._lose(Unavailable(f"the connection was lost{hint}" + (f": {exc}" if exc else "")))

    def _lose(self, error: RaftKVError) -> None:
        if self._closed:
            return
        was_ready = self.is_ready
        calls = self.close_with(error)
        if was_ready:
            self._owner.on_lost(self, error, calls)

    def close_with(self, error: RaftKVError) -> list[PendingCall]:
        """Close because of `error`; if the handshake is not done, the dialler gets it."""
        if not self.ready.done():
            self.ready.set_exception(error)
        return self.close()
