"""The way to one peer: dials it for as long as it is a peer, and queues what is for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raftkv.logs import EventLog
from raftkv.model import NodeId
from raftkv.transport.backoff import Backoff
from raftkv.transport.connections import Connections
from raftkv.transport.interface import LinkStatus, PeerTraffic
from raftkv.transport.name import Name
from raftkv.transport.outgoing import Outgoing
from raftkv.transport.reasons import Reason, Trouble, Unreached
from raftkv.transport.shared import Shared
from raftkv.wire import FRAME_HEAD_BYTES, PeerMessage, encode_message

logger = EventLog(__name__)


def _check(task: asyncio.Task[None]) -> None:
    """A link whose task fails unexpectedly would never dial again: that must not go unnoticed."""
    if not task.cancelled():
        task.result()


HINTS_MAX = 4
"""Addresses besides that of the membership: a node that moves needs one, and the log may know of more."""


class PeerLink:
    """Keeps one connection to `peer` at `address`, until `close`.

    Invariant: there is at most one connection at a time, and `_connection` is the newest one.
    """

    def __init__(
        self, shared: Shared, connections: Connections, draw: Callable[[int], int], peer: NodeId, address: str
    ) -> None:
        """`draw` gives a number below its argument, so that waits between tries differ from node to node."""
        self.peer = peer
        self.told = address
        """Where the membership says that the peer is."""
        self.address = address
        """Where it is dialled now."""
        self._hinted: tuple[str, ...] = ()
        """Where else it may be, the likeliest first: as it says itself, or as newer entries of the log say."""
        self._names: dict[str, Name] = {}
        """The names of the addresses that are not dialled now."""
        self._worked = False
        self._shared = shared
        self._connections = connections
        self._backoff = Backoff(draw)
        self._name = Name(address, shared.streams.look_up)
        self._place: str | None = None
        self._trouble = Trouble()
        self._connection: Outgoing | None = None
        self._refused: str | None = None
        self._refused_here = False
        self._dropped = 0
        self._closed = False
        self.traffic = shared.traffic[peer] = PeerTraffic()
        self._hurry = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"raftkv-link-{peer}")
        self._task.add_done_callback(_check)

    @property
    def status(self) -> LinkStatus:
        connection = self._connection
        connected = connection is not None and connection.established
        return LinkStatus(
            connected=connected,
            address=self.address,
            rtt_ms=connection.rtt_ms if connection is not None and connected else None,
            queued_bytes=self.queued_bytes,
            refused=self._refused,
            refused_here=self._refused_here,
            unreached=None if connected else self._trouble.now,
            dropped=self._dropped,
            traffic=self.traffic,
        )

    @property
    def queued_bytes(self) -> int:
        return self._connection.queued_bytes if self._connection is not None else 0

    def send(self, message: PeerMessage) -> bool:
        """Queue a message; False when there is no connection, or no room."""
        connection = self._connection
        if connection is None or not connection.established:
            return False
        limits = self._shared.limits
        queued = connection.queued_bytes
        if queued < limits.queue_bytes_max:  # else it need not be encoded
            frame = encode_message(message)
            too_long = len(frame) > limits.frame_bytes_max + FRAME_HEAD_BYTES
            if not too_long and queued + len(frame) <= limits.queue_bytes_max:
                connection.write(frame)
                return True
            if too_long:
                kind = type(message).__name__
                logger.error("message_too_large", peer=self.peer, bytes=len(frame), message=kind)
        self._dropped += 1
        self._shared.stats.dropped += 1
        return False

    async def _run(self) -> None:
        while not self._closed:
            connection = self._connection = Outgoing(self._shared, self._connections, self)
            try:
                # Without a limit: a name that is looked up slowly is still a name.
                places = await self._name.places()
                await self._dial(connection, places)
            except OSError as exc:
                connection.fail(exc)
            await connection.ended
            if not self._closed:
                self._take_turns()
                await self._wait(self._backoff.next_s())

    async def _dial(self, connection: Outgoing, places: Sequence[str]) -> None:
        limit_s = self._shared.limits.silence_s

        def made(place: str) -> Outgoing:
            self._place = place
            return connection

        try:
            async with asyncio.timeout(limit_s):
                await self._shared.streams.dial(made, self.address, places)
        except TimeoutError as exc:
            raise TimeoutError(str(exc) or f"no answer from {' or '.join(places)} for {limit_s:g} s") from exc

    async def _wait(self, seconds: float) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return

    def hint(self, address: str) -> None:
        """The peer may listen at `address`: try that in turn with `told`. When it is `told`, forget earlier hints."""
        hinted = (address, *[other for other in self._hinted if other != address])[:HINTS_MAX]
        if address == self.told:
            hinted = ()
        if hinted != self._hinted:
            self._hinted = hinted
            self.hurry()

    def _take_turns(self) -> None:
        """Choose where to dial next: where the peer was just met, else the address after the one that was tried."""
        if self._worked:
            self._worked = False
            return
        places = [self.told, *self._hinted]
        other = places[(places.index(self.address) + 1) % len(places)] if self.address in places else self.told
        if other == self.address:
            return
        self._names[self.address] = self._name
        if other not in self._names:
            self._names[other] = Name(other, self._shared.streams.look_up)
        self._name, self.address = self._names.pop(other), other
        for stale in [address for address in self._names if address not in places]:
            self._names.pop(stale).close()

    def hurry(self) -> None:
        """The peer has just shown that it is there: don't wait any longer before the next try."""
        self._hurry.set()

    def close(self) -> None:
        """Close the connection at once and dial no more; what is queued is lost, and nothing is reported."""
        self._closed = True
        if self._shared.traffic.get(self.peer) is self.traffic:
            del self._shared.traffic[self.peer]
        if self._connection is not None:
            self._connection.abort()
        self._name.close()
        for name in self._names.values():
            name.close()
        self._task.cancel()

    def drop(self, reason: str) -> None:
        """End the connection, if there is one, and dial anew. One that is being made will still be checked."""
        if self._connection is not None and self._connection.established:
            self._connection.end(reason)

    def check_time(self) -> None:
        """Ping, end a dead connection, and log a lookup that takes long."""
        if (seconds := self._name.slow_s) is not None:
            text = f"its name is being looked up for {seconds:.0f} s: see to the name service"
            self._note(Unreached(Reason.LOOKUP, text))
        if self._connection is not None:
            self._connection.check_time()

    def on_established(self) -> None:
        """Both sides have accepted each other."""
        self._backoff.reset()
        self._worked = True
        self._refused = None
        self._trouble.over()
        if self._place is not None:
            self._name.worked(self._place)
        self._shared.presence.heard(self.peer)
        self._shared.handler.on_connected(self.peer)

    def on_refused(self, text: str, *, here: bool) -> None:
        """This side (`here`) or the other one has refused; logged once, not at every try."""
        self._refused_here = here
        if text != self._refused:
            self._refused = text
            logger.warning("handshake_refused", peer=self.peer, address=self.address, reason=text)

    def on_end(self, why: Unreached, was_established: bool) -> None:
        """The connection is gone, or was never made."""
        if self._closed:
            return
        if was_established:
            self._shared.presence.broke(self.peer, why.text)
            # The node has told operators, once for both connections; this line is for debugging one of them.
            logger.debug("link_lost", peer=self.peer, address=self.address, reason=why.text)
        self._note(why)

    def _note(self, why: Unreached) -> None:
        """Keep why the peer is not reached, and log it now and then."""
        if (doubt := self._name.doubt) is not None:
            why = Unreached(why.reason, f"{why.text}, at an address that was found earlier: {doubt}")
        if self._trouble.note(why, asyncio.get_running_loop().time()) and why.reason is not Reason.HANDSHAKE:
            logger.warning(
                "peer_unreachable", peer=self.peer, address=self.address, kind=str(why.reason), reason=why.text
            )
