"""Load over raftkv's own protocol, with a session per connection, at the least cost for the generator.

What the client library does for its callers besides (finding the leader, deadlines, retries, futures) is left
out, so that on a machine that nodes and generators share the nodes are what is measured; `library` has it all.
"""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec

from benchmarks.load.rhythm import Recorder
from benchmarks.load.spec import LoadSpec, Read
from benchmarks.machines import CALLS
from raftkv.client.methods import OPEN_SESSION_PAYLOAD, read_session_id
from raftkv.client.session import Session
from raftkv.config import MIB
from raftkv.machine import NO_SESSION, encode_command, encode_query
from raftkv.wire import (
    PROTOCOL_VERSION,
    ClientHello,
    FrameDecoder,
    Request,
    RequestKind,
    Status,
    decode_response,
    decode_server_hello,
    encode_client_hello,
    encode_request,
)

DEADLINE_MS = 10_000
FRAME_BYTES_MAX = 9 * MIB
SESSION_TRIES = 50

_encode = msgspec.msgpack.Encoder().encode


class RaftkvConnection(asyncio.Protocol):
    """One client of one node."""

    def __init__(self, spec: LoadSpec, address: str, recorder: Recorder, value: bytes) -> None:
        self._address = address
        self._recorder = recorder
        self._value = value
        self._calls = CALLS[spec.machine]
        self._stale = spec.read is Read.STALE
        self._decoder = FrameDecoder(FRAME_BYTES_MAX)
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._opened: asyncio.Future[Session | None] | None = None
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._under_way: dict[int, tuple[int, int]] = {}
        self._last_id = 0
        self._needs_session = spec.sessions and spec.reads < 1
        self._session: Session | None = None
        self._greeted = False

    async def open(self) -> None:
        """Connect, shake hands, open a session; raises `ConnectionError` when that fails."""
        host, _, port = self._address.rpartition(":")
        await self._loop.create_connection(lambda: self, host, int(port))
        await self._ready
        for _ in range(SESSION_TRIES if self._needs_session else 0):
            self._opened = opened = self._loop.create_future()
            self._write(encode_request(Request(0, RequestKind.COMMAND, OPEN_SESSION_PAYLOAD, False, DEADLINE_MS)))
            self._session = await opened
            if self._session is not None:
                return
            await asyncio.sleep(0.05)
        if self._needs_session:
            raise ConnectionError(f"{self._address} opens no session: does it lead?")

    async def close(self) -> None:
        """Close the connection; the session expires by itself."""
        if self._transport is not None:
            self._transport.abort()

    def submit(self, reads: bool, key: bytes, due_ns: int) -> None:
        """Send a query or a command."""
        self._last_id = request_id = self._last_id + 1
        session, calls = self._session, self._calls
        sequence = 0
        if reads:
            request = Request(
                request_id,
                RequestKind.QUERY,
                encode_query(calls.query, _encode(calls.key(key))),
                self._stale,
                DEADLINE_MS,
            )
        else:
            args = _encode(calls.arguments(key, self._value))
            if session is None:
                payload = encode_command(NO_SESSION, 0, 0, calls.command, args)
            else:
                sequence = session.begin()
                payload = encode_command(session.id, sequence, session.acked_below, calls.command, args)
            request = Request(request_id, RequestKind.COMMAND, payload, False, DEADLINE_MS)
        self._under_way[request_id] = (due_ns, sequence)
        self._write(encode_request(request))

    def _write(self, frame: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(frame)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        self._transport = cast(asyncio.Transport, transport)
        self._write(encode_client_hello(ClientHello(PROTOCOL_VERSION)))

    def data_received(self, data: bytes) -> None:
        """Note what was answered."""
        for frame in self._decoder.feed(data):
            if self._greeted:
                self._answered(frame)
            else:
                self._greeted = True
                hello = decode_server_hello(frame)
                if hello.refused:
                    self._ready.set_exception(ConnectionError(hello.refused))
                else:
                    self._ready.set_result(None)

    def _answered(self, frame: bytes) -> None:
        response = decode_response(frame)
        if response.id == 0:
            assert self._opened is not None
            done = response.status is Status.OK
            self._opened.set_result(Session(read_session_id(response.payload)) if done else None)
            return
        due_ns, sequence = self._under_way.pop(response.id)
        if sequence:
            assert self._session is not None
            self._session.end(sequence)
        if response.status is Status.OK:
            self._recorder.answered(self, due_ns)
        else:
            self._recorder.failed(self, response.status.name)

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything under way has failed."""
        self._transport = None
        for waiting in (self._ready, self._opened):
            if waiting is not None and not waiting.done():
                waiting.set_exception(ConnectionError(f"{self._address} closed the connection"))
        lost, self._under_way = self._under_way, {}
        for _ in lost:
            self._recorder.failed(self, "CONNECTION_LOST")
