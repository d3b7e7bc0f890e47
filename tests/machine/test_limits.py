"""What a command may write: at most so much, the same on every node, or nothing at all."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.config import KIB, MIB
from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import MachineError
from raftkv.machine import (
    Limits,
    LocalMachine,
    Runner,
    StateMachine,
    Table,
    TooLarge,
    Value,
    command,
    encode_command,
    query,
)
from raftkv.model import EntryKind
from raftkv.state import MemoryStore


class Shelf(StateMachine):
    """With the default limits."""

    books = Table(bytes, bytes)
    pairs = Table(tuple[str, int], str)
    note = Value(bytes, b"")

    @command
    def put(self, key: bytes, value: bytes) -> None:
        """One."""
        self.books[b"before"] = b""
        self.books[key] = value

    @command
    def pair(self, first: str) -> None:
        """A key of parts, which take a few bytes more than they have."""
        self.pairs[first, 1] = ""

    @command
    def write(self, size: int) -> None:
        """A single value."""
        self.note = b"x" * size

    @command
    def fill(self, count: int, size: int, deleted: int, again: bool) -> str:
        """Many."""
        try:
            for number in range(count):
                self.books[b"%08d" % (0 if again else number)] = b"x" * size
            for number in range(deleted):
                del self.books[b"%08d" % number]
        except TooLarge as exc:
            self.books.pop(b"%08d" % 0)
            return str(exc)
        return ""

    @command
    def erase(self, key: bytes) -> None:
        """Delete what may not be there."""
        self.books.pop(key)

    @query
    def count(self) -> int:
        """How many there are."""
        return sum(1 for _ in self.books)


class Small(Shelf, limits=Limits(key_bytes=10, value_bytes=20, change_bytes=200)):
    """Its own limits."""


class Smaller(Small):
    """Inherited ones."""


def refused(call, *args):
    """What it ended as."""
    with pytest.raises(TooLarge) as found:
        call(*args)
    return found.value.what, found.value.size, found.value.limit


def test_keys_and_values_have_limits_without_a_word():
    """Exactly these; over them nothing of the command is written, and the caller is told the numbers."""
    local = LocalMachine(Shelf)
    assert refused(local.put, b"k" * (4 * KIB + 1), b"") == ("a key", 4 * KIB + 1, 4 * KIB)
    assert local.count() == 0
    local.put(b"k" * 4 * KIB, b"v" * (MIB - 5))
    assert refused(local.put, b"k", b"v" * (MIB + 1))[::2] == ("a value", MIB)
    local.pair("k" * (4 * KIB - 4))
    assert refused(local.pair, "k" * 4 * KIB)[0] == "a key"
    local.write(MIB - 5)
    assert refused(local.write, MIB)[0] == "a value"
    with pytest.raises(TooLarge, match=r"^a key would have 4097 bytes: must be at most 4096$"):
        local.put(b"k" * 4097, b"")
    assert local.count() == 2


def test_a_commands_changes_have_a_limit_together():
    """Net: what it sets twice counts once, a deleted key counts; the next command begins anew."""
    local = LocalMachine(Shelf)
    size = MIB - KIB
    assert local.fill(16, size, 0, False) == ""
    assert local.fill(16, size, 16, False) == ""
    assert "what a command changes would have" in local.fill(17, size, 0, False)
    assert local.fill(100, size, 0, True) == "", "the same key again and again"
    small = LocalMachine(Small)
    assert small.fill(4, 10, 0, False) == ""
    assert "at most 200" in small.fill(40, 10, 0, False)
    for _ in range(5):
        assert small.fill(4, 10, 0, False) == ""


def test_each_command_of_a_batch_has_the_whole_limit():
    """They are written together, and counted apart."""
    runner, entries, chain = Runner(Small, MemoryStore.open(SimDisk(), "/s")), [], 0
    payload = encode_command(0, 0, 0, "fill", msgspec.msgpack.encode((4, 10, 0, False)))
    for index in range(1, 21):
        entries.append(make_entry(index, 1, 1, EntryKind.COMMAND, payload, chain))
        chain = entries[-1].chain
    assert {outcome.payload for outcome in runner.apply(entries)} == {msgspec.msgpack.encode("")}


@pytest.mark.parametrize("machine", [Small, Smaller])
def test_a_class_sets_its_own(machine):
    """And its heirs have them."""
    local = LocalMachine(machine)
    local.put(b"k" * 10, b"v" * 18)
    assert refused(local.put, b"k" * 11, b"")[::2] == ("a key", 10)
    assert refused(local.put, b"k", b"v" * 20)[::2] == ("a value", 20)


def test_replicas_with_other_limits_say_that_they_are_others():
    """It is a part of what the class does."""
    assert Small.fingerprint() != type("Small", (Shelf,), {}).fingerprint()


def test_a_command_that_was_refused_leaves_the_same_digest():
    """On every node."""
    first, second = LocalMachine(Small), LocalMachine(Small)
    for local in (first, second):
        refused(local.put, b"k" * 11, b"")
        local.fill(40, 10, 0, False)
    assert first.digest == second.digest


def test_wrong_limits_name_the_line():
    """When the class is made."""
    for limits in (Limits(key_bytes=0), Limits(value_bytes=1 << 40), "many"):
        with pytest.raises(MachineError, match=r"test_limits.py:\d+: Broken: the limits: "):

            class Broken(StateMachine, limits=limits):
                pass
