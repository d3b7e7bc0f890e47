"""How deep arguments may be nested, so that every node that applies a command can read what the leader could read.

msgspec reads nested values by calling itself, and so can go only as deep as the interpreter's stack has room. There
may be less room when a command is applied, in another thread and perhaps at the next start, than when it arrived.
A command that can be read then but not applied would be in the log, and stop every node that comes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec.inspect as kinds

T = TypeVar("T")

SPARE_FRAMES = 200
"""Stack frames that are kept free for applying the command: some ten of this package, and the method's own."""


def with_less_room(call: Callable[[Any], T], argument: Any, frames: int = SPARE_FRAMES) -> T:
    """`call(argument)` with so many stack frames less to use; raises RecursionError when it needs one of them."""
    return call(argument) if frames == 0 else with_less_room(call, argument, frames - 1)


def is_shallow(types: Iterable[Any]) -> bool:
    """Whether no value of these types is nested deeper than the types themselves are written.

    Values for `Any` may be nested without limit, and so may fields that a class does not know, and classes that hold
    their own kind.
    """
    return all(_is_shallow(kind) for kind in kinds.multi_type_info(types))


_PLAIN = (
    kinds.NoneType,
    kinds.BoolType,
    kinds.IntType,
    kinds.FloatType,
    kinds.StrType,
    kinds.BytesType,
    kinds.ByteArrayType,
    kinds.DateTimeType,
    kinds.DateType,
    kinds.TimeType,
    kinds.TimeDeltaType,
    kinds.UUIDType,
    kinds.DecimalType,
    kinds.EnumType,
    kinds.LiteralType,
)


def _is_shallow(kind: kinds.Type) -> bool:
    if isinstance(kind, _PLAIN):
        return True
    if isinstance(kind, kinds.ListType | kinds.SetType | kinds.FrozenSetType | kinds.VarTupleType):
        return _is_shallow(kind.item_type)
    if isinstance(kind, kinds.TupleType):
        return all(_is_shallow(item) for item in kind.item_types)
    if isinstance(kind, kinds.DictType):
        return _is_shallow(kind.key_type) and _is_shallow(kind.value_type)
    return isinstance(kind, kinds.UnionType) and all(_is_shallow(one) for one in kind.types)
