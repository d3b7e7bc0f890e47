"""The schema of a state machine: what its class declares, as data that nodes store and exchange.

A schema tells which bytes a class accepts and keeps. Types are named by what they are on the wire, so a dataclass is
what a Struct with the same fields is, and an Enum what a Literal of its values is.

Not described, and so never compared: what the code does; the names of classes (but for tags) and where they are
defined; annotations beyond msgspec's constraints; an Enum's `_missing_`; keys of a TypedDict that it does not declare;
fields that only a subclass of a declared record has; that a dataclass does not encode an `init=False` field until it is
set; the errors that a command declares. A `default_factory` is called twice: one that gives something else the second
time, or nothing that can be encoded, counts as "optional, without a constant default".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
import xxhash
from msgspec import inspect

from raftkv.config import KIB
from raftkv.errors import UNREADABLE, InvalidArgument, MachineError

NO_DEFAULT: Any = msgspec.NODEFAULT
"""Stands for the default of an argument that has none."""

DEPTH_MAX = 100
"""How deep types may be nested in each other. Whoever reads a schema of a peer does so by calling itself."""

SCHEMA_BYTES_MAX = 192 * KIB
"""Of an encoded schema: it is in every handshake, and in the state."""

_encoder = msgspec.msgpack.Encoder(order="deterministic")


class Shape(msgspec.Struct, frozen=True, array_like=True):
    """A type. `items` are the types that it is made of: members of a union, a dict's key and value, …"""

    kind: str
    items: tuple[Shape, ...] = ()
    name: str = ""
    """Of the record that stands here."""
    values: tuple[int | str, ...] = ()
    """What a literal or an Enum may be, sorted."""
    limits: tuple[tuple[str, bool | int | float | str], ...] = ()
    """The constraints of `msgspec.Meta`."""

    def __str__(self) -> str:
        """As one would write the type."""
        items = [str(item) for item in self.items]
        match self.kind:
            case "union":
                text = " | ".join(sorted(items, key=lambda item: item == "None"))
            case "literal":
                text = f"Literal[{', '.join(repr(value) for value in self.values)}]"
            case "record":
                text = self.name
            case "sequence":
                text = f"tuple[{items[0]}, ...]"
            case "list" | "tuple" | "dict":
                text = f"{self.kind}[{', '.join(items) or '()'}]"
            case _:
                text = {"none": "None", "any": "Any"}.get(self.kind, self.kind)
        return f"{text} ({', '.join(f'{name}={value!r}' for name, value in self.limits)})" if self.limits else text


class RecordField(msgspec.Struct, frozen=True, array_like=True):
    """A field of a record, by its name on the wire. It may be missing when it is not `required`."""

    name: str
    shape: Shape
    required: bool
    default: bytes | None = None
    """Encoded; None when there is none, or no constant one."""


class Record(msgspec.Struct, frozen=True, array_like=True):
    """A Struct or dataclass ("object", or "array" when it is array_like), a NamedTuple ("tuple") or a TypedDict
    ("dict")."""

    kind: str
    fields: tuple[RecordField, ...]
    tag_field: str | None = None
    tag: int | str | None = None
    omits_defaults: bool = False
    forbids_unknown: bool = False


class Argument(msgspec.Struct, frozen=True, array_like=True):
    """An argument of a command or query."""

    name: str
    shape: Shape
    default: bytes | None = None
    """Encoded; None when the argument is required."""


class MethodSchema(msgspec.Struct, frozen=True, array_like=True):
    """A command or query."""

    kind: str
    arguments: tuple[Argument, ...]
    result: Shape
    every_ms: int = 0
    """In which interval a command repeats by itself; 0: it does not."""


class PartSchema(msgspec.Struct, frozen=True, array_like=True):
    """A table, a single value, which has a default and no key, or a stream of events, which has neither."""

    kind: str
    key: Shape | None
    value: Shape
    default: bytes | None = None


class Schema(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that one version of a state machine's class declares."""

    machine: str
    version: int
    methods: dict[str, MethodSchema]
    parts: dict[str, PartSchema]
    limits: tuple[int, int, int, int]
    """Bytes of a key, of a value, of all that a command changes; timers."""
    records: dict[str, Record]
    """By the name that shapes call them. It is the class's own; where two classes share one, the second is numbered."""
    indexes: dict[str, dict[str, Shape]] = {}
    """The types of the fields that are indexed, by table. Left out when there are none, as nodes may know of none."""
    expiring: dict[str, str] = {}
    """The tables whose rows may be over at a time, with the command that runs for each such row, or "". Left out
    likewise."""
    watched: dict[str, bool] = {}
    """The tables and sets whose changes are recorded, with whether old values are kept. Left out likewise."""
    history: tuple[int, ...] = ()
    """How much of what is recorded is kept: count, bytes, seconds. Left out when nothing is."""

    def digest(self) -> str:
        """16 hex digits: the same for the same schema, on every node."""
        return xxhash.xxh3_64_hexdigest(encode_schema(self))


class MethodTypes(NamedTuple):
    """What `make_schema` must know of a command or query: `arguments` are name, type and default (or NO_DEFAULT)."""

    kind: str
    arguments: list[tuple[str, Any, Any]]
    result: Any
    every_ms: int = 0


class PartTypes(NamedTuple):
    """What `make_schema` must know of a table or value. `default` is encoded."""

    kind: str
    key: Any
    value: Any
    default: bytes | None = None


def make_schema(
    machine: str,
    version: int,
    methods: dict[str, MethodTypes],
    parts: dict[str, PartTypes],
    limits: tuple[int, int, int, int],
    indexes: dict[str, dict[str, Any]] | None = None,
    expiring: dict[str, str] | None = None,
    watched: dict[str, bool] | None = None,
    history: tuple[int, ...] = (),
) -> Schema:
    """The same for the same class on every node. Raises `MachineError` for what can't be described."""
    methods, parts = dict(sorted(methods.items())), dict(sorted(parts.items()))
    kinds: list[Any] = []
    for method in methods.values():
        kinds += [*(kind for _, kind, _ in method.arguments), method.result]
    for part in parts.values():
        kinds += [part.value] if part.key is None else [part.key, part.value]
    found, records = describe(kinds)
    shapes = iter(found)
    schema = Schema(
        machine=machine,
        version=version,
        methods={
            name: MethodSchema(
                method.kind,
                tuple(
                    Argument(argument, next(shapes), _encoded_default(default, f"{name}, argument {argument}"))
                    for argument, _, default in method.arguments
                ),
                next(shapes),
                method.every_ms,
            )
            for name, method in methods.items()
        },
        parts={
            name: PartSchema(part.kind, None if part.key is None else next(shapes), next(shapes), part.default)
            for name, part in parts.items()
        },
        limits=limits,
        records=records,
        indexes={
            name: {field: describe([kind])[0][0] for field, kind in sorted(fields.items())}
            for name, fields in sorted((indexes or {}).items())
        },
        expiring=dict(sorted((expiring or {}).items())),
        watched=dict(sorted((watched or {}).items())),
        history=history,
    )
    if (size := len(encode_schema(schema))) > SCHEMA_BYTES_MAX:
        raise MachineError(
            f"{machine}: what the class declares has {size} bytes, more than the {SCHEMA_BYTES_MAX} that nodes "
            "exchange: look for large defaults, or for a Literal or Enum with very many values"
        )
    return schema


def describe(kinds: Iterable[Any]) -> tuple[list[Shape], dict[str, Record]]:
    """The shapes of Python types, and the records in them."""
    describer = _Describer()
    shapes = [describer.shape(info) for info in inspect.multi_type_info(kinds)]
    return shapes, dict(sorted(describer.records.items()))


def _encoded_default(default: Any, where: str) -> bytes | None:
    if default is NO_DEFAULT:
        return None
    try:
        return _encoder.encode(default)
    except (TypeError, ValueError, OverflowError) as exc:
        raise MachineError(f"{where}: the default {default!r} can't be serialised: {exc}") from exc


_SCALARS: dict[type[inspect.Type], str] = {
    inspect.AnyType: "any",
    inspect.RawType: "any",
    inspect.NoneType: "none",
    inspect.BoolType: "bool",
    inspect.IntType: "int",
    inspect.FloatType: "float",
    inspect.StrType: "str",
    inspect.BytesType: "bytes",
    inspect.ByteArrayType: "bytes",
    inspect.MemoryViewType: "bytes",
    inspect.DateTimeType: "datetime",
    inspect.TimeType: "time",
    inspect.DateType: "date",
    inspect.TimeDeltaType: "timedelta",
    inspect.UUIDType: "uuid",
    inspect.DecimalType: "decimal",
    inspect.ExtType: "ext",
}
_ITEMS = {**dict.fromkeys(_SCALARS.values(), 0), "literal": 0, "record": 0, "list": 1, "sequence": 1, "dict": 2}
_LIMITS = ("gt", "ge", "lt", "le", "multiple_of", "min_length", "max_length", "pattern", "tz")
_PART_KINDS = frozenset({"table", "set", "value", "events"})
_RECORD_KINDS = frozenset({"object", "array", "tuple", "dict"})


class _Describer:
    """Translates types, and gives their records names."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self._names: dict[Any, str] = {}

    def shape(self, info: Any) -> Shape:
        if isinstance(info, inspect.Metadata):
            return self.shape(info.type)
        given = ((name, getattr(info, name, None)) for name in _LIMITS)
        limits = tuple((name, value) for name, value in given if value is not None)
        if scalar := _SCALARS.get(type(info)):
            return Shape(scalar, limits=limits)
        match info:
            case inspect.ListType():
                return Shape("list", (self.shape(info.item_type),), limits=limits)
            case inspect.VarTupleType():
                return Shape("sequence", (self.shape(info.item_type),), limits=limits)
            case inspect.TupleType():
                return Shape("tuple", tuple(self.shape(item) for item in info.item_types))
            case inspect.DictType():
                return Shape("dict", (self.shape(info.key_type), self.shape(info.value_type)), limits=limits)
            case inspect.EnumType():
                return _union([_literal(member.value for member in info.cls)])
            case inspect.LiteralType():
                none = [Shape("none")] if None in info.values else []
                values = [value for value in info.values if value is not None]
                return _union([*none, _literal(values)] if values else none)
            case inspect.UnionType():
                # In an order of our own: `int | str` may be the `str | int` that Python made before.
                return _union([self.shape(member) for member in sorted(info.types, key=_place)])
            case inspect.StructType() | inspect.DataclassType() | inspect.NamedTupleType() | inspect.TypedDictType():
                return Shape("record", name=self._record(info))
        raise MachineError(f"{type(info).__name__} has no description: use a type that is the same bytes on every node")

    def _record(self, info: Any) -> str:
        name = self._names.get(info.cls)
        if name is None:
            own = getattr(info.cls, "__origin__", info.cls).__name__
            sharing = sum(known.partition(" ")[0] == own for known in self._names.values())
            name = self._names[info.cls] = f"{own} ({sharing + 1})" if sharing else own
            self.records[name] = self._described(info)
        return name

    def _described(self, info: Any) -> Record:
        fields = tuple(self._field(field) for field in info.fields)
        if isinstance(info, inspect.StructType):
            config = getattr(info.cls, "__origin__", info.cls).__struct_config__
            kind = "array" if info.array_like else "object"
            # An array has all its elements, at their defaults or not.
            omits = bool(config.omit_defaults) and not info.array_like
            return Record(kind, fields, info.tag_field, info.tag, omits, info.forbid_unknown_fields)
        if isinstance(info, inspect.TypedDictType):
            return Record("dict", tuple(sorted(fields, key=lambda field: field.name)))
        return Record("tuple" if isinstance(info, inspect.NamedTupleType) else "object", fields)

    def _field(self, field: inspect.Field) -> RecordField:
        default = _constant(lambda: field.default)
        if field.default_factory is not NO_DEFAULT:
            default = _constant(field.default_factory)
        return RecordField(field.encode_name, self.shape(field.type), field.required, default)


def _constant(make: Callable[[], Any]) -> bytes | None:
    """The encoded default that `make` makes; None when there is none, or another one each time."""
    try:
        first, second = (_encoded_default(make(), "") for _ in range(2))
    except Exception:  # noqa: BLE001 (an application's; it may need what is not there when its class is made)
        return None
    return first if first == second else None


def _place(info: Any) -> tuple[str, str, str]:
    cls = getattr(info, "cls", None)
    return type(info).__name__, repr(getattr(info, "tag", None)), getattr(cls, "__qualname__", "")


def _literal(values: Iterable[int | str]) -> Shape:
    return Shape("literal", values=tuple(sorted(set(values), key=lambda value: (type(value).__name__, value))))


def _union(members: Iterable[Shape]) -> Shape:
    """Members in an order of their own, literals as one, and no union of one."""
    flat = [each for member in members for each in members_of(member)]
    literals = [each for each in flat if each.kind == "literal"]
    if literals:
        flat = [each for each in flat if each.kind != "literal"]
        flat.append(_literal(value for each in literals for value in each.values))
    if any(each.kind == "any" for each in flat):
        return Shape("any")
    unique = {_encoder.encode(each): each for each in flat}
    ordered = tuple(each for _, each in sorted(unique.items()))
    return ordered[0] if len(ordered) == 1 else Shape("union", ordered)


def members_of(shape: Shape) -> tuple[Shape, ...]:
    """The members of a union; what is none is its own only member."""
    return shape.items if shape.kind == "union" else (shape,)


def encode_schema(schema: Schema) -> bytes:
    """The same bytes for the same class: on every node, and in every version of Python."""
    return _encoder.encode(schema)


_decoder = msgspec.msgpack.Decoder(Schema)


def decode_schema(data: bytes) -> Schema:
    """Raises `InvalidArgument`, which says what is wrong.

    That msgspec has types of these shapes (regular expressions that can be read, unions that can be told apart) is not
    known before they are made: then that raises the same.
    """
    try:
        schema = _decoder.decode(data)
        for problem in _problems(schema):
            raise InvalidArgument(f"a schema of a state machine: {problem}")
    except UNREADABLE as exc:
        raise InvalidArgument(f"a schema of a state machine can't be read: {exc}") from exc
    return schema


def _problems(schema: Schema) -> Iterator[str]:
    check = functools.partial(_problems_of_shape, schema.records, 0)
    for name, method in schema.methods.items():
        if method.kind not in ("command", "query"):
            yield f"{name} is a {method.kind!r}"
        for argument in method.arguments:
            yield from check(argument.shape)
            yield from _problems_of_default(argument.default)
        yield from check(method.result)
    for name, part in schema.parts.items():
        if part.kind not in _PART_KINDS or (part.kind in ("table", "set")) != (part.key is not None):
            yield f"{name} is a {part.kind!r} with the key {part.key}"
        yield from check(part.value)
        if part.key is not None:
            yield from check(part.key)
        yield from _problems_of_default(part.default)
    yield from _problems_of_indexes(schema)
    yield from _problems_of_expiring(schema)
    yield from _problems_of_history(schema)
    for name, record in schema.records.items():
        if record.kind not in _RECORD_KINDS:
            yield f"{name} is a {record.kind!r}"
        if len({field.name for field in record.fields}) != len(record.fields):
            yield f"{name} has two fields of one name"
        for field in record.fields:
            yield from check(field.shape)
            yield from _problems_of_default(field.default)


def _problems_of_indexes(schema: Schema) -> Iterator[str]:
    for name, fields in schema.indexes.items():
        if name not in schema.parts or schema.parts[name].kind != "table":
            yield f"there is no table {name} to be indexed"
        for field, shape in fields.items():
            parts = shape.items if shape.kind == "tuple" else (shape,)
            if not parts or any(part.kind not in ("str", "bytes", "int") for part in parts):
                yield f"the index {name}.{field} is of the type {shape}"


def _problems_of_expiring(schema: Schema) -> Iterator[str]:
    for name, hook in schema.expiring.items():
        if name not in schema.parts or schema.parts[name].kind != "table":
            yield f"there is no table {name} whose rows may be over"
        if hook and (hook not in schema.methods or schema.methods[hook].kind != "command"):
            yield f"there is no command {hook} to run for rows of {name}"


def _problems_of_history(schema: Schema) -> Iterator[str]:
    for name in schema.watched:
        if name not in schema.parts or schema.parts[name].key is None:
            yield f"there is no table or set {name} to be watched"
    if schema.history and (len(schema.history) != 3 or min(schema.history) < 1):
        yield f"a history is kept within {schema.history}"


def _problems_of_shape(records: dict[str, Record], depth: int, shape: Shape) -> Iterator[str]:
    if depth > DEPTH_MAX:
        yield f"types are nested deeper than {DEPTH_MAX}"
        return
    if shape.kind not in _ITEMS and shape.kind not in ("union", "tuple"):
        yield f"there is no type {shape.kind!r}"
    elif shape.kind in _ITEMS and len(shape.items) != _ITEMS[shape.kind]:
        yield f"{shape.kind} has {len(shape.items)} types in it"
    if shape.kind == "union" and len(shape.items) < 2:
        yield "a union has fewer than two members"
    if shape.kind == "literal" and not shape.values:
        yield "a literal has no values"
    if shape.kind == "record" and shape.name not in records:
        yield f"there is no record {shape.name!r}"
    if unknown := {name for name, _ in shape.limits}.difference(_LIMITS):
        yield f"there are no constraints {sorted(unknown)}"
    for item in shape.items:
        yield from _problems_of_shape(records, depth + 1, item)


def _problems_of_default(default: bytes | None) -> Iterator[str]:
    if default is not None:
        try:
            msgspec.msgpack.decode(default)
        except (*UNREADABLE, TypeError) as exc:  # TypeError: a key of a dict that is none in Python
            yield f"the default {default!r} can't be read: {exc}"
