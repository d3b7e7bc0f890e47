"""Keys of tables as they are typed and shown: text, numbers, and tuples as JSON arrays."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from raftkv.errors import InvalidArgument, MachineError
from raftkv.machine import prefix_end
from raftkv.machine.indexes import key_type
from raftkv.machine.keys import KeyCodec
from raftkv.machine.schema import Shape

Bounds: TypeAlias = tuple[bytes, bytes | None]
"""From where, and (None: to the end) before which key, as the table encodes keys."""


def key_codec(shape: Shape) -> KeyCodec:
    """Encodes and decodes keys of this type. Raises `InvalidArgument` for a type that keys can't have."""
    try:
        return KeyCodec(key_type(shape), "the table")
    except MachineError as exc:
        raise InvalidArgument(str(exc)) from exc


def read_bounds(shape: Shape, prefix: str | None, start: str | None, end: str | None) -> Bounds:
    """What these words mean for a table with such keys. Raises `InvalidArgument`."""
    codec = key_codec(shape)
    try:
        if prefix is not None:
            low = codec.encode_prefix(_read(shape, prefix))
            return low, prefix_end(low)
        low = b"" if start is None else codec.encode(_read(shape, start))
        return low, None if end is None else codec.encode(_read(shape, end))
    except (TypeError, ValueError) as exc:
        raise InvalidArgument(f"a key of type {shape}: {exc}") from exc


def _read(shape: Shape, text: str) -> Any:
    match shape.kind:
        case "str":
            return text
        case "bytes":
            return text.encode("utf-8", "surrogateescape")
        case "int":
            return int(text)
    try:
        parts = msgspec.json.decode(text.encode("utf-8", "surrogateescape"), type=list[str | int])
    except msgspec.MsgspecError:
        raise ValueError(f"{text!r} must be a JSON array of its parts") from None
    kinds = [each.kind for each in shape.items]
    kinds += [""] * (len(parts) - len(kinds))  # too many parts: the codec says so
    return tuple(
        part.encode() if kind == "bytes" and isinstance(part, str) else part
        for part, kind in zip(parts, kinds, strict=False)
    )


def key_text(codec: KeyCodec, data: bytes) -> str:
    """An encoded key as one would type it; in hexadecimal if it is none, but a place between keys."""
    try:
        key = codec.decode(data)
    except (ValueError, IndexError):
        return data.hex()
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    if not isinstance(key, tuple):
        return str(key)
    parts = [part.decode("utf-8", "backslashreplace") if isinstance(part, bytes) else part for part in key]
    return msgspec.json.encode(parts).decode()


def to_bytes(text: str, as_hex: bool) -> bytes:
    """An argument as bytes: exactly those that the shell passed, or decoded from hexadecimal."""
    if not as_hex:
        return text.encode("utf-8", "surrogateescape")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise InvalidArgument(f"{text!r}: must be hexadecimal, with --hex") from None
