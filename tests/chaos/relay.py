"""One connection through the proxy: two sockets, and a lane each way between them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import socket
import struct
from collections.abc import Mapping, MutableMapping
from typing import cast

import msgspec

from raftkv.errors import FrameError
from raftkv.model import NodeId
from raftkv.wire import FRAME_HEAD_BYTES, Hello, HelloReply, decode_message, encode_message
from tests.chaos.lane import FrameCutter, Lane, Lanes

CLIENTS = 0
"""Stands for every client where there is a node's id; nodes count from 1."""

STRANGER = -1
"""Who has not said who it is."""

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Longer than any node or client takes: a frame that claims to be longer is handed on, for them to refuse."""

WAITING_BYTES_MAX = 1024 * 1024
"""Bytes that may wait in one direction; over it the sender isn't read, as on any slow network."""

_RESET = struct.pack("ii", 1, 0)

_END = b""


class Door(msgspec.Struct, frozen=True):
    """An address at which others expect a node, and the node's real address."""

    target: NodeId
    front: tuple[str, int]
    behind: tuple[str, int]
    source: int | None
    """The side that connects here: `CLIENTS`, or None for nodes, which say their ids in their hello."""


class Side(asyncio.Protocol):
    """One of the two sockets of a relayed connection: what it receives goes to `other`."""

    def __init__(self, relay: Relay, *, dialled: bool) -> None:
        self._relay = relay
        self._dialled = dialled
        self._cutter = FrameCutter(FRAME_BYTES_MAX)
        self._due: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        self._last_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_bytes = 0
        self._stuffed = False
        self.frames = 0
        self.other: Side
        self.transport: asyncio.Transport | None = None
        self.is_over = False
        self.is_unread = False
        """Whether this side does not read what it is sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is there."""
        self.transport = cast(asyncio.Transport, transport)
        if (sock := transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._dialled:
            self.transport.pause_reading()  # until the other side is connected
            self._relay.begin()

    def data_received(self, data: bytes) -> None:
        """Hand on each frame as its lane says."""
        if self.other.is_over:
            return  # half open: nobody is there to hear it
        now = asyncio.get_running_loop().time()
        for frame in self._cutter.feed(data):
            lane = self._relay.lane(self, frame)
            if self.frames == 0:
                frame = self._relay.as_told(frame)
            self.frames += 1
            if self._relay.is_remarkable(self) and self._cutter.is_framed:
                lane.remember(frame)
            for at, in_turn, leaving in lane.pass_on(frame, now):
                self._queue(at, in_turn, leaving)
        self._flush()

    def eof_received(self) -> bool:
        """This side says no more; what it said before still arrives."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the other side hear of it after what is under way, unless the link is cut."""
        self.is_over = True
        if self.other.is_over:
            self._relay.gone()
        elif not self._relay.holds_back(self):
            self.finish()

    def finish(self) -> None:
        """Let the other side hear that this one has ended."""
        now = asyncio.get_running_loop().time()
        if rest := self._cutter.rest():
            self._queue(now, True, rest)
        self._queue(now, True, _END)
        self._flush()

    def _queue(self, at: float, in_turn: bool, data: bytes) -> None:
        if in_turn:
            self._last_at = at = max(at, self._last_at)
        heapq.heappush(self._due, (at, next(self._order), data))
        self._waiting_bytes += len(data)

    def _flush(self) -> None:
        """Write what is due, and wake up for what will be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        ready: list[bytes] = []
        while self._due and self._due[0][0] <= now:
            _, _, data = heapq.heappop(self._due)
            self._waiting_bytes -= len(data)
            if data is _END:
                self._write(ready)
                self.other.end()
                return
            ready.append(data)
        self._write(ready)
        if self._due:
            self._timer = loop.call_at(max(self._due[0][0], now + 0.001), self._flush)
        self._press()

    def _write(self, ready: list[bytes]) -> None:
        if ready and self.other.transport is not None and not self.other.is_over:
            self.other.transport.write(b"".join(ready))

    def _press(self) -> None:
        """Read this side only while the other one has room for what it says."""
        stuffed = self._waiting_bytes > WAITING_BYTES_MAX or self.other.is_unread
        if stuffed == self._stuffed or self.transport is None or self.is_over:
            return
        self._stuffed = stuffed
        if stuffed:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        """This side is slow: the other one is not read for a while."""
        self.is_unread = True
        self.other._press()

    def resume_writing(self) -> None:
        """It reads again."""
        self.is_unread = False
        self.other._press()

    def end(self) -> None:
        """Close when everything has been written."""
        if self.transport is not None and not self.is_over:
            self.transport.close()

    def reset(self) -> None:
        """Close at once, so that the other end of the socket gets a RST."""
        if self.transport is None or self.is_over:
            return
        if (sock := self.transport.get_extra_info("socket")) is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class Relay:
    """A connection to a door of the proxy, and the one to the node behind it.

    `told` has the address by which others dial each node; `relays` has each relay that is open.
    """

    def __init__(
        self, door: Door, lanes: Lanes, told: Mapping[NodeId, str], relays: MutableMapping[Relay, None]
    ) -> None:
        self._door = door
        self._lanes = lanes
        self._told = told
        self._relays = relays
        self._dialling: asyncio.Task[None] | None = None
        self.source = door.source
        """The side that made the connection: known at once for clients, and from the first frame for nodes."""
        self.accepted = Side(self, dialled=False)
        self.dialled = Side(self, dialled=True)
        self.accepted.other, self.dialled.other = self.dialled, self.accepted
        self.keeps_ends = False
        """Whether one side may be gone without the other hearing of it (half open)."""

    @property
    def target(self) -> int:
        return self._door.target

    def begin(self) -> None:
        """Connect to the node behind the door; if it is not there, close the connection as the node's host would."""
        self._relays[self] = None
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        host, port = self._door.behind
        try:
            await asyncio.get_running_loop().create_connection(lambda: self.dialled, host, port)
        except OSError:
            self.dialled.is_over = True
            if self.accepted.is_over:
                self.gone()
            self.accepted.reset()
            return
        if self.accepted.is_over:
            self.dialled.end()
        elif self.accepted.transport is not None:
            self.accepted.transport.resume_reading()

    def lane(self, side: Side, frame: bytes) -> Lane:
        """The lane for what `side` says; the first frame of a node says who it is."""
        if self.source is None:
            self.source = _sender(frame)
        return self._lanes.of(*self.way(side))

    def as_told(self, frame: bytes) -> bytes:
        """A handshake with addresses of the proxy in place of the nodes' own: else they would dial past it next."""
        if self._door.source is not None:
            return frame
        try:
            message = decode_message(frame[FRAME_HEAD_BYTES:])
        except FrameError:
            return frame
        match message:
            case Hello():
                return encode_message(self._at_door(message))
            case HelloReply(hello=Hello() as hello):
                return encode_message(msgspec.structs.replace(message, hello=self._at_door(hello)))
        return frame

    def _at_door(self, hello: Hello) -> Hello:
        told = self._told.get(hello.node_id)
        return hello if told is None else msgspec.structs.replace(hello, address=told)

    def way(self, side: Side) -> tuple[int, int]:
        """From whom to whom `side` speaks."""
        source = self.source if self.source is not None else STRANGER
        return (source, self.target) if side is self.accepted else (self.target, source)

    def is_remarkable(self, side: Side) -> bool:
        """Whether frames of this side are worth to be said again: those of nodes, behind their hello."""
        return side is self.accepted and side.frames > 1 and self._door.source is None

    def holds_back(self, side: Side) -> bool:
        """Whether the end of `side` stays unknown to the other for now."""
        return self.keeps_ends or self._lanes.of(*self.way(side)).conditions.cut

    def tell_ends(self) -> None:
        """Now that the link is whole, everybody hears what has ended meanwhile."""
        for side in (self.accepted, self.dialled):
            if side.is_over and not side.other.is_over and not self.holds_back(side):
                side.finish()

    def reset(self) -> None:
        """Both ends get a RST."""
        self.accepted.reset()
        self.dialled.reset()

    def open_half(self, *, dialled: bool) -> None:
        """End one of the two connections, and keep the other as if nothing had happened."""
        self.keeps_ends = True
        (self.dialled if dialled else self.accepted).reset()

    def gone(self) -> None:
        """Both sides are over."""
        self._relays.pop(self, None)


def _sender(frame: bytes) -> int:
    try:
        message = decode_message(frame[FRAME_HEAD_BYTES:])
    except FrameError:
        return STRANGER
    return message.node_id if isinstance(message, Hello) else STRANGER
