"""How many rows each table has: one record, written with what changes it, so that `len` need not look at the rows.

The record follows from the rows, so it is not in the digest that replicas compare. A state has it from its first row
on; where it is missing, the rows are counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from raftkv.machine.stored import stored
from raftkv.state import COUNTS_KEY, Reader, Store


class Region(NamedTuple):
    """Where a table's rows are: from `start` to before `end`."""

    name: str
    start: bytes
    end: bytes


_decoder = msgspec.msgpack.Decoder(dict[str, int])
_encoder = msgspec.msgpack.Encoder()


def encode_counts(rows: Mapping[str, int]) -> bytes:
    """The value for `COUNTS_KEY`. Tables without rows are not among them, so that it is the same in every class that
    has the others."""
    return _encoder.encode(rows)


def read_counts(reader: Reader) -> dict[str, int] | None:
    """The rows by table; None when they must be counted. Raises `StateCorruption`."""
    data = reader.get(COUNTS_KEY)
    return None if data is None else stored(_decoder, data, "the record of how many rows tables have")


def counted(store: Store, places: Iterable[Region]) -> dict[str, int]:
    """The rows by table, counted now."""
    rows = {name: sum(1 for _ in store.scan(start, end)) for name, start, end in places}
    return {name: count for name, count in rows.items() if count}
