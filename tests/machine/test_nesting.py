"""Values nested as deep as a command likes: what it returns, keeps, emits and schedules has a bound that is counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument, MachineError, Rejected
from raftkv.machine import (
    ROWS,
    Events,
    LocalMachine,
    OutcomeKind,
    Runner,
    StateMachine,
    Table,
    Value,
    command,
    encode_command,
    on_expire,
    query,
    upgrade,
)
from raftkv.machine.depth import NESTED_MAX, shown
from raftkv.model import EntryKind
from raftkv.state import MemoryStore


@dataclasses.dataclass
class Link:
    """Its text takes several calls for each of its kind within it."""

    next: Link | None = None


class Node(msgspec.Struct):
    """Holds its like."""

    children: list[Node] = []


def decoded(depth: int) -> list[Any]:
    """So many lists, made without a recursion."""
    made: list[Any] = []
    for _ in range(depth - 1):
        made = [made]
    return made


class Keeper(StateMachine):
    """Has a value as deep as told go wherever a command can have one go."""

    rows = Table(str, Any)
    watched = Table(str, Any, watch="old")
    leases = Table(str, Any, expires=True)
    one = Value(Any, None)
    linked = Value(Link, Link())
    numbers = Value(list[int], [])
    happened = Events(Node)
    met = Value(int, 0)

    @command
    def keep(self, how: str, depth: int) -> Any:
        """The value, in one of these ways."""
        value: Any = decoded(depth)
        match how:
            case "return":
                return value
            case "row":
                self.rows["a"] = value
            case "watched row":
                self.watched["a"] = value
            case "lease":
                self.leases.put("a", value, ttl_s=1)
            case "value":
                self.one = value
            case "record":
                self.linked = chained(depth)
            case "event":
                node = Node()
                for _ in range(depth // 2 - 1):
                    node = Node([node])
                self.happened.emit(node)
            case "another command":
                self.schedule(1, Keeper.take, value[0], 5)
        return None

    @command
    def mistake(self, how: str, depth: int) -> int:
        """The same where it has no place."""
        if how == "return":
            return chained(depth)  # type: ignore[return-value]
        if how == "row":
            self.rows[chained(depth)] = 0  # type: ignore[index]
        if how == "value":
            self.numbers = chained(depth)  # type: ignore[assignment]
        if how == "another command":
            self.schedule(1, Keeper.take, 0, chained(depth))
        if how == "change in place":
            value = self.one
            value.append(decoded(depth - 1))
        return 0

    @command
    def take(self, value: Any, number: int) -> None:
        """What is scheduled."""
        self.met += 1

    @command
    @on_expire("leases")
    def over(self, key: str, value: Any) -> None:
        """A lease has come to its end."""
        self.met += 1

    @query
    def read(self) -> Any:
        """All that lies in tables, but one by one."""
        return [nesting_of(each) for each in (*self.rows.values(), *self.watched.values(), self.one, self.linked)]

    @query
    def ask(self, depth: int) -> Any:
        """An answer."""
        return decoded(depth)


def chained(depth: int) -> Link:
    """So many records within each other."""
    link = Link()
    for _ in range(depth - 1):
        link = Link(link)
    return link


def nesting_of(value: Any) -> int:
    """How many lists or links are within each other, counted without a recursion."""
    depth = 0
    while isinstance(value, list | Link):
        value = next(iter(value), None) if isinstance(value, list) else value.next
        depth += 1
    return depth


WAYS = ["return", "row", "watched row", "lease", "value", "record", "event", "another command"]


@pytest.mark.parametrize("how", WAYS)
def test_how_deep_a_value_may_be_that_a_command_makes_is_counted(how: str) -> None:
    """Not left to the stack, of which a newer interpreter has more for msgspec: its node would disagree with others.
    The arguments of another command are a list of them."""
    local = LocalMachine(Keeper)
    local.keep(how, NESTED_MAX)
    for depth in (NESTED_MAX + 2, 900, 5_000):
        with pytest.raises(Rejected, match="RecursionError: maximum recursion depth exceeded"):
            local.keep(how, depth)


def test_what_is_as_deep_as_may_be_is_read_by_all_who_read() -> None:
    """By commands that are due and run for rows, by queries, in pages, and in the history."""
    local = LocalMachine(Keeper)
    for how in WAYS:
        local.keep(how, NESTED_MAX)
    local.keep("watched row", 1)
    assert local.read() == [NESTED_MAX, 1, NESTED_MAX, NESTED_MAX]
    page = ROWS.decode_result(local.query_raw(ROWS.query_payload(ROWS.encode_args(("rows", b"", None, 9, False), {}))))
    assert [nesting_of(value) for _, value in page.rows] == [NESTED_MAX]
    changes = local.changes(Keeper.watched, old=True)
    assert [(nesting_of(each.value), nesting_of(each.old)) for each in changes] == [(NESTED_MAX, 0), (1, NESTED_MAX)]
    assert len(local.changes(Keeper.happened)) == 1
    assert (local.advance(5), local.read()) == (2, [NESTED_MAX, 1, NESTED_MAX, NESTED_MAX])
    assert [fired.outcome.kind for fired in local.fired] == [OutcomeKind.APPLIED] * 2


def test_an_answer_has_the_same_bound() -> None:
    """Else a client on another interpreter could not read it."""
    local = LocalMachine(Keeper)
    assert nesting_of(local.ask(NESTED_MAX)) == NESTED_MAX
    with pytest.raises(Rejected, match="RecursionError"):
        local.ask(NESTED_MAX + 1)


@pytest.mark.parametrize("how", ["return", "row", "value", "another command", "change in place"])
def test_that_a_value_has_no_place_there_is_said_whatever_its_text_takes(how: str) -> None:
    """What is raised is in the digest: it must not follow from how much of a text the stack bears. Nor must it follow
    from the type of what is too deep, which some interpreters do not get to see."""
    local = LocalMachine(Keeper)
    local.keep("value", 1)
    expected = "InvalidArgument" if how == "another command" else "TypeError"
    for depth in (3, 450, NESTED_MAX - 1):
        with pytest.raises(Rejected) as found:
            local.mistake(how, depth)
        assert (found.value.error_type, depth) == (expected, depth)
    if how == "row":
        return  # a key is never encoded as values are
    for depth in (NESTED_MAX + 1, 900):
        with pytest.raises(Rejected) as found:
            local.mistake(how, depth)
        assert (found.value.error_type, depth) == ("RecursionError", depth)


def test_arguments_that_are_nested_too_deep_are_refused_where_they_are_given() -> None:
    """In one way, be it the count or the stack that finds them."""
    for depth in (NESTED_MAX, 900, 5_000):
        with pytest.raises(InvalidArgument, match=r"take\(value: Any, number: int\)"):
            LocalMachine(Keeper).take(decoded(depth), 1)


def test_a_default_that_is_nested_too_deep_is_a_mistake_in_the_class() -> None:
    """Found where it is declared."""
    with pytest.raises(MachineError, match=r"value deep: the default: .* nested deeper than 700"):

        class Deep(StateMachine):
            deep = Value(Any, decoded(NESTED_MAX + 1))


@pytest.mark.parametrize("depth", [NESTED_MAX, NESTED_MAX + 1])
def test_where_an_upgrade_is_to_go_on_has_the_same_bound(depth: int) -> None:
    """It is in the state, too."""

    class Grown(StateMachine):
        version = 2

        @upgrade(to=2)
        def go(self, after: Any) -> Any:
            return decoded(depth) if after is None else None

    local = LocalMachine(Grown, begun_by=type("Grown", (StateMachine,), {}))
    if depth <= NESTED_MAX:
        local.upgrade()
        assert local.version == 2
    else:
        with pytest.raises(Rejected, match="go: RecursionError"):
            local.upgrade()


def test_a_row_that_was_kept_before_there_was_a_bound_can_be_read() -> None:
    """A command that only reads it has changed nothing, though what it has read can't be written again."""

    class Reader(StateMachine):
        rows = Table(str, Any)

        @command
        def look(self, change: bool) -> int:
            value = self.rows["a"]
            if change:
                self.rows["a"] = value
            return nesting_of(value)

    store = MemoryStore.open(SimDisk(), "/s")
    place = Reader.rows.prefix + b"a"
    store.write({place: b"\x91" * (NESTED_MAX + 49) + b"\x90"}, store.applied)
    runner, chain, kinds = Runner(Reader, store), 0, []
    for index, change in enumerate((False, True), 1):
        payload = encode_command(0, 0, 0, "look", msgspec.msgpack.encode((change,)))
        entry = make_entry(index, 1, 1, EntryKind.COMMAND, payload, chain)
        chain = entry.chain
        kinds += [outcome.kind for outcome in runner.apply([entry]) if outcome]
    assert kinds == [OutcomeKind.APPLIED, OutcomeKind.REJECTED]


def test_a_text_that_takes_too_much_of_the_stack_is_none() -> None:
    """All others are shown as they are."""
    assert shown([1, "a"]) == "[1, 'a']"
    assert shown(chained(5_000)) == "(a value that is nested too deep to be shown)"
