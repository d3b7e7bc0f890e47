"""Changes of an application that are mistakes: each is refused before harm, in words that say what to do instead."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import MachineError, NotActive, SchemaChanged, WrongVersion
from raftkv.machine import (
    NO_SESSION,
    Activation,
    Limits,
    LocalMachine,
    Runner,
    StateMachine,
    Step,
    Table,
    Value,
    command,
    encode_command,
    encode_schema,
    query,
    upgrade,
)
from raftkv.state import MemoryStore
from tests.shop import First, Second, TaggedOrder


def record(*fields, **settings):
    """A record's class."""
    return msgspec.defstruct("Item", fields, **settings)


N, NOTE, MORE = ("n", int), ("note", str, ""), ("more", int, 0)
ITEM = record(N, NOTE)
ARRAY = {"array_like": True, "kw_only": True}


def put(self: Any, name: str, n: int, note: str = "") -> int:
    """Keep it."""
    self.items[name] = self.parts["items"].types[1](n=n)
    return n


def drop(self: Any, name: str) -> bool:
    """Keep it no more."""
    return self.items.pop(name, None) is not None


def total(self: Any) -> int:
    """A query."""
    return sum(item.n for _, item in self.items.items())


def shop(version=1, limits=None, **changes):
    """A class; what is None is not there."""
    body = {
        "__module__": __name__,
        "version": version,
        "items": Table(str, ITEM),
        "sold": Value(int, 0),
        "put": command(put),
        "drop": command(drop),
        "total": query(total),
        **changes,
    }
    body = {name: value for name, value in body.items() if value is not None}
    return type(StateMachine)("Shop", (StateMachine,), body, limits=limits)


def put_default(self: Any, name: str, n: int, note: str = "-") -> int:
    """With another default."""
    return n


def put_shorter(self: Any, name: str, n: int) -> int:
    """Without the last argument."""
    return n


def put_required(self: Any, name: str, n: int, note: str, more: int) -> int:
    """With one more that is required."""
    return n


def put_longer(self: Any, name: str, n: int, note: str = "", more: int = 0) -> int:
    """With one more."""
    return n


def put_typed(self: Any, name: str, n: str, note: str = "") -> int:
    """With another type."""
    return 0


def put_swapped(self: Any, n: int, name: str, note: str = "") -> int:
    """In another order."""
    return n


def put_result(self: Any, name: str, n: int, note: str = "") -> str:
    """With another result."""
    return name


def more(self: Any) -> int:
    """Another command."""
    return 1


def late(self: Any) -> int:
    """One that comes with a version that is not there."""
    return 1


def as_put(function):
    """A command that takes the other's place."""
    function.__name__ = "put"
    return command(function)


ONE_VERSION = "raise the class's version, and let the old one be among those that it runs"
LIST = [
    ("another default of a field", {"items": Table(str, record(N, ("note", str, "-")))}, "field Item.note: was with"),
    ("another default of an argument", {"put": as_put(put_default)}, "argument note: was with the default ''"),
    ("another default of a value", {"sold": Value(int, 1)}, "value sold: was with the default 0"),
    ("another type of keys", {"items": Table(int, ITEM)}, "table items, key: was str, is int"),
    ("another type of a value", {"sold": Value(str, "")}, "value sold: was int, is str"),
    ("another type of a field", {"items": Table(str, record(("n", str), NOTE))}, "field Item.n: was int, is str"),
    ("another type of an argument", {"put": as_put(put_typed)}, "argument n: was int, is str"),
    ("another result", {"put": as_put(put_result)}, "command put, result: was int, is str"),
    ("no field", {"items": Table(str, record(N))}, "field Item.note: was str, is gone: keep it"),
    ("no table", {"items": None}, "table items: was there, is gone: keep it in the class"),
    ("no command, which may be in the log", {"drop": None}, "command drop: was there, is gone: keep it"),
    ("no argument", {"put": as_put(put_shorter)}, "argument note: was str, is gone: keep it"),
    ("a required argument", {"put": as_put(put_required)}, "command put, argument more: was not there, is "),
    ("swapped arguments", {"put": as_put(put_swapped)}, "argument name: was number 1, is number 2: keep it in its pl"),
    ("a table that is a value", {"items": Value(int, 0)}, "table items: was a table, is a value: give the new one an"),
    ("a renamed field", {"items": Table(str, record(("m", int), NOTE))}, "field Item.n: was int, is gone"),
    (
        "a field renamed on the wire",
        {"items": Table(str, record(N, NOTE, rename="upper"))},
        "field Item.n: was int, is",
    ),
    ("a tag", {"items": Table(str, record(N, NOTE, tag=True))}, "table items: was Item, is Item (type='Item')"),
    ("a required field", {"items": Table(str, record(N, ("w", int), NOTE, kw_only=True))}, "field Item.w: was not the"),
    (
        "an array",
        {"items": Table(str, record(N, NOTE, array_like=True))},
        "table items: was Item, is Item (array_like)",
    ),
]
"""What must not be changed, whatever the version."""

LATER = [
    ("a field", {"items": Table(str, record(N, NOTE, MORE))}, "field Item.more: was not there, is int"),
    ("an argument", {"put": as_put(put_longer)}, "command put, argument more: was not there, is int"),
    ("a table", {"more": Table(str, int)}, "table more: was not there, is there"),
    ("a command", {"more": command(more)}, "command more: was not there, is there"),
    ("limits", {"limits": Limits(key_bytes=8_192)}, "the limits (key, value, change, timers): was"),
]
"""What may be changed, but not under one version."""


def begun(machine=None):
    """What version 1 has done."""
    machine = machine or shop()
    local = LocalMachine(machine, version=machine.version)
    local.put("a", 1)
    local.put("b", 2)
    return local, local._runner.store


def refused(machine, before, words, error=SchemaChanged):
    """It is, with these words; nothing is changed, and the old class goes on."""
    local, store = begun(before)
    held = dict(store.scan(b"", b"\xff" * 9))
    with pytest.raises(error) as found:
        Runner(machine, store)
    assert words in str(found.value)
    assert "of Shop is active, and this class" in str(found.value)
    assert dict(store.scan(b"", b"\xff" * 9)) == held
    assert local.put("c", 3) == 3
    assert Runner(before or shop(), store).applied == store.applied
    return str(found.value)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("changes", "words"), [each[1:] for each in LIST], ids=[each[0] for each in LIST])
def test_what_must_not_change_is_refused_at_the_start(changes, words, version):
    """Under the same version, and under a later one."""
    text = refused(shop(version, **changes), None, words)
    assert (ONE_VERSION in text) == (version == 1)


@pytest.mark.parametrize(("changes", "words"), [each[1:] for each in LATER], ids=[each[0] for each in LATER])
def test_what_may_grow_needs_a_later_version(changes, words):
    """Under the same it is refused, and it says so; under the next it goes on with the same state."""
    assert ONE_VERSION in refused(shop(1, **changes), None, words)
    _, store = begun()
    runner = Runner(shop(2, **changes), store)
    assert (runner.active.version, runner.applied) == (1, store.applied)


def test_an_element_in_the_middle_of_an_array_is_refused():
    """Elements have no names on the wire."""
    before = shop(items=Table(str, record(N, NOTE, **ARRAY)))
    words = "field Item.note: was number 2, is number 3: keep fields in their order, and add others last"
    refused(shop(2, items=Table(str, record(N, MORE, NOTE, **ARRAY))), before, words)


def test_a_lower_version_is_refused():
    """The way back is to install what the others run."""
    text = refused(shop(1), shop(2), "version 2 of Shop is active, and this class runs version 1", WrongVersion)
    assert "install a version of the application that runs version 2" in text


def test_a_version_that_has_forgotten_the_active_one_is_refused():
    """One in between has to come first."""
    words = "version 1 of Shop is active, and this class runs versions 2 to 3: install a version of the application tha"
    refused(shop(3, oldest_version=2), None, words, WrongVersion)


def test_queries_may_change_under_one_version():
    """They leave no trace."""

    def total(self: Any, of: str) -> str:
        """Of other types."""
        return str(self.items[of].n)

    _, store = begun()
    assert Runner(shop(total=query(total)), store).applied == store.applied


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"more": Table(str, int, since=3)}, "this is of version 3, but the class is of version 2"),
        ({"late": command(since=3)(late)}, "this is of version 3, but the class is of version 2"),
        ({"more": Table(str, int, since=2, until=2)}, "until"),
        ({"oldest_version": 3}, "oldest_version is 3, which is above version, 2"),
        ({"version": 0}, "version must be 1 to"),
        ({"up": upgrade(to=1)(lambda self: None)}, "`to` must be the number of a version, 2 or above, not 1"),
    ],
)
def test_a_class_whose_versions_make_no_sense_is_refused_where_it_is_made(changes, words):
    """Nobody can start a node with it."""
    with pytest.raises(MachineError, match=words):
        shop(**{"version": 2, **changes})


def test_an_upgrade_to_a_version_that_is_not_there_is_refused_where_it_is_made():
    """It would never run."""

    def fill(self: Any) -> None:
        """Nothing."""

    with pytest.raises(MachineError, match="this is of version 3, but the class is of version 2"):
        shop(2, fill=upgrade(to=3)(fill))


def test_a_table_that_ends_without_an_upgrade_is_emptied_in_pieces():
    """Its rows are deleted, and nothing else; the version before still had them."""

    def fill(self: Any, count: int) -> int:
        """Many rows."""
        for number in range(count):
            self.items[str(number)] = ITEM(number)
        return count

    before = shop(fill=command(fill))
    local = LocalMachine(before, version=1)
    local.fill(2_500)
    after = shop(2, fill=command(until=2)(fill), items=Table(str, ITEM, until=2))
    runner = Runner(after, local._runner.store)
    assert sum(1 for _ in runner.instance.items) == 2_500
    local._runner = runner
    local.machine = after
    local._apply_change(Activation(2, encode_schema(after.schema())))
    for steps in range(3):
        assert runner.active.kept.left == ("-items",)
        local._apply_change(Step(2, steps))
    assert (runner.active.kept.steps, runner.active.kept.left) == (3, ())
    assert not [key for key, _ in runner.store.scan(b"", b"\xff" * 9) if b"items" in key]


@pytest.mark.parametrize("returned", [7, ["x"], object()])
def test_a_piece_that_returns_another_type_fails(returned):
    """It is said with its name, and nothing of the piece stays."""

    def fill(self: Any, after: str | None) -> str | None:
        """Wrong."""
        self.sold = 99
        return returned

    local, store = begun()
    after = shop(2, fill=upgrade(to=2)(fill))
    local._runner, local.machine = Runner(after, store), after
    with pytest.raises(Exception, match="UpgradeFailed: fill: TypeError"):
        local.upgrade()
    kept = local._runner.active.kept
    assert (kept.version, kept.left, kept.failed_version) == (2, ("fill",), 2)
    assert local._runner.instance.sold == 0
    assert local.put("c", 3) == 3


def test_an_upgrade_that_never_ends_lets_commands_go_on():
    """Each piece is an entry of its own, and the status shows how many there were."""

    def fill(self: Any, after: int | None) -> int | None:
        """Again and again."""
        return (after or 0) + 1

    local, store = begun()
    after = shop(2, fill=upgrade(to=2)(fill))
    local._runner, local.machine = Runner(after, store), after
    local._apply_change(Activation(2, encode_schema(after.schema())))
    for steps in range(20):
        local._apply_change(Step(2, steps))
        assert local.put("c", steps) == steps
    local._apply_change(Step(2, 3))  # of a leader of before
    assert (local._runner.active.kept.steps, local._runner.active.kept.left) == (20, ("fill",))


def test_a_new_leader_checks_by_the_version_that_it_begins_the_state_with():
    """Its first entry is not applied yet: what that version lacks, a field too, must not get into the log behind it."""
    runner = Runner(Second, MemoryStore.open(SimDisk(), "/state"))
    tagged = Second.methods["order"].encode_args((1, TaggedOrder("a", tags=["red"])), {})
    runner.check(encode_command(NO_SESSION, 0, 0, "order", tagged))
    runner.expect(1, encode_schema(First.schema()))
    with pytest.raises(NotActive, match="tags"):
        runner.check(encode_command(NO_SESSION, 0, 0, "order", tagged))
    plain = Second.methods["order"].encode_args((1, TaggedOrder("a")), {})
    runner.check(encode_command(NO_SESSION, 0, 0, "order", plain))


def test_a_class_without_an_upgrade_that_is_not_done_is_refused():
    """It would leave rows as they are and say that all is done; with that upgrade it goes on."""

    def fill(self: Any, after: int | None) -> int | None:
        """Two pieces."""
        return 1 if after is None else None

    local, store = begun()
    after = shop(2, fill=upgrade(to=2)(fill))
    local._runner, local.machine = Runner(after, store), after
    local._apply_change(Activation(2, encode_schema(after.schema())))
    local._apply_change(Step(2, 0))
    with pytest.raises(
        WrongVersion, match="the upgrade to version 2 of Shop is not done, and this class lacks fill: ins"
    ):
        Runner(shop(2), store)
    local._apply_change(Step(2, 1))
    assert local._runner.active.kept.left == ()
    assert Runner(shop(2), store).active.version == 2
