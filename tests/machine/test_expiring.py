"""Expiring tables: a row is there until its time, for every reader alike, and then something may run for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import MachineError, MachineFailed, Rejected
from raftkv.machine import (
    NO_SESSION,
    ROWS,
    Activation,
    Due,
    Fired,
    LocalMachine,
    Rows,
    Runner,
    StateMachine,
    Table,
    Value,
    changed,
    command,
    encode_change,
    encode_command,
    encode_due,
    encode_query,
    encode_schema,
    not_grown,
    on_expire,
    query,
)
from raftkv.machine.local import START_MS
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import MemoryStore


class Lease(msgspec.Struct):
    """Who has it."""

    holder: str
    note: int = 0


class Leases(StateMachine):
    """Leases, and whose time was over."""

    leases = Table(str, Lease, index={"holder": str}, expires=True)
    gone = Table(int, tuple[str, str])
    plain = Table(str, int)
    seen = Value(int, 0)

    @command
    def take(self, key: str, holder: str, ttl_s: float | None) -> None:
        """Take one, whoever has it."""
        self.leases.put(key, Lease(holder), ttl_s)

    @command
    def acquire(self, key: str, holder: str, ttl_s: float) -> bool:
        """Take one that nobody has."""
        if key in self.leases:
            return False
        self.leases.put(key, Lease(holder), ttl_s=ttl_s)
        return True

    @command
    def renew(self, key: str, ttl_s: float | None) -> bool:
        """Have it for longer."""
        return self.leases.touch(key, ttl_s)

    @command
    def mark(self, key: str, note: int) -> None:
        """Change the value."""
        lease = self.leases.get(key) or Lease("new")
        lease.note = note
        self.leases[key] = lease

    @command
    def free(self, key: str) -> str:
        """Give it back."""
        return self.leases.pop(key).holder

    @command
    def wipe(self) -> None:
        """Give all back."""
        self.leases.clear()

    @command
    @on_expire("leases")
    def ran_out(self, key: str, lease: Lease) -> None:
        """Write it down."""
        assert key not in self.leases or self.leases[key] is not None
        if lease.holder == "raise":
            self.gone.clear()
            raise ValueError("raised for a row")
        if lease.holder == "break":
            raise OSError("the disk")
        if lease.holder == "again":
            self.leases.put(key, Lease("once more"), ttl_s=1)
        if lease.holder.startswith("takes "):
            self.leases.pop(lease.holder.removeprefix("takes "), None)
        self.gone[len(self.gone)] = key, lease.holder

    @query
    def known(self) -> dict[str, Any]:
        """All that one can see of the leases."""
        return seen_of(self)

    @command
    def known_to_command(self) -> dict[str, Any]:
        """The same, in a command."""
        return seen_of(self)

    @query
    def clock_ms(self) -> int:
        """What time it is."""
        return self.now_ms

    @query
    def left(self, key: str) -> float | None:
        """How long it has."""
        return self.leases.ttl(key)


def seen_of(self: Leases) -> dict[str, Any]:
    """The rows, by each way to read them, which must agree."""
    table = self.leases
    rows = {key: lease.holder for key, lease in table.items()}
    assert len(table) == len(rows) and bool(table) is bool(rows)
    assert list(table) == list(rows) == sorted(rows) and list(reversed(table)) == sorted(rows, reverse=True)
    assert [key for key, _ in table.range("b", "y")] == [key for key in rows if "b" <= key < "y"]
    assert [key for key, _ in table.prefix("a")] == [key for key in rows if key.startswith("a")]
    paged, cursor = [], None
    while True:
        page = table.page(cursor, limit=2)
        paged += [key for key, _ in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert paged == list(rows)
    for holder in {*rows.values(), "x", "y", "z"}:
        assert [key for key, _ in table.by("holder", holder)] == [key for key in rows if rows[key] == holder]
        assert [key for key, _ in table.by("holder", holder, limit=1)] == [k for k in rows if rows[k] == holder][:1]
    for key in ("a", "ab", "b", "c", "z"):
        assert (key in table) is (key in rows) is (table.get(key) is not None)
    return rows


class Line:
    """A runner with entries of its own."""

    def __init__(self, machine: type[StateMachine] = Leases, store: Any = None, entries: tuple[int, int] | None = None):
        self.machine = machine
        self.store = store or MemoryStore.open(SimDisk(), "/state")
        self.fired: list[Fired] = []
        self.runner = Runner(machine, self.store, on_fired=self.fired.append)
        self.index, self.chain = entries or (0, GENESIS_CHAIN)

    def apply(self, time_ms: int, kind: EntryKind, payload: bytes) -> Any:
        """The next entry."""
        made = make_entry(self.index + 1, 1, time_ms, kind, payload, self.chain)
        (outcome,) = self.runner.apply([made])
        self.index, self.chain = made.index, made.chain
        assert not list(self.runner.out_of_step())
        return outcome

    def call(self, time_ms: int, name: str, *args: Any) -> Any:
        """A command as an entry; returns the result."""
        method = self.machine.methods[name]
        encoded = method.encode_args(args, {})
        outcome = self.apply(time_ms, EntryKind.COMMAND, encode_command(NO_SESSION, 0, 0, name, encoded))
        return method.decode_result(outcome.payload)

    def ask(self, now_ms: int, name: str, *args: Any) -> Any:
        """A query."""
        method = self.machine.methods[name]
        return method.decode_result(self.runner.query(encode_query(name, method.encode_args(args, {})), now_ms))

    def due(self, time_ms: int, count: int = 100, change_bytes: int = 1 << 20) -> None:
        """An entry that does what is due."""
        self.apply(time_ms, EntryKind.DUE, encode_due(Due(count, change_bytes)))


def test_a_row_is_there_until_its_time_and_then_for_nobody():
    """In commands and in queries, whether it was removed yet or not."""
    local = LocalMachine(Leases)
    local.take("a", "x", 30)
    local.take("ab", "y", None)
    local.now_ms += 29_999
    assert local.known() == local.known_to_command() == {"a": "x", "ab": "y"}
    assert (local.left("a"), local.left("ab")) == (0.001, None)
    local.now_ms += 1
    assert local.known() == local.known_to_command() == {"ab": "y"}
    with pytest.raises(Rejected, match="KeyError"):
        local.left("a")
    assert local.advance(0) == 1
    assert local.known() == {"ab": "y"}
    assert [each.name for each in local.fired] == ["ran_out"]
    assert local.advance(1_000_000) == 0


def test_a_row_that_is_over_can_be_had_by_another():
    """Before it is removed; what runs for it is told the old value all the same, and later the new one."""
    line = Line()
    assert line.call(0, "acquire", "a", "x", 10)
    assert not line.call(9_999, "acquire", "a", "y", 10)
    assert line.call(10_000, "acquire", "a", "y", 10)
    line.due(10_001)
    assert line.ask(10_002, "known") == {"a": "y"}
    assert [(each.due_ms, each.time_ms) for each in line.fired] == [(10_000, 10_001)]
    line.due(20_000)
    assert [each.due_ms for each in line.fired] == [10_000, 20_000]
    assert line.ask(20_000, "known") == {}


def test_touch_and_set_again():
    """`touch` gives another time; to set a value leaves it its time; a new row must say how long it is there."""
    local = LocalMachine(Leases)
    local.take("a", "x", 10)
    assert local.renew("a", 20)
    assert not local.renew("b", 20)
    local.mark("a", 7)
    local.advance(19.999)
    assert local.known() == {"a": "x"}
    assert local.renew("a", None)
    local.mark("a", 8)
    local.advance(1_000)
    assert local.known() == {"a": "x"}
    local.take("a", "y", 1)
    local.advance(1)
    assert local.known() == {}
    with pytest.raises(Rejected, match=r"write `self.leases.put\(key, value, ttl_s=30\)`"):
        local.mark("a", 9)
    with pytest.raises(Rejected, match="KeyError"):
        local.free("a")


def test_what_is_given_back_runs_nothing():
    """A row that is deleted before its time, or renewed, is not one that is over."""
    local = LocalMachine(Leases)
    for key in "abc":
        local.take(key, "x", 10)
    assert local.free("a") == "x"
    local.take("b", "y", 20)
    local.wipe()
    assert local.advance(100) == 0
    assert local._runner.next_due_ms is None


@pytest.mark.parametrize(
    ("ttl_s", "text"),
    [
        (0, "ttl_s must be a microsecond or more, not 0"),
        (-1, "ttl_s must be a microsecond or more"),
        (4e-7, "ttl_s must be a microsecond or more, not 4e-07"),
        (float("inf"), "inf seconds are no time"),
        (float("nan"), "nan seconds are no time"),
        (1e30, r"1e\+30 is too far away"),
    ],
)
def test_times_that_are_none(ttl_s: float, text: str):
    """A time must be above 0, and one that can be told; of a microsecond on it is a millisecond at least."""
    local = LocalMachine(Leases)
    with pytest.raises(Rejected, match=f"ValueError: {text}"):
        local.take("a", "x", ttl_s)
    assert local.known() == {}
    local.take("a", "x", 1e-6)
    assert local.known() == {"a": "x"}
    local.advance(0.001)
    assert local.known() == {}


def test_tables_that_do_not_expire_refuse_a_time():
    """With words on what to declare; a timedelta is a time, a text is none."""

    class Plain(StateMachine):
        """Has one table of either kind."""

        plain = Table(str, int)
        short = Table(str, int, expires=True)

        @command
        def set(self, ttl_s: float | None) -> float | None:
            """Set a row."""
            self.plain.put("a", 1, ttl_s)
            return self.plain.ttl("a")

        @command
        def set_short(self) -> float | None:
            """Set a row."""
            self.short.put("a", 1, timedelta(seconds=3))
            return self.short.ttl("a")

        @command
        def set_wrong(self) -> None:
            """No time."""
            self.short.put("a", 1, "3")  # type: ignore[arg-type]

        @query
        def change(self) -> None:
            """No command."""
            self.short.put("a", 1, 3)

    local = LocalMachine(Plain)
    assert local.set(None) is None
    with pytest.raises(Rejected, match="expires=True"):
        local.set(3)
    assert local.set_short() == 3
    for name, text in {"set_wrong": "a timedelta", "change": "only a command"}.items():
        with pytest.raises(Rejected, match=text):
            getattr(local, name)()


def test_rows_are_removed_in_bounded_pieces():
    """An entry removes so many, or so many bytes; `len` and indexes are right between, and so is what is due next."""
    line = Line()
    for at in range(10):
        line.call(0, "take", f"a{at}", "x", 1 + at / 10)
    line.due(5_000, count=3)
    assert [each.due_ms for each in line.fired] == [1_000, 1_100, 1_200]
    assert line.runner.next_due_ms == 1_300
    line.due(5_000, change_bytes=1)
    assert len(line.fired) == 4 and line.runner.next_due_ms == 1_400
    assert line.ask(1_450, "known") == {}, "as the log has come to 5,000 before"
    line.due(5_000, count=4)
    line.due(5_000)
    assert len(line.fired) == 10
    assert line.runner.next_due_ms is None
    rows = dict(line.store.scan(b"", None))
    assert not [key for key in rows if b"leases" in key]


class Mixed(StateMachine):
    """Rows that run out in two tables, and a command that is run at a time."""

    first = Table(str, int, expires=True)
    second = Table(str, int, expires=True)
    rang = Value(int, 0)

    @command
    def put(self, table: str, key: str, ttl_s: float) -> None:
        """Set a row."""
        (self.first if table == "first" else self.second).put(key, 7, ttl_s)

    @command
    def plan(self) -> None:
        """Ring in a second."""
        self.schedule(1, Mixed.ring)

    @command
    def ring(self) -> None:
        """It rings."""
        self.rang += 1


def removed(change_bytes: int, rows: int, alarms: int = 0) -> int:
    """How much an entry does that may change so many bytes, when so many rows are over and alarms ring."""
    line = Line(Mixed)
    for at in range(rows):
        line.call(0, "put", "first", f"{at}", 1)
    for _ in range(alarms):
        line.call(0, "plan")
    line.due(1_000, change_bytes=change_bytes)
    left = sum(key.startswith(Mixed.first.prefix) for key, _ in line.store.scan(b"", None))
    return rows - left + len(line.fired)


def test_an_entry_ends_when_it_has_changed_so_many_bytes():
    """Not before and not after, whatever has changed them: rows that are alike, alarms, and the keys of rows count."""
    needed = [next(size for size in range(1, 1_000) if removed(size, 3) == count) for count in (1, 2, 3)]
    assert needed[0] == 1
    assert needed[2] - 1 == 2 * (needed[1] - 1)
    assert needed[1] - 1 > len("first") + len("0")
    alarms = [removed(size, 0, 2) for size in range(1, 80)]
    assert alarms.index(2) == alarms.count(1) > 0
    assert [removed(size, 1, 1) for size in range(1, 80)] == alarms, "a row that follows is as an alarm would be"


def test_an_entry_that_has_done_as_much_as_it_may_does_not_look_for_more():
    """What is known of the next row stays as it is; tables without any that are over take nothing from the others."""
    line = Line(Mixed)
    line.call(0, "put", "first", "a", 1)
    line.call(0, "put", "first", "a", 5)
    line.call(0, "plan")
    line.due(2_000, count=1)
    assert (len(line.fired), line.runner.next_due_ms) == (1, 1_000)
    line.call(2_000, "put", "second", "b", 1)
    line.due(2_000)
    assert line.runner.next_due_ms == 3_000
    line.due(3_000, count=1)
    assert line.runner.next_due_ms == 5_000


def test_nothing_is_due_before_its_time():
    """An entry that comes too early removes nothing; one too many for a renewed row changes nothing but what is known
    of the next."""
    line = Line()
    line.call(0, "take", "a", "x", 10)
    line.due(9_999)
    assert line.runner.next_due_ms == 10_000
    line.call(9_999, "renew", "a", 10)
    line.due(10_000)
    assert (line.fired, line.runner.next_due_ms) == ([], 19_999)
    assert line.ask(19_998, "known") == {"a": "x"}


def test_what_runs_for_a_row_raises():
    """It is undone, and the row is gone all the same; the next ones are not touched by it."""
    local = LocalMachine(Leases)
    for key, holder in {"a": "x", "b": "raise", "c": "z"}.items():
        local.take(key, holder, 1)
    local.advance(1)
    assert [each.outcome.kind.name for each in local.fired] == ["APPLIED", "REJECTED", "APPLIED"]
    assert local.known() == {}


def test_what_runs_for_a_row_changes_others():
    """It may set its own row again, and delete those behind it, for which nothing runs then."""
    line = Line()
    for key, holder in {"a": "again", "b": "takes c", "c": "z", "d": "x"}.items():
        line.call(0, "take", key, holder, 1)
    line.due(1_000)
    assert line.ask(1_000, "known") == {"a": "once more"}
    # `c` was over when `b` was removed, and so nobody could delete it any more.
    assert len(line.fired) == 4
    assert line.runner.next_due_ms == 2_000
    line.due(2_000)
    assert line.ask(2_000, "known") == {}


def test_an_entry_that_fails_removes_nothing():
    """What was done before the failing one is not kept: a restart would do it again."""
    line = Line()
    for key, holder in {"a": "x", "b": "break"}.items():
        line.call(0, "take", key, holder, 1)
    before = dict(line.store.scan(b"", None))
    with pytest.raises(MachineFailed, match="the command ran_out in entry 3 failed with OSError"):
        line.due(1_000)
    assert dict(line.store.scan(b"", None)) == before


def test_a_restart_knows_what_is_due():
    """It is part of the state, and of its digest."""
    line = Line()
    line.call(0, "take", "a", "x", 10)
    other = Line()
    other.call(0, "take", "a", "x", 11)
    assert line.runner.applied.digest != other.runner.applied.digest
    again = Line(store=line.store, entries=(line.index, line.chain))
    assert again.runner.next_due_ms == 10_000
    again.due(10_000)
    assert [each.name for each in again.fired] == ["ran_out"]
    before = again.runner.applied.digest
    again.due(10_000)
    assert again.runner.applied.digest != before


def test_tools_do_not_see_rows_that_are_over():
    """The query that every machine answers reads a table as all others do."""
    line = Line()
    line.call(0, "take", "a", "x", 10)
    line.call(0, "take", "b", "x", None)

    def rows(now_ms: int) -> list[Any]:
        payload = encode_query(ROWS.name, ROWS.encode_args(("leases", b"", None, 10, False), {}))
        found: Rows = msgspec.msgpack.decode(line.runner.query(payload, now_ms), type=Rows)
        return [key for key, _ in found.rows]

    assert rows(9_999) == ["a", "b"]
    assert rows(10_000) == ["b"]


def test_a_query_is_shown_the_present():
    """What a clock says, never less than the last entry's time, nor than was shown before, until a reset."""
    line = Line()
    line.call(1_000, "take", "a", "x", 10)
    assert [line.ask(now, "clock_ms") for now in (0, 1_500, 1_400)] == [1_000, 1_500, 1_500]
    line.apply(700, EntryKind.CLOCK, b"")
    assert line.ask(800, "clock_ms") == 800
    local = LocalMachine(Leases)
    assert local.clock_ms() == START_MS
    local.advance(3)
    assert local.clock_ms() == START_MS + 3_000


def test_wrong_declarations_name_the_line():
    """A command for rows of a table that has none, with other arguments, of two; and one that is no command."""
    with pytest.raises(MachineError, match=r"test_expiring.py:\d+: over: on_expire\('stays'\): there is no `stays"):

        class NoTable(StateMachine):
            """Its table does not expire."""

            stays = Table(str, int)

            @command
            @on_expire("stays")
            def over(self, key: str, value: int) -> None:
                """No."""

    for kinds in ("key: str", "key: int, value: int", "key: str, value: int, more: int"):
        scope: dict[str, Any] = {each.__name__: each for each in (StateMachine, Table, command, on_expire)}
        source = (
            "class Wrong(StateMachine):\n    short = Table(str, int, expires=True)\n    @command\n"
            f"    @on_expire('short')\n    def over(self, {kinds}) -> None: ...\n"
        )
        with pytest.raises(MachineError, match="must be a command that takes a key and a value as short has them"):
            exec(source, scope)  # noqa: S102

    with pytest.raises(MachineError, match="one runs for rows of short already"):

        class Two(StateMachine):
            """Has two."""

            short = Table(str, int, expires=True)

            @command
            @on_expire("short")
            def one(self, key: str, value: int) -> None:
                """One."""

            @command
            @on_expire("short")
            def two(self, key: str, value: int) -> None:
                """Two."""

    with pytest.raises(MachineError, match="over is to run by itself: mark it with @command as well"):

        class Unmarked(StateMachine):
            """Is no command."""

            short = Table(str, int, expires=True)

            @on_expire("short")
            def over(self, key: str, value: int) -> None:
                """No."""


def first(expires: bool) -> type[StateMachine]:
    """A first version."""

    class Shop(StateMachine):
        """Keeps rows."""

        rows = Table(str, int, expires=expires)

        @command
        def put(self, key: str, value: int) -> None:
            """Set a row."""
            self.rows.put(key, value)

        @query
        def keys(self) -> list[str]:
            """All."""
            return list(self.rows)

    return Shop


class Shop(StateMachine):
    """The second version: rows may be over, and something runs then."""

    version = 2
    rows = Table(str, int, expires=True)
    gone = Table(str, int, since=2)

    @command
    def put(self, key: str, value: int) -> None:
        """Set a row for a second."""
        self.rows.put(key, value, ttl_s=1)

    @command(since=2)
    @on_expire("rows")
    def over(self, key: str, value: int) -> None:
        """Write it down."""
        self.gone[key] = value

    @query
    def keys(self) -> list[str]:
        """All."""
        return list(self.rows)


def test_a_table_begins_to_expire_in_a_later_version():
    """That is a change of the schema. While the old version is active, nothing keeps times, as its class keeps none."""
    plain, short = first(False), first(True)
    assert [str(each) for each in changed(plain.schema(), short.schema())]
    assert "expiring" in str(changed(short.schema(), plain.schema())[0])
    assert not not_grown(plain.schema(), Shop.schema(1))
    assert not not_grown(short.schema(), Shop.schema(1))
    assert "expiring" in str(not_grown(short.schema(), plain.schema())[0])
    local = LocalMachine(Shop, version=1, begun_by=plain)
    old = LocalMachine(plain, version=1)
    for each in (local, old):
        each.put("a", 1)
        each.advance(10)
        assert each.keys() == ["a"]
    assert dict(local._runner.store.scan(b"", None)) == dict(old._runner.store.scan(b"", None))
    assert local.digest == old.digest
    local.upgrade()
    local.put("b", 2)
    assert local.keys() == ["a", "b"]
    assert local.advance(10) == 1
    assert local.keys() == ["a"]


def test_a_version_without_the_table_leaves_nothing_of_its_times():
    """They are dropped with its rows."""

    class Later(StateMachine):
        """Has no rows any more."""

        version = 2
        rows = Table(str, int, expires=True, until=2)

        @command
        def put(self, key: str, value: int) -> None:
            """Set a row for a second."""
            self.rows.put(key, value, ttl_s=1)

        @query
        def keys(self) -> list[str]:
            """All."""
            return list(self.rows)

    local = LocalMachine(Later, version=1)
    for at in range(5):
        local.put(f"a{at}", at)
    local.upgrade()
    local.put("b", 1)
    assert local.keys() == []
    assert not [key for key, _ in local._runner.store.scan(b"", None) if b"rows" in key]
    assert local._runner.next_due_ms is None


def test_an_upgrade_entry_makes_a_table_expire():
    """What is known of the next time follows the version that is active."""
    line = Line(Shop)
    schema = first(False).schema()
    line.apply(0, EntryKind.UPGRADE, encode_change(Activation(1, encode_schema(schema))))
    line.call(0, "put", "a", 1)
    assert line.runner.next_due_ms is None
    change = line.runner.tried(Activation(2, encode_schema(Shop.schema())))
    line.apply(0, EntryKind.UPGRADE, encode_change(change))
    line.call(0, "put", "a", 1)
    assert line.runner.next_due_ms == 1_000


keys = st.sampled_from(["a", "ab", "b", "c", "z"])
holders = st.sampled_from(["x", "y", "raise", "again", "takes c"])
ttls = st.one_of(st.none(), st.integers(1, 5))
steps = st.one_of(
    st.tuples(st.just("take"), keys, holders, ttls),
    st.tuples(st.just("acquire"), keys, holders, st.integers(1, 5)),
    st.tuples(st.just("renew"), keys, ttls),
    st.tuples(st.just("mark"), keys, st.integers(0, 9)),
    st.tuples(st.just("free"), keys),
    st.tuples(st.just("wipe")),
    st.tuples(st.just("due"), st.integers(1, 4)),
)


class Model:
    """A dict with times."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, int | None]] = {}
        self.over: list[tuple[int, str, str]] = []
        """What nothing has run for yet."""
        self.now = 0
        self.removed: list[int] = []

    def pass_to(self, now: int) -> None:
        """Time goes on."""
        self.now = now
        for key, (holder, ends) in list(self.rows.items()):
            if ends is not None and ends <= now:
                self.over.append((ends, key, holder))
                del self.rows[key]

    def do(self, name: str, key: str = "", *args: Any) -> None:
        """One command."""
        if name == "wipe":
            self.rows.clear()
        elif name == "free":
            self.rows.pop(key, None)
        elif name == "renew" and key in self.rows:
            self.put(key, self.rows[key][0], args[0])
        elif name == "take" or (name == "acquire" and key not in self.rows):
            self.put(key, *args)

    def put(self, key: str, holder: str, ttl: int | None) -> None:
        """Set a row."""
        self.rows[key] = holder, None if ttl is None else self.now + ttl * 1000

    def due(self, count: int) -> None:
        """The first ones are removed, and what runs for them has its effects."""
        self.over.sort()
        taken, self.over = self.over[:count], self.over[count:]
        self.removed += [ends for ends, *_ in taken]
        for _, key, holder in taken:
            if holder == "again":
                self.put(key, "once more", 1)
            elif holder == "takes c":
                self.rows.pop("c", None)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2_500), steps), max_size=40))
def test_as_a_dict_with_times(script: list[tuple[int, tuple[Any, ...]]]):
    """After each step commands and queries see what a dict has of which rows leave it at their times; indexes, counts
    and times agree; and each row that was over has had its command once, and one that was not has had none."""
    line, model, now = Line(), Model(), 0
    for wait, (name, *args) in script:
        now += wait
        model.pass_to(now)
        if name == "due":
            line.due(now, *args)
            model.due(*args)
        else:
            method = Leases.methods[name]
            payload = encode_command(NO_SESSION, 0, 0, name, method.encode_args(tuple(args), {}))
            line.apply(now, EntryKind.COMMAND, payload)
            model.do(name, *args)
        seen = {key: holder for key, (holder, _) in sorted(model.rows.items())}
        assert line.ask(now, "known") == seen
        assert line.call(now, "known_to_command") == seen
        due = line.runner.next_due_ms
        times = [ends for _, ends in model.rows.values() if ends is not None] + [ends for ends, *_ in model.over]
        assert due is not None and due <= min(times) if times else True
    assert [each.due_ms for each in line.fired] == model.removed
