"""Where two effects of one call differ: the innermost field, with both values."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from raftkv.errors import StateCorruption
from raftkv.machine import Events, StateMachine, Value
from raftkv.state import COUNTS_KEY, HISTORY_PREFIX, TIMER_PREFIX, VERSION_KEY
from raftkv.testing.trying.replica import Effect


def difference(machine: type[StateMachine], one: Effect, other: Effect) -> tuple[str, str, str]:
    """The place in which two effects of one call differ, and the two values there."""
    for place in [*one.changes, *other.changes]:
        here, there = one.changes.get(place, b""), other.changes.get(place, b"")
        if here != there:
            return _differing(_place(machine, place), _value(machine, place, here), _value(machine, place, there))
    if one.failed != other.failed:
        return "the error that stops a node", str(one.failed), str(other.failed)
    if one.rejected != other.rejected or one.result is None or other.result is None:
        return "the outcome", _outcome(one), _outcome(other)
    return _narrowed("the result", msgspec.msgpack.decode(one.result), msgspec.msgpack.decode(other.result))


def told(machine: type[StateMachine], name: str, effect: Effect) -> list[str]:
    """What a call came to, in lines: its answer, and what it has changed."""
    if effect.failed is not None:
        return [f"stops every node: {effect.failed}"]
    if effect.rejected is not None:
        lines = [f"raises {': '.join(effect.rejected)}"]
    elif effect.result is not None and name in machine.methods:
        lines = [f"gives {machine.methods[name].decode_result(effect.result)!r}"]
    else:
        lines = []  # an entry without a call
    for place, data in effect.changes.items():
        if place == VERSION_KEY:
            continue  # nobody could read it
        value = _value(machine, place, data)
        text, value = _place(machine, place), value.read if isinstance(value, _Kept) else value
        lines.append(text if place.startswith(TIMER_PREFIX) else f"{text} = {value!r}")
    return list(dict.fromkeys(lines))


def state_difference(
    machine: type[StateMachine], one: dict[bytes, bytes], other: dict[bytes, bytes]
) -> tuple[str, str, str] | None:
    """The first place in which the tables and values of two states differ, and the two values there; None if none
    does."""
    for place in sorted((one.keys() | other.keys()) - {COUNTS_KEY}):
        here, there = one.get(place), other.get(place)
        if here != there:
            return _differing(_place(machine, place), _there(machine, place, here), _there(machine, place, there))
    return None


def _there(machine: type[StateMachine], place: bytes, data: bytes | None) -> Any:
    return _Nothing("not there") if data is None else _value(machine, place, data)


def _outcome(effect: Effect) -> str:
    if effect.rejected is not None:
        return ": ".join(effect.rejected)
    return "a result"


class _Nothing:
    """Stands for a value that is missing on one side."""

    def __init__(self, word: str) -> None:
        self._word = word

    def __repr__(self) -> str:
        return self._word


def _place(machine: type[StateMachine], place: bytes) -> str:
    """`stock['apple']`."""
    if place == VERSION_KEY:
        return "the record of the active version"
    if place.startswith(TIMER_PREFIX):
        return "what is scheduled"
    if place.startswith(HISTORY_PREFIX):
        return "the history of changes"
    for name, part in machine.parts.items():
        if isinstance(part, Events):
            continue  # they are in the history only
        if isinstance(part, Value):
            if place == part.prefix:
                return name
        elif place.startswith(part.prefix[:-1] + b"\2"):
            return f"the index {name}.{place[len(part.prefix) :].split(bytes(1))[0].decode()} at {place!r}"
        elif place.startswith(part.prefix):
            return f"{name}[{part.keys.decode(place[len(part.prefix) :])!r}]"
    return repr(place)


class _Kept(msgspec.Struct):
    """A value as the class reads it, and as it is kept."""

    read: Any
    raw: Any


def _value(machine: type[StateMachine], place: bytes, data: bytes | None) -> Any:
    if not data:
        return _Nothing("deleted" if data is None else "unchanged")
    for name, part in machine.parts.items():
        codec = part._codec if isinstance(part, Value) else part.values
        if place == part.prefix if isinstance(part, Value) else place.startswith(part.prefix):
            raw = msgspec.msgpack.decode(data)
            try:
                return _Kept(codec.decode(data, name), raw)
            except StateCorruption:
                return _Kept(raw, raw)
    return data


def _differing(place: str, one: Any, other: Any) -> tuple[str, str, str]:
    """As `_narrowed`, for what is kept; a class may read alike what is kept otherwise."""
    if isinstance(one, _Kept) and isinstance(other, _Kept):
        if one.read == other.read:
            return _narrowed(place, one.raw, other.raw, one.read)
        one, other = one.read, other.read
    one, other = (each.read if isinstance(each, _Kept) else each for each in (one, other))
    return _narrowed(place, one, other)


def _narrowed(place: str, one: Any, other: Any, read: Any = None) -> tuple[str, str, str]:
    """The innermost place that differs: `orders['o1'].taken_at`.

    `read` is how a class reads both: it knows the names of fields.
    """
    if type(one) is type(other):
        for step, here, there, inner in _parts(one, other, read):
            if here is _MISSING or there is _MISSING or here != there:
                here, there = (_Nothing("not there") if each is _MISSING else each for each in (here, there))
                return _narrowed(place + step, here, there, inner)
    return place, repr(one), repr(other)


_MISSING: Any = object()


def _parts(one: Any, other: Any, read: Any) -> list[tuple[str, Any, Any, Any]]:
    """The parts of two values, in pairs, with how they are read; empty if the two don't have the same parts."""
    fields = _fields(one)
    if fields:
        return [(f".{field}", getattr(one, field), getattr(other, field), None) for field in fields]
    named = dict(zip(getattr(read, "__struct_encode_fields__", _fields(read)), _fields(read), strict=True))
    if isinstance(one, dict):
        keys = list(one) + [key for key in other if key not in one]
        if len(keys) == len(one) == len(other) and list(one) != list(other):
            return []  # they differ in their order only
        return [
            _part(f"[{key!r}]", named.get(key), one.get(key, _MISSING), other.get(key, _MISSING), read) for key in keys
        ]
    if isinstance(one, list | tuple) and (len(one) == len(other) or named):
        names = [*named.values()]
        count = max(len(one), len(other))
        pairs = itertools.zip_longest(one, other, fillvalue=_MISSING)
        tagged = 1 if named and read.__struct_config__.tag is not None else 0
        return [
            _part(f"[{at}]", names[at - tagged] if 0 <= at - tagged < len(names) else None, here, there, read)
            for at, (here, there) in zip(range(count), pairs, strict=True)
        ]
    return []


def _part(step: str, field: str | None, one: Any, other: Any, read: Any) -> tuple[str, Any, Any, Any]:
    if field is not None:
        return f".{field}", one, other, getattr(read, field)
    return step, one, other, None


def _fields(value: Any) -> list[str]:
    return list(getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None) or ())
