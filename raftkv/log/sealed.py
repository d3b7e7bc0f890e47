"""The envelope of small pieces of data on disk: magic, format version, length, checksum."""

from __future__ import annotations

import struct

import xxhash

from raftkv.errors import Corruption, FormatError

FORMAT_VERSION = 2
"""The version of everything under `raftkv.log`. Later versions keep this envelope, so that each can name the other."""

_HEAD = struct.Struct("<8sII")
_SUM = struct.Struct("<Q")
SEAL_BYTES = _HEAD.size + _SUM.size


def seal(magic: bytes, body: bytes, version: int = FORMAT_VERSION) -> bytes:
    """`body` in its envelope; `magic` is 8 bytes that say what it is."""
    head = _HEAD.pack(magic, version, len(body))
    return head + _SUM.pack(xxhash.xxh3_64_intdigest(head + body)) + body


def unseal(magic: bytes, data: bytes, what: str) -> bytes:
    """The body of the envelope with which `data` begins.

    Raises `Corruption` when it is not whole, `FormatError` when it is whole but of another version.
    """
    if len(data) < SEAL_BYTES:
        raise Corruption(f"{what} is cut short to {len(data)} bytes")
    found, version, length = _HEAD.unpack_from(data)
    body = data[SEAL_BYTES : SEAL_BYTES + length]
    (checksum,) = _SUM.unpack_from(data, _HEAD.size)
    if found != magic or len(body) != length or xxhash.xxh3_64_intdigest(data[: _HEAD.size] + body) != checksum:
        raise Corruption(f"{what} does not match its checksum")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{what} has format version {version}, this raftkv reads version {FORMAT_VERSION}: "
            "use the raftkv that wrote it, or a newer one that says it can migrate it"
        )
    return body
