"""Arguments without what goes without saying: fields of records that are at their defaults.

A client whose records have grown can so call nodes whose records have not, as long as it does not use the new fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec.msgpack import Decoder, Encoder

from raftkv.machine.depth import is_nested_deeper
from raftkv.machine.schema import Record, Shape, describe, members_of

_encoder = Encoder()
"""Keeps the order in which dicts were read: they are in a deterministic one already."""
_decoder: Decoder[Any] = Decoder()

SPARED_MAX = 200
"""Values within values that are looked through. That takes up to three calls for each, on some interpreters fewer; but
what a command schedules another one with is to be the same on all of them, so none may come to the end of its stack."""

_Spare: TypeAlias = Callable[[Any], Any]
"""From a value as msgspec decodes it without a type to one without fields at their defaults."""


def sparing(types: list[Any]) -> Callable[[bytes], bytes] | None:
    """What encodes an encoded list of arguments of these types anew, without the fields of records that are at their
    defaults (in arrays, without the last ones). None when no record in them has any.

    Arguments that are nested deeper than `SPARED_MAX` stay as they are.
    """
    shapes, records = describe(types)
    if not any(field.default is not None for record in records.values() for field in record.fields):
        return None
    spares = [_Sparing(records).of(shape) for shape in shapes]

    def spare(data: bytes) -> bytes:
        if is_nested_deeper(data, SPARED_MAX):
            return data
        try:
            values = _decoder.decode(data)
            spared = [value if each is None else each(value) for each, value in zip(spares, values, strict=False)]
            return _encoder.encode([*spared, *values[len(spared) :]])
        except (RecursionError, TypeError):  # TypeError: a key of a dict that is no key in Python
            return data

    return spare


class _Sparing:
    def __init__(self, records: dict[str, Record]) -> None:
        self._records = records
        self._made: dict[str, _Spare] = {}

    def of(self, shape: Shape) -> _Spare | None:
        """None when no record is in it."""
        match shape.kind:
            case "record":
                return self._record(shape.name)
            case "union":
                return self._union(shape)
            case "list" | "sequence":
                return _all(self.of(shape.items[0]))
            case "tuple":
                return _each([self.of(item) for item in shape.items])
            case "dict":
                return _values(self.of(shape.items[1]))
        return None

    def _union(self, shape: Shape) -> _Spare | None:
        """At most one member is an array and one an object, or several are, and are told by their tags."""
        objects: dict[Any, _Spare] = {}
        arrays: dict[Any, _Spare] = {}
        tag_field = None
        for member in members_of(shape):
            spare = self.of(member)
            if spare is None:
                continue
            record = self._records.get(member.name)
            tag = record.tag if record is not None else None
            if record is not None and record.kind in ("object", "dict"):
                tag_field = record.tag_field
                objects[tag] = spare
            else:
                (objects if member.kind == "dict" else arrays)[tag] = spare

        def one(value: Any) -> Any:
            if type(value) is dict:
                found = objects.get(value.get(tag_field)) if tag_field is not None else objects.get(None)
            elif type(value) is list:
                found = arrays.get(None) or (arrays.get(value[0]) if value and type(value[0]) in (int, str) else None)
            else:
                return value
            return value if found is None else found(value)

        return one if objects or arrays else None

    def _record(self, name: str) -> _Spare:
        made = self._made.get(name)
        if made is None:
            record = self._records[name]
            fields: list[tuple[str, bytes | None, _Spare | None]] = []
            make = _of_array if record.kind in ("array", "tuple") else _of_object
            made = self._made[name] = make(fields, 0 if record.tag is None else 1)
            # Afterwards, as a record may be in itself.
            fields += [(field.name, field.default, self.of(field.shape)) for field in record.fields]
        return made


def _all(spare: _Spare | None) -> _Spare | None:
    return None if spare is None else lambda values: [spare(value) for value in values]


def _each(spares: list[_Spare | None]) -> _Spare | None:
    if not any(spares):
        return None
    return lambda values: [
        value if spare is None else spare(value) for spare, value in zip(spares, values, strict=True)
    ]


def _values(spare: _Spare | None) -> _Spare | None:
    return None if spare is None else lambda items: {key: spare(value) for key, value in items.items()}


def _of_object(fields: list[tuple[str, bytes | None, _Spare | None]], _skip: int) -> _Spare:
    def spare(value: dict[str, Any]) -> dict[str, Any]:
        kept = dict(value)
        for name, default, inner in fields:
            if name in kept:
                if default is not None and _encoder.encode(kept[name]) == default:
                    del kept[name]
                elif inner is not None:
                    kept[name] = inner(kept[name])
        return kept

    return spare


def _of_array(fields: list[tuple[str, bytes | None, _Spare | None]], skip: int) -> _Spare:
    """`skip` is 1 where a tag comes first."""

    def spare(value: list[Any]) -> list[Any]:
        size = len(value) - skip
        while 0 < size <= len(fields) and fields[size - 1][1] == _encoder.encode(value[size - 1 + skip]):
            size -= 1
        elements = value[skip : skip + size]
        spared = [each if inner is None else inner(each) for (_, _, inner), each in zip(fields, elements, strict=False)]
        return value[:skip] + spared + elements[len(fields) :]

    return spare
