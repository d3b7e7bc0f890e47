"""Types made from a schema alone: what a node does for a class that it does not have.

Each record becomes a Struct of its own, made for one of three purposes: to *check* values as the record would, to check
them *strictly* (nothing is there that the record lacks), or to *prune* them. To prune is to leave out what the record
lacks and else to keep each byte: an int that stands where a float may stand, or a text where a datetime may, must not
become what the type says, as the class of before keeps what it was given. So what holds no record passes as it is.

A record must have been encoded from its own class. From a dict in its stead, which Python lets pass and type checkers
refuse, the old class keeps what stands in the dict, while pruning gives fields the record's order, and all of them.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import re
import uuid
from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal, Union

import msgspec
from msgspec import UNSET, Raw, UnsetType
from msgspec.msgpack import Decoder, Encoder, Ext

from raftkv.errors import InvalidArgument
from raftkv.machine.schema import Record, RecordField, Shape

_encoder = Encoder()
"""Keeps the order in which dicts were read: they are in a deterministic one already."""


def checker(shape: Shape, records: dict[str, Record], *, strict: bool = False) -> Callable[[bytes | Raw], Any]:
    """Raises what msgspec raises for bytes that are no value of this type.

    Raises `InvalidArgument` itself when msgspec has no such type.
    """
    return _decoder(_Strict(records) if strict else _Types(records), shape).decode


def typer(records: dict[str, Record]) -> Callable[[Shape], Any]:
    """Makes types of shapes, for values that are to be sent: what is left out of an array is at its default.

    That raises `InvalidArgument` when msgspec has no such type.
    """
    types = _Sent(records)

    def type_of(shape: Shape) -> Any:
        return _decoder(types, shape).type

    return type_of


def pruner(shape: Shape, records: dict[str, Record], *, unfilled: Collection[str] = ()) -> Callable[[bytes], bytes]:
    """What makes of an encoded value of a grown type what a class with `shape` would have encoded.

    Where fields are missing it puts their defaults in, but for records that are `unfilled`.
    That raises `msgspec.ValidationError` for what such a class would refuse. Raises `InvalidArgument` itself when
    msgspec has no such type.
    """
    check = checker(shape, records)
    if not holds_record(shape):
        return functools.partial(_checked, check)
    return functools.partial(_pruned, _decoder(_Pruning(records, unfilled), shape).decode, check)


def _checked(check: Callable[[bytes], Any], data: bytes) -> bytes:
    check(data)
    return data


def _pruned(prune: Callable[[bytes], Any], check: Callable[[bytes], Any], data: bytes) -> bytes:
    data = _encoder.encode(prune(data))
    check(data)
    return data


def _decoder(types: _Types, shape: Shape) -> Decoder[Any]:
    try:
        return Decoder(types.type_of(shape))
    except (TypeError, ValueError, RecursionError, re.error) as exc:
        raise InvalidArgument(f"a schema of a state machine: {shape} is no type: {exc}") from exc


_PLAIN: dict[str, Any] = {
    "any": Any,
    "none": None,
    "bool": bool,
    "int": int,
    "float": float,
    "str": str,
    "bytes": bytes,
    "datetime": datetime.datetime,
    "time": datetime.time,
    "date": datetime.date,
    "timedelta": datetime.timedelta,
    "uuid": uuid.UUID,
    "decimal": decimal.Decimal,
    "ext": Ext,
}


class _Types:
    """Python types of shapes, which refuse what the records refuse.

    Records are made once, when they are met, so that they may be within themselves.
    """

    def __init__(self, records: dict[str, Record]) -> None:
        self._records = records
        self._made: dict[str, Any] = {}

    def type_of(self, shape: Shape) -> Any:
        items = [self.type_of(item) for item in shape.items]
        match shape.kind:
            case "record":
                return self._record(shape.name)
            case "union":
                made: Any = Union[tuple(items)]  # noqa: UP007 (made of a list)
            case "literal":
                made = Literal[shape.values]
            case "list":
                made = list[items[0]]  # type: ignore[valid-type]
            case "sequence":
                made = tuple[items[0], ...]  # type: ignore[valid-type]
            case "tuple":
                made = tuple[tuple(items)] if items else tuple[()]  # type: ignore[misc]
            case "dict":
                made = dict[items[0], items[1]]  # type: ignore[valid-type]
            case plain:
                made = _PLAIN[plain]
        limits: Any = dict(shape.limits)
        return Annotated[made, msgspec.Meta(**limits)] if limits else made

    def _record(self, name: str) -> Any:
        made = self._made.get(name)
        if made is None:
            record = self._records[name]
            fields = [
                (f"field_{place}", Any, msgspec.field(name=field.name, default=self.default(record, field)))
                for place, field in enumerate(record.fields)
            ]
            made = self._made[name] = msgspec.defstruct(
                "Record",
                fields,
                array_like=record.kind in ("array", "tuple"),
                tag_field=record.tag_field,
                tag=record.tag,
                forbid_unknown_fields=self.forbids_unknown(record),
                frozen=True,  # it may be declared as a key
                kw_only=True,  # a field without a default may follow one that has one
            )
            # msgspec reads them when a decoder is made, so that now records may refer to each other.
            for place, field in enumerate(record.fields):
                made.__annotations__[f"field_{place}"] = self.field_type(record, field)
        return made

    def default(self, record: Record, field: RecordField) -> Any:
        """What stands for a field that is missing; NODEFAULT when none may be."""
        return msgspec.NODEFAULT if field.required else UNSET

    def field_type(self, record: Record, field: RecordField) -> Any:
        return self.type_of(field.shape)

    def forbids_unknown(self, record: Record) -> bool:
        return record.forbids_unknown or record.kind == "tuple"


class _Sent(_Types):
    """Has no gaps in arrays: a node would take them for None."""

    def default(self, record: Record, field: RecordField) -> Any:
        if field.default is not None and record.kind in ("array", "tuple"):
            return Raw(field.default)
        return super().default(record, field)


class _Strict(_Types):
    """Refuses more: what the records would ignore."""

    def forbids_unknown(self, record: Record) -> bool:
        return True


class _Pruning(_Types):
    """Leaves out what the records lack. It refuses what it can't read, and never because of a value that it passes."""

    def __init__(self, records: dict[str, Record], unfilled: Collection[str]) -> None:
        super().__init__(records)
        self._unfilled = {id(records[name]) for name in unfilled if name in records}

    def type_of(self, shape: Shape) -> Any:
        if not holds_record(shape):
            return Raw
        match shape.kind:
            case "union":
                return Union[tuple(each for member in shape.items for each in self._member(member))]  # noqa: UP007
            case "dict":
                # With other keys no dict is ever encoded, as msgspec has no order for them.
                return dict[str, self.type_of(shape.items[1])]  # type: ignore[misc]
        return super().type_of(msgspec.structs.replace(shape, limits=()))

    def _member(self, shape: Shape) -> tuple[Any, ...]:
        """Raw can't stand beside others, so that here are the types which keep the bytes of a member."""
        if holds_record(shape):
            return (self.type_of(shape),)
        match shape.kind:
            case "none" | "bool" | "int" | "bytes" | "ext":
                return (_PLAIN[shape.kind],)
            case "float":
                return int, float
            case "str" | "time" | "date" | "uuid":
                return (str,)
            case "datetime":
                return str, int, float, Ext
            case "decimal" | "timedelta":
                return str, int, float
            case "literal":
                return tuple({type(value) for value in shape.values})
            case "dict":
                return (dict[str, Any],)
        return (list[Any],)

    def default(self, record: Record, field: RecordField) -> Any:
        if field.default is not None and not record.omits_defaults and id(record) not in self._unfilled:
            return Raw(field.default)  # the class of now leaves out defaults, that of before did not
        return msgspec.NODEFAULT if field.required or record.kind in ("array", "tuple") else UNSET

    def field_type(self, record: Record, field: RecordField) -> Any:
        return Union[self.type_of(field.shape), UnsetType]  # noqa: UP007 (made of what is no class)

    def forbids_unknown(self, record: Record) -> bool:
        return False


def holds_record(shape: Shape) -> bool:
    """Whether a record stands anywhere in it."""
    return shape.kind == "record" or any(holds_record(item) for item in shape.items)
