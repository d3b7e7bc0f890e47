"""Schemas: what they describe, that they are the same everywhere, and what is no schema."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import itertools
import os
import subprocess
import sys
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypedDict, TypeVar

import msgspec
import pytest

from raftkv.errors import InvalidArgument, MachineError
from raftkv.machine.schema import (
    NO_DEFAULT,
    MethodTypes,
    PartTypes,
    Record,
    Shape,
    decode_schema,
    describe,
    encode_schema,
    make_schema,
)

LIMITS = (1, 2, 3, 4)
T = TypeVar("T")


class Colour(enum.Enum):
    """By value."""

    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct):
    """With all that a field can have."""

    name: str
    count: int = 3
    parts: list[str] = []
    extra: dict[str, int] = msgspec.field(default_factory=lambda: {"a": 1}, name="more")
    made: int = msgspec.field(default_factory=itertools.count(1).__next__)


class Tree(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """In itself."""

    left: Optional[Tree] = None  # noqa: UP045 (as the string is evaluated)
    value: int = 0


class Box(msgspec.Struct, Generic[T], array_like=True, tag="box"):
    """Of any type."""

    content: T


@dataclasses.dataclass
class Plain:
    """A dataclass."""

    a: int
    b: list[int] = dataclasses.field(default_factory=list)


class Pair(NamedTuple):
    """An array with a default."""

    a: int
    b: str = "b"


class Loose(TypedDict):
    """Keys that need not be there."""

    z: int
    a: NotRequired[str]


def schema_of(kind: Any, **others: Any):
    """The schema of a class with a table of such values."""
    return make_schema("M", 1, {}, {"t": PartTypes("table", str, kind), **others}, LIMITS)


EXAMPLES = [
    (int, "int"),
    (Any, "Any"),
    (msgspec.Raw, "Any"),
    (Any | None, "Any"),
    (bytes, "bytes"),
    (bytearray, "bytes"),
    (decimal.Decimal, "decimal"),
    (uuid.UUID, "uuid"),
    (datetime.datetime, "datetime"),
    (datetime.date, "date"),
    (datetime.timedelta, "timedelta"),
    (Annotated[datetime.datetime, msgspec.Meta(tz=True)], "datetime (tz=True)"),
    (Annotated[int, msgspec.Meta(ge=1, lt=9)], "int (ge=1, lt=9)"),
    (Annotated[str, msgspec.Meta(pattern="a+", description="told to people only")], "str (pattern='a+')"),
    (str | None, "str | None"),
    (None | str, "str | None"),
    (int | list[str] | None, "int | list[str] | None"),
    (Literal["b", "a"], "Literal['a', 'b']"),
    (Literal["a", None, 2], "Literal[2, 'a'] | None"),
    (Colour, "Literal['blue', 'red']"),
    (list[int], "list[int]"),
    (tuple[int, ...], "tuple[int, ...]"),
    (tuple[int, str], "tuple[int, str]"),
    (tuple[()], "tuple[()]"),
    (dict[str, list[Item]], "dict[str, list[Item]]"),
]


@pytest.mark.parametrize(("kind", "told"), EXAMPLES, ids=[told for _, told in EXAMPLES])
def test_a_type_is_described_by_what_it_is_on_the_wire(kind, told):
    """Aliases, Enums, and the order of a union are not what counts."""
    (shape,), _ = describe([kind])
    assert str(shape) == told
    schema = schema_of(kind)
    assert decode_schema(encode_schema(schema)) == schema


def test_a_record_is_described_with_its_fields():
    """Names on the wire, encoded defaults, also those that are made; but none that is another one each time."""
    _, records = describe([Item])
    told = {field.name: (str(field.shape), field.required, field.default) for field in records["Item"].fields}
    assert told == {
        "name": ("str", True, None),
        "count": ("int", False, msgspec.msgpack.encode(3)),
        "parts": ("list[str]", False, msgspec.msgpack.encode([])),
        "more": ("dict[str, int]", False, msgspec.msgpack.encode({"a": 1})),
        "made": ("int", False, None),
    }


def test_every_kind_of_record_has_its_settings():
    """What is an array, what has a tag, what is left out and what is refused."""
    _, records = describe([Tree, Box[int], Plain, Pair, Loose])
    kinds = {name: (r.kind, r.tag_field, r.tag, r.omits_defaults, r.forbids_unknown) for name, r in records.items()}
    assert kinds == {
        "Tree": ("object", None, None, True, True),
        "Box": ("array", "type", "box", False, False),
        "Plain": ("object", None, None, False, False),
        "Pair": ("tuple", None, None, False, False),
        "Loose": ("dict", None, None, False, False),
    }
    assert records["Tree"].fields[0].shape == Shape("union", (Shape("none"), Shape("record", name="Tree")))
    assert [field.name for field in records["Loose"].fields] == ["a", "z"]


def test_two_records_of_one_name_are_told_apart():
    """The second gets a number; one that is met again does not."""
    other = msgspec.defstruct("Item", [("a", int)])
    shapes, records = describe([Item, other, Item, Box[int], Box[str]])
    assert [str(shape) for shape in shapes] == ["Item", "Item (2)", "Item", "Box", "Box (2)"]
    assert len(records["Item (2)"].fields) == 1
    assert str(records["Box (2)"].fields[0].shape) == "str"


def test_the_numbers_of_records_do_not_follow_the_order_of_a_union():
    """Python makes one union of two that differ in their order: which one, is a matter of chance."""
    one, two = (msgspec.defstruct("Item", [(name, int)], tag=name) for name in "ab")
    assert encode_schema(schema_of(one | two)) == encode_schema(schema_of(two | one))


def test_a_schema_is_the_same_however_a_class_is_written_down():
    """The order of declarations does not count, and that of a union does not either."""
    method = MethodTypes("command", [("a", Item, NO_DEFAULT), ("b", int | None, None)], None)
    parts = {"t": PartTypes("table", str, int | str), "v": PartTypes("value", None, int, b"\0")}
    one = make_schema("M", 1, {"x": method, "y": method}, parts, LIMITS)
    parts = {"v": PartTypes("value", None, int, b"\0"), "t": PartTypes("table", str, str | int)}
    two = make_schema("M", 1, {"y": method, "x": method}, parts, LIMITS)
    assert encode_schema(one) == encode_schema(two)
    assert one.digest() == two.digest()
    assert len(one.digest()) == 16
    assert one.methods["x"].arguments[1].default == msgspec.msgpack.encode(None)
    assert one.methods["x"].arguments[0].default is None


def test_a_schema_is_the_same_in_every_process():
    """Hashes of strings differ from process to process, and nothing here follows them."""
    code = (
        "from tests.machine.test_schema import *; "
        "print(schema_of(Item, u=PartTypes('value', None, Tree | list[Box[int]] | int | Colour, b'')).digest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_what_has_no_description_is_a_mistake_of_the_class():
    """Types that are not the same bytes everywhere, and defaults that are none."""
    with pytest.raises(MachineError, match="SetType has no description"):
        describe([set[int]])
    with pytest.raises(MachineError, match="argument a: the default <object"):
        make_schema("M", 1, {"x": MethodTypes("command", [("a", Any, object())], None)}, {}, LIMITS)


def test_a_default_that_can_not_be_made_yet_is_none():
    """It may need what is not there when the class is made, and no class is refused for it."""
    broken = defstruct_with(lambda: 1 / 0)
    unordered = defstruct_with(lambda: {1: 2})
    _, records = describe([broken, unordered])
    assert [record.fields[0].default for record in records.values()] == [None, None]
    assert not any(record.fields[0].required for record in records.values())


def defstruct_with(factory: Any) -> Any:
    """A record with a field whose default `factory` makes."""
    return msgspec.defstruct("Made", [("a", Any, msgspec.field(default_factory=factory))])


def broken(**changes: Any) -> bytes:
    """A schema of a table of records, with one thing that is wrong."""
    return encode_schema(msgspec.structs.replace(schema_of(Item), **changes))


def table(value: Shape, key: Shape | None = Shape("str"), kind: str = "table", default: bytes | None = None):
    """Parts with a table of such values."""
    part = schema_of(int).parts["t"]
    return {"t": msgspec.structs.replace(part, kind=kind, key=key, value=value, default=default)}


def nested(depth: int) -> Shape:
    """Lists in lists."""
    shape = Shape("int")
    for _ in range(depth):
        shape = Shape("list", (shape,))
    return shape


FIELD = schema_of(Item).records["Item"].fields[0]
BROKEN = [
    (b"", "can't be read"),
    (b"\x80", "missing required field"),
    (b"\x91" * 5000, "can't be read"),
    (broken(parts=table(Shape("strange"))), "no type 'strange'"),
    (broken(parts=table(Shape("list"))), "list has 0 types"),
    (broken(parts=table(Shape("union"))), "fewer than two"),
    (broken(parts=table(Shape("literal"))), "no values"),
    (broken(parts=table(Shape("record", name="Other"))), "no record 'Other'"),
    (broken(parts=table(Shape("int", limits=(("odd", True),)))), "no constraints"),
    (broken(parts=table(Shape("int"), key=None)), "with the key None"),
    (broken(parts=table(Shape("int"), kind="value")), "with the key str"),
    (broken(parts=table(Shape("int"), kind="bag")), "t is a 'bag'"),
    (broken(parts=table(Shape("int"), key=Shape("strange"))), "no type 'strange'"),
    (broken(parts=table(Shape("int"), None, "value", b"\xc1")), "the default"),
    (broken(parts=table(Shape("int"), None, "value", b"\xa1\xff")), "the default"),
    (broken(parts=table(nested(120))), "nested deeper than 100"),
    (broken(records={"Item": Record("heap", ())}), "Item is a 'heap'"),
    (broken(records={"Item": Record("object", (FIELD, FIELD))}), "two fields of one name"),
    (broken(records={"Item": Record("object", (msgspec.structs.replace(FIELD, default=b""),))}), "the default"),
    (broken(records={"Item": Record("object", (msgspec.structs.replace(FIELD, shape=Shape("x")),))}), "no type 'x'"),
]


@pytest.mark.parametrize(("data", "problem"), BROKEN, ids=[problem for _, problem in BROKEN])
def test_what_is_no_schema_is_refused_by_name(data, problem):
    """Peers send them, so whatever they send raises one error, that says what is wrong."""
    with pytest.raises(InvalidArgument, match=problem):
        decode_schema(data)


def test_a_schema_with_broken_methods_is_refused():
    """Kinds, arguments and results are looked at, too."""
    good = make_schema("M", 1, {"x": MethodTypes("command", [("a", int, 1)], int)}, {}, LIMITS)
    method = good.methods["x"]
    argument = method.arguments[0]
    for changes, problem in (
        ({"kind": "wish"}, "x is a 'wish'"),
        ({"result": Shape("x")}, "no type 'x'"),
        ({"arguments": (msgspec.structs.replace(argument, shape=Shape("y")),)}, "no type 'y'"),
        ({"arguments": (msgspec.structs.replace(argument, default=b"\xc1"),)}, "the default"),
    ):
        bad = msgspec.structs.replace(good, methods={"x": msgspec.structs.replace(method, **changes)})
        with pytest.raises(InvalidArgument, match=problem):
            decode_schema(encode_schema(bad))
