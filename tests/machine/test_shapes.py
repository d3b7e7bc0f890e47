"""Types made from a schema: what an old class would have kept, and which arguments it takes."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, Optional, TypedDict

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Meta, defstruct

from raftkv.errors import InvalidArgument
from raftkv.machine.grown import not_grown
from raftkv.machine.schema import NO_DEFAULT, MethodTypes, Record, RecordField, Shape, describe, make_schema
from raftkv.machine.shapes import narrower, strict_decoder
from raftkv.machine.sparing import sparing

encode = msgspec.msgpack.Encoder(order="deterministic").encode
decode = msgspec.msgpack.decode


def narrowed(old: Any, new: Any):
    """What narrows values of `new` to `old`."""
    (shape,), records = describe([old])
    return narrower(shape, records, new)


def strict(*arguments: tuple[Any, Any]):
    """The check for arguments of these types and defaults."""
    named = [(f"a{place}", *each) for place, each in enumerate(arguments)]
    schema = make_schema("M", 1, {"c": MethodTypes("command", named, None)}, {}, (1, 1, 1, 1))
    return strict_decoder(schema.methods["c"].arguments, schema.records)


class Sub(msgspec.Struct):
    """As it was."""

    x: float
    y: str = "y"


class SubNew(msgspec.Struct, kw_only=True):
    """With more, in another order."""

    z: list[int] = []
    y: str = "y"
    x: float


class Node(msgspec.Struct):
    """In itself."""

    below: list[Node] = []
    name: str = ""


class NodeNew(msgspec.Struct):
    """In itself, with more."""

    name: str = ""
    colour: str = "red"
    below: list[NodeNew] = []


class Cat(msgspec.Struct, tag=True):
    """A member of a union."""

    lives: int = 9


class CatNew(msgspec.Struct, tag="Cat"):
    """A member of a union that has more."""

    lives: int = 9
    name: str = "Tom"


class Dog(msgspec.Struct, tag=True):
    """Another."""

    bark: bool = False


class Bird(msgspec.Struct, tag=True):
    """One that was not there."""

    wings: int = 2


class Array(msgspec.Struct, array_like=True, tag=1):
    """An array."""

    a: int
    sub: Sub


class ArrayNew(msgspec.Struct, array_like=True, tag=1):
    """A longer one."""

    a: int
    sub: SubNew
    b: str = "b"
    c: int | None = None


class Pair(NamedTuple):
    """An array that has no more than it has."""

    a: int
    b: Any = None


class Triple(NamedTuple):
    """One that has."""

    a: int
    b: Any = None
    c: str = "c"


class Keys(TypedDict):
    """Some keys."""

    b: int
    z: NotRequired[str]


class KeysNew(TypedDict):
    """More keys."""

    b: int
    a: NotRequired[int]
    z: NotRequired[str]


@dataclasses.dataclass
class Plain:
    """A dataclass."""

    a: decimal.Decimal
    when: datetime.datetime | None = None


@dataclasses.dataclass
class PlainNew:
    """One with more."""

    a: decimal.Decimal
    more: dict[str, int] = dataclasses.field(default_factory=dict)
    when: datetime.datetime | None = None


class Full(msgspec.Struct):
    """Stored with all its fields."""

    a: int
    b: int = 1000
    c: list[int] = []


class Spare(msgspec.Struct, omit_defaults=True):
    """Stored without those that are at their defaults."""

    a: int
    d: int = 5
    b: int = 1000
    c: list[int] = []


class SpareOld(msgspec.Struct, omit_defaults=True):
    """Stored without those that are at their defaults, as it always was."""

    a: int
    b: int = 1000
    c: list[int] = []


class Colour(enum.Enum):
    """Some values."""

    RED = "red"


class ColourNew(enum.Enum):
    """More values."""

    RED = "red"
    BLUE = "blue"


NOW = datetime.datetime(2020, 1, 1, 1, 2, 3, 456789, tzinfo=datetime.UTC)
# The old type, what it keeps; the new type, what that keeps.
PAIRS: list[tuple[Any, Any, Any, Any]] = [
    (Sub, Sub(1.5, "q"), SubNew, SubNew(x=1.5, y="q", z=[1])),
    (Sub, {"x": 3, "y": "q"}, SubNew, {"x": 3, "y": "q", "z": []}),
    (list[Sub], [Sub(1.5)], list[SubNew], [SubNew(x=1.5)]),
    (tuple[Sub, ...], (Sub(1.5), Sub(2.5)), tuple[SubNew, ...], (SubNew(x=1.5), SubNew(x=2.5))),
    (tuple[int, Sub], (1, Sub(1.5)), tuple[int, SubNew], (1, SubNew(x=1.5))),
    (dict[str, Sub], {"k": Sub(1.5)}, dict[str, SubNew], {"k": SubNew(x=1.5)}),
    (dict[Literal["a"], Sub], {"a": Sub(1.5)}, dict[Literal["a"], SubNew], {"a": SubNew(x=1.5)}),
    (Sub | None, None, SubNew | None, None),
    (Sub | None, Sub(1.5), SubNew | None, SubNew(x=1.5)),
    (Sub | int | bool, 3, SubNew | int | bool | str, 3),
    (Sub | float | list[int], 3, SubNew | float | list[int], 3),
    (Sub | float | list[int], 3.0, SubNew | float | list[int], 3.0),
    (Sub | float | list[int], [3], SubNew | float | list[int], [3]),
    (Sub | datetime.datetime, NOW, SubNew | datetime.datetime, NOW),
    (Sub | datetime.datetime, NOW.replace(tzinfo=None), SubNew | datetime.datetime, NOW.replace(tzinfo=None)),
    (Sub | decimal.Decimal, decimal.Decimal("1.50"), SubNew | decimal.Decimal, decimal.Decimal("1.50")),
    (Sub | uuid.UUID, uuid.UUID(int=3), SubNew | uuid.UUID, uuid.UUID(int=3)),
    (Sub | bytes, b"\xff", SubNew | bytes, b"\xff"),
    (Sub | Literal["a", 3], 3, SubNew | Literal["a", "b", 3], 3),
    (Sub | tuple[int, str], (3, "a"), SubNew | tuple[int, str], (3, "a")),
    (Array | dict[str, int], {"b": 1, "a": 2}, ArrayNew | dict[str, int], {"b": 1, "a": 2}),
    (Array, Array(1, Sub(2.5)), ArrayNew, ArrayNew(1, SubNew(x=2.5, z=[3]), "x", 3)),
    (Pair, Pair(1, {"b": NOW, "a": 1}), Triple, Triple(1, {"b": NOW, "a": 1}, "d")),
    (Keys, {"b": 1}, KeysNew, {"b": 1, "a": 2}),
    (Keys, {"b": 1, "z": "z"}, KeysNew, {"z": "z", "b": 1, "a": 2}),
    (Plain, Plain(decimal.Decimal("1.0"), NOW), PlainNew, PlainNew(decimal.Decimal("1.0"), {"a": 1}, NOW)),
    (Plain, {"a": 3, "when": "2020-01-01T00:00:00Z"}, PlainNew, {"a": 3, "more": {}, "when": "2020-01-01T00:00:00Z"}),
    (Cat | Dog, Dog(True), CatNew | Dog | Bird, Dog(True)),
    (Cat | Dog, Cat(7), CatNew | Dog | Bird, CatNew(7, "x")),
    (Cat, Cat(7), CatNew | Dog, CatNew(7, "x")),
    (Node, Node([Node([], "b")], "a"), NodeNew, NodeNew("a", "blue", [NodeNew("b", "green")])),
    (Full, Full(1), Spare, Spare(1, 7)),
    (Full, Full(1, 3, [4]), Spare, Spare(1, 7, 3, [4])),
    (SpareOld, SpareOld(1), Spare, Spare(1, 7)),
    (SpareOld, SpareOld(1, 3), Spare, Spare(1, 7, 3)),
    (Literal["a"], "a", Literal["a", "b"], "a"),
    (Colour, Colour.RED, ColourNew, ColourNew.RED),
    (int | None, None, int | str | None, None),
    (float | None, 3, float | str | None, 3),
]


@pytest.mark.parametrize(("old", "kept", "new", "value"), PAIRS)
def test_a_grown_class_keeps_what_the_old_one_would_have_kept(old, kept, new, value):
    """Byte for byte: also where a type would take one thing for another, as an int for a float."""
    assert problems(old, new) == []
    narrow = narrowed(old, new)
    assert narrow is not None
    assert narrow(encode(value)) == encode(kept)
    decode(encode(kept), type=new)


def problems(old: Any, new: Any) -> list[Any]:
    """Why a command with such a result has not grown."""
    kept, own = (make_schema("M", 1, {"c": MethodTypes("command", [], kind)}, {}, (1, 1, 1, 1)) for kind in (old, new))
    return not_grown(kept, own)


@pytest.mark.parametrize("kind", [int, list[Sub], Node, Cat | Dog | None, dict[str, Plain], Keys, Pair, Any, Colour])
def test_nothing_is_done_where_nothing_has_changed(kind):
    """The common case costs nothing."""
    assert narrowed(kind, kind) is None


def test_nothing_is_done_for_what_is_only_called_otherwise():
    """Names of classes are not on the wire."""
    assert narrowed(Full, defstruct("Other", [("a", int), ("b", int, 1000), ("c", list[int], [])])) is None


REFUSED = [
    (int | None, int | str | None, "a"),
    (Literal["a"], Literal["a", "b"], "b"),
    (Colour, ColourNew, ColourNew.BLUE),
    (Cat | Dog, CatNew | Dog | Bird, Bird()),
    (Cat, CatNew | Dog, Dog()),
    (Sub | None, SubNew | int | None, 3),
    (Sub | None, SubNew | list[int] | None, [3]),
    (list[Colour], list[ColourNew], [ColourNew.RED, ColourNew.BLUE]),
    (defstruct("S", [("a", int)]), defstruct("S", [("a", int | None)]), {"a": None}),
    (
        defstruct("S", [("a", Annotated[int, Meta(ge=1)])]),
        defstruct("S", [("a", Annotated[int, Meta(ge=0)])]),
        {"a": 0},
    ),
]


@pytest.mark.parametrize(("old", "new", "value"), REFUSED)
def test_what_the_old_class_would_refuse_is_refused(old, new, value):
    """In the words of msgspec, as by the old class."""
    narrow = narrowed(old, new)
    data = encode(value)
    decode(data, type=new)
    with pytest.raises(msgspec.ValidationError) as expected:
        decode(data, type=old)
    with pytest.raises(msgspec.ValidationError) as found:
        narrow(data)
    if not isinstance(value, Bird):
        assert str(found.value) == str(expected.value)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


class Wide(msgspec.Struct):
    """Of anything."""

    any: Any
    number: float
    text: str | None = None
    more: dict[str, list[Sub]] = {}
    tree: Optional[Wide] = None  # noqa: UP045 (the string is evaluated)


class WideNew(msgspec.Struct, kw_only=True):
    """Of anything, and more."""

    new: Any = None
    tree: Optional[WideNew] = None  # noqa: UP045 (the string is evaluated)
    more: dict[str, list[SubNew]] = {}
    text: str | None = None
    newer: list[int] = []
    number: float
    any: Any


@st.composite
def grown_values(draw: st.DrawFn, depth: int = 2) -> tuple[Wide, WideNew]:
    """A value of the old class, and one of the new class with the same in it, and anything in the new fields."""
    kept: dict[str, Any] = {
        "any": draw(values),
        "number": draw(st.floats(allow_nan=False) | st.integers(-9, 9)),
        "text": draw(st.none() | st.text()),
    }
    subs = draw(st.dictionaries(st.text(max_size=3), st.lists(st.tuples(st.floats(allow_nan=False), st.text()))))
    old_tree, new_tree = draw(st.none() | grown_values(depth - 1)) or (None, None) if depth else (None, None)
    old = Wide(**kept, tree=old_tree, more={key: [Sub(x, y) for x, y in each] for key, each in subs.items()})
    more = {
        key: [SubNew(x=x, y=y, z=draw(st.lists(st.integers(0, 3), max_size=2))) for x, y in each]
        for key, each in subs.items()
    }
    return old, WideNew(**kept, tree=new_tree, more=more, new=draw(values), newer=draw(st.lists(st.integers(0, 9))))


PATIENT = settings(suppress_health_check=[HealthCheck.too_slow])
"""Drawing takes longer on a busy machine."""

TO_WIDE = narrowed(Wide, WideNew)
CHECK, CHECK_NEW = strict((Wide, NO_DEFAULT)), strict((WideNew, NO_DEFAULT))
SPARE, SPARE_NEW = sparing([Wide]), sparing([WideNew])


@PATIENT
@given(grown_values())
def test_any_value_is_kept_as_the_old_class_would(pair):
    """Whatever stands in new fields, nothing of it is left, and nothing else is touched."""
    old, new = pair
    assert TO_WIDE(encode(new)) == encode(old)


ARGUMENTS = strict((int, NO_DEFAULT), (Sub, NO_DEFAULT), (list[Array], []), (Keys | None, None))
SUB = {"x": 1.5}


@pytest.mark.parametrize(
    "arguments",
    [
        [1, SUB],
        [1, {"x": 1, "y": "b"}, []],
        [1, SUB, [[1, 5, SUB]], None],
        [1, SUB, [], {"b": 1}],
        [1, SUB, [], {"b": 1, "z": "z"}],
    ],
)
def test_arguments_that_a_class_takes_pass(arguments):
    """Those with defaults may be missing, and so may be fields with defaults."""
    assert ARGUMENTS(encode(arguments)) is None
    assert ARGUMENTS(msgspec.Raw(encode(arguments))) is None


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "at least length 2, got 0"),
        ([1], "at least length 2, got 1"),
        ([1, SUB, [], None, 5], "at most length 4, got 5"),
        (["a", SUB], r"`\$\[0\]`"),
        ([1, {"x": 1, "z": 1}], r"unknown field `z` - at `\$\[1\]`"),
        ([1, {"y": ""}], r"missing required field `x`"),
        ([1, SUB, [[1, 5, SUB, 9]]], r"at most length 2, got 3 - at `\$\[2\]\[0\]`"),
        ([1, SUB, [[1, 5, {"x": 1, "z": 1}]]], "unknown field `z`"),
        ([1, SUB, [[2, 5, SUB]]], "Invalid value 2"),
        ([1, SUB, [], {"b": 1, "a": 1}], "unknown field `a`"),
        ([1, SUB, [], {"z": ""}], "missing required field `b`"),
    ],
)
def test_arguments_of_which_something_would_be_lost_are_refused(arguments, told):
    """With the place, and with what is wrong."""
    with pytest.raises(msgspec.ValidationError, match=told):
        ARGUMENTS(encode(arguments))


@pytest.mark.parametrize(("arguments", "fine"), [([], True), ([None], False)])
def test_there_may_be_no_arguments(arguments, fine):
    """Then none is what there must be."""
    check = strict()
    if fine:
        check(encode(arguments))
    else:
        with pytest.raises(msgspec.ValidationError):
            check(encode(arguments))


def test_unknown_things_are_refused_at_any_depth():
    """In what is in itself, in tuples, in NamedTuples, in unions and behind keys."""
    check = strict((Node, Node()), (tuple[Pair, ...], ()), (dict[str, Cat | Dog] | None, None))
    check(encode([Node([Node([Node()])]), (Pair(1), Pair(1, {"any": 1})), {"a": Cat(), "b": Dog()}]))
    for arguments in (
        [{"below": [{"below": [{"colour": "red"}]}]}],
        [Node(), [[1, 2, 3]]],
        [Node(), [], {"a": CatNew()}],
        [Node(), [], {"a": Bird()}],
    ):
        with pytest.raises(msgspec.ValidationError):
            check(encode(arguments))


def test_a_schema_of_which_no_types_can_be_made_is_told():
    """A peer sends it; msgspec has no such types."""
    plain = Record("object", (RecordField("a", Shape("int"), True),))
    both = Shape("union", (Shape("record", name="A"), Shape("record", name="B")))
    with pytest.raises(InvalidArgument, match="is no type"):
        narrower(both, {"A": plain, "B": plain}, int)
    with pytest.raises(InvalidArgument, match="is no type"):
        narrower(Shape("str", limits=(("pattern", "("),)), {}, int)


SPARED: list[tuple[Any, Any, Any]] = [
    (Sub, Sub(1.5), {"x": 1.5}),
    (Sub, Sub(1.5, "z"), {"x": 1.5, "y": "z"}),
    (SubNew, SubNew(x=1.5, z=[1]), {"z": [1], "x": 1.5}),
    (list[Sub], [Sub(1.5)], [{"x": 1.5}]),
    (tuple[Sub, int], (Sub(1.5), 3), [{"x": 1.5}, 3]),
    (tuple[Sub, ...], (Sub(1.5),), [{"x": 1.5}]),
    (dict[str, Sub], {"y": Sub(1.5), "a": Sub(2.5)}, {"a": {"x": 2.5}, "y": {"x": 1.5}}),
    (Sub | None, None, None),
    (Sub | int, Sub(1.5), {"x": 1.5}),
    (Cat | Dog, Dog(), {"type": "Dog"}),
    (Cat | Dog, Cat(3), {"type": "Cat", "lives": 3}),
    (CatNew, CatNew(3), {"type": "Cat", "lives": 3}),
    (Array, Array(1, Sub(1.5)), [1, 1, {"x": 1.5}]),
    (Array | int, Array(1, Sub(1.5)), [1, 1, {"x": 1.5}]),
    (ArrayNew, ArrayNew(1, SubNew(x=1.5)), [1, 1, {"x": 1.5}]),
    (ArrayNew, ArrayNew(1, SubNew(x=1.5), c=3), [1, 1, {"x": 1.5}, "b", 3]),
    (Triple, Triple(1), [1]),
    (Triple, Triple(1, 2), [1, 2]),
    (Triple, Triple(1, None, "d"), [1, None, "d"]),
    (Triple | None, Triple(1), [1]),
    (list[Sub] | None, [Sub(1.5)], [{"x": 1.5}]),
    (dict[str, Sub] | None, {"a": Sub(1.5)}, {"a": {"x": 1.5}}),
    (PlainNew, PlainNew(decimal.Decimal(1), {}, NOW), {"a": "1", "when": NOW}),
    (Node, Node([Node([], "a")]), {"below": [{"name": "a"}]}),
    (Full, Full(1, 1000, [1]), {"a": 1, "c": [1]}),
]


@pytest.mark.parametrize(("kind", "value", "spared"), SPARED)
def test_what_is_at_its_default_is_not_sent(kind, value, spared):
    """Only in records; who reads it finds the same value."""
    spare = sparing([int, kind])
    assert spare is not None
    data = spare(encode([7, value]))
    assert decode(data) == decode(encode([7, spared]))
    assert decode(data, type=tuple[int, kind])[1] == value
    assert spare(encode([7])) == encode([7])


@pytest.mark.parametrize("kinds", [[], [int, str], [list[Keys]], [defstruct("S", [("a", int)])], [Any]])
def test_nothing_is_spared_where_there_are_no_defaults(kinds):
    """The common case costs nothing."""
    assert sparing(kinds) is None


def test_arguments_that_are_nested_too_deep_are_sent_as_they_are():
    """Leaving out is a service to nodes of before, and no reason to fail."""
    node = Node()
    for _ in range(400):
        node = Node([node])
    spare = sparing([Node])
    assert spare is not None
    assert decode(spare(encode([node])), type=tuple[Node]) == (node,)


@pytest.mark.parametrize(("depth", "is_spared"), [(198, True), (200, False), (500, False)])
def test_how_deep_arguments_are_looked_through_is_counted(depth, is_spared):
    """What a command schedules another one with is in the state, and must not follow from how many calls an
    interpreter has room for: a node that is read by another takes fewer of them. The list of arguments is one."""
    node = Node()
    for _ in range(depth // 2 - 1):
        node = Node([node])
    spare, data = sparing([Node]), encode([node])
    assert spare is not None
    assert (spare(data) != data) == is_spared


@PATIENT
@given(grown_values())
def test_clients_and_nodes_of_two_versions_understand_each_other(pair):
    """A new node reads what an old client sends, and an old node what a new client sends, if it uses nothing new."""
    old, new = pair
    understood = decode(encode(old), type=Wide)
    sent_by_old = SPARE(encode([old]))
    CHECK(sent_by_old)
    CHECK_NEW(sent_by_old)
    (read,) = decode(sent_by_old, type=tuple[WideNew])
    assert TO_WIDE(encode(read)) == encode(understood)
    sent_by_new = SPARE_NEW(encode([read]))
    CHECK(sent_by_new)
    assert decode(sent_by_new, type=tuple[Wide]) == (understood,)
    uses_more = decode(encode(new), type=WideNew)
    if uses_more != read:
        with pytest.raises(msgspec.ValidationError, match="unknown field"):
            CHECK(SPARE_NEW(encode([uses_more])))
