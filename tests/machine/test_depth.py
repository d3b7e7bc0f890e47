"""Arguments nested as deep as a stranger likes: refused at the edge, or applied on every node."""

from __future__ import annotations

import datetime
import threading
from typing import Any

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import InvalidArgument
from raftkv.machine import CLOSE_SESSION, OPEN_SESSION, Runner, StateMachine, Table, command, encode_command
from raftkv.machine.depth import is_shallow, with_less_room
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


def test_a_command_too_deep_is_the_callers_mistake_in_any_thread() -> None:
    """Not an error of the stack, which nobody expects there."""
    runner, seen = Runner(Documents, MemoryStore.open(SimDisk(), "/s")), []

    def check() -> None:
        with pytest.raises(InvalidArgument, match="recursion"):
            runner.check(payloads(950)["an argument"])
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
