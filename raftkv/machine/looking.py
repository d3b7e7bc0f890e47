"""Queries that every machine answers: what is declared, and what lies in its tables. So tools need no class of it."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from raftkv.config import MIB
from raftkv.errors import TooMuchWork
from raftkv.machine.events import Events
from raftkv.machine.expiring import Lives
from raftkv.machine.methods import Method, query
from raftkv.machine.schema import encode_schema
from raftkv.machine.tables import Set, Table, Value
from raftkv.machine.versions import read_kept

ROWS_MAX = 1_000
"""Of one page."""
PAGE_BYTES_MAX = MIB
"""Of one page's keys and values; but one row is always in it. It fits into a frame, and is read within milliseconds."""


class Rows(msgspec.Struct, array_like=True):
    """A page of a table. `next` is where the next one begins, as the table encodes keys: its first key, or (from the
    end backwards) the key that it lies below. None: there are no more.

    There may be fewer rows than asked for, even none, when there was too much to read.
    """

    rows: list[tuple[Any, Any]]
    next: bytes | None = None


def _schema(self: Any) -> bytes:
    """The schema of the active version, encoded."""
    kept = read_kept(self._overlay)
    return encode_schema(type(self).schema()) if kept is None else kept.schema


def _rows(self: Any, part: str, start: bytes, end: bytes | None, limit: int, reverse: bool) -> Rows:
    """A page of the table `part`, with `start` ≤ key < `end` as the table encodes keys; or the one value `part`."""
    declared = type(self).parts.get(part)
    if declared is None or isinstance(declared, Events):
        raise LookupError(f"{type(self).__name__} has no table or value {part!r}")
    access = self._ghosts.get(part, self._overlay)
    if part in self._expiring:
        access = Lives(self._expiring[part], access, self._moment, declared.prefix)
    if isinstance(declared, Value):
        data = access.get(declared.prefix)
        return Rows([(None, Raw(declared.default_data if data is None else data))])
    low = declared.prefix + start
    high = declared.end if end is None else declared.prefix + end
    return _page(access, declared, low, high, min(limit, ROWS_MAX), reverse)


def _page(access: Any, table: Table[Any, Any] | Set[Any], low: bytes, high: bytes, limit: int, reverse: bool) -> Rows:
    rows: list[tuple[Any, Any]] = []
    size, last, skip = 0, b"", len(table.prefix)
    try:
        for place, data in access.scan(low, high, reverse=reverse) if low < high else ():
            size += len(place) + len(data)
            if len(rows) >= limit or (rows and size > PAGE_BYTES_MAX):
                return Rows(rows, last if reverse else place[skip:])
            last = place[skip:]
            rows.append((table.keys.decode(last), Raw(data)))
    except TooMuchWork as exc:
        if exc.position is None or not low < exc.position < high:
            raise
        return Rows(rows, exc.position[skip:])
    return Rows(rows)


def _look(name: str, function: Any) -> Method:
    """A query that no class declares: its name is no word, so that none can."""
    function.__name__ = name
    made = Method(query(function), globals())
    made.returns_shallow = True  # its rows were counted when they were kept, and what is around them does not matter
    return made


SCHEMA: Method = _look("*schema", _schema)
ROWS: Method = _look("*rows", _rows)
LOOKS = {each.name: each for each in (SCHEMA, ROWS)}
