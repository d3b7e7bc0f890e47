"""Load over etcd's gRPC, at the least cost for the generator and for etcd.

etcd's own JSON gateway turns each request into a gRPC call inside of the server, and a general gRPC library
costs Python more than etcd needs for the operation. So this speaks as much HTTP/2 as a unary call takes: header
fields go into the compression table once and are a byte each from then on, messages are made by hand, and
what comes back is cut into frames. Flow control and pings are obeyed.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import cast

from benchmarks.load.rhythm import Listener
from benchmarks.load.spec import LoadSpec, Read

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WINDOW_MAX = 2**31 - 1
WINDOW_AT_FIRST = 65_535
INITIAL_WINDOW_SIZE = 4

PUT = b"/etcdserverpb.KV/Put"
RANGE = b"/etcdserverpb.KV/Range"

_TABLE_AT_FIRST = 62
"""The first index of HPACK's dynamic table; its newest field has it."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def varint(number: int) -> bytes:
    """A number as protobuf has it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _message(body: bytes) -> bytes:
    """A protobuf message in gRPC's envelope, uncompressed."""
    return b"\0" + struct.pack(">I", len(body)) + body


def put_request(key: bytes, value: bytes) -> bytes:
    """`PutRequest(key=1, value=2)`."""
    return _message(b"\x0a" + varint(len(key)) + key + b"\x12" + varint(len(value)) + value)


def range_request(key: bytes, *, serializable: bool) -> bytes:
    """`RangeRequest(key=1, serializable=7)`: one key; serializable is what etcd calls a stale read."""
    return _message(b"\x0a" + varint(len(key)) + key + (b"\x38\x01" if serializable else b""))


class HeaderTable:
    """HPACK, as far as a client needs it that always sends the same few fields."""

    def __init__(self) -> None:
        self._known: list[tuple[bytes, bytes]] = []

    def block(self, path: bytes, authority: bytes) -> bytes:
        """The header block of a POST to `path`; fields that were never sent are added to the table."""
        out = b"\x83\x86"  # :method POST, :scheme http
        fields = ((b":path", path), (b":authority", authority), (b"content-type", b"application/grpc"))
        for name, value in (*fields, (b"te", b"trailers")):
            if (name, value) in self._known:
                out += bytes([0x80 | _TABLE_AT_FIRST + len(self._known) - 1 - self._known.index((name, value))])
            else:
                self._known.append((name, value))
                out += b"\x40" + bytes([len(name)]) + name + bytes([len(value)]) + value
        return out


class EtcdConnection(asyncio.Protocol):
    """One HTTP/2 connection to one member."""

    def __init__(self, spec: LoadSpec, address: str, recorder: Listener, value: bytes) -> None:
        self._address = address
        self._recorder = recorder
        self._value = value
        self._serializable = spec.read is Read.STALE
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._idle: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._waiting: deque[bytes] = deque()
        self._send_window = WINDOW_AT_FIRST
        self._received = 0
        self._stream = -1
        self._under_way: dict[int, int] = {}
        self._good: set[int] = set()
        self._table = HeaderTable()
        self._blocks: dict[bytes, bytes] = {}

    async def open(self) -> None:
        """Connect and exchange settings."""
        host, _, port = self._address.rpartition(":")
        await self._loop.create_connection(lambda: self, host, int(port))
        await self._ready
        for path in (PUT, RANGE):
            # Both paths enter the table now, with a request that changes nothing and is refused: no key.
            self._send(path, _message(b""), -1, self._table.block(path, self._address.encode()))
        for path in (PUT, RANGE):
            self._blocks[path] = self._table.block(path, self._address.encode())
        await self._idle

    async def close(self) -> None:
        """Disconnect."""
        if self._transport is not None:
            self._transport.abort()

    def submit(self, reads: bool, key: bytes, due_ns: int) -> None:
        """Send a `Range` of one key or a `Put`."""
        if reads:
            self._send(RANGE, range_request(key, serializable=self._serializable), due_ns, self._blocks[RANGE])
        else:
            self._send(PUT, put_request(key, self._value), due_ns, self._blocks[PUT])

    def _send(self, path: bytes, message: bytes, due_ns: int, block: bytes) -> None:
        self._stream += 2
        self._under_way[self._stream] = due_ns
        self._write(frame(HEADERS, END_HEADERS, self._stream, block))
        data = frame(DATA, END_STREAM, self._stream, message)
        if self._waiting or self._send_window < len(message):
            self._waiting.append(data)
        else:
            self._send_window -= len(message)
            self._write(data)

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))

    def _widen(self, more: int) -> None:
        self._send_window += more
        while self._waiting and self._send_window >= len(self._waiting[0]) - 9:
            data = self._waiting.popleft()
            self._send_window -= len(data) - 9
            self._write(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Open our windows as far as they go: nothing is to wait for the generator."""
        self._transport = cast(asyncio.Transport, transport)
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, WINDOW_MAX)
        more = struct.pack(">I", WINDOW_MAX - WINDOW_AT_FIRST)
        self._write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more))

    def data_received(self, data: bytes) -> None:
        """Cut into frames."""
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        offset, total = 0, len(buffer)
        while total - offset >= 9:
            end = offset + 9 + (buffer[offset] << 16 | buffer[offset + 1] << 8 | buffer[offset + 2])
            if end > total:
                break
            stream = int.from_bytes(buffer[offset + 5 : offset + 9], "big")
            self._frame(buffer[offset + 3], buffer[offset + 4], stream, bytes(buffer[offset + 9 : end]))
            offset = end
        if buffer is data:
            self._buffer += data[offset:]
        else:
            del self._buffer[:offset]

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            self._good.add(stream)
            self._received += len(payload)
            if self._received > WINDOW_MAX // 2:
                self._write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._received)))
                self._received = 0
        elif kind == SETTINGS and not flags & ACK:
            self._write(frame(SETTINGS, ACK, 0, b""))
            if not self._ready.done():
                self._ready.set_result(None)
        elif kind == PING and not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE and stream == 0:
            self._widen(int.from_bytes(payload, "big"))
        elif kind == RST_STREAM:
            self._ended(stream)
        elif kind == GOAWAY and self._transport is not None:
            self._transport.abort()
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            self._ended(stream)

    def _ended(self, stream: int) -> None:
        """A call that brought a message has succeeded; one that failed has trailers only."""
        due_ns = self._under_way.pop(stream, None)
        if due_ns is None or due_ns < 0:
            self._good.discard(stream)
            if not self._under_way and not self._idle.done():
                self._idle.set_result(None)
        elif stream in self._good:
            self._good.remove(stream)
            self._recorder.answered(self, due_ns)
        else:
            self._recorder.failed(self, "REFUSED")

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything under way has failed."""
        self._transport = None
        for waiting in (self._ready, self._idle):
            if not waiting.done():
                waiting.set_exception(ConnectionError(f"{self._address} closed the connection"))
        lost, self._under_way = self._under_way, {}
        for due_ns in lost.values():
            if due_ns >= 0:
                self._recorder.failed(self, "CONNECTION_LOST")
