"""Keys and values in a file: JSON lines for people and other programs, MessagePack for speed and size."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec

Record = tuple[bytes, bytes]
"""A key and its value."""

_LINE_BYTES_MAX = 16 << 20
_BIN = {0xC4: struct.Struct(">B"), 0xC5: struct.Struct(">H"), 0xC6: struct.Struct(">I")}
_PAIR = 0x92
_PART_BYTES_MAX = 8 << 20


class RecordError(Exception):
    """What stands in the file is no record; the text says where."""


class Format(msgspec.Struct, frozen=True):
    """One way to write records."""

    encode: Callable[[bytes, bytes], bytes]
    decode: Callable[[BinaryIO], Iterator[Record]]
    """All records up to the end of the file, which may be cut off: then it raises `RecordError` behind the last one."""


def _encode_line(key: bytes, value: bytes) -> bytes:
    return msgspec.json.encode({**_text("key", key), **_text("value", value)}) + b"\n"


def _text(name: str, data: bytes) -> dict[str, str]:
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _decode_lines(file: BinaryIO) -> Iterator[Record]:
    number = 0
    while line := file.readline(_LINE_BYTES_MAX):
        number += 1
        if not line.endswith(b"\n"):
            raise RecordError(f"line {number} is cut off, or longer than {_LINE_BYTES_MAX} bytes")
        if not line.strip():
            continue
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
            yield _bytes(fields, "key"), _bytes(fields, "value")
        except (msgspec.MsgspecError, UnicodeError, KeyError, TypeError, binascii.Error) as exc:
            raise RecordError(
                f'line {number} must be such as {{"key": "a", "value": "b"}} (or key_base64, value_base64): {exc!r}'
            ) from exc


def _bytes(fields: dict[str, Any], name: str) -> bytes:
    if name in fields:
        return str.encode(fields[name])
    return base64.b64decode(fields[f"{name}_base64"], validate=True)


def _encode_packed(key: bytes, value: bytes) -> bytes:
    return msgspec.msgpack.encode((key, value))


def _decode_packed(file: BinaryIO) -> Iterator[Record]:
    number = 0
    while first := file.read(1):
        number += 1
        if first[0] != _PAIR:
            raise RecordError(f"record {number} does not begin as a pair of bytes does")
        yield _read_bin(file, number), _read_bin(file, number)


def _read_bin(file: BinaryIO, number: int) -> bytes:
    kind = file.read(1)
    length = _BIN.get(kind[0]) if kind else None
    if kind and length is None:
        raise RecordError(f"record {number} holds something else than bytes")
    head = file.read(length.size) if length is not None else b""
    if length is None or len(head) < length.size:
        raise RecordError(f"record {number} is cut off")
    (size,) = length.unpack(head)
    if size > _PART_BYTES_MAX:
        raise RecordError(f"record {number} says that it has {size} bytes")
    data = file.read(size)
    if len(data) < size:
        raise RecordError(f"record {number} is cut off")
    return data


FORMATS = {
    "jsonl": Format(encode=_encode_line, decode=_decode_lines),
    "msgpack": Format(encode=_encode_packed, decode=_decode_packed),
}


def whole_records(file: BinaryIO, chosen: Format) -> tuple[bytes | None, int]:
    """The key of the last whole record in a file, and where that ends. Raises `RecordError` when what follows is not
    just a record that was cut off, so that nothing of another file is cut off."""
    last: bytes | None = None
    size = 0
    try:
        for key, _ in chosen.decode(file):
            if last is not None and key <= last:
                raise RecordError("its keys do not go up, so it is no export")
            last, size = key, file.tell()
    except RecordError as exc:
        if "is cut off" not in str(exc):
            raise
    return last, size


def next_after(key: bytes) -> bytes:
    """The first key behind `key`."""
    return key + b"\0"
