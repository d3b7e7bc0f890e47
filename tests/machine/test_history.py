"""The history of changes: each change of a watched table, and each event, once, in order, for as long as it is kept."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument, MachineError, MachineFailed, Rejected
from raftkv.history import BEGINNING, Asked, Compacted, Cursor, Found
from raftkv.machine import (
    DUE_AT_ONCE,
    NO_SESSION,
    Component,
    Events,
    History,
    Limits,
    LocalMachine,
    Part,
    Runner,
    Set,
    StateMachine,
    Table,
    TooLarge,
    Value,
    command,
    encode_command,
    find_source,
    query,
)
from raftkv.machine import recorder as recording
from raftkv.machine.local import START_MS
from raftkv.machine.recorder import TRIMMED_AT_ONCE, extent_in
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import HISTORY_PREFIX, MemoryStore
from raftkv.state.rocks import RocksStates


class Sent(msgspec.Struct, tag=True, frozen=True):
    """Something went out."""

    item: str
    count: int


class Lost(msgspec.Struct, tag=True, frozen=True):
    """Something is gone."""

    item: str


class Store(StateMachine, limits=Limits(value_bytes=2_000, change_bytes=20_000)):
    """Tables of each kind that can be watched, and one that is not."""

    stock = Table(str, int, watch="old")
    named = Table(int, dict[str, str], index={"name": str}, watch=True)
    tags = Set(str, watch=True)
    leases = Table(str, str, expires=True, watch="old")
    plain = Table(str, int)
    total = Value(int, 0)
    moved = Events(Sent, Lost)
    notes = Events(str)

    @command
    def put(self, key: str, number: int) -> None:
        """Set a row."""
        self.stock[key] = number
        self.plain[key] = number
        self.total += 1

    @command
    def remove(self, key: str) -> None:
        """Delete a row."""
        del self.stock[key]

    @command
    def many(self, keys: list[str], number: int, then: str = "") -> None:
        """Change rows, some more than once, and end as `then` says."""
        for at, key in enumerate(keys):
            if key in self.stock and at % 3 == 0:
                del self.stock[key]
            else:
                self.stock[key] = number + at
            self.moved.emit(Lost(key) if at % 2 else Sent(key, at))
        if then == "raise":
            raise ValueError("no")
        if then == "break":
            raise OSError("the disk")

    @command
    def name(self, number: int, name: str) -> None:
        """Set an indexed row."""
        self.named[number] = {"name": name}

    @command
    def tag(self, key: str, there: bool) -> None:
        """Add or remove one."""
        (self.tags.add if there else self.tags.discard)(key)

    @command
    def lease(self, key: str, holder: str, ttl_s: float | None) -> None:
        """Take one, whoever has it."""
        self.leases.put(key, holder, ttl_s=ttl_s)

    @command
    def release(self, key: str) -> None:
        """Give one back, or raise."""
        del self.leases[key]

    @command
    def note(self, text: str) -> None:
        """Emit an event, or a wrong one."""
        self.notes.emit(text if text else 3)  # type: ignore[arg-type]

    @command
    def later(self, after_s: float, keys: list[str], then: str = "") -> None:
        """Do `many` later."""
        self.schedule(after_s, Store.many, keys, 7, then)

    @query
    def emits(self) -> None:
        """Does what no query may."""
        self.notes.emit("asked")


SOURCES = (Store.stock, Store.named, Store.tags, Store.leases, Store.moved, Store.notes)


def told(local, source, after=BEGINNING, **wanted):
    """Key, value and old value of each change."""
    return [(each.key, each.value, each.old) for each in local.changes(source, after, **wanted)]


def test_each_change_is_told_with_its_place_and_the_value_before():
    """In the order of the log, deletions too; the value before is left out when nobody asks for it."""
    local = LocalMachine(Store)
    local.put("a", 1)
    local.put("b", 2)
    local.put("a", 3)
    local.remove("a")
    assert told(local, Store.stock, old=True) == [("a", 1, None), ("b", 2, None), ("a", 3, 1), ("a", None, 3)]
    assert told(local, Store.stock) == [("a", 1, None), ("b", 2, None), ("a", 3, None), ("a", None, None)]
    changes = local.changes(Store.stock)
    assert [each.index for each in changes] == [1, 2, 3, 4]
    assert [each.deleted for each in changes] == [False, False, False, True]
    assert {each.time_ms for each in changes} == {START_MS}
    assert told(local, Store.stock, changes[1].cursor) == [("a", 3, None), ("a", None, None)]
    assert told(local, Store.stock, Cursor.behind(3)) == [("a", None, None)]
    assert told(local, Store.stock, local.cursor) == []


def test_a_command_changes_a_row_once_or_not_at_all():
    """From the value before the command to the one behind it; a row that is as it was has not changed."""
    local = LocalMachine(Store)
    local.many(["a", "a", "b"], 10)
    assert told(local, Store.stock, old=True) == [("a", 11, None), ("b", 12, None)]
    before = local.cursor
    local.put("a", 11)
    local.many(["c", "d", "d", "d", "x"], 0)
    assert told(local, Store.stock, before) == [("c", 0, None), ("x", 4, None)], "d came and went"
    local.name(1, "one")
    local.name(1, "one")
    local.name(1, "two")
    assert told(local, Store.named) == [(1, {"name": "one"}, None), (1, {"name": "two"}, None)]
    local.tag("t", True)
    local.tag("t", True)
    local.tag("t", False)
    assert [(each.key, each.deleted) for each in local.changes(Store.tags)] == [("t", False), ("t", True)]


def test_events_come_in_their_order_and_with_their_types():
    """Behind the rows of their command, each by a cursor of its own."""
    local = LocalMachine(Store)
    local.many(["a", "b"], 1)
    local.note("hello")
    events = local.changes(Store.moved)
    assert [each.value for each in events] == [Sent("a", 0), Lost("b")]
    assert [each.cursor for each in events] == [Cursor(1, 2), Cursor(1, 3)]
    assert told(local, Store.moved, events[0].cursor) == [(None, Lost("b"), None)]
    assert told(local, Store.notes) == [(None, "hello", None)]
    with pytest.raises(Rejected, match="a value must be of type str, not 3"):
        local.note("")
    with pytest.raises(Rejected, match="only a command may emit an event"):
        local.emits()


def test_what_is_rejected_leaves_nothing():
    """Neither rows nor events; and the next command's places do not show that there was anything."""
    local = LocalMachine(Store)
    with pytest.raises(Rejected, match="no"):
        local.many(["a", "b"], 1, "raise")
    with pytest.raises(TooLarge, match="an event would have 2003 bytes: must be at most 2000"):
        local.note("n" * 2_000)
    with pytest.raises(TooLarge, match="what a command changes"):
        local.many([f"{at:02d}" * 30 for at in range(200)], 1)
    assert [told(local, source) for source in SOURCES] == [[]] * len(SOURCES)
    local.put("a", 1)
    assert local.changes(Store.stock)[0].cursor == Cursor(4, 0)


def test_a_row_that_is_over_is_gone_first():
    """When it is removed, and also when it is set again before that, be it to the same value."""
    local = LocalMachine(Store)
    local.lease("a", "x", 1)
    local.advance(2)
    assert told(local, Store.leases, old=True) == [("a", "x", None), ("a", None, "x")]
    local.lease("b", "y", 1)
    before = local.cursor
    local.now_ms += 1_000
    local.lease("b", "y", 5)
    assert told(local, Store.leases, before, old=True) == [("b", None, "y"), ("b", "y", None)]
    local.lease("b", "y", 9)
    local.lease("c", "z", None)
    local.now_ms += 9_000
    with pytest.raises(Rejected, match="KeyError"):
        local.release("b")
    assert told(local, Store.leases, before, old=True)[2:] == [("c", "z", None)]
    local.advance(1)
    assert told(local, Store.leases, before, old=True)[3:] == [("b", None, "y")]


def test_scheduled_commands_have_their_changes_in_turn():
    """Those of one entry go on counting; what one of them raises leaves nothing, and the next goes on."""
    local = LocalMachine(Store)
    local.later(1, ["a", "a"])
    local.later(1, ["x"], "raise")
    local.later(1, ["a", "b"])
    local.advance(1)
    changes = local.changes(Store.stock, old=True)
    assert [(each.key, each.value, each.old) for each in changes] == [("a", 8, None), ("a", None, 8), ("b", 8, None)]
    assert [each.cursor for each in changes] == [Cursor(4, 0), Cursor(4, 3), Cursor(4, 4)]
    assert [each.cursor.position for each in local.changes(Store.moved)] == [1, 2, 5, 6]


def test_rows_are_chosen_by_prefix_and_range():
    """Keys of a wrong type, a prefix of what has none, and both at once, are refused with a sentence."""
    local = LocalMachine(Store)
    local.many(["a", "ab", "b", "c"], 0)
    local.name(-1, "m")
    local.name(5, "n")
    assert [key for key, *_ in told(local, Store.stock, prefix="a")] == ["a", "ab"]
    assert [key for key, *_ in told(local, Store.stock, start="ab")] == ["ab", "b", "c"]
    assert [key for key, *_ in told(local, Store.stock, start="ab", end="c")] == ["ab", "b"]
    assert [key for key, *_ in told(local, Store.named, end=0)] == [-1]
    for source, wanted, text in (
        (Store.stock, {"prefix": 3}, "stock: a key must be a str, not 3"),
        (Store.named, {"prefix": 3}, "ints have no prefixes"),
        (Store.stock, {"prefix": "a", "end": "b"}, "not both"),
        (Store.moved, {"prefix": "a"}, "events have no keys"),
        (Store.tags, {"old": True}, 'no old values of tags are kept: declare it with `watch="old"`'),
        (Store.plain, {}, "changes of 'plain' are not recorded in the version that is active, which records leases, "),
    ):
        with pytest.raises(InvalidArgument, match=text):
            local.changes(source, **wanted)
    with pytest.raises(InvalidArgument, match="there is no cursor"):
        local.changes(Store.stock, Cursor(-1, 0))


class Line:
    """A runner with entries of its own."""

    def __init__(self, machine=Store, store=None):
        self.machine = machine
        self.store = store or MemoryStore.open(SimDisk(), "/state")
        self.runner = Runner(machine, self.store)
        self.index, self.chain = 0, GENESIS_CHAIN

    def entry(self, time_ms, kind, payload):
        """The next one."""
        self.index += 1
        made = make_entry(self.index, 1, time_ms, kind, payload, self.chain)
        self.chain = made.chain
        return made

    def call(self, name, *args, time_ms=0):
        """A command as an entry."""
        encoded = self.machine.methods[name].encode_args(args, {})
        return self.entry(time_ms, EntryKind.COMMAND, encode_command(NO_SESSION, 0, 0, name, encoded))

    def restart(self):
        """A new runner on what is in the store."""
        self.runner = Runner(self.machine, self.store)

    def all_of(self, source, after=BEGINNING, changes_max=1_000, **asked):
        """All changes from there on, and where one goes on."""
        found, asked = [], Asked(source, after, **asked)
        while asked.after < self.runner.newest:
            some = self.runner.changes(asked, changes_max, 1 << 20)
            assert some.after > asked.after, "it goes on"
            found += some.changes
            asked = msgspec.structs.replace(asked, after=some.after)
        return found


def test_what_changed_is_named_after_each_batch():
    """A node wakes those who watch these; where nothing was recorded, nobody."""
    line = Line()
    assert line.runner.changed == frozenset()
    line.runner.apply([line.call("put", "a", 1), line.call("note", "n")])
    assert line.runner.changed == {"stock", "notes"}
    line.runner.apply([line.call("put", "a", 1), line.call("many", ["a"], 1, "raise")])
    assert line.runner.changed == frozenset()
    line.runner.apply([line.call("tag", "t", True)])
    assert line.runner.changed == {"tags"}


def test_commands_of_one_batch_have_changes_of_their_own():
    """Each its events, once, and the values that the one before has left."""
    line = Line()
    line.runner.apply([line.call("note", "n"), *[line.call("put", "a", at) for at in range(3)], line.call("note", "m")])
    assert [(each.cursor, each.value) for each in line.all_of("notes")] == [
        (Cursor(1, 0), b"\xa1n"),
        (Cursor(5, 0), b"\xa1m"),
    ]
    assert [(each.value, each.old) for each in line.all_of("stock", old=True)] == [
        (b"\0", None),
        (b"\1", b"\0"),
        (b"\2", b"\1"),
    ]


def test_a_call_finds_so_many_and_so_many_bytes(monkeypatch):
    """And looks at so much, even when nothing of that was asked for: each time it says where to go on."""
    line = Line()
    line.runner.apply([line.call("put", f"k{at}", at) for at in range(20)] + [line.call("put", "z", 1)])
    found = line.runner.changes(Asked("stock"), 3, 1 << 20)
    assert ([each.key for each in found.changes], found.after) == ([b"k0", b"k1", b"k2"], Cursor(3, 0))
    found = line.runner.changes(Asked("stock", found.after), 100, 1)
    assert ([each.key for each in found.changes], found.after) == ([b"k3"], Cursor(4, 0)), "but for one"
    size = len(line.store.get(HISTORY_PREFIX + b"c" + (5).to_bytes(8, "big") + bytes(4)))
    assert len(line.runner.changes(Asked("stock", found.after), 100, 2 * size).changes) == 2
    assert len(line.runner.changes(Asked("stock", found.after), 100, 2 * size - 1).changes) == 1
    monkeypatch.setattr(recording, "LOOKED_AT_ONCE", 7)
    found = line.runner.changes(Asked("stock", start=b"z"), 100, 1 << 20)
    assert ([each.key for each in found.changes], found.after) == ([], Cursor(7, 0))
    assert [each.key for each in line.all_of("stock", start=b"z")] == [b"z"]
    monkeypatch.setattr(recording, "LOOKED_BYTES", 2 * size)
    assert line.runner.changes(Asked("stock", start=b"z"), 100, 1 << 20).after == Cursor(3, 0)
    found = line.runner.changes(Asked("tags", Cursor(20, 0)), 100, 1 << 20)
    assert (found.changes, found.after) == ([], line.runner.newest)
    ahead = Cursor(99, 1)
    assert line.runner.changes(Asked("tags", ahead), 1, 1).after == ahead, "what another node has applied"


def test_a_view_shows_the_history_as_it_was():
    """On another thread as well, while commands go on and changes are taken away."""
    line = Line(bounded(History(count=2)))
    line.runner.apply([line.call("put", "a", 1), line.call("put", "a", 2)])
    view = line.store.view()
    line.runner.apply([line.call("put", "a", at) for at in range(3, 9)])
    found = line.runner.changes(Asked("stock"), 10, 1 << 20, view)
    assert [msgspec.msgpack.decode(each.value) for each in found.changes] == [1, 2]
    assert found.after == Cursor.behind(2)
    with pytest.raises(Compacted):
        line.runner.changes(Asked("stock"), 10, 1 << 20)
    view.close()


def test_rocksdb_keeps_and_trims_it(tmp_path):
    """Through a flush, and a restart on what was flushed."""
    machine = bounded(History(count=700))
    line = Line(machine, RocksStates().open(str(tmp_path)))
    for size in (1, 400, 500, 3, 300):
        line.runner.apply([line.call("put", "a", line.index + 1) for _ in range(size)])
        line.store.flush()
        assert list(line.runner.out_of_step()) == []
        kept = line.all_of("stock", extent_in(line.store).trimmed, 50)
        assert [each.cursor.index for each in kept] == list(range(max(1, line.index - 699), line.index + 1))
    line.runner.store.close()
    line.store = RocksStates().open(str(tmp_path))
    line.restart()
    line.runner.apply([line.call("put", "a", 0)])
    with pytest.raises(Compacted) as caught:
        line.all_of("stock")
    assert caught.value.oldest == Cursor(line.index - 700, 0)
    view = line.store.view()
    assert len(line.runner.changes(Asked("stock", caught.value.oldest), 1_000, 1 << 20, view).changes) == 700
    view.close()
    line.store.close()


def bounded(kept):
    """The same machine with another bound."""

    class Bounded(Store, history=kept):
        pass

    return Bounded


def test_the_oldest_go_when_there_are_too_many():
    """Just those that are too many; whoever is behind them is told from where on he can go on."""
    local = LocalMachine(bounded(History(count=5)))
    for at in range(1, 6):
        local.put("a", at)
    assert told(local, Store.stock)[0] == ("a", 1, None)
    local.note("one more")
    with pytest.raises(Compacted, match=r"is kept from behind 1\.0 on: read the table as it is, and go on") as caught:
        local.changes(Store.stock)
    assert caught.value.oldest == Cursor(1, 0)
    assert [value for _, value, _ in told(local, Store.stock, caught.value.oldest)] == [2, 3, 4, 5]
    with pytest.raises(Compacted):
        local.changes(Store.tags)
    assert told(local, Store.tags, Cursor(1, 0)) == []


def test_the_oldest_go_when_they_are_too_many_bytes():
    """As many as are needed, and the last one stays however large it is."""
    local = LocalMachine(bounded(History(bytes=3_000)))
    for at in range(10):
        local.note(f"{at}" * 400)
    kept = local.changes(Store.notes, extent_in(local._runner.store).trimmed)
    assert [each.value[0] for each in kept] == list("456789"), "each takes about 430 bytes"
    assert extent_in(local._runner.store).bytes <= 3_000
    assert list(local._runner.out_of_step()) == []


def test_the_oldest_go_when_they_are_too_old():
    """By the log's time, and when something is added: not by themselves."""
    local = LocalMachine(bounded(History(age_s=10)))
    local.put("a", 1)
    local.advance(5)
    local.put("a", 2)
    local.advance(5)
    local.put("a", 3)
    assert [value for _, value, _ in told(local, Store.stock)] == [1, 2, 3], "none is older than 10 s"
    local.advance(0.001)
    local.put("a", 3)
    assert len(told(local, Store.stock)) == 3, "nothing was added"
    local.put("a", 4)
    assert [value for _, value, _ in told(local, Store.stock, Cursor(1, 0))] == [2, 3, 4]
    with pytest.raises(Compacted):
        local.changes(Store.stock, Cursor(0, 0))


def test_an_entry_takes_away_so_many_at_most():
    """However many are too old: it would hold up all others. The next ones go on with it."""
    local = LocalMachine(bounded(History(age_s=1)))
    for at in range(100):
        local.put("a", at)
    local.advance(100)
    counts = []
    for at in range(8):
        local.put("b", at)
        counts.append(extent_in(local._runner.store).count)
    step = TRIMMED_AT_ONCE + 2 - 1
    assert counts == [100 - step, 100 - 2 * step, 100 - 3 * step, 100 - 4 * step, 100 - 5 * step, 6, 7, 8]
    assert list(local._runner.out_of_step()) == []


def test_one_entry_may_bring_more_than_is_kept():
    """Then the first of its own changes go."""
    local = LocalMachine(bounded(History(count=3)))
    local.many(["a", "b", "c", "d"], 0)
    extent = extent_in(local._runner.store)
    assert (extent.count, extent.trimmed) == (3, Cursor(1, 4))
    assert told(local, Store.moved, extent.trimmed) == [
        (None, Lost("b"), None),
        (None, Sent("c", 2), None),
        (None, Lost("d"), None),
    ]
    with pytest.raises(Compacted):
        local.changes(Store.stock, Cursor(1, 3))


@pytest.mark.parametrize("kept", [4, 12], ids=["all that are there", "some"])
def test_an_entry_that_fails_leaves_the_history_as_it_was(kept):
    """Also when it has taken changes away, and has fired commands before the one that fails."""
    machine = bounded(History(count=kept))
    line, other = Line(machine), Line(machine)
    for each in (line, other):
        each.runner.apply([each.call("put", "a", at) for at in range(kept)])
    with pytest.raises(MachineFailed, match="the disk"):
        line.runner.apply([line.call("put", "b", 1), line.call("many", ["x", "y"], 1, "break")])
    other.runner.apply([other.call("put", "b", 1)])
    line.index, line.chain = other.index, other.chain
    for each in (line, other):
        each.runner.apply(
            [each.call("later", 1, ["u", "v"], time_ms=0), each.call("later", 1, ["w"], "break", time_ms=0)]
        )
    with pytest.raises(MachineFailed, match="the disk"):
        line.runner.apply([line.call("put", "c", 1), line.entry(2_000, EntryKind.DUE, DUE_AT_ONCE)])
    other.runner.apply([other.call("put", "c", 1)])
    line.index, line.chain = other.index, other.chain
    for each in (line, other):
        each.runner.apply([each.call("put", "d", 1), each.call("put", "e", 1)])
    assert dict(line.store.scan(b"", None)) == dict(other.store.scan(b"", None))
    assert line.runner.applied == other.runner.applied
    assert list(line.runner.out_of_step()) == []


keys = st.sampled_from(["a", "ab", "b", "c"])
steps = st.one_of(
    st.tuples(st.just("put"), keys, st.integers(0, 3)),
    st.tuples(st.just("remove"), keys),
    st.tuples(st.just("many"), st.lists(keys, max_size=6), st.integers(0, 3), st.sampled_from(["", "", "raise"])),
    st.tuples(st.just("name"), st.integers(0, 2), keys),
    st.tuples(st.just("tag"), keys, st.booleans()),
    st.tuples(st.just("lease"), keys, keys, st.sampled_from([1.0, 2.0, None])),
    st.tuples(st.just("release"), keys),
    st.tuples(st.just("note"), st.sampled_from(["n", "m", ""])),
    st.tuples(st.just("later"), st.sampled_from([0.0, 1.0]), st.lists(keys, max_size=3), st.just("")),
    st.tuples(st.just("due")),
)


def entries_of(line, drawn):
    """The steps as entries; each takes half a second."""
    return [
        line.entry(500 * at, EntryKind.DUE, DUE_AT_ONCE) if name == "due" else line.call(name, *args, time_ms=500 * at)
        for at, (name, *args) in enumerate(drawn)
    ]


@settings(deadline=None)
@given(st.lists(steps, max_size=40), st.data())
def test_changes_lead_from_each_state_to_the_next(drawn, data):
    """Whoever does what the history says has, behind each entry, just the rows of the table; the old values are those
    that he had; and each change makes a difference."""
    line = Line()
    states = []
    for entry in entries_of(line, drawn):
        line.runner.apply([entry])
        states.append(
            {
                part.name: {place[len(part.prefix) :]: value for place, value in line.store.scan(part.prefix, part.end)}
                for part in (Store.stock, Store.named, Store.tags, Store.leases)
            }
        )
    size = data.draw(st.integers(1, 5))
    for name in ("stock", "named", "tags", "leases"):
        keeps_old, rows, at, last = name in ("stock", "leases"), {}, 0, BEGINNING
        changes = line.all_of(name, changes_max=size, old=keeps_old)
        for index, state in enumerate(states, 1):
            while at < len(changes) and changes[at].cursor.index == index:
                change = changes[at]
                assert change.cursor > last
                assert not keeps_old or change.old == rows.get(change.key)
                assert change.value != rows.get(change.key)
                if change.value is None:
                    del rows[change.key]
                else:
                    rows[change.key] = change.value
                last, at = change.cursor, at + 1
            assert rows == state[name], f"{name} behind entry {index}"
        assert at == len(changes)


@settings(deadline=None)
@given(st.lists(steps, max_size=40), st.data())
def test_batches_and_restarts_make_no_difference(drawn, data):
    """The same entries leave the same history, and take the same changes away, however they are grouped."""
    machine = bounded(data.draw(st.builds(History, count=st.integers(1, 8), age_s=st.integers(1, 4))))
    one, other = Line(machine), Line(machine)
    for entry in entries_of(one, drawn):
        one.runner.apply([entry])
    left = entries_of(other, drawn)
    while left:
        size = data.draw(st.integers(1, len(left)))
        other.runner.apply(left[:size])
        del left[:size]
        if data.draw(st.booleans()):
            other.restart()
        assert list(other.runner.out_of_step()) == []
    assert dict(one.store.scan(b"", None)) == dict(other.store.scan(b"", None))
    assert one.runner.applied == other.runner.applied


@settings(deadline=None)
@given(st.lists(steps, max_size=60), st.integers(1, 10), st.data())
def test_whoever_is_not_told_that_changes_are_gone_misses_none(drawn, count, data):
    """From any cursor on he gets all changes behind it, or is told; and from the cursor that he is told, all."""
    whole, trimmed = Line(), Line(bounded(History(count=count)))
    for line in (whole, trimmed):
        line.runner.apply([line.entry(0, EntryKind.NOOP, b""), *entries_of(line, drawn)])
    after = Cursor(data.draw(st.integers(0, len(drawn) + 2)), data.draw(st.integers(0, 3)))
    kept = sum(len(whole.all_of(source.name)) for source in SOURCES)
    lost = 0
    for source in SOURCES:
        try:
            got = trimmed.all_of(source.name, after)
        except Compacted as exc:
            assert after < exc.oldest and kept > count
            after_it = exc.oldest
            lost += 1
        else:
            after_it = after
            assert got == whole.all_of(source.name, after)
        assert trimmed.all_of(source.name, after_it) == whole.all_of(source.name, after_it)
    assert lost in (0, len(SOURCES))
    assert sum(len(trimmed.all_of(each.name, extent_in(trimmed.store).trimmed)) for each in SOURCES) == min(kept, count)


def test_what_is_looked_at_in_advance_is_what_is_there(monkeypatch):
    """Trimming looks at some of the oldest changes at once, within the batch that adds them and behind it."""
    monkeypatch.setattr(recording, "_AHEAD", 3)
    line = Line(bounded(History(count=10)))
    for size in (1, 7, 2, 30, 1, 1, 12, 5):
        line.runner.apply([line.call("put", "a", line.index + 1) for _ in range(size)])
        assert list(line.runner.out_of_step()) == []
        kept = line.all_of("stock", extent_in(line.store).trimmed)
        assert [each.cursor.index for each in kept] == list(range(max(1, line.index - 9), line.index + 1))
    monkeypatch.setattr(recording, "_AHEAD_BYTES", 1)
    line.runner.apply([line.call("put", "a", line.index + 1) for _ in range(30)])
    assert list(line.runner.out_of_step()) == []


def test_a_history_that_is_not_as_it_says_is_found():
    """A change too few, one too many, and one that is before the first."""
    line = Line(bounded(History(count=3)))
    line.runner.apply([line.call("put", "a", at) for at in range(5)])
    places = [place for place, _ in line.store.scan(HISTORY_PREFIX + b"c", HISTORY_PREFIX + b"d")]
    whole = {place: line.store.get(place) for place in places}
    early = HISTORY_PREFIX + b"c" + (1).to_bytes(8, "big") + bytes(4)
    for changes, text in (
        ({places[0]: None}, "has 2 changes"),
        ({places[-1]: None}, "the last change in the history is 4.0, and 5.0 is said to be"),
        ({early: whole[places[0]]}, "has a change at 1.0, and nothing up to 2.0 is said to be kept"),
    ):
        line.store.write(changes, line.store.applied)
        assert any(text in each for each in line.runner.out_of_step()), text
        line.store.write({**dict.fromkeys(changes), **whole}, line.store.applied)
        assert list(line.runner.out_of_step()) == []


@given(st.builds(Cursor, st.integers(0, 2**63 - 1), st.integers(0, 2**32 - 1)))
def test_cursors_are_written_and_read_again(cursor):
    """As a short text; `12` is behind all of entry 12."""
    assert Cursor.parse(str(cursor)) == cursor
    assert Cursor.parse(str(cursor.index)) == Cursor.behind(cursor.index)


@pytest.mark.parametrize("text", ["", "x", "1.", ".1", "-1", "1.2.3", " 1", "1.x", f"{2**63}", f"1.{2**32}", "٣"])
def test_a_bad_cursor_is_refused(text):
    """With a sentence that says what one looks like."""
    with pytest.raises(InvalidArgument, match="is no cursor: write it as"):
        Cursor.parse(text)


def test_what_is_declared_wrong_is_refused():
    """When the class is made."""
    with pytest.raises(MachineError, match='`watch` must be True, or "old"'):

        class _Watched(StateMachine):
            t = Table(str, int, watch="new")  # type: ignore[arg-type]

    with pytest.raises(MachineError, match=r"say of which types they are, as in `Events\(OrderShipped\)`"):

        class _Nothing(StateMachine):
            e = Events()

    with pytest.raises(MachineError, match=r"events e: .* can't be serialised"):

        class _Untagged(StateMachine):
            e = Events(msgspec.defstruct("A", ["x"]), msgspec.defstruct("B", ["x"]))

    with pytest.raises(MachineError, match="the history: Expected `int` >= 1"):

        class _Bound(StateMachine, history=History(count=0)):
            pass


def test_parts_of_a_machine_have_changes_too():
    """Under the part's name: two parts of one kind are two sources."""

    class Bell(Component):
        rung = Table(str, int, watch="old")
        rings = Events(str)

        @command
        def ring(self, who: str) -> None:
            """Once more."""
            self.rung[who] = self.rung.get(who, 0) + 1
            self.rings.emit(who)

    class House(StateMachine):
        front = Part(Bell)
        back = Part(Bell)

        @command
        def both(self, who: str) -> None:
            """As a part of another command."""
            self.front.ring(who)
            self.back.ring(who)

    local = LocalMachine(House)
    local.both("a")
    local.call(House.back.ring, "b")
    assert told(local, House.front.rung) == [("a", 1, None)]
    assert told(local, House.back.rung) == [("a", 1, None), ("b", 1, None)]
    assert told(local, House.front.rings) == [(None, "a", None)]
    assert told(local, House.back.rings) == [(None, "a", None), (None, "b", None)]
    assert list(local._runner.out_of_step()) == []
    with pytest.raises(InvalidArgument, match=r"rung is nothing of House that can be watched: .* it has front.rung, "):
        local.changes(Bell.rung)


def test_what_is_watched_is_named_as_the_class_has_it():
    """By its declaration, or its name; what a base class had is what the class has in its place."""

    class Other(Store):
        stock = Table(str, str, watch=True)

    assert find_source(Other, Store.stock) is Other.stock
    assert find_source(Other, "tags") is Store.tags
    for wrong in (Store.total, "total", "nothing", Store.put, 3, Other.stock):
        with pytest.raises(InvalidArgument, match="is nothing of Store that can be watched"):
            find_source(Store, wrong)


def test_a_question_and_what_is_found_cross_a_wire():
    """As bytes, for nodes and clients."""
    line = Line()
    line.runner.apply([line.call("put", "a", 1), line.call("remove", "a")])
    asked = Asked("stock", BEGINNING, b"a", b"b", True)
    found = line.runner.changes(asked, 10, 1 << 20)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(asked), type=Asked) == asked
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=Found) == found
    assert [(each.value, each.old) for each in found.changes] == [(b"\1", None), (None, b"\1")]


def test_a_method_may_be_called_changes():
    """Then `LocalMachine` tells the two apart by what they are given."""

    class Changing(StateMachine):
        t = Table(str, int, watch=True)

        @command
        def changes(self, key: str) -> str:
            self.t[key] = 1
            return key

    local = LocalMachine(Changing)
    assert local.changes("a") == "a"
    assert told(local, Changing.t) == [("a", 1, None)]
