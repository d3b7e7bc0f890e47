"""Secondary indexes: where rows are found by a field of their values, kept in the same batch as the rows.

The index `state` of the table `jobs` has a key for each row, behind the rows of its table and before those of any
other: 02 `jobs` 02 `state` 00, then the field's value as a part of a tuple is encoded, then the row's own key.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from msgspec import inspect

from raftkv.errors import MachineError
from raftkv.machine.keys import part_codec
from raftkv.machine.schema import Shape
from raftkv.state import TABLE_PREFIX


def beside(table: str, name: str) -> bytes:
    """What the keys of something begin with that is kept beside the rows of a table."""
    return TABLE_PREFIX + table.encode() + b"\2" + name.encode() + b"\0"


class Index:
    """An index of one table by one field."""

    def __init__(self, table: str, field: str, kind: Any, where: str = "") -> None:
        """Raises `MachineError`, beginning with `where`, when values of this type have no order that is that of
        bytes."""
        self.table, self.field = table, field
        self.name = f"{table}.{field}"
        self.start = beside(table, field)
        self.end = self.start[:-1] + b"\1"
        self._encode, self._decode = part_codec(kind, where)

    def place(self, value: Any, key: bytes) -> bytes:
        """Where it has the row with this value and (encoded) key. Raises `TypeError` when the field is of another
        type."""
        found = value.get(self.field) if isinstance(value, dict) else getattr(value, self.field)
        try:
            return self.bound(found) + key
        except TypeError as exc:
            raise TypeError(f"the index {self.name}: {exc}: its field must always be of the index's type") from exc

    def bound(self, found: Any) -> bytes:
        """What the places of all rows begin with whose field is `found`. Raises `TypeError`."""
        return self.start + self._encode(found.value if isinstance(found, enum.Enum) else found)

    def key(self, place: bytes) -> bytes:
        """The encoded key of the row that is found at this place."""
        return place[self._decode(place, len(self.start))[1] :]


class Indexes(NamedTuple):
    """Those of one table."""

    kept: tuple[Index, ...] = ()
    built: tuple[Index, ...] = ()
    """Those of them that have all rows."""


NO_INDEXES = Indexes()


def indexes_of(table: str, shapes: Mapping[str, Shape]) -> tuple[Index, ...]:
    """The indexes that a schema describes."""
    return tuple(Index(table, field, key_type(shape)) for field, shape in shapes.items())


def key_type(shape: Shape) -> Any:
    """The type of keys and indexed fields of this shape; None for one that they can't have."""
    if shape.kind == "tuple":
        return tuple[tuple(key_type(item) for item in shape.items)]  # type: ignore[misc]
    return {"str": str, "bytes": bytes, "int": int}.get(shape.kind)


def check_indexes(indexes: Any, value: Any, where: str) -> None:
    """Raises `MachineError`, beginning with `where`, for an index of a field that values lack."""
    if not isinstance(indexes, Mapping) or not all(
        isinstance(field, str) and field.isidentifier() for field in indexes
    ):
        raise MachineError(f'{where}: `index` must name fields and their types, as {{"state": str}} does')
    info = inspect.type_info(value)
    fields = getattr(info, "fields", None)
    if fields is None and not isinstance(info, (inspect.DictType, inspect.AnyType)):
        if indexes:
            raise MachineError(f"{where}: an index needs values with fields: a Struct, a dataclass or a dict")
        return
    known = {each.name: each.type for each in fields} if fields is not None else None
    for field, kind in indexes.items():
        part_codec(kind, f"{where}, index {field}")
        if known is None:
            continue
        if field not in known:
            raise MachineError(f"{where}: there is no field {field} to be indexed; there are {', '.join(known)}")
        declared = _PLAIN.get(type(known[field]))
        if declared is not None and declared is not kind:
            raise MachineError(
                f"{where}: the index of {field} must be of the field's type: `{field!r}: {declared.__name__}`"
            )


_PLAIN: dict[type[inspect.Type], type] = {
    inspect.StrType: str,
    inspect.BytesType: bytes,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
}
