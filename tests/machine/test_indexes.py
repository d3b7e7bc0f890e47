"""Secondary indexes: what may be declared, what is refused, and how upgrades build and drop them."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from raftkv import MachineError, Rejected
from raftkv.errors import InvalidArgument, SchemaChanged
from raftkv.machine import (
    LocalMachine,
    Runner,
    StateMachine,
    Table,
    command,
    decode_schema,
    encode_schema,
    query,
    upgrade,
)
from raftkv.machine import upgrading as upgrading_module


class State(enum.Enum):
    """A state."""

    READY = "ready"
    DONE = "done"


class Job(msgspec.Struct, frozen=True):
    """A value with fields."""

    state: State
    place: tuple[str, int] = ("", 0)
    note: str | None = None


class Jobs(StateMachine):
    """Indexes by an Enum's value and by a tuple."""

    jobs = Table(int, Job, index={"state": str, "place": tuple[str, int]})
    loose = Table(str, dict[str, Any], index={"size": int})
    noted = Table(int, Job, index={"note": str})

    @command
    def put(self, number: int, state: State, place: tuple[str, int]) -> None:
        """Keep a job."""
        self.jobs[number] = Job(state, place)

    @command
    def wrong(self, what: str) -> None:
        """A field of another type."""
        if what == "note":
            self.noted[1] = Job(State.DONE)
        elif what == "size":
            self.loose["a"] = {"size": "large"}
        else:
            list(self.loose.by("weight", 1))

    @query
    def ready(self, limit: int) -> list[int]:
        """Those that are ready."""
        return [number for number, _ in self.jobs.by("state", "ready", limit=limit)]

    @query
    def between(self, start: tuple[str, int], end: tuple[str, int], reverse: bool) -> list[int]:
        """By place."""
        return [number for number, _ in self.jobs.by("place", start=start, end=end, reverse=reverse)]


def test_rows_are_found_by_fields():
    """By an Enum's value, and in the order of a tuple."""
    local = LocalMachine(Jobs)
    for number, (state, place) in enumerate(
        [(State.READY, ("b", 1)), (State.DONE, ("a", 2)), (State.READY, ("a", -5)), (State.READY, ("a", 300))]
    ):
        local.put(number, state, place)
    assert local.ready(2) == [0, 2]
    assert local.between(("a", -1), ("b", 2), False) == [1, 3, 0]
    assert local.between(("a", -9), ("b", 1), True) == [3, 1, 2]
    local.put(0, State.DONE, ("a", 0))
    assert local.ready(9) == [2, 3]


@pytest.mark.parametrize(("what", "said"), [("note", "noted.note"), ("size", "loose.size"), ("weight", "no index")])
def test_what_an_index_can_not_order_is_refused(what, said):
    """A field of another type than the index's is a TypeError, and nothing is kept; so is a field without an index."""
    local = LocalMachine(Jobs)
    with pytest.raises(Rejected, match=f"TypeError.*{said}"):
        local.wrong(what)
    assert list(local._runner.store.scan(b"\x02", None)) == []


@dataclass
class Point:
    """A dataclass."""

    x: int
    y: int = 0


@pytest.mark.parametrize(
    ("value", "index", "said"),
    [
        (Point, {"z": int}, "no field z"),
        (Point, {"x": str}, "must be of the field's type"),
        (Point, {"x": float}, "keys may be"),
        (Point, ["x"], "must name fields"),
        (list[int], {"x": int}, "values with fields"),
    ],
)
def test_an_index_that_can_not_be_is_refused_when_the_class_is_made(value, index, said):
    """With the line to change."""
    with pytest.raises(MachineError, match=f"test_indexes.py:.*{said}"):
        type("Wrong", (StateMachine,), {"rows": Table(int, value, index=index)})


def version(number: int, index: dict[str, Any]) -> type[StateMachine]:
    """A class of which only the index differs."""

    class Shop(StateMachine):
        rows = Table(int, Point, index=index)

        @command
        def put(self, key: int, x: int) -> int:
            self.rows[key] = Point(x)
            return len(self.rows)

        @command
        def drop(self, key: int) -> None:
            del self.rows[key]

        @query
        def all(self) -> list[tuple[int, int]]:
            return [(key, point.x) for key, point in self.rows.items()]

        @query
        def by(self) -> list[int]:
            return [key for key, _ in self.rows.by("x")]

    Shop.version = number
    return Shop


def test_an_index_is_part_of_the_schema():
    """Another one under the same version is `SchemaChanged`; a schema without any is what it always was."""
    assert b"indexes" not in encode_schema(version(1, {}).schema())
    schema = decode_schema(encode_schema(version(1, {"x": int}).schema()))
    assert schema == version(1, {"x": int}).schema()
    local = LocalMachine(version(1, {"x": int}))
    for other, said in (({}, "index x: was int, is not there"), ({"x": int, "y": int}, "index y: was not there")):
        with pytest.raises(SchemaChanged, match=said):
            Runner(version(1, other), local._runner.store)
    broken = msgspec.structs.replace(schema, indexes={"gone": schema.indexes["rows"]})
    with pytest.raises(InvalidArgument, match="no table gone"):
        decode_schema(encode_schema(broken))


def test_an_upgrade_builds_an_index_in_pieces(monkeypatch):
    """Between the pieces commands go on, and what is asked by the index is answered right; then it has all rows. A
    version without it drops it."""
    monkeypatch.setattr(upgrading_module, "ROWS_AT_ONCE", 3)
    old, new, later = version(1, {}), version(2, {"x": int}), version(3, {})
    local = LocalMachine(new, version=1, begun_by=old)
    for key in range(8):
        local.put(key, -key)
    runner = local._runner
    assert list(runner.out_of_step()) == []
    pieces, change = [], local._apply_change

    def between(each: Any) -> None:
        change(each)
        if runner.active.is_upgrading:
            number = len(pieces)
            pieces.append(local.by())
            local.put(number, -number)
            local.put(7 - number, 50 + number)
            if number == 2:
                local.drop(3)

    monkeypatch.setattr(local, "_apply_change", between)
    local.upgrade()
    assert pieces[0] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert len(pieces) >= 3
    assert list(runner.out_of_step()) == []
    assert runner.active.indexes["rows"].built
    left = local.all()
    assert 3 not in [key for key, _ in left]
    assert local.by() == [key for key, _ in sorted(left, key=lambda row: (row[1], row[0]))]
    again = LocalMachine(later)
    again._runner, again._chain = Runner(later, runner.store), local._chain
    again.upgrade()
    assert list(runner.store.scan(b"\x02rows\x02", b"\x02rows\x03")) == []
    assert again.put(100, 1) == 8


def test_what_is_out_of_step_is_seen():
    """A row without its place in the index, a place without its row, a wrong count: each is named."""
    local = LocalMachine(version(1, {"x": int}))
    local.put(1, 5)
    runner = local._runner
    (place,) = (key for key, _ in runner.store.scan(b"\x02rows\x02", b"\x02rows\x03"))
    runner.store.write({place: None, place + b"x": b""}, runner.applied)
    found = list(runner.out_of_step())
    assert len(found) == 2
    assert "lacks the row 1" in found[1]
    runner.store.write(
        {place: b"", place + b"x": None, version(1, {}).rows.prefix + b"\x80": msgspec.msgpack.encode(Point(5))},
        runner.applied,
    )
    assert any("2 rows, and 1 are counted" in each for each in runner.out_of_step())


def test_an_upgrade_that_asks_an_index_before_it_is_built_is_answered_right():
    """Upgrades run when the version becomes active; the index is built behind them."""

    class Shop(StateMachine):
        version = 2
        rows = Table(int, Point, index={"x": int})
        found = Table(int, int, since=2)

        @command
        def put(self, key: int, x: int) -> int:
            self.rows[key] = Point(x)
            return len(self.rows)

        @command
        def drop(self, key: int) -> None:
            del self.rows[key]

        @upgrade(to=2)
        def find(self) -> None:
            for key, point in self.rows.by("x"):
                self.found[key] = point.x

        @query
        def all(self) -> list[tuple[int, int]]:
            return list(self.found.items())

    local = LocalMachine(Shop, version=1, begun_by=version(1, {}))
    local.put(1, 5)
    local.upgrade()
    assert local.all() == [(1, 5)]
