"""`Part`: a component in another machine."""

from __future__ import annotations

import msgspec
import pytest

from raftkv import (
    Component,
    Events,
    Limits,
    LocalMachine,
    MachineError,
    Part,
    Rejected,
    Rejection,
    Set,
    StateMachine,
    Table,
    Value,
    command,
    every,
    on_expire,
    query,
    upgrade,
)
from raftkv.client import UnknownMethod
from raftkv.machine import ROWS, decode_schema, encode_schema


class Taken(Rejection):
    """Somebody has it."""

    owner: str


class Holder(msgspec.Struct, frozen=True):
    """A value with a field that is indexed."""

    owner: str
    number: int = 0


class Locks(Component):
    """All that a machine may have."""

    held = Table(str, Holder, index={"owner": str}, expires=True)
    names = Set(str)
    count = Value(int, 0)
    watched = Set(str, watch=True)
    told_of = Events(str)
    ended = Table(int, str)
    turns = Value(int, 0)

    @command
    def acquire(self, key: str, owner: str, ttl_s: float = 10) -> int:
        """Counts, keeps, schedules."""
        if (holder := self.held.get(key)) is not None:
            raise Taken(owner=holder.owner)
        self.count += 1
        self.names.add(key)
        self.watched.add(key)
        self.told_of.emit(f"{key} {owner}")
        self.held.put(key, Holder(owner, self.count), ttl_s=ttl_s)
        self.schedule(1, Locks.noted, key)
        self.schedule(2, self.noted, key)
        return self.count

    @command
    def noted(self, key: str) -> None:
        """Runs by itself."""
        self.ended[len(self.ended)] = f"noted {key}"

    @command
    @on_expire("held")
    def over(self, key: str, holder: Holder) -> None:
        """Runs by itself too."""
        self.ended[len(self.ended)] = f"over {key} {holder.owner}"

    @command
    @every(60)
    def turn(self) -> None:
        """And this."""
        self.turns += 1

    @query
    def of(self, owner: str) -> list[str]:
        """By the index."""
        return [key for key, _ in self.held.by("owner", owner)]

    @query
    def told(self) -> list[str]:
        """What has run by itself."""
        return list(self.ended.values())


class Pair(Component):
    """A component with a part."""

    one = Part(Locks)

    @command
    def take(self, key: str) -> int:
        """Goes on in the part."""
        return self.one.acquire(key, "pair")


class App(StateMachine):
    """Two parts of a kind, and one that has a part."""

    held = Table(str, str)
    a = Part(Locks)
    b = Part(Locks)
    pair = Part(Pair)

    @command
    def both(self, key: str, owner: str) -> int:
        """In one transaction."""
        return self.a.acquire(key, owner) + self.b.acquire(key, owner)

    @command
    def later(self, key: str) -> int:
        """The whole schedules what a part does."""
        return self.schedule(5, App.b.noted, key)


def test_parts_have_tables_and_methods_of_their_own_under_their_names():
    """Two parts of one kind and the whole's own table of the same name don't meet, and all are in the schema."""
    local = LocalMachine(App)
    assert local.a.acquire("x", "ann") == 1
    assert local.call(App.b.acquire, "x", "bob") == 1
    assert local.call(App.pair.one.acquire, "x", "eve") == 1
    assert (local.a.of("ann"), local.b.of("ann"), local.pair.one.of("eve")) == (["x"], [], ["x"])
    names = ["a.held", "a.names", "b.held", "held", "pair.one.held"]
    schema = decode_schema(encode_schema(App.schema()))
    assert set(names) <= schema.parts.keys()
    assert schema.indexes.keys() == {"a.held", "b.held", "pair.one.held"}
    assert schema.expiring == {each: each.replace("held", "over") for each in schema.indexes}
    assert {"a.acquire", "b.over", "pair.take", "pair.one.turn", "both"} <= schema.methods.keys()
    assert App.methods["pair.one.of"].describe() == "pair.one.of(owner: str) -> list[str]"
    assert list(local._runner.out_of_step()) == []


def test_a_command_of_the_whole_and_its_parts_is_one_transaction():
    """What a part has done is undone when another one refuses; its own rejection arrives."""
    local = LocalMachine(App)
    local.b.acquire("x", "bob")
    with pytest.raises(Taken) as caught:
        local.both("x", "ann")
    assert caught.value.owner == "bob"
    assert (local.a.of("ann"), local.timers) == ([], 3 * 1 + 2), "the repeats of three parts, and what b scheduled"
    assert local.both("y", "ann") == 3


def test_what_a_part_schedules_repeats_or_lets_expire_runs_in_it():
    """By the name of its class's own function, a bound one, by the whole, and for rows that are over."""
    local = LocalMachine(App)
    local.a.acquire("x", "ann", 3)
    local.later("z")
    local.pair.take("y")
    local.advance(70)
    assert local.a.told() == ["noted x", "noted x", "over x ann"]
    assert local.b.told() == ["noted z"]
    assert local.pair.one.told() == ["noted y", "noted y", "over y pair"]
    assert {each.name for each in local.fired} >= {"a.turn", "b.turn", "pair.one.turn", "a.over"}
    assert all(each.outcome.kind == 0 for each in local.fired), local.fired
    assert list(local._runner.out_of_step()) == []


def test_functions_of_a_component_do_not_say_in_which_part():
    """They are refused with the names to write; one of another machine as ever."""
    local = LocalMachine(App)
    with pytest.raises(UnknownMethod, match=r"Locks.acquire is in a part of App: name it as App.a.acquire or App.b."):
        local.call(Locks.acquire, "x", "ann")
    with pytest.raises(UnknownMethod, match=r"has no command or query 'a\.steal'"):
        local.a.steal("x")
    assert LocalMachine(Locks).call(Locks.acquire, "x", "ann") == 1, "alone it is a machine as any other"
    with pytest.raises(UnknownMethod, match="another machine"):
        LocalMachine(Locks).call(App.both, "x", "ann")


def test_tools_see_the_rows_of_a_part():
    """Under the table's name in the whole."""
    local = LocalMachine(App)
    local.a.acquire("x", "ann")
    rows = local._call(ROWS, ("a.names", b"", None, 10, False), {})
    assert [key for key, _ in rows.rows] == ["x"]


def test_changes_and_events_of_a_part_are_its_own():
    """They are watched under its name, or as its class has them."""
    local = LocalMachine(App)
    local.a.acquire("x", "ann")
    local.b.acquire("y", "bob")
    local.pair.take("z")
    assert [change.key for change in local.changes(App.a.watched)] == ["x"]
    assert [change.value for change in local.changes(App.b.told_of)] == ["y bob"]
    assert [change.value for change in local.changes(App.pair.one.told_of)] == ["z pair"]
    assert App.schema().watched == {"a.watched": False, "b.watched": False, "pair.one.watched": False}


def mistake(text, make):
    """The class is refused, with the line."""
    with pytest.raises(MachineError, match=text) as caught:
        make()
    assert "test_parts.py:" in str(caught.value)


def test_what_can_not_be_a_part_is_refused():
    """When the class is made, with what to write."""

    def no_component():
        class One(StateMachine):
            part = Part(App)

    def no_class():
        class One(StateMachine):
            part = Part(3)

    def reserved():
        class One(StateMachine):
            now = Part(Locks)

    def twice():
        class One(StateMachine):
            part = Part(Locks)
            part = Table(str, int)  # noqa: PIE794 (that is the mistake)

    def hidden():
        class One(App):
            def a(self):
                pass

    def shared():
        part = Part(Locks)

        class One(StateMachine):
            one = part
            other = part

    def late():
        class One(StateMachine):
            part = Part(Locks, since=2)

    mistake("App is no component: derive it from raftkv.Component", no_component)
    mistake("part: 3 is no component", no_class)
    mistake("now is a name that every state machine has", reserved)
    mistake("part is declared twice", twice)
    mistake("a stands in the place of what a base class declares", hidden)
    mistake("part other: it is one already: make a Part for each", shared)
    mistake("this is of version 2, but the class is of version 1", late)


def test_a_subclass_may_replace_a_part():
    """Nothing of the old one is left; a part that it does not touch stays what it is."""

    class Small(Component):
        @command
        def nothing(self) -> None:
            """Does nothing."""

    class Less(App):
        a = Part(Small)

    assert {each for each in Less.methods if each.startswith("a.")} == {"a.nothing"}
    assert not [each for each in Less.parts if each.startswith("a.")]
    assert LocalMachine(Less).call(App.b.acquire, "x", "ann") == 1


class Grown(Component):
    """A component in its third version."""

    version = 3
    old = Table(str, int, until=3)
    new = Table(str, int, since=2)
    ran = Table(int, str, since=2)

    @command
    def put(self, key: str, value: int) -> int:
        """Says which version is active."""
        (self.old if self.version < 2 else self.new)[key] = value
        return self.version

    @command(since=3)
    def late(self) -> int:
        """Of the third."""
        return self.version

    @query
    def all_of(self) -> dict[str, int]:
        """All rows, wherever they are."""
        return dict(self.old.items()) | dict(self.new.items())

    @upgrade(to=2)
    def move(self) -> None:
        """Runs in the whole's third version."""
        self.ran[2] = f"{self.version}"
        for key, value in self.old.range():
            self.new[key] = value

    @upgrade(to=3)
    def mark(self, after: str | None) -> str | None:
        """In pieces."""
        for key, value in self.new.range(after, limit=2):
            self.new[key] = value + 100
            after = key
        self.ran[3] = f"{self.version}"
        rest = self.new.range(after, limit=2)
        return next((key for key, _ in rest if key != after), None)


class Late(StateMachine):
    """At the component's second version from its third on, and at the third from its fifth on."""

    version = 7
    part = Part(Grown, versions={2: 1, 3: 2, 5: 3}, until=7)
    own = Table(str, int)

    @command
    def put(self, key: str) -> int:
        """The whole's own version."""
        return self.version


def test_a_part_is_at_its_own_version_and_upgraded_with_the_whole():
    """Spans and upgrades are mapped; in the part `version` is its own; what goes with it is deleted, index and all."""
    local = LocalMachine(Late, version=1)
    with pytest.raises(Rejected, match="NotActive"):
        local.part.put("a", 1)
    local.upgrade(2)
    assert [local.part.put(key, 1) for key in "abcde"] == [1] * 5
    assert local.put("x") == 2
    local.upgrade(3)
    assert (local.part.put("f", 2), local.part.all_of()) == (2, dict.fromkeys("abcde", 1) | {"f": 2})
    local.upgrade(5)
    assert (local.part.late(), local.version) == (3, 5)
    assert local.part.all_of()["f"] >= 102
    store = local._runner.store
    assert not list(store.scan(Late.parts["part.old"].prefix, Late.parts["part.old"].end)), "it went at the 3rd"
    assert len(list(store.scan(Late.parts["part.new"].prefix, Late.parts["part.new"].end))) == 6
    local.upgrade(7)
    assert not list(store.scan(Late.parts["part.new"].prefix, Late.parts["part.new"].end)), "all is gone"
    assert list(local._runner.out_of_step()) == []
    with pytest.raises(Rejected, match="NotActive"):
        local.part.put("a", 1)


def test_the_spans_of_a_part_are_those_of_its_component_in_the_whole():
    """Also of a part in a part."""

    class Outer(Component):
        version = 2
        inner = Part(Grown, versions={1: 1, 2: 2})

    class Whole(StateMachine):
        version = 9
        outer = Part(Outer, versions={4: 1, 8: 2})

    def span(machine, name):
        found = (machine.methods | machine.parts)[name].span
        return found.since, found.until

    assert span(Late, "part.old") == (2, 5)
    assert span(Late, "part.new") == (3, 7)
    assert span(Late, "part.late") == (5, 7)
    assert {each.name: each.to for each in Late.upgrades.values()} == {"part.move": 3, "part.mark": 5}
    assert span(Whole, "outer.inner.put") == (4, None)
    assert span(Whole, "outer.inner.new") == (8, None)
    assert not [version for version in range(1, 10) if "outer.inner.late" in Whole.schema(version).methods]
    assert {each.name: each.to for each in Whole.upgrades.values()} == {"outer.inner.move": 8}


def test_what_no_version_of_the_whole_has_is_not_there_for_the_component_either():
    """Its code may write to a table, or a part, of a later version as if it were there: it does not come upon a table
    of the whole that is called the same."""

    class Inner(Component):
        rows = Table(str, int)

        @command
        def put(self, key: str) -> None:
            """Into the part's own table."""
            self.rows[key] = 1

    class Grows(Component):
        version = 2
        own = Table(str, int, since=2)
        inner = Part(Inner, since=2)

        @command
        def put(self, key: str) -> int:
            """Into all that there is."""
            self.own[key] = 1
            self.inner.put(key)
            self.schedule(1, Grows.later)
            return len(self.own)

        @command(since=2)
        def later(self) -> None:
            """Never runs."""

    class Whole(StateMachine):
        own = Table(str, str)
        rows = Table(str, str)
        part = Part(Grows, versions={1: 1})

        @query
        def all_of(self) -> int:
            """Rows of the whole's own."""
            return len(self.own) + len(self.rows)

    local = LocalMachine(Whole)
    assert local.part.put("a") == 1, "as a command of a class whose version is not active yet"
    assert (local.all_of(), local.timers) == (0, 0)
    assert not list(local._runner.store.scan(b"\2own", b"\2owo")) + list(local._runner.store.scan(b"\2i", b"\2j"))
    assert Whole.schema().parts.keys() == {"own", "rows"}
    with pytest.raises(Rejected, match="NotActive"):
        local.part.later()


def test_a_component_with_versions_must_be_told_which():
    """Else a new one would change what a version of the whole is."""

    def none():
        class One(StateMachine):
            part = Part(Grown)

    def leap():
        class One(StateMachine):
            version = 2
            part = Part(Grown, versions={1: 1, 2: 3})

    def unknown():
        class One(StateMachine):
            part = Part(Grown, versions={1: 4})

    def both():
        class One(StateMachine):
            version = 3
            part = Part(Grown, since=2, versions={3: 3})

    mistake(r"Grown has versions 1 to 3: say .* like `versions=\{1: 3\}`", none)
    mistake("must rise one by one", leap)
    mistake("Grown has versions 1 to 3", unknown)
    mistake("leave `since` out", both)


def test_bases_with_something_of_one_name_are_refused():
    """Tables, values, commands, queries, helpers, version rules, limits: both classes are named."""

    class Other(Component):
        held = Value(int, 0)

    class Helper(Component):
        def _help(self) -> int:
            return 1

    class Help(Component):
        @command
        def helped(self) -> int:
            """By its own helper."""
            return self._help()

        def _help(self) -> int:
            return 2

    class Query(Component):
        @query
        def acquire(self) -> int:
            """No command."""
            return 0

    class Narrow(Component, limits=Limits(key_bytes=10)):
        pass

    class Wide(Component, limits=Limits(key_bytes=20)):
        pass

    for one, other, name in [
        (Locks, Other, "held"),
        (Helper, Help, "_help"),
        (Locks, Query, "acquire"),
        (Grown, Late, "(version|put)"),
        (Narrow, Wide, "limits"),
    ]:

        def mix(one=one, other=other):
            class Mixed(one, other):
                pass

        mistake(f"both {one.__name__} and {other.__name__} have {name}, so that", mix)


def test_bases_that_agree_or_know_each_other_are_mixed():
    """A common base, one that overrides it, and what the class declares itself."""

    class Base(Component):
        total = Value(int, 0)

        @command
        def add(self) -> int:
            """Adds one."""
            self.total += 1
            return self.total

    class Twice(Base):
        @command
        def add(self) -> int:
            """Adds two."""
            self.total += 2
            return self.total

    class Beside(Base):
        @query
        def seen(self) -> int:
            """What there is."""
            return self.total

    class Mixed(Beside, Twice, Locks):
        pass

    local = LocalMachine(Mixed)
    assert (local.add(), local.seen(), local.acquire("x", "ann")) == (2, 2, 1)
    local.advance(20)
    assert local.told() == ["noted x", "noted x", "over x ann"]
