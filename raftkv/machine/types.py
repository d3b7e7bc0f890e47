"""Which types may stand in tables, arguments and results: those that are the same bytes on every node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import inspect

from raftkv.errors import MachineError

PLAIN = (bool, int, float, str, bytes)
"""Types whose values need no other check than that they are of just this type."""


def check_type(kind: Any, where: str) -> None:
    """Raises `MachineError`, beginning with `where`, when values of `kind` can't be the same bytes everywhere."""
    try:
        info = inspect.type_info(kind)
        msgspec.msgpack.Decoder(kind)
    except (TypeError, NameError) as exc:
        raise MachineError(f"{where}: {kind!r} can't be serialised: {exc}") from exc
    for part in _parts(info, set()):
        if isinstance(part, inspect.CustomType):
            raise MachineError(
                f"{where}: {part.cls.__name__} can't be serialised: use a msgspec.Struct or a dataclass instead"
            )
        if isinstance(part, (inspect.SetType, inspect.FrozenSetType)):
            raise MachineError(
                f"{where}: a set's order differs between nodes, and so would what is made of it: use a list or a dict"
            )
        if isinstance(part, inspect.DictType) and not _has_order(part.key_type):
            keys = type(part.key_type).__name__.removesuffix("Type").lower()
            raise MachineError(
                f"{where}: a dict with keys of {keys} has no order that is the same on every node: make its keys str, "
                "or use a list of pairs, or a table"
            )


def _has_order(key: Any) -> bool:
    """Whether dicts with such keys are written in an order of their own: msgspec does that for those of str."""
    match key:
        case inspect.Metadata():
            return _has_order(key.type)
        case inspect.AnyType() | inspect.StrType():
            return True
        case inspect.LiteralType():
            return all(isinstance(value, str) for value in key.values)
        case inspect.EnumType():
            return issubclass(key.cls, str)
        case inspect.UnionType():
            return all(map(_has_order, key.types))
    return False


def is_mutable(kind: Any) -> bool:
    """Whether a value of this type, once read, could be changed in place."""
    return any(_can_change(part) for part in _parts(inspect.type_info(kind), set()))


def _can_change(info: Any) -> bool:
    match info:
        case inspect.StructType():
            return not getattr(info.cls, "__origin__", info.cls).__struct_config__.frozen
        case inspect.DataclassType():
            made: Any = getattr(info.cls, "__origin__", info.cls)
            return not made.__dataclass_params__.frozen
        case inspect.ListType() | inspect.DictType() | inspect.TypedDictType() | inspect.AnyType():
            return True
    return isinstance(info, inspect.ByteArrayType)


def _parts(info: Any, seen: set[int]) -> Iterator[Any]:
    """`info` and every type in it."""
    if id(info) in seen:
        return
    seen.add(id(info))
    yield info
    for name in getattr(info, "__struct_fields__", ()):
        value = getattr(info, name)
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, inspect.Type):
                yield from _parts(each, seen)
            elif isinstance(each, inspect.Field):
                yield from _parts(each.type, seen)
