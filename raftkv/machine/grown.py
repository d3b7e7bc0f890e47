"""Whether a class is the one that a schema describes, or has grown from it, and what to do when it has not.

*Grown* means: a node with the class can keep, byte for byte, what a node of the old class keeps, and read it; nothing
that the old class accepts or keeps is lost. So commands, tables, fields that are optional, members of unions and values
of literals may be added; nothing may be taken away, or become another type.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from raftkv.machine.schema import Argument, MethodSchema, PartSchema, Record, Schema, Shape, members_of
from raftkv.machine.shadows import pruner


class Difference(msgspec.Struct, frozen=True):
    """What a class must not have changed. As a string it is one sentence."""

    where: str
    was: str
    now: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: was {self.was}, is {self.now}: {self.remedy}"


def changed(kept: Schema, own: Schema) -> list[Difference]:
    """What `own`, of the same version as `kept`, has different. Queries may differ, as they leave no trace."""
    return _Comparison(kept.records, own.records, grown=False).schemas(kept, own)


def not_grown(kept: Schema, own: Schema) -> list[Difference]:
    """Why a node with `own`, of a later version than `kept`, could not take part as long as `kept` is in force.

    Raises `InvalidArgument` when a type in `kept` is none.
    """
    return _Comparison(kept.records, own.records, grown=True).schemas(kept, own)


def same_shape(kept: Shape, records: dict[str, Record], own: Shape, own_records: dict[str, Record]) -> bool:
    """Whether two types are the same bytes, accept the same, and have the same defaults."""
    comparison = _Comparison(records, own_records, grown=False)
    comparison.types("", kept, own, "")
    return not comparison.found


_RAISE = "raise the class's version, and let the old one be among those that it runs"
_TABLE = "keep its type, add another table or value, and fill it in an upgrade"
_RESULT = "keep its type, or add another command"
_ARGUMENT = "keep its type, and add another argument with a default, or another command"


def _interval(every_ms: int) -> str:
    return f"repeated every {every_ms / 1000:g} s" if every_ms else "not repeated"


def _lasting(hook: str | None) -> str:
    if hook is None:
        return "not expiring"
    return f"expiring, with {hook} for each row" if hook else "expiring"


def _watching(keeps_old: bool | None) -> str:
    if keeps_old is None:
        return "not watched"
    return "watched, with old values" if keeps_old else "watched"


class _Comparison:
    """Collects differences. Each pair of records is compared once, where it is met first."""

    def __init__(self, records: dict[str, Record], own_records: dict[str, Record], *, grown: bool) -> None:
        self.found: list[Difference] = []
        self._records, self._own_records = records, own_records
        self._grown = grown
        self._met: set[tuple[str, str]] = set()
        self._waiting: deque[tuple[str, str]] = deque()

    def schemas(self, kept: Schema, own: Schema) -> list[Difference]:
        if kept.machine != own.machine:
            self._differs("the state machine", kept.machine, own.machine, "start the node with the cluster's own class")
        if not self._grown and kept.limits != own.limits:
            self._differs("the limits (key, value, change, timers)", str(kept.limits), str(own.limits))
        self._commands(_commands(kept), _commands(own))
        self._parts(kept.parts, own.parts)
        for name in sorted(kept.parts.keys() & own.parts.keys()):
            self._indexes(name, kept.indexes.get(name, {}), own.indexes.get(name, {}))
            self._expires(name, kept.expiring.get(name), own.expiring.get(name))
            self._watched(name, kept.watched.get(name), own.watched.get(name))
        if not self._grown and kept.history != own.history:
            self._differs("the history of changes (count, bytes, seconds)", str(kept.history), str(own.history))
        return self.found

    def types(self, where: str, was: Shape, now: Shape, remedy: str) -> None:
        """Compare two types, and the records in them."""
        self._shapes(where, was, now, remedy)
        while self._waiting:
            self._record_pair(where, *self._waiting.popleft())

    def _differs(self, where: str, was: str, now: str, remedy: str = "") -> None:
        """`remedy` is for a class of a later version. One of the same may also say that it is later."""
        if not self._grown:
            remedy = f"{remedy}, or {_RAISE}" if remedy else _RAISE
        self.found.append(Difference(where, was, now, remedy))

    def _new(self, where: str, now: str, required: str = "") -> None:
        """`required` is what to do when it is."""
        if not self._grown:
            self._differs(where, "not there", now)
        elif required:
            self._differs(where, "not there", "required", required)

    def _commands(self, kept: dict[str, MethodSchema], own: dict[str, MethodSchema]) -> None:
        for name, method in kept.items():
            if name in own:
                self._arguments(f"command {name}", method.arguments, own[name].arguments)
                self.types(f"command {name}, result", method.result, own[name].result, _RESULT)
                if not self._grown and method.every_ms != own[name].every_ms:
                    self._differs(f"command {name}", _interval(method.every_ms), _interval(own[name].every_ms))
            else:
                self._differs(f"command {name}", "there", "gone", "keep it as long as clients may call it")
        for name in sorted(own.keys() - kept.keys()):
            self._new(f"command {name}", "there")

    def _arguments(self, command: str, kept: tuple[Argument, ...], own: tuple[Argument, ...]) -> None:
        places = {argument.name: place for place, argument in enumerate(own)}
        for place, argument in enumerate(kept):
            where = f"{command}, argument {argument.name}"
            at = places.get(argument.name, place)
            if at != place:
                remedy = "keep it in its place, by which the node knows it, and add others last"
                self._differs(where, f"number {place + 1}", f"number {at + 1}", remedy)
            elif place >= len(own):
                self._differs(where, str(argument.shape), "gone", "keep it, even if nothing uses it any more")
            else:
                self.types(where, argument.shape, own[place].shape, _ARGUMENT)
                self._defaults(where, argument.shape, argument.default, own[place].default)
        for argument in own[len(kept) :]:
            required = "" if argument.default is not None else "give it a default: clients of before don't send it"
            self._new(f"{command}, argument {argument.name}", str(argument.shape), required)

    def _defaults(self, where: str, shape: Shape, was: bytes | None, now: bytes | None) -> None:
        if was != now and was != self._narrowed(shape, now):
            self._differs(where, _told(was), _told(now), "keep its default: it stands for what was left out")

    def _narrowed(self, shape: Shape, default: bytes | None) -> bytes | None:
        """What the old class would have encoded: there may be a record in a default, and it may have grown."""
        try:
            return None if default is None else pruner(shape, self._records)(default)
        except msgspec.ValidationError:
            return default

    def _parts(self, kept: dict[str, PartSchema], own: dict[str, PartSchema]) -> None:
        for name, part in kept.items():
            where, mine = f"{part.kind} {name}", own.get(name)
            if mine is None:
                self._differs(where, "there", "gone", "keep it in the class; an upgrade may empty it")
            elif mine.kind != part.kind:
                self._differs(where, f"a {part.kind}", f"a {mine.kind}", "give the new one another name")
            else:
                if part.key is not None and mine.key is not None:
                    self._keys(f"{where}, key", part.key, mine.key)
                self.types(where, part.value, mine.value, _TABLE)
                self._defaults(where, part.value, part.default, mine.default)
        for name in sorted(own.keys() - kept.keys()):
            self._new(f"{own[name].kind} {name}", "there")

    def _indexes(self, table: str, kept: dict[str, Shape], own: dict[str, Shape]) -> None:
        """A later version may have others: they are built, or deleted, when it becomes active."""
        for field in sorted(kept.keys() | own.keys()):
            was, now = (str(shapes[field]) if field in shapes else "not there" for shapes in (kept, own))
            if was != now and not (self._grown and "not there" in (was, now)):
                self._differs(f"table {table}, index {field}", was, now, "keep its type, or index another field")

    def _expires(self, table: str, was: str | None, now: str | None) -> None:
        """Rows of a later version may begin to be over, and another command may run for them then."""
        if was != now and not (self._grown and now is not None):
            self._differs(f"table {table}", _lasting(was), _lasting(now), "keep `expires=True`; rows may still stay")

    def _watched(self, table: str, was: bool | None, now: bool | None) -> None:
        """In a later version it may begin, or end, and be with old values or without."""
        if was != now and not self._grown:
            self._differs(f"table {table}", _watching(was), _watching(now))

    def _keys(self, where: str, was: Shape, now: Shape) -> None:
        """Keys can't be narrowed, as two of them might become one: they are the same or different."""
        if not same_shape(was, self._records, now, self._own_records):
            self._differs(where, str(was), str(now), "keep the type of keys, or add what has others under another name")

    def _shapes(self, where: str, was: Shape, now: Shape, remedy: str) -> None:
        own = {_category(each, self._own_records): each for each in members_of(now)}
        pairs = [(each, own.pop(_category(each, self._records), None)) for each in members_of(was)]
        said = _written(was, self._records), _written(now, self._own_records)
        if (own and not self._grown) or any(new is None for _, new in pairs):
            self._differs(where, *said, remedy)
            return
        if any(_reads(old, new) for old, _ in pairs for new in own.values()):
            self._differs(where, *said, remedy)
            return
        for old, new in pairs:
            assert new is not None
            if not self._alike(old, new):
                self._differs(where, *said, remedy)
            elif old.kind == "record":
                if (old.name, new.name) not in self._met:
                    self._met.add((old.name, new.name))
                    self._waiting.append((old.name, new.name))
            elif old.kind == "dict":
                self._keys(f"{where}, key", old.items[0], new.items[0])
                self._shapes(where, old.items[1], new.items[1], remedy)
            else:
                for before, after in zip(old.items, new.items, strict=True):
                    self._shapes(where, before, after, remedy)

    def _alike(self, was: Shape, now: Shape) -> bool:
        """Whether two types of one category are the same but for what they are made of."""
        old, new = ({(type(value), value) for value in shape.values} for shape in (was, now))
        return (
            was.limits == now.limits
            and len(was.items) == len(now.items)
            and (old <= new if self._grown else old == new)
        )

    def _record_pair(self, root: str, was: str, now: str) -> None:
        old, new = self._records[was], self._own_records[now]
        self._settings(f"{root}, {now}", old, new)
        own = {field.name: (place, field) for place, field in enumerate(new.fields)}
        # Fields of objects are told by their names, but what a class stores has them in its order.
        ordered = old.kind in ("array", "tuple") or not self._grown
        for place, field in enumerate(old.fields):
            where = f"{root}, field {now}.{field.name}"
            if field.name not in own:
                self._differs(where, str(field.shape), "gone", "keep it, even if nothing uses it any more")
                continue
            at, mine = own.pop(field.name)
            if ordered and at != place:
                remedy = "keep fields in their order, and add others last"
                self._differs(where, f"number {place + 1}", f"number {at + 1}", remedy)
            if mine.required != field.required:
                said = {True: "required", False: "optional"}
                self._differs(where, said[field.required], said[mine.required], f"keep it {said[field.required]}")
            else:
                self._defaults(where, field.shape, field.default, mine.default)
            remedy = "keep it as it is, add a field of another name with a default, and fill it in an upgrade"
            self._shapes(where, field.shape, mine.shape, remedy.replace("it", field.name, 1))
        for _, field in own.values():
            required = "give it a default: what was kept before does not have it" if field.required else ""
            self._new(f"{root}, field {now}.{field.name}", str(field.shape), required)

    def _settings(self, where: str, was: Record, now: Record) -> None:
        # What is left out now can be put in for an old class. The reverse is not known: msgspec leaves out what *is*
        # the default, and not what equals it, so nobody can tell what an old class would have left out.
        if was.omits_defaults != now.omits_defaults and (was.omits_defaults or not self._grown):
            before, after = f"omit_defaults={was.omits_defaults}", f"omit_defaults={now.omits_defaults}"
            self._differs(where, before, after, "keep that setting")
        if was.forbids_unknown != now.forbids_unknown:
            before, after = (
                f"forbid_unknown_fields={was.forbids_unknown}",
                f"forbid_unknown_fields={now.forbids_unknown}",
            )
            self._differs(where, before, after, "keep that setting")


def _reads(old: Shape, new: Shape) -> bool:
    """Whether a new member of a union reads values which the old one has read as its own until then: an int, which may
    stand where a float may."""
    whole = new.kind == "int" or (new.kind == "literal" and any(type(value) is int for value in new.values))
    match old.kind:
        case "float":
            return whole
        case "decimal":
            return whole or new.kind == "float"
        case "ext":
            return new.kind == "datetime"
    return False


def _commands(schema: Schema) -> dict[str, MethodSchema]:
    return {name: method for name, method in schema.methods.items() if method.kind == "command"}


def _category(shape: Shape, records: dict[str, Record]) -> tuple[Any, ...]:
    """What tells a member of a union from the others: at most one of each can be in one."""
    if shape.kind != "record":
        return (shape.kind,)
    record = records[shape.name]
    return "record", record.kind, record.tag_field, type(record.tag), record.tag


def _written(shape: Shape, records: dict[str, Record]) -> str:
    """A type with what tells its records from others of the same name."""
    if shape.kind == "union":
        return " | ".join(_written(member, records) for member in shape.items)
    record = records.get(shape.name)
    if record is None:
        return str(shape)
    notes = {"array": ["array_like"], "tuple": ["a NamedTuple"], "dict": ["a TypedDict"]}.get(record.kind, [])
    if record.tag is not None:
        notes = [*notes, f"{record.tag_field}={record.tag!r}"]
    return f"{shape} ({', '.join(notes)})" if notes else str(shape)


def _told(default: bytes | None) -> str:
    return "without a default" if default is None else f"with the default {msgspec.msgpack.decode(default)!r}"
