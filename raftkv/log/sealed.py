"""The envelope of small pieces of data on disk: magic (8), format version (u32), length (u32), checksum, body."""

from __future__ import annotations

import struct
from collections.abc import Callable

import msgspec
import xxhash

from raftkv.errors import Corruption, FormatError

FORMAT_VERSION = 2
"""The version of everything under `raftkv.log`. Later versions keep this envelope, so that each can name the other."""

_HEAD = struct.Struct("<8sII")


def _xxh3_64(data: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of data is sealed; little endian, like everything on disk."""

    magic: bytes
    """8 bytes that say what kind of data it is."""
    version: int = FORMAT_VERSION
    checksum: Callable[[bytes], bytes] = _xxh3_64
    """Computed over the head and the body."""
    checksum_bytes: int = 8
    damaged: type[Corruption] = Corruption
    """The exception for data that is not whole."""

    @property
    def body_at(self) -> int:
        """How many bytes come before the body."""
        return _HEAD.size + self.checksum_bytes

    def seal(self, body: bytes) -> bytes:
        """`body` in its envelope."""
        head = _HEAD.pack(self.magic, self.version, len(body))
        return head + self.checksum(head + body) + body

    def size_of(self, begun: bytes) -> int:
        """How many bytes sealed data has that begins so; 0 when this is no beginning of this kind of data."""
        if len(begun) < self.body_at:
            return 0
        found, _, length = _HEAD.unpack_from(begun)
        return self.body_at + length if found == self.magic else 0

    def checksum_of(self, sealed: bytes) -> bytes:
        """The checksum that stands in sealed data."""
        return sealed[_HEAD.size : self.body_at]

    def unseal(self, data: bytes, what: str) -> bytes:
        """The body of the envelope with which `data` begins.

        Raises `damaged` when it is not whole, `FormatError` when it is whole but of another version.
        """
        if len(data) < self.body_at:
            raise self.damaged(f"{what} is cut short to {len(data)} bytes")
        found, version, length = _HEAD.unpack_from(data)
        body = data[self.body_at : self.body_at + length]
        is_whole = found == self.magic and len(body) == length
        if not is_whole or self.checksum(data[: _HEAD.size] + body) != self.checksum_of(data):
            raise self.damaged(f"{what} does not match its checksum")
        if version != self.version:
            raise FormatError(
                f"{what} has format version {version}, this raftkv reads version {self.version}: "
                "use the raftkv that wrote it, or a newer one that says it can migrate it"
            )
        return body


SEAL_BYTES = Envelope(magic=b"").body_at
"""How many bytes come before the body, for data of `raftkv.log`."""


def seal(magic: bytes, body: bytes, version: int = FORMAT_VERSION) -> bytes:
    """`body` in the envelope that `raftkv.log` uses."""
    return Envelope(magic=magic, version=version).seal(body)


def unseal(magic: bytes, data: bytes, what: str) -> bytes:
    """The body in that envelope, with which `data` begins. Raises `Corruption`, `FormatError`, as `Envelope` does."""
    return Envelope(magic=magic).unseal(data, what)
