"""Sends one frame to an address, outside of all links, and takes one back: to learn what listens there."""

from __future__ import annotations

import asyncio
from typing import cast

from raftkv.errors import PeerError
from raftkv.transport.limits import HELLO_BYTES_MAX
from raftkv.transport.name import Name
from raftkv.transport.streams import Streams
from raftkv.wire import FrameDecoder


class _Question(asyncio.Protocol):
    """Sends one frame, and takes the first that comes back."""

    def __init__(self, frame: bytes, answer: asyncio.Future[bytes | None]) -> None:
        self._frame = frame
        self._answer = answer
        self._decoder = FrameDecoder(HELLO_BYTES_MAX)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the base class
        self._transport.write(self._frame)

    def data_received(self, data: bytes) -> None:
        """The first whole frame is the answer; bytes that are no frame are none."""
        try:
            frames = list(self._decoder.feed(data))
        except PeerError:
            self._end(None)
            return
        if frames:
            self._end(bytes(frames[0]))

    def connection_lost(self, exc: Exception | None) -> None:
        """What listens there does not answer such a frame."""
        self._end(None)

    def _end(self, answer: bytes | None) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)
        if self._transport is not None:
            self._transport.abort()


async def ask(streams: Streams, address: str, frame: bytes, within_s: float) -> bytes | None:
    """The first frame that `address` sends back for `frame`; None when none comes within `within_s`."""
    answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
    question = _Question(frame, answer)
    name = Name(address, streams.look_up)
    try:
        async with asyncio.timeout(within_s):
            await streams.dial(lambda place: question, address, await name.places())
            return await answer
    except OSError:  # a TimeoutError is one
        return None
    finally:
        question.connection_lost(None)
        name.close()
