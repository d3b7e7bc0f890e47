"""A frame: length (u32), xxh3-64 of the payload (u64), payload; little endian.

TCP's own checksum lets about one damaged segment in 65,536 pass; a frame's doesn't.
"""

from __future__ import annotations

import struct

import xxhash

from raftkv.errors import FrameError

PROTOCOL_VERSION = 2
"""The version of everything in this package. A hello of another version is refused with a text that names both, so
every version must be able to read hellos. Version 2: entries that fire timers."""

NO_VERSION = 0
"""A version that no node speaks: a hello of it asks whether a node listens there, and says nothing of its sender."""

_HEAD = struct.Struct("<IQ")
FRAME_HEAD_BYTES = _HEAD.size

_xxh3 = xxhash.xxh3_64_intdigest


def encode_frame(payload: bytes) -> bytes:
    """`payload` in its frame."""
    return _HEAD.pack(len(payload), _xxh3(payload)) + payload


_HTTP = b"HTTP"
"""How an answer of the other kind of port begins, which would be a frame of more than a GiB."""

OTHER_PORT = "HTTP is spoken there: give the port for clients (--listen) or nodes (--peer-listen), not that of --http"
"""What is said then: clients and nodes both meet it here."""


class FrameDecoder:
    """Cuts a stream of bytes into frames' payloads.

    Memory: at most one frame of `bytes_max` and what the last `feed` brought. After a `FrameError` the
    stream has no meaning any more; close the connection.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()

    @property
    def partial_bytes(self) -> int:
        """Bytes of a frame that has not arrived completely."""
        return len(self._buffer)

    @property
    def has_partial(self) -> bool:
        """Whether a frame has arrived in part."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[bytes]:
        """The payloads that are complete now. Raises `FrameError` for a frame too long or damaged."""
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        payloads = []
        offset, total = 0, len(buffer)
        while total - offset >= FRAME_HEAD_BYTES:
            length, checksum = _HEAD.unpack_from(buffer, offset)
            if length > self._bytes_max:
                if buffer[offset : offset + len(_HTTP)] == _HTTP:
                    raise FrameError(OTHER_PORT)
                raise FrameError(f"a frame of {length} bytes: at most {self._bytes_max} are allowed")
            end = offset + FRAME_HEAD_BYTES + length
            if end > total:
                break
            payload = bytes(buffer[offset + FRAME_HEAD_BYTES : end])
            if _xxh3(payload) != checksum:
                raise FrameError(f"a frame of {length} bytes does not match its checksum")
            payloads.append(payload)
            offset = end
        if buffer is data:
            if offset < total:
                self._buffer += data[offset:]
        elif offset:
            del self._buffer[:offset]
        return payloads
