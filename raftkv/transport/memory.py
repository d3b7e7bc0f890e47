"""A network in memory between nodes of one process: its connections can be cut, and it is deterministic."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeAlias

import msgspec

from raftkv.config import KIB, Config
from raftkv.errors import ConfigError
from raftkv.model import NodeId
from raftkv.transport.demands import Demands
from raftkv.transport.limits import TransportLimits
from raftkv.transport.mesh import Mesh
from raftkv.transport.reasons import NameUnknown
from raftkv.transport.streams import PlaceFactory, ProtocolFactory, Refused, Streams

WRITE_BUFFER_BYTES = 64 * KIB
"""Bytes that may wait at one end before its protocol is told, unless it sets a limit; the same as in asyncio."""


Interference: TypeAlias = Callable[[NodeId, NodeId, bytes], list[bytes]]
"""Given a sender, a receiver and a piece that would arrive now, returns the pieces that arrive instead."""


class NameAnswer(msgspec.Struct, frozen=True):
    """The result of looking a name up."""

    places: tuple[str, ...]
    """The addresses that the name stands for; none when it is unknown."""
    late_s: float = 0.0


Naming: TypeAlias = Callable[[NodeId, str], NameAnswer | None]
"""Given the node that looks an address up, and the address, returns the result; None when it stands for itself."""


class MemoryNetwork:
    """Who listens where, who is connected to whom, and what is cut between them.

    A cut looks as it does to TCP: nothing is refused, but bytes stay where they are until it is healed or one side
    gives up. `delay_s` is how long bytes travel from now on, each way.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.delays: dict[tuple[NodeId, NodeId], float] = {}
        """Additional seconds that bytes from one node to another take."""
        self.interference: Interference | None = None
        """What happens to bytes on their way, beyond cuts and delays."""
        self.naming: Naming | None = None
        """Results of looking names up; without it, every address stands for itself."""
        self._frozen: set[NodeId] = set()
        self._listeners: dict[str, tuple[NodeId, ProtocolFactory]] = {}
        self._contexts: dict[NodeId, Context] = {}
        self._cuts: set[tuple[NodeId, NodeId]] = set()
        self._pipes: dict[Pipe, None] = {}
        self._healed: asyncio.Event = asyncio.Event()

    def cut(self, a: NodeId, b: NodeId, *, one_way: bool = False) -> None:
        """Let no byte through from `a` to `b`, nor from `b` to `a` unless `one_way`."""
        self._cuts.add((a, b))
        if not one_way:
            self._cuts.add((b, a))

    def heal(self) -> None:
        """Undo all cuts; bytes that waited travel on."""
        self._cuts.clear()
        self._healed.set()
        self._healed = asyncio.Event()
        for pipe in list(self._pipes):
            pipe.travel()

    def freeze(self, node: NodeId) -> None:
        """The process of `node` is stopped: bytes sent to it wait in the buffers of its machine."""
        self._frozen.add(node)

    def thaw(self, node: NodeId) -> None:
        """The process goes on and reads what has come: before its timers run, if its loop is thawed after this call."""
        self._frozen.discard(node)
        for pipe in list(self._pipes):
            if pipe.other.owner == node:
                pipe.hurry()

    def reset(self, a: NodeId, b: NodeId) -> None:
        """Break every connection between `a` and `b`, as a router that forgets them does."""
        for pipe in list(self._pipes):
            if {pipe.owner, pipe.other.owner} == {a, b}:
                pipe.break_off(ConnectionResetError("connection reset by the network"))

    def drop(self, node: NodeId) -> None:
        """The process of `node` is gone: nobody listens there, and every connection to it breaks."""
        for address in [address for address, (owner, _) in self._listeners.items() if owner == node]:
            del self._listeners[address]
        for pipe in list(self._pipes):
            if pipe.owner == node:
                pipe.silence()

    @property
    def cuts(self) -> AbstractSet[tuple[NodeId, NodeId]]:
        """The ways (from, to) that are cut."""
        return self._cuts

    def is_cut(self, sender: NodeId, to: NodeId) -> bool:
        return (sender, to) in self._cuts

    def is_blocked(self, sender: NodeId, to: NodeId) -> bool:
        """Whether nothing can arrive at `to` from `sender` at the moment."""
        return (sender, to) in self._cuts or to in self._frozen

    def listen(self, node_id: NodeId, address: str, factory: ProtocolFactory) -> None:
        """Raises `ConfigError` when the address is taken. Connections to it are handled in the context of this call."""
        self._contexts[node_id] = copy_context()
        if address in self._listeners:
            raise ConfigError(f"can't listen for peers on {address}: node {self._listeners[address][0]} does")
        self._listeners[address] = (node_id, factory)

    def stop_listening(self, node_id: NodeId, address: str) -> None:
        if address in self._listeners and self._listeners[address][0] == node_id:
            del self._listeners[address]

    async def dial(self, node_id: NodeId, factory: ProtocolFactory, address: str) -> None:
        """Connect. Does not return while either direction is cut, as when packets vanish."""
        if self.delay_s > 0:
            await pause(2 * self.delay_s)
        while address in self._listeners:
            peer, accept = self._listeners[address]
            if not self.is_cut(node_id, peer) and not self.is_cut(peer, node_id):
                here, there = Pipe(self, node_id, factory()), Pipe(self, peer, accept())
                there.context = self._contexts.get(peer, here.context)
                here.other, there.other = there, here
                self._pipes[here] = self._pipes[there] = None
                there.context.copy().run(there.protocol.connection_made, there)
                here.protocol.connection_made(here)
                return
            await self._healed.wait()
        raise ConnectionRefusedError(f"nobody listens on {address}")

    def look_up(self, node_id: NodeId, address: str) -> Sequence[str] | asyncio.Future[tuple[str, ...]]:
        """The addresses that a name stands for, in the eyes of `node_id` now. The future raises `NameUnknown`."""
        answer = self.naming(node_id, address) if self.naming is not None else None
        if answer is None:
            return (address,)
        loop = asyncio.get_running_loop()
        found: asyncio.Future[tuple[str, ...]] = loop.create_future()
        loop.call_later(answer.late_s, _answer, found, address, answer.places)
        return found

    def forget(self, pipe: Pipe) -> None:
        """One end of a connection is gone, and all that it sent has arrived or is lost."""
        self._pipes.pop(pipe, None)


def _answer(found: asyncio.Future[tuple[str, ...]], address: str, places: tuple[str, ...]) -> None:
    if found.done():
        return
    if places:
        found.set_result(places)
    else:
        found.set_exception(NameUnknown(f"the name of {address} can't be looked up: not known"))
        found.exception()  # marks it as seen, as perhaps nothing waits for it any more


async def pause(seconds: float) -> None:
    """Let `seconds` of the loop's time pass."""
    loop = asyncio.get_running_loop()
    passed: asyncio.Future[None] = loop.create_future()

    def over() -> None:
        if not passed.done():  # the timer may be due in the same turn in which its waiter is cancelled, and runs then
            passed.set_result(None)

    timer = loop.call_later(seconds, over)
    try:
        await passed
    finally:
        timer.cancel()


class Pipe(asyncio.Transport):
    """One node's end of a connection in memory.

    Written pieces travel in order, each for as long as the network's delay; behind the last one comes the end of the
    stream. Nothing moves while the way is cut.
    """

    other: Pipe

    def __init__(self, network: MemoryNetwork, owner: NodeId, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self.owner = owner
        self.protocol = protocol
        self.context = copy_context()
        """This end hears everything in this context, which tells whose process it is, for stopping processes."""
        self._network = network
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[tuple[float, bytes | None]] = deque()
        """The pieces on their way, each with the time of its arrival; None is the end of the stream."""
        self._bytes = 0
        self._timer: asyncio.Handle | None = None
        self._high = WRITE_BUFFER_BYTES
        self._writable = True
        self._reading = True
        self._closing = False
        self._gone = False

    def write(self, data: Any) -> None:
        if not self._closing:
            self._bytes += len(data)
            self._send(bytes(data))
            if self._bytes > self._high:
                self._tell_writable()

    def _tell_writable(self) -> None:
        """Tell the protocol when the bytes that wait cross the limit, as TCP's transports do."""
        writable = self._bytes <= self._high
        if writable != self._writable and not self._closing:
            self._writable = writable
            if writable:
                self.protocol.resume_writing()
            else:
                self.protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = WRITE_BUFFER_BYTES if high is None else high

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self.other.travel()

    def _send(self, piece: bytes | None) -> None:
        network = self._network
        delay = network.delay_s
        if network.delays:
            delay += network.delays.get((self.owner, self.other.owner), 0.0)
        self._pieces.append((self._loop.time() + delay, piece))
        if self._timer is None:
            self.travel()

    def travel(self) -> None:
        """Have the first piece arrive when it is due."""
        if not self._pieces:
            if self._gone:
                self._network.forget(self)
        elif self._timer is None:
            due = self._pieces[0][0]
            context = self.other.context  # the other side's process hears it
            if due <= self._loop.time():
                self._timer = self._loop.call_soon(self._arrive, context=context)
            else:
                self._timer = self._loop.call_at(due, self._arrive, context=context)

    def hurry(self) -> None:
        """The receiving process was stopped, and its loop has held up arrivals: schedule the next one anew."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.travel()

    def _arrive(self) -> None:
        """All pieces that are due arrive together, as one read of a socket brings all bytes that wait there."""
        self._timer = None
        now, pieces = self._loop.time(), self._pieces
        while pieces and pieces[0][0] <= now:
            if not self.other._reading or self._is_blocked():
                return  # `resume_reading` or the network lets it travel on later
            self._deliver(pieces.popleft()[1])
        if pieces or self._gone:
            self.travel()

    def _is_blocked(self) -> bool:
        network = self._network
        if not network._cuts and not network._frozen:
            return False
        return network.is_blocked(self.owner, self.other.owner)

    def _deliver(self, piece: bytes | None) -> None:
        other, network = self.other, self._network
        if piece is None:
            other.break_off(None)
            return
        self._bytes -= len(piece)
        arriving = [piece] if network.interference is None else network.interference(self.owner, other.owner, piece)
        for each in arriving:
            if not other._closing:
                other.protocol.data_received(each)
        if not self._writable:
            self._loop.call_soon(self._tell_writable, context=self.context)

    def get_write_buffer_size(self) -> int:
        return self._bytes

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Close; bytes that were written still arrive."""
        if not self._closing:
            self._closing = True
            self._send(None)
            self._loop.call_soon(self._lose, None, context=self.context)

    def abort(self) -> None:
        """Close; bytes that were written and are still here don't arrive."""
        self._pieces.clear()
        self._bytes = 0
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose, None, context=self.context)
        self._send(None)

    def break_off(self, error: Exception | None) -> None:
        """The other side, or the network, has ended the connection."""
        self._pieces.clear()
        self._bytes = 0
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._lose, error, context=self.context)

    def silence(self) -> None:
        """The process at this end is gone: it neither receives nor sends any more, and the other end notices."""
        self.protocol = asyncio.Protocol()
        self.abort()

    def _lose(self, error: Exception | None) -> None:
        if not self._gone:
            self._gone = True
            self.protocol.connection_lost(error)
            self.travel()


class MemoryStreams(Streams):
    """One node's connections on a `MemoryNetwork`."""

    def __init__(self, network: MemoryNetwork, node_id: NodeId, address: str) -> None:
        self._network = network
        self._node_id = node_id
        self._address = address

    async def listen(self, factory: ProtocolFactory, refused: Refused) -> str:
        self._network.listen(self._node_id, self._address, factory)
        return self._address

    def look_up(self, address: str) -> Sequence[str] | asyncio.Future[tuple[str, ...]]:
        return self._network.look_up(self._node_id, address)

    async def dial(self, factory: PlaceFactory, address: str, places: Sequence[str]) -> None:
        for place in places[:-1]:
            try:
                await self._network.dial(self._node_id, partial(factory, place), place)
            except ConnectionRefusedError:
                continue
            return
        await self._network.dial(self._node_id, partial(factory, places[-1]), places[-1])

    def close(self) -> None:
        self._network.stop_listening(self._node_id, self._address)


class MemoryTransport(Mesh):
    """A `Transport` on a `MemoryNetwork`, listening on `address`, which may be any text.

    All but the sockets is as in `TcpTransport`: frames, handshakes, pings, bounds. `place` is the network's name for
    this machine, for a node that runs under an id which another machine uses, too.
    """

    def __init__(
        self,
        network: MemoryNetwork,
        node_id: NodeId,
        address: str,
        *,
        config: Config,
        draw: Callable[[int], int],
        limits: TransportLimits | None = None,
        place: NodeId | None = None,
        demands: Demands | None = None,
    ) -> None:
        streams = MemoryStreams(network, node_id if place is None else place, address)
        super().__init__(node_id, streams, config=config, draw=draw, limits=limits, demands=demands)
