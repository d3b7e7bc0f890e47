"""How deep arguments may be nested, so that what the leader could read is readable wherever it is applied.

msgspec reads nested values by calling itself, and so may go as deep as the interpreter's stack has room. That
room is not the same when a command arrives and when it is applied, in another thread, perhaps at the next start.
A command that fits the one and not the other would be in the log, and stop every node that comes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec.inspect as kinds

T = TypeVar("T")

SPARE_FRAMES = 200
"""What is kept free for whoever applies the command: some ten frames of this package, and the method's own."""


def with_less_room(call: Callable[[Any], T], argument: Any, frames: int = SPARE_FRAMES) -> T:
    """`call(argument)` with so many frames less on the stack; raises RecursionError where they would be missed."""
    return call(argument) if frames == 0 else with_less_room(call, argument, frames - 1)


def is_shallow(types: Iterable[Any]) -> bool:
    """Whether no value of these types is nested deeper than the types themselves are written.

    Any value at all may stand for `Any`, and in a field that a class does not know; classes may hold their like.
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
