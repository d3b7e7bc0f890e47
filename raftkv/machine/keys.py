"""Encodes keys of tables as bytes that sort as the keys do.

A single `str` or `bytes` is its own bytes (UTF-8 sorts as code points do). An `int` is its length and sign in one
byte, then its bytes, negative ones inverted. In a tuple, text and bytes end in 00 00, and a 00 within them is
written 00 FF, so that a shorter part sorts before whatever it begins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_args, get_origin

from raftkv.errors import MachineError
from raftkv.machine.depth import shown

Encode: TypeAlias = Callable[[Any], bytes]
Decode: TypeAlias = Callable[[bytes, int], tuple[Any, int]]
"""From bytes and an offset to a part and the offset behind it."""

_INT_BYTES_MAX = 127
_ZERO = 0x80


class KeyCodec:
    """Encodes keys of one type, and decodes them again. `encode` raises `TypeError` for a key of another type."""

    def __init__(self, kind: Any, where: str) -> None:
        """Raises `MachineError` for a type whose order can't be that of bytes."""
        self.kind = kind
        if get_origin(kind) is tuple and get_args(kind) and Ellipsis not in get_args(kind):
            self._parts = [_part(each, where) for each in get_args(kind)]
            self.encode: Encode = self._encode_tuple
            self.decode: Callable[[bytes], Any] = self._decode_tuple
        elif kind is str:
            self.encode, self.decode = _encode_str, _decode_str
        elif kind is bytes:
            self.encode, self.decode = _encode_bytes, bytes
        elif kind is int:
            self.encode, self.decode = _encode_int, lambda data: _decode_int(data, 0)[0]
        else:
            raise MachineError(
                f"{where}: keys may be str, bytes, int, or a tuple of these with a fixed length, not {kind!r}"
            )

    def _encode_tuple(self, key: Any) -> bytes:
        if type(key) is not tuple or len(key) != len(self._parts):
            raise TypeError(f"a key must be a tuple of {len(self._parts)} parts, not {shown(key)}")
        return b"".join([encode(part) for (encode, _), part in zip(self._parts, key, strict=True)])

    def _decode_tuple(self, data: bytes) -> tuple[Any, ...]:
        return self.decode_parts(data, 0)[0]

    def decode_parts(self, data: bytes, offset: int) -> tuple[tuple[Any, ...], int]:
        """The tuple that begins at `offset`, and the offset behind it."""
        parts = []
        for _, decode in self._parts:
            part, offset = decode(data, offset)
            parts.append(part)
        return tuple(parts), offset

    def encode_prefix(self, prefix: Any) -> bytes:
        """The bytes that all keys with a prefix begin with; `prefix` is text, bytes, or some leading parts of a tuple.

        Raises `TypeError`, for ints too: they have no prefixes.
        """
        if get_origin(self.kind) is not tuple:
            if self.kind is int:
                raise TypeError("ints have no prefixes: use a range")
            return self.encode(prefix)
        if type(prefix) is not tuple or len(prefix) > len(self._parts):
            raise TypeError(f"a prefix must be a tuple of up to {len(self._parts)} parts, not {shown(prefix)}")
        return b"".join([encode(part) for (encode, _), part in zip(self._parts, prefix, strict=False)])


def part_codec(kind: Any, where: str) -> tuple[Encode, Decode]:
    """Encodes keys of one type so that something may stand behind them, and decodes them again.

    Raises `MachineError` as `KeyCodec` does.
    """
    codec = KeyCodec(kind, where)
    if get_origin(kind) is tuple:
        return codec.encode, codec.decode_parts
    return _part(kind, where)


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest bytes above all that begin with `prefix`; None when nothing is above them."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def _encode_str(key: Any) -> bytes:
    if type(key) is not str:
        raise TypeError(f"a key must be a str, not {shown(key)}")
    return key.encode()


def _decode_str(data: bytes) -> str:
    return data.decode()


def _encode_bytes(key: Any) -> bytes:
    if type(key) is not bytes:
        raise TypeError(f"a key must be bytes, not {shown(key)}")
    return key


def _encode_int(key: Any) -> bytes:
    if type(key) is not int:
        raise TypeError(f"a key must be an int, not {shown(key)}")
    size = (abs(key).bit_length() + 7) // 8
    if size > _INT_BYTES_MAX:
        raise ValueError(f"a key of {size * 8} bits is too large")
    if key >= 0:
        return bytes([_ZERO + size]) + key.to_bytes(size, "big")
    return bytes([_ZERO - size]) + (key + (1 << 8 * size) - 1).to_bytes(size, "big")


def _decode_int(data: bytes, offset: int) -> tuple[int, int]:
    size = data[offset] - _ZERO
    end = offset + 1 + abs(size)
    number = int.from_bytes(data[offset + 1 : end], "big")
    return (number if size >= 0 else number - (1 << -8 * size) + 1), end


def _ended(data: bytes) -> bytes:
    return data.replace(b"\0", b"\0\xff") + b"\0\0"


def _take_ended(data: bytes, offset: int) -> tuple[bytes, int]:
    end = data.index(b"\0\0", offset)
    return data[offset:end].replace(b"\0\xff", b"\0"), end + 2


def _take_str(data: bytes, offset: int) -> tuple[str, int]:
    part, end = _take_ended(data, offset)
    return part.decode(), end


def _part(kind: Any, where: str) -> tuple[Encode, Decode]:
    if kind is str:
        return lambda part: _ended(_encode_str(part)), _take_str
    if kind is bytes:
        return lambda part: _ended(_encode_bytes(part)), _take_ended
    if kind is int:
        return _encode_int, _decode_int
    raise MachineError(f"{where}: a part of a tuple may be str, bytes or int, not {kind!r}")
