"""The way to one peer: dials it for as long as it is a peer, and queues what is for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from raftkv.model import NodeId
from raftkv.transport.backoff import Backoff
from raftkv.transport.outgoing import Outgoing
from raftkv.transport.port import LinkStatus
from raftkv.wire import FRAME_HEAD_BYTES, PeerMessage, encode_message

if TYPE_CHECKING:
    from raftkv.transport.mesh import Mesh

logger = structlog.get_logger("raftkv")


def _check(task: asyncio.Task[None]) -> None:
    """A link that fails in a way that it doesn't know would never dial again, and must not do so in silence."""
    if not task.cancelled():
        task.result()


class Link:
    """Keeps one connection to `peer` at `address`, until `close`.

    Invariant: there is at most one connection at a time, and `_connection` is the newest one.
    """

    def __init__(self, mesh: Mesh, peer: NodeId, address: str) -> None:
        self.peer = peer
        self.address = address
        self._mesh = mesh
        self._backoff = Backoff(mesh.draw)
        self._connection: Outgoing | None = None
        self._refused: str | None = None
        self._dropped = 0
        self._closed = False
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
            dropped=self._dropped,
        )

    # ------------------------------------------------------------------------------ out

    @property
    def queued_bytes(self) -> int:
        return self._connection.queued_bytes if self._connection is not None else 0

    def send(self, message: PeerMessage) -> bool:
        """Queue a message; False when there is no connection, or no room."""
        connection = self._connection
        if connection is None or not connection.established:
            return False
        limits = self._mesh.limits
        queued = connection.queued_bytes
        if queued < limits.queue_bytes_max:  # else it need not be encoded
            frame = encode_message(message)
            too_long = len(frame) > limits.frame_bytes_max + FRAME_HEAD_BYTES
            if not too_long and queued + len(frame) <= limits.queue_bytes_max:
                connection.write(frame)
                return True
            if too_long:
                logger.error("message_too_large", peer=self.peer, bytes=len(frame), message=type(message).__name__)
        self._dropped += 1
        self._mesh.stats.dropped += 1
        return False

    # ------------------------------------------------------------------------------ life

    async def _run(self) -> None:
        while not self._closed:
            connection = self._connection = Outgoing(self._mesh, self)
            try:
                async with asyncio.timeout(self._mesh.limits.silence_s):
                    await self._mesh.streams.dial(lambda: connection, self.address)  # noqa: B023 (called at once)
            except OSError as exc:  # a TimeoutError is one
                connection.end(str(exc) or type(exc).__name__)
            await connection.ended
            if not self._closed:
                await self._wait(self._backoff.next_s())

    async def _wait(self, seconds: float) -> None:
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return

    def hurry(self) -> None:
        """The peer has just shown that it is there: a wait for the next try ends now."""
        self._hurry.set()

    def close(self) -> None:
        """Close the connection at once and dial no more; what is queued is lost, and nothing is reported."""
        self._closed = True
        if self._connection is not None:
            self._connection.abort()
        self._task.cancel()

    def drop(self, reason: str) -> None:
        """End the connection, if there is one, and dial anew; one that is not made yet is still to be checked."""
        if self._connection is not None and self._connection.established:
            self._connection.end(reason)

    def check_time(self) -> None:
        """Ping, and end what is dead."""
        if self._connection is not None:
            self._connection.check_time()

    # ------------------------------------------------------------------------------ for the connection

    def on_established(self) -> None:
        """Both sides have accepted each other."""
        self._backoff.reset()
        self._refused = None
        logger.info("peer_connected", peer=self.peer, address=self.address)
        self._mesh.presence.heard(self.peer)
        self._mesh.handler.on_connected(self.peer)

    def on_refused(self, text: str) -> None:
        """One of the two sides doesn't want the other; said once, not at every try."""
        if text != self._refused:
            self._refused = text
            logger.warning("handshake_refused", peer=self.peer, address=self.address, reason=text)

    def on_end(self, reason: str, was_established: bool) -> None:
        """The connection is gone, or was never made."""
        if was_established and not self._closed:
            logger.warning("peer_lost", peer=self.peer, address=self.address, reason=reason)
            self._mesh.presence.broke(self.peer, reason)
