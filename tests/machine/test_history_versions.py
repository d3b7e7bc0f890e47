"""The history of changes through versions: what begins and ends to be watched, and what upgrades change."""

from __future__ import annotations

import re

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument
from raftkv.history import BEGINNING, Compacted, Cursor
from raftkv.machine import (
    Events,
    Founding,
    History,
    LocalMachine,
    Runner,
    StateMachine,
    Table,
    changed,
    command,
    decode_schema,
    encode_change,
    encode_schema,
    not_grown,
    upgrade,
)
from raftkv.machine.local import START_MS
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import Applied, MemoryStore


class Note(msgspec.Struct, frozen=True):
    """An event."""

    text: str


def shop(last: int, *, fails: bool = False) -> type[StateMachine]:
    """Its stock is watched in versions 2, 3 and 5, with old values from 3 on; it tells events from 2 on, and of other
    ones in version 3 only."""

    class Shop(StateMachine, history=History(count=100 + last)):
        version = last
        stock = Table(str, int, watch={1: False, 2: True, 4: False}.get(last, "old"))  # type: ignore[arg-type]
        always = Table(str, int, watch=True)

        @command
        def put(self, key: str, number: int) -> None:
            """Set a row, and tell of it."""
            self.stock[key] = number
            self.always[key] = number
            if last > 1:
                self.notes.emit(Note(key))
            if last > 2:
                self.others.emit(number)

        if last > 1:
            notes = Events(Note, since=2)

            @upgrade(to=2)
            def double(self) -> None:
                """Every number is another one."""
                for key, number in self.stock.items():
                    self.stock[key] = number * 2
                    self.notes.emit(Note(f"doubled {key}"))
                if fails:
                    raise ValueError("not today")

        if last > 2:
            others = Events(int, since=3, until=None if last == 3 else 4)

        if last > 3:

            @upgrade(to=4)
            def last_words(self) -> None:
                """What goes with version 4 may still be told, to nobody."""
                self.others.emit(4)

    return Shop


def states_of(*lasts, begun=1):
    """One state that classes of several versions run in turn: yields a `LocalMachine` of each."""
    store, local = None, None
    for last in lasts:
        new = LocalMachine(shop(last), version=begun if local is None else None, begun_by=shop(begun))
        if local is not None:
            new._runner = Runner(new.machine, store)
            new._chain = local._chain
            new.now_ms = local.now_ms
        local, store = new, new._runner.store
        yield local


def told(local, name, after=BEGINNING, **wanted):
    """Keys and values of changes."""
    source = vars(local.machine).get(name) or local.machine.parts[name]
    return [(each.key, each.value) for each in local.changes(source, after, **wanted)]


def test_what_begins_to_be_watched_is_known_from_then_on():
    """What the upgrade itself changes and tells is among it; before is said to be gone, and not passed over."""
    states = states_of(1, 2)
    local = next(states)
    local.put("a", 1)
    with pytest.raises(InvalidArgument, match="changes of 'stock' are not recorded in the version that is active"):
        told(local, "stock")
    local = next(states)
    with pytest.raises(InvalidArgument, match=r"'stock' are not recorded .*, which records always"):
        told(local, "stock")
    before = local.cursor
    local.upgrade()
    for name in ("stock", "notes"):
        with pytest.raises(Compacted) as caught:
            told(local, name)
        assert caught.value.oldest == before
    assert told(local, "stock", before) == [("a", 2)]
    assert told(local, "notes", before) == [(None, Note("doubled a"))]
    assert told(local, "always") == [("a", 1)], "what was watched before goes on"
    local.put("b", 5)
    assert told(local, "stock", local._runner.newest.behind(local.index - 1)) == [("b", 5)]
    assert list(local._runner.out_of_step()) == []


def test_what_ceased_to_be_watched_and_begins_again_has_a_gap():
    """Whoever has watched it in between is told that he missed something."""
    states = states_of(2, 3, 4, 5, begun=2)
    local = next(states)
    local.put("a", 1)
    assert told(local, "stock") == [("a", 1)], "it was so from the beginning"
    local = next(states)
    local.upgrade()
    seen = local.cursor
    local.put("a", 2)
    assert told(local, "others", seen) == [(None, 2)]
    local = next(states)
    local.upgrade()
    local.put("a", 3)
    for name in ("stock", "others"):
        with pytest.raises(InvalidArgument, match="are not recorded"):
            told(local, name, seen)
    assert told(local, "always", seen) == [("a", 2), ("a", 3)]
    local = next(states)
    local.upgrade()
    local.put("a", 4)
    with pytest.raises(Compacted) as caught:
        told(local, "stock", seen)
    assert told(local, "stock", caught.value.oldest) == [("a", 4)]
    assert told(local, "notes") == [(None, Note("a"))] * 4
    assert list(local._runner.out_of_step()) == []


def test_old_values_are_known_from_when_they_are_kept():
    """A watcher without them would take what was changed before for new rows."""
    states = states_of(2, 3, begun=2)
    local = next(states)
    local.put("a", 1)
    local.put("a", 2)
    local = next(states)
    local.upgrade()
    before = local.cursor
    local.put("a", 3)
    stock = local.machine.parts["stock"]
    assert [(each.value, each.old) for each in local.changes(stock, before, old=True)] == [(3, 2)]
    with pytest.raises(Compacted) as caught:
        local.changes(stock, old=True)
    assert caught.value.oldest == Cursor.behind(before.index - 1), "from the entry of the upgrade on"
    assert told(local, "stock") == [("a", 1), ("a", 2), ("a", 3)], "whoever wants none misses nothing"


def test_a_failed_upgrade_leaves_nothing():
    """Neither on the leader that tries it nor in the entry that says so."""
    local = LocalMachine(shop(2, fails=True), version=1, begun_by=shop(1))
    local.put("a", 1)
    with pytest.raises(Exception, match="not today"):
        local.upgrade()
    assert told(local, "always") == [("a", 1)]
    with pytest.raises(InvalidArgument):
        told(local, "notes")
    assert list(local._runner.out_of_step()) == []


def test_a_later_class_records_what_the_active_version_does():
    """The state, and its digest, are the same as where the class of that version runs, with its bounds."""
    states = [LocalMachine(shop(last), version=2, begun_by=shop(2)) for last in (2, 3, 4)]
    for local in states:
        for at in range(60):
            local.put(f"k{at % 7}", at)
    values = [dict(local._runner.store.scan(b"", None)) for local in states]
    assert values[0] == values[1] == values[2]
    assert len({local.digest for local in states}) == 1
    assert [sum(key.startswith(b"\4c") for key in each) for each in values] == [102] * 3


def test_an_unknown_state_is_watched_from_its_first_version_on():
    """One that knew of no versions may have rows of which nobody has written down how they came there. A new one has
    none: its history is whole."""
    for rows in ((), ("a",)):
        machine = shop(2)
        store = MemoryStore.open(SimDisk(), "/state")
        store.write({machine.parts["stock"].prefix + key.encode(): b"\1" for key in rows}, Applied(4))
        runner = Runner(machine, store)
        payload = encode_change(Founding(2, encode_schema(machine.schema())))
        runner.apply([make_entry(5, 1, START_MS, EntryKind.NOOP, payload, GENESIS_CHAIN)])
        local = LocalMachine(machine)
        local._runner = runner
        if rows:
            with pytest.raises(Compacted) as caught:
                told(local, "stock")
            assert caught.value.oldest == Cursor.behind(4)
        else:
            assert told(local, "stock") == []
        assert told(local, "notes") == []


def test_a_new_node_has_the_history_of_the_state_that_it_got():
    """It is in snapshots, as all of the state is."""
    local = LocalMachine(shop(3), version=2, begun_by=shop(2))
    local.put("a", 1)
    local.upgrade()
    local.put("a", 2)
    store = MemoryStore.open(SimDisk(), "/state")
    store.write(dict(local._runner.store.scan(b"", None)), local._runner.applied)
    other = LocalMachine(shop(3))
    other._runner, other._chain = Runner(other.machine, store), local._chain
    for each in (local, other):
        each.put("b", 3)
        assert told(each, "stock") == [("a", 1), ("a", 2), ("b", 3)]
    assert local.digest == other.digest


def test_what_is_watched_is_part_of_the_version():
    """A class of the same version must not differ in it; one of a later may."""

    def made(watch, kind="events", kept=None):
        class Made(StateMachine, history=kept):
            table = Table(str, int, watch=watch)
            if kind == "events":
                stream = Events(int)

        return Made.schema()

    base = made(True)
    for other, text in (
        (made(False), "table table: was watched, is not watched"),
        (made("old"), "table table: was watched, is watched, with old values"),
        (made(True, kept=History(count=7)), "the history of changes .count, bytes, seconds.: was .100000, "),
        (made(True, kind=""), "events stream: was there, is gone"),
    ):
        (difference,) = changed(base, other)
        assert re.match(text, str(difference)), str(difference)
        assert bool(not_grown(base, other)) is ("events" in text)
    assert decode_schema(encode_schema(base)) == base
    assert made(False, kind="", kept=History(count=7)).history == (), "nothing is kept"


def test_a_schema_that_watches_what_is_not_there_is_refused():
    """As it comes from others."""
    schema = shop(3).schema()
    for wrong, text in (
        ({"watched": {"nothing": True}}, "there is no table or set nothing to be watched"),
        ({"watched": {"notes": True}}, "there is no table or set notes to be watched"),
        ({"history": (1, 2)}, "a history is kept within"),
        ({"history": (0, 1, 1)}, "a history is kept within"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            decode_schema(encode_schema(msgspec.structs.replace(schema, **wrong)))
