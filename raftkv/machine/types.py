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
