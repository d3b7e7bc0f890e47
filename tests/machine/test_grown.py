"""Comparing a class with a schema: each rule, on pairs of an old and a new class."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, TypedDict

import msgspec
import pytest
from msgspec import Meta, defstruct, field
from msgspec.msgpack import Ext

from raftkv.machine.grown import changed, not_grown
from raftkv.machine.schema import (
    NO_DEFAULT,
    MethodTypes,
    PartSchema,
    PartTypes,
    Record,
    RecordField,
    Schema,
    Shape,
    make_schema,
)

LIMITS = (1, 2, 3, 4)


def machine(
    *, name: str = "M", limits: tuple[int, int, int, int] = LIMITS, **declared: MethodTypes | PartTypes
) -> Schema:
    """The schema of a class that declares so much."""
    methods = {key: each for key, each in declared.items() if isinstance(each, MethodTypes)}
    parts = {key: each for key, each in declared.items() if isinstance(each, PartTypes)}
    return make_schema(name, 1, methods, parts, limits)


def keeping(kind: Any) -> Schema:
    """The schema of a class with a table of such values."""
    return machine(items=PartTypes("table", str, kind))


def command(*arguments: tuple[str, Any, Any], result: Any = None) -> MethodTypes:
    """A command with these arguments."""
    return MethodTypes("command", list(arguments), result)


def single(kind: Any, default: bytes) -> Schema:
    """The schema of a class with a single value."""
    return machine(v=PartTypes("value", None, kind, default))


def taking(kind: Any, default: Any = NO_DEFAULT) -> Schema:
    """The schema of a class with a command that has one argument."""
    return machine(c=command(("a", kind, default)))


def record(*fields: Any, **settings: Any) -> Any:
    """A Struct called Item."""
    return defstruct("Item", fields, **settings)


A, B, C = ("a", int), ("b", str, ""), ("c", int, 0)


def named_tuple(*fields: Any) -> Any:
    """A NamedTuple called Item, with a default for the second field on."""
    made: Any = NamedTuple("Item", [(name, kind) for name, kind, *_ in fields])
    made.__new__.__defaults__ = tuple(default for _, _, *rest in fields for default in rest)
    made._field_defaults = {name: default for name, _, *rest in fields for default in rest}
    return made


class Old(TypedDict):
    """One key."""

    a: int


class Optionally(TypedDict):
    """Another, that need not be there."""

    a: int
    b: NotRequired[str]


class Demanding(TypedDict):
    """Another, that must be there."""

    a: int
    b: str


class Two(enum.Enum):
    """Two values."""

    A = "a"
    B = "b"


class In(msgspec.Struct, frozen=True):
    """In another record."""

    a: int = 0


class InGrown(msgspec.Struct, frozen=True):
    """In another record, with more."""

    a: int = 0
    b: str = ""


class Node(msgspec.Struct):
    """In itself."""

    below: Optional[Node] = None  # noqa: UP045 (the string is evaluated)


class NodeGrown(msgspec.Struct):
    """In itself, with more."""

    below: Optional[NodeGrown] = None  # noqa: UP045 (the string is evaluated)
    colour: str = "red"


class NodeChanged(msgspec.Struct):
    """In itself, with another default."""

    below: Optional[NodeChanged] = None  # noqa: UP045 (the string is evaluated)
    colour: int = 3


@dataclasses.dataclass
class Plain:
    """The same as `record(A, B)`."""

    a: int
    b: str = ""


CAT, DOG = defstruct("Cat", [A], tag=True), defstruct("Dog", [A], tag=True)

SAME = [
    ("a table", keeping(int), keeping(int)),
    ("a dataclass for a Struct", keeping(record(A, B)), keeping(Plain)),
    ("an Enum for a Literal", keeping(Literal["b", "a"]), keeping(Two)),
    ("the order of a union", keeping(int | str | None), keeping(None | str | int)),
    ("another name of a record", keeping(record(A, B)), keeping(defstruct("Thing", [A, B]))),
    ("another name of a field, not on the wire", keeping(record(A)), keeping(record(("x", int, field(name="a"))))),
    (
        "a default that is made",
        keeping(record(("a", list, []))),
        keeping(record(("a", list, field(default_factory=list)))),
    ),
    ("records in themselves", keeping(Node), keeping(Node)),
    ("another query", machine(q=MethodTypes("query", [], int)), machine(r=MethodTypes("query", [], str))),
    ("a changed query", machine(q=MethodTypes("query", [], int)), machine(q=MethodTypes("query", [], str))),
    ("another name of an argument", taking(int, 1), machine(c=command(("b", int, 1)))),
]

GROWN = [
    ("a new table", keeping(int), machine(items=PartTypes("table", str, int), new=PartTypes("table", str, str))),
    ("a new value", machine(), machine(new=PartTypes("value", None, int, b"\0"))),
    ("a new command", machine(), taking(int)),
    ("a query that is a command now", machine(c=MethodTypes("query", [], int)), machine(c=command(result=int))),
    ("other limits", machine(), machine(limits=(9, 9, 9, 9))),
    ("an argument with a default", taking(int, 1), machine(c=command(("a", int, 1), ("b", str, "")))),
    ("a larger argument", taking(record(A)), taking(record(A, B))),
    ("a larger result", machine(c=command(result=int)), machine(c=command(result=int | None))),
    ("a new field", keeping(record(A)), keeping(record(A, B))),
    ("a new field in between", keeping(record(A, C)), keeping(record(A, B, C))),
    ("another order of fields", keeping(record(A, B)), keeping(record(B, A, kw_only=True))),
    ("a new field in a list", keeping(list[record(A)]), keeping(list[record(A, B)])),
    ("a new field in a dict", keeping(dict[str, record(A)]), keeping(dict[str, record(A, B)])),
    ("a new field in a tuple", keeping(tuple[int, record(A)]), keeping(tuple[int, record(A, B)])),
    ("a new field in a record", keeping(record(("x", record(A)))), keeping(record(("x", defstruct("In", [A, B]))))),
    ("a new field in a union", keeping(record(A) | None), keeping(record(A, B) | None)),
    ("a new field in itself", keeping(Node), keeping(NodeGrown)),
    ("a new last element", keeping(record(A, array_like=True)), keeping(record(A, B, array_like=True))),
    ("a new last element of a NamedTuple", keeping(named_tuple(A)), keeping(named_tuple(A, B))),
    ("a new optional key", keeping(Old), keeping(Optionally)),
    ("more in a default", single(record(A), b"\x81\xa1a\0"), single(record(A, B), b"\x82\xa1a\0\xa1b\xa0")),
    ("more in the default of an argument", taking(In, In()), taking(InGrown, InGrown())),
    ("more in the default of a field", keeping(record(("x", In, In()))), keeping(record(("x", InGrown, InGrown())))),
    ("a type that may be None", keeping(int), keeping(int | None)),
    ("one more member", keeping(int | None), keeping(int | str | None)),
    ("one more record", keeping(CAT | None), keeping(CAT | DOG | None)),
    ("a union of what was one record", keeping(CAT), keeping(CAT | DOG)),
    ("one more value", keeping(Literal["a"]), keeping(Literal["a", "b"])),
    ("one more value of an Enum", keeping(Literal["a"]), keeping(Two)),
    ("defaults that are left out now", keeping(record(A, B)), keeping(record(A, B, omit_defaults=True))),
]

OTHER = [
    ("another machine", machine(), machine(name="N"), "the state machine"),
    ("no table", keeping(int), machine(), "table items"),
    ("no value", single(int, b"\0"), machine(), "value v"),
    ("a table that is a value", keeping(int), machine(items=PartTypes("value", None, int, b"\0")), "table items"),
    ("other keys", keeping(int), machine(items=PartTypes("table", int, int)), "table items, key"),
    (
        "longer keys",
        machine(t=PartTypes("table", tuple[int, int], int)),
        machine(t=PartTypes("table", tuple[int, int, int], int)),
        "table t, key",
    ),
    ("another default", single(int, b"\0"), single(int, b"\1"), "value v"),
    ("another default, with more", taking(In, In()), taking(InGrown, InGrown(2)), "command c, argument a"),
    ("a default that was refused", taking(Literal[1], 1), taking(Literal[1, 2], 2), "command c, argument a"),
    ("another type", keeping(int), keeping(str), "table items"),
    ("another type of a value", single(int, b"\0"), single(str, b"\0"), "value v"),
    ("a type that may be anything", keeping(int), keeping(Any), "table items"),
    ("an int that is a float", keeping(int), keeping(float), "table items"),
    ("an int that was a float", keeping(float), keeping(float | int), "table items"),
    ("an int that was a float or None", taking(float | None), taking(float | int | None), "command c, argument a"),
    ("a literal that was a float", keeping(float), keeping(Literal[1, 2] | float), "table items"),
    ("an int that was a Decimal", keeping(decimal.Decimal), keeping(decimal.Decimal | int), "table items"),
    ("a float that was a Decimal", keeping(decimal.Decimal), keeping(decimal.Decimal | float), "table items"),
    ("a literal that was a Decimal", keeping(decimal.Decimal), keeping(decimal.Decimal | Literal[1]), "table items"),
    ("a datetime that was an Ext", keeping(Ext), keeping(Ext | datetime.datetime), "table items"),
    ("a list that is a tuple", keeping(list[int]), keeping(tuple[int, ...]), "table items"),
    ("a longer tuple", keeping(tuple[int]), keeping(tuple[int, int]), "table items"),
    ("another type in a list", keeping(list[int]), keeping(list[str]), "table items"),
    ("another type in a dict", keeping(dict[str, int]), keeping(dict[str, str]), "table items"),
    ("other keys in a dict", keeping(dict[str, int]), keeping(dict[Literal["a"], int]), "table items, key"),
    (
        "more keys in a dict",
        keeping(dict[Literal["a"], int]),
        keeping(dict[Literal["a", "b"], int]),
        "table items, key",
    ),
    ("one member less", keeping(int | None), keeping(int), "table items"),
    ("one value less", keeping(Two), keeping(Literal["a"]), "table items"),
    ("1 that is '1'", keeping(Literal[1]), keeping(Literal["1"]), "table items"),
    ("a literal that is a str", keeping(Literal["a"]), keeping(str), "table items"),
    ("a looser constraint", keeping(Annotated[int, Meta(ge=3)]), keeping(Annotated[int, Meta(ge=2)]), "table items"),
    ("no constraint", keeping(Annotated[int, Meta(ge=3)]), keeping(int), "table items"),
    ("a new constraint", keeping(list[int]), keeping(Annotated[list[int], Meta(max_length=3)]), "table items"),
    ("a required field", keeping(record(A)), keeping(record(A, ("d", int))), "table items, field Item.d"),
    ("a required key", keeping(Old), keeping(Demanding), "table items, field Demanding.b"),
    ("no field", keeping(record(A, B)), keeping(record(A)), "table items, field Item.b"),
    (
        "another name on the wire",
        keeping(record(A)),
        keeping(record(("a", int, field(name="x", default=1)))),
        "table items, field Item.a",
    ),
    ("another type of a field", keeping(record(A)), keeping(record(("a", str))), "table items, field Item.a"),
    ("another default of a field", keeping(record(B)), keeping(record(("b", str, "x"))), "table items, field Item.b"),
    ("a default of a field", keeping(record(A)), keeping(record(("a", int, 0))), "table items, field Item.a"),
    ("no default of a field", keeping(record(C)), keeping(record(("c", int))), "table items, field Item.c"),
    ("a key that need not be there", keeping(Demanding), keeping(Optionally), "table items, field Optionally.b"),
    ("another type in itself", keeping(NodeGrown), keeping(NodeChanged), "table items, field NodeChanged.colour"),
    (
        "a first element",
        keeping(record(A, array_like=True)),
        keeping(record(B, A, array_like=True, kw_only=True)),
        "table items, field Item.a",
    ),
    (
        "a first element of a NamedTuple",
        keeping(named_tuple(A, B)),
        keeping(named_tuple(A, C, B)),
        "table items, field Item.b",
    ),
    ("an array", keeping(record(A)), keeping(record(A, array_like=True)), "table items"),
    ("an array with more checks", keeping(record(A, array_like=True)), keeping(named_tuple(A)), "table items"),
    ("a tag", keeping(record(A)), keeping(record(A, tag="x")), "table items"),
    ("another tag", keeping(record(A, tag="y")), keeping(record(A, tag="x")), "table items"),
    ("a tag in another place", keeping(record(A, tag="x")), keeping(record(A, tag="x", tag_field="t")), "table items"),
    ("a tag of another type", keeping(record(A, tag=1)), keeping(record(A, tag="1")), "table items"),
    (
        "defaults that are no more left out",
        keeping(record(A, B, omit_defaults=True)),
        keeping(record(A, B)),
        "table items, Item",
    ),
    (
        "unknown fields that are refused",
        keeping(record(A)),
        keeping(record(A, forbid_unknown_fields=True)),
        "table items, Item",
    ),
    ("no command", machine(c=command()), machine(), "command c"),
    ("a command that is a query", machine(c=command()), machine(c=MethodTypes("query", [], None)), "command c"),
    ("a required argument", machine(c=command()), taking(int), "command c, argument a"),
    ("no argument", taking(int, 1), machine(c=command()), "command c, argument a"),
    ("another type of an argument", taking(int, 1), taking(str, 1), "command c, argument a"),
    ("another default of an argument", taking(int, 1), taking(int, 2), "command c, argument a"),
    ("a default of an argument", taking(int), taking(int, 2), "command c, argument a"),
    ("a first argument", taking(int, 1), machine(c=command(("b", int, 1), ("a", int, 1))), "command c, argument a"),
    ("a field of an argument", taking(record(A)), taking(record(("a", str))), "command c, argument a, field Item.a"),
    ("another result", machine(c=command(result=int)), machine(c=command(result=str)), "command c, result"),
]


def named(pairs):
    """The pairs as parameters."""
    return [pytest.param(*rest, id=name) for name, *rest in pairs]


@pytest.mark.parametrize(("kept", "own"), named(SAME))
def test_what_is_the_same_on_the_wire_is_no_difference(kept, own):
    """Neither for a class of the same version, nor for one of a later."""
    assert changed(kept, own) == []
    assert not_grown(kept, own) == []


@pytest.mark.parametrize(("kept", "own"), named(GROWN))
def test_what_a_class_may_gain_makes_it_another_version(kept, own):
    """A later version may have it, and the same may not, in either direction."""
    assert not_grown(kept, own) == []
    assert changed(kept, own)
    assert changed(own, kept)
    assert all("raise the class's version" in each.remedy for each in changed(kept, own))


@pytest.mark.parametrize(("kept", "own", "where"), named(OTHER))
def test_all_else_is_a_difference_in_its_place(kept, own, where):
    """It is told where, and what to do; no version makes it right."""
    found = not_grown(kept, own)
    assert [each.where for each in found] == [where] * len(found) != []
    assert all(each.remedy and each.was != each.now for each in found)
    assert where in {each.where for each in changed(kept, own)}
    assert all("raise the class's version" in each.remedy for each in changed(kept, own))


def test_a_difference_is_a_sentence():
    """An operator reads it, and the author of the class does what it says."""
    (found,) = not_grown(keeping(record(A)), keeping(record(("a", str))))
    assert str(found) == (
        "table items, field Item.a: was int, is str: "
        "keep a as it is, add a field of another name with a default, and fill it in an upgrade"
    )
    (found,) = changed(keeping(int), keeping(str))
    assert str(found) == (
        "table items: was int, is str: keep its type, add another table or value, and fill it in an upgrade, "
        "or raise the class's version, and let the old one be among those that it runs"
    )
    (found,) = changed(machine(), machine(limits=(9, 9, 9, 9)))
    assert str(found).startswith(
        "the limits (key, value, change, timers): was (1, 2, 3, 4), is (9, 9, 9, 9): raise the class's"
    )


def test_every_difference_is_told_and_each_record_once():
    """Whoever mends the class sees all there is to mend."""
    old, new = record(A, B), record(("a", str), ("b", int, 0))
    kept = machine(t=PartTypes("table", str, old), u=PartTypes("table", str, old), c=command(("x", old, NO_DEFAULT)))
    own = machine(t=PartTypes("table", str, new), u=PartTypes("table", int, new), c=command(("x", new, NO_DEFAULT)))
    assert [each.where for each in not_grown(kept, own)] == [
        "command c, argument x, field Item.a",
        "command c, argument x, field Item.b",
        "command c, argument x, field Item.b",
        "table u, key",
    ]


def test_a_key_is_the_same_or_different_even_where_its_record_has_grown_elsewhere():
    """A record that was compared as a value is compared again as a key."""
    old, new = record(A, frozen=True), record(A, B, frozen=True)
    kept = machine(t=PartTypes("table", str, old), u=PartTypes("table", old, int))
    own = machine(t=PartTypes("table", str, new), u=PartTypes("table", new, int))
    assert [each.where for each in not_grown(kept, own)] == ["table u, key"]


def test_a_record_of_a_peer_may_lead_on_for_long():
    """Records are followed one after the other, and not each from within the last."""

    def chain(last: Shape) -> Schema:
        records = {
            str(number): Record("object", (RecordField("x", Shape("record", name=str(number + 1)), True),))
            for number in range(3000)
        }
        records["3000"] = Record("object", (RecordField("x", last, True),))
        parts = {"t": PartSchema("table", Shape("str"), Shape("record", name="0"))}
        return Schema("M", 1, {}, parts, LIMITS, records)

    assert changed(chain(Shape("int")), chain(Shape("int"))) == []
    assert [each.where for each in not_grown(chain(Shape("int")), chain(Shape("str")))] == ["table t, field 3000.x"]
