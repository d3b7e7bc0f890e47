"""Arguments nested as deep as a stranger likes: refused at the edge, or applied on every node."""

from __future__ import annotations

import datetime
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument
from raftkv.machine import (
    CLOSE_SESSION,
    OPEN_SESSION,
    LocalMachine,
    OutcomeKind,
    Runner,
    StateMachine,
    Table,
    command,
    encode_command,
)
from raftkv.machine.depth import NESTED_MAX, ROOM, _depth, is_nested_deeper, is_shallow, with_less_room, with_room
from raftkv.machine.outcome import Outcome
from raftkv.model import EntryKind
from raftkv.state import MemoryStore

DEPTHS = [10, 600, *range(700, 1000, 3), 2_000, 60_000]
"""The interpreter's stack has room for a thousand; where exactly it ends depends on who asks."""


class Documents(StateMachine):
    """Keeps values of any form."""

    kept = Table(str, Any)

    @command
    def keep(self, name: str, document: Any) -> None:
        """Store it."""
        self.kept[name] = document

    @command
    def rename(self, name: str, other: str) -> None:
        """Arguments that can't be nested."""
        self.kept[other] = self.kept.get(name)


def nested(depth: int) -> bytes:
    """An array in an array in an array."""
    return b"\x91" * depth + b"\x00"


def payloads(depth: int) -> dict[str, bytes]:
    """Everything in a command that may be nested."""
    true_args = msgspec.msgpack.encode(("a", "b"))
    return {
        "an argument": encode_command(0, 0, 0, "keep", b"\x92\xa1a" + nested(depth)),
        "an argument too many": encode_command(0, 0, 0, "rename", b"\x93\xa1a\xa1b" + nested(depth)),
        "an argument of another type": encode_command(0, 0, 0, "rename", b"\x92\xa1a" + nested(depth)),
        "a field too many": b"\x96\0\0\0\xa6rename" + true_args + nested(depth),
        "the opening of a session": encode_command(0, 0, 0, OPEN_SESSION, nested(depth)),
        "the end of a session": encode_command(1, 0, 0, CLOSE_SESSION, nested(depth)),
    }


def apply_deep_down(runner: Runner, payload: bytes) -> None:
    """Apply it with a good deal less room on the stack than there was for the check."""
    entry = make_entry(1, 1, 1, EntryKind.COMMAND, payload, 0)
    with_less_room(runner.apply, [entry], 120)


@pytest.mark.parametrize("what", payloads(1))
def test_what_passes_the_leader_can_be_applied(what: str) -> None:
    """No depth is refused only when it is in the log already, where it would stop every node for good (F75)."""
    passed = []
    for depth in DEPTHS:
        runner = Runner(Documents, MemoryStore.open(SimDisk(), "/s"))
        payload = payloads(depth)[what]
        try:
            runner.check(payload)
        except InvalidArgument:
            continue
        passed.append(depth)
        apply_deep_down(runner, payload)
    assert 60_000 not in passed
    assert (10 in passed) == (what in ("an argument", "the opening of a session", "the end of a session"))


@pytest.mark.parametrize("what", ["an argument", "the opening of a session", "the end of a session"])
def test_how_deep_a_command_may_be_is_counted_before_it_is_in_the_log(what: str) -> None:
    """Not left to the stack, of which a newer interpreter has more: what its node lets in, others could not read."""
    around = 2 if what == "an argument" else 1
    passed = []
    for depth in (NESTED_MAX - around, NESTED_MAX - around + 1, NESTED_MAX + 100):
        runner = Runner(Documents, MemoryStore.open(SimDisk(), "/s"))
        try:
            runner.check(payloads(depth)[what])
        except InvalidArgument as exc:
            assert f"nested deeper than {NESTED_MAX}" in str(exc)
        else:
            passed.append(depth)
    assert passed == [NESTED_MAX - around]


def test_a_command_too_deep_is_the_callers_mistake_in_any_thread() -> None:
    """Not an error of the stack, which nobody expects there."""
    runner, seen = Runner(Documents, MemoryStore.open(SimDisk(), "/s")), []

    def check() -> None:
        with pytest.raises(InvalidArgument, match="nested deeper than 700"):
            runner.check(payloads(900)["an argument"])
        seen.append(True)

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert seen


class Node(msgspec.Struct):
    """Holds its like."""

    children: list[Node] = []


class Flat(msgspec.Struct):
    """Reads over fields that it does not know, whatever they hold."""

    number: int


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, True),
        (bytes | None, True),
        (list[dict[str, tuple[int, bytes]]], True),
        (tuple[str, ...], True),
        (set[int], True),
        (datetime.datetime, True),
        (Any, False),
        (list[Any], False),
        (dict[str, object], False),
        (tuple[int, Any], False),
        (int | list[Any], False),
        (Node, False),
        (Flat, False),
        (msgspec.Raw, False),
    ],
)
def test_which_types_can_be_nested(kind: Any, expected: bool) -> None:
    """Only those whose depth stands in their name are spared the second look."""
    assert is_shallow([int, kind]) is expected


class Digger(StateMachine):
    """Goes as deep as it is told."""

    holes = Table(str, int)
    kept = Table(str, Any)

    @command
    def dig(self, frames: int) -> int:
        """Set a hole on every step of the way down."""
        self.holes[str(frames)] = frames
        return 0 if frames == 0 else 1 + self.dig(frames - 1)

    @command
    def room(self) -> int:
        """What there is."""
        return sys.getrecursionlimit() - _depth()

    @command
    def nest(self, depth: int, how: str) -> Any:
        """A value as deep as told: returned, stored, or compared."""
        value: Any = 0
        for _ in range(depth):
            value = [value]
        if how == "store":
            self.kept["a"] = value
        if how == "say":
            raise ValueError(value)
        return value if how == "return" else None

    @command
    def keep(self, name: str, document: Any) -> None:
        """Store it."""
        self.kept[name] = document

    @command
    def grumble(self) -> None:
        """A text of its own, with the place in it where it came about."""
        raise RecursionError(f"at {sys.getrecursionlimit()} {_depth()}")


def deep_payloads() -> list[bytes]:
    """Calls that fit, that nearly fit, that don't, and that never end."""
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("room", ()),
        ("dig", (10,)),
        ("grumble", ()),
        *(("dig", (frames,)) for frames in (400, *range(800, 1_000, 7), 2_000, 1 << 40)),
        *(("nest", (depth, how)) for how in ("return", "store", "say") for depth in (100, 800, 970, 1_010, 3_000)),
    ]
    encoded = [encode_command(0, 0, 0, name, msgspec.msgpack.encode(args)) for name, args in calls]
    return [*encoded, *(encode_command(0, 0, 0, "keep", b"\x92\xa1a" + nested(depth)) for depth in (600, 800, 2_000))]


def applied(payloads: list[bytes], *, at_once: bool = False) -> tuple[list[Outcome | None], int]:
    """Apply them to a machine of its own; the outcomes, and the digest behind them."""
    runner = Runner(Digger, MemoryStore.open(SimDisk(), "/s"))
    entries, chain = [], 0
    for index, payload in enumerate(payloads, 1):
        entries.append(make_entry(index, 1, 1, EntryKind.COMMAND, payload, chain))
        chain = entries[-1].chain
    if at_once:
        return runner.apply(entries), runner.applied.digest
    return [outcome for entry in entries for outcome in runner.apply([entry])], runner.applied.digest


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(limit)


def in_a_thread(call: Callable[[], Any]) -> Any:
    """What it returns, while this thread waits."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def at_limit(limit: int, call: Callable[[], Any]) -> Any:
    """The same with another limit."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        return call()
    finally:
        sys.setrecursionlimit(before)


PLACES: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "here": lambda call: call(),
    "deeper": lambda call: with_less_room(lambda _: call(), None, 300),
    "in a thread": in_a_thread,
    "deeper in a thread": lambda call: in_a_thread(lambda: with_less_room(lambda _: call(), None, 77)),
    "with a low limit": lambda call: at_limit(600, call),
    "with a high limit": lambda call: at_limit(20_000, call),
    "with a high limit in a thread": lambda call: at_limit(9_000, lambda: in_a_thread(call)),
    "below C functions": lambda call: functools.reduce(lambda _, each: each(), [functools.partial(call)], None),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_command_has_the_same_room_wherever_it_is_applied(place: str, at_once: bool) -> None:
    """What does not fit the stack is rejected alike, with the same digest: below whatever calls, at any limit (F75)."""
    payloads = deep_payloads()
    expected, digest = applied(payloads)
    found = PLACES[place](lambda: applied(payloads, at_once=at_once))
    assert found == (expected, digest)
    assert {outcome.kind for outcome in expected if outcome} == {OutcomeKind.APPLIED, OutcomeKind.REJECTED}
    rejections = {outcome.payload for outcome in expected if outcome and outcome.kind is OutcomeKind.REJECTED}
    assert [msgspec.msgpack.decode(each) for each in rejections if b"RecursionError" in each] == [
        ["RecursionError", "maximum recursion depth exceeded"]
    ], "Python's own texts tell what a node was doing"


def test_code_that_has_warmed_up_has_the_same_room() -> None:
    """Python calls a function in another way once it ran often: a node that was just started has not seen that."""
    payloads = deep_payloads()
    first = applied(payloads)
    for _ in range(20):
        assert applied(payloads) == first


def test_the_room_is_what_it_says() -> None:
    """In frames, whether some are filled, the limit is raised, or lowered."""

    def left(_: object) -> int:
        return sys.getrecursionlimit() - _depth()

    limit = sys.getrecursionlimit()
    rooms = {with_room(left, None, frames) + ROOM - frames for frames in (ROOM, ROOM - 300, ROOM - 1)}
    assert sys.getrecursionlimit() >= limit
    sys.setrecursionlimit(8_000)
    rooms |= {with_room(left, None, ROOM), in_a_thread(lambda: with_room(left, None, ROOM))}
    assert rooms == {ROOM - 1}, "one is the function's own"


def test_no_other_thread_meets_a_lower_limit() -> None:
    """Also not for the time of a command: it may be deeper than that, and an interpreter that finds itself far above
    its limit ends the process."""
    sys.setrecursionlimit(5_000)
    seen = in_a_thread(lambda: with_room(lambda _: sys.getrecursionlimit(), None, ROOM))
    assert (seen, sys.getrecursionlimit()) == (5_000, 5_000)
    assert with_room(lambda _: sys.getrecursionlimit(), None, ROOM) < 5_000, "nobody else is there"
    assert sys.getrecursionlimit() == 5_000


def test_a_machine_that_is_called_ever_deeper_does_not_raise_the_limit_for_ever() -> None:
    """Else an endless recursion through a `LocalMachine` would take all memory."""
    local = LocalMachine(Digger)

    def endless() -> None:
        local.dig(1)
        endless()

    with pytest.raises(RecursionError):
        endless()
    assert sys.getrecursionlimit() < 3 * ROOM
    assert local.dig(3) == 3


def test_a_machine_within_a_machine() -> None:
    """A command that runs another machine in memory does not wait for itself."""

    class Outer(StateMachine):
        @command
        def go(self) -> int:
            return LocalMachine(Digger).dig(500)

    assert LocalMachine(Outer).go() == 500


def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    """A fork while another thread applies."""
    inside, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=with_room, args=(lambda _: (inside.set(), done.wait(10)), None, ROOM))
    thread.start()
    inside.wait(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if LocalMachine(Digger).dig(3) == 3 else 1)
    done.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def nesting(value: Any) -> int:
    """How many arrays and maps are within each other, counted by a recursion."""
    if isinstance(value, dict):
        return 1 + max((nesting(each) for item in value.items() for each in item), default=0)
    if isinstance(value, list | tuple):
        return 1 + max((nesting(each) for each in value), default=0)
    return 0


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(),
    st.binary(),
    st.datetimes(timezones=st.just(datetime.UTC)),
    st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.sampled_from([b"x" * size for size in (1, 4, 16, 300)])),
    st.sampled_from([b"\x91" * 300, b"\x81" * 70_000, "\u00df" * 20_000]),
)
KEYS = st.one_of(st.text(), st.integers(0, 9), st.tuples(st.integers(0, 9), st.tuples(st.text())))
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(KEYS, inner, max_size=20), max_leaves=40
)


@given(VALUES)
def test_how_deep_values_are_nested_is_counted_in_their_bytes(value: Any) -> None:
    """Whatever else is among them, and whatever bytes that has."""
    data, depth = msgspec.msgpack.encode(value), nesting(value)
    assert [is_nested_deeper(data, most) for most in range(depth + 2)] == [True] * depth + [False] * 2


def test_long_arrays_and_maps_are_counted_as_well() -> None:
    """Those whose size takes two bytes, and four."""
    for size in (10, 1_000, 70_000):
        value = [[0] * size, {str(each): 0 for each in range(size)}, {"a": [[b"\x91" * size]]}]
        data = msgspec.msgpack.encode(value)
        assert [is_nested_deeper(data, most) for most in (3, 4)] == [True, False]


def test_what_is_far_too_deep_is_found_without_a_recursion() -> None:
    """Bytes that no interpreter could read."""
    assert is_nested_deeper(nested(1_000_000), 999_999)
    assert not is_nested_deeper(nested(1_000_000), 1_000_000)
