"""Pages of a table, and the cursors with which a client asks for the next ones."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec
import xxhash

K = TypeVar("K")
V = TypeVar("V")

_FORMAT = b"\x01"
_TAG_BYTES = 4


class Page(msgspec.Struct, Generic[K, V], frozen=True):
    """Some items of a table, in order: the result of `page`, which a query may return as it is."""

    items: list[tuple[K, V]]
    cursor: bytes | None
    """To be given as `after` for the next page; None when this is the last one. A page may have fewer items than asked
    for, or none, and not be the last."""


def make_cursor(source: str, position: bytes) -> bytes:
    """A cursor for what is read from `source` on (in reverse: before it)."""
    return _FORMAT + _tag(source) + position


def read_cursor(source: str, cursor: bytes) -> bytes:
    """The position in it. Raises `ValueError` for a cursor of something else, as it comes from a client."""
    head = _FORMAT + _tag(source)
    if not isinstance(cursor, bytes) or not cursor.startswith(head):
        raise ValueError(f"this is no cursor of {source}: give the one that came with the page before, unchanged")
    return cursor[len(head) :]


def _tag(source: str) -> bytes:
    return xxhash.xxh32_digest(source.encode())[:_TAG_BYTES]
