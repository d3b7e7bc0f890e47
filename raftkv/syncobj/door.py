"""One TCP port for peers and clients: the first frame of a connection tells them apart."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from raftkv.errors import ConfigError, FrameError
from raftkv.transport import ProtocolFactory, Refused, Shut, TcpStreams, TransportLimits
from raftkv.wire import FRAME_HEAD_BYTES, FrameDecoder, decode_client_hello


class CannotListen(ConfigError):
    """The node could not listen at its address, after as many tries as were allowed."""


class DoorStreams(TcpStreams):
    """Sockets whose listener serves both protocols, because a node of PySyncObj has one address only.

    `clients` makes the protocol of a client's connection; until it is set, clients are turned away.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        limits: TransportLimits,
        retry_s: float,
        retries_max: int,
        on_refused: Callable[[ConfigError], None],
        **settings: Any,
    ) -> None:
        """Try `retries_max` times to listen (0: without end), `retry_s` apart; `on_refused` is told of failures."""
        super().__init__(host, port, handshake_s=limits.handshake_s, handshakes_max=limits.strangers_max, **settings)
        self.clients: ProtocolFactory = Shut
        self.limits = limits
        self.strangers: dict[Doorway, None] = {}
        self._retry_s = retry_s
        self._retries_max = retries_max
        self._on_refused = on_refused

    async def listen(self, factory: ProtocolFactory, refused: Refused) -> str:
        self.peers = factory
        tries = 0
        while True:
            try:
                return await super().listen(lambda: Doorway(self), refused)
            except ConfigError as exc:
                tries += 1
                if tries == self._retries_max:
                    raise CannotListen(str(exc)) from exc
                self._on_refused(exc)
                await asyncio.sleep(self._retry_s)

    def close(self) -> None:
        super().close()
        for stranger in list(self.strangers):
            stranger.abort()


class Doorway(asyncio.Protocol):
    """A connection before its first frame, so it is not known yet whether a peer or a client has connected."""

    def __init__(self, streams: DoorStreams) -> None:
        self._streams = streams
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when a peer or client has connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the base class
        limits = self._streams.limits
        if len(self._streams.strangers) >= limits.strangers_max:
            next(iter(self._streams.strangers)).abort()  # the oldest: an honest one says its first words within some ms
        self._streams.strangers[self] = None
        self._timer = asyncio.get_running_loop().call_later(limits.handshake_s, self.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the connection ended before its first frame."""
        self._leave()

    def abort(self) -> None:
        """Close at once, because no first frame came in time, or none that can be read."""
        self._leave()
        if self._transport is not None:
            self._transport.abort()

    def _leave(self) -> None:
        self._streams.strangers.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Wait for a whole frame, then hand all bytes and the connection to the protocol that it belongs to."""
        if self not in self._streams.strangers or self._transport is None:
            return
        self._data += data
        try:
            frame = first_frame(self._data, self._streams.limits.hello_bytes_max)
        except FrameError:
            self.abort()
            return
        if frame is None:
            return
        self._leave()
        protocol = self._streams.clients() if is_client_hello(frame) else self._streams.peers()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._data)


def first_frame(data: bytes, bytes_max: int) -> bytes | None:
    """The payload of the first frame in `data`, or None while it is not whole. Raises `FrameError`."""
    if len(data) < FRAME_HEAD_BYTES:
        return None
    payloads = FrameDecoder(bytes_max).feed(data[: FRAME_HEAD_BYTES + int.from_bytes(data[:4], "little")])
    return payloads[0] if payloads else None


def is_client_hello(payload: bytes) -> bool:
    """Whether this frame is a client's hello. A peer's hello can't be mistaken for one."""
    try:
        decode_client_hello(payload)
    except FrameError:
        return False
    return True
