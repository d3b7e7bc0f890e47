"""While an older version is active a class keeps, byte for byte, what that one would: nobody can tell them apart (F76).

Each call is applied by a class of version 1 and by one of version 2 that has more of everything.
"""

from __future__ import annotations

import msgspec
import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import UnknownCommand
from raftkv.machine import LocalMachine, Runner, StateMachine, Table, Value, command
from raftkv.machine.outcome import OutcomeKind, read_rejection
from raftkv.machine.payloads import NO_SESSION, encode_command
from raftkv.model import GENESIS_CHAIN, EntryKind
from raftkv.state import COUNTS_KEY, MemoryStore


def called_shelf(cls):
    """Both are the same application."""
    cls.__name__ = "Shelf"
    return cls


class Item(msgspec.Struct):
    """As it was."""

    count: int = 0


class Tagged(msgspec.Struct):
    """With more."""

    count: int = 0
    tags: list[str] = []


@called_shelf
class Shelf1(StateMachine):
    """The first version."""

    items = Table(str, Item)
    last = Value(Item, Item())

    @command
    def put(self, name: str, count: int) -> Item:
        """Keep it."""
        self.items[name] = self.last = Item(count)
        return Item(count)


@called_shelf
class Shelf2(StateMachine):
    """The second, which does not look at `self.version` at all."""

    version = 2

    items = Table(str, Tagged)
    last = Value(Tagged, Tagged())
    calls = Value(int, 0, since=2)
    log = Table(str, int, since=2)

    @command
    def put(self, name: str, count: int, tag: str = "none") -> Tagged:
        """Keep it; sees what it has written itself, and nothing of other commands."""
        before = self.calls, list(self.log.items())
        self.calls += 1
        self.log[name] = count
        if self.version == 1 and (before, self.calls, self.log[name]) != ((0, []), 1, count):
            raise AssertionError(f"{before}, {self.calls}")
        self.items[name] = self.last = Tagged(count, [tag])
        return Tagged(count, [tag])

    @command(since=2)
    def drop(self, name: str) -> bool:
        """Keep it no more."""
        return self.items.pop(name, None) is not None


def both():
    """A machine of each, on which version 1 is active."""
    return LocalMachine(Shelf1, version=1), LocalMachine(Shelf2, version=1, begun_by=Shelf1)


def held(local):
    """All that is kept, but for the index that stands with the counts."""
    return [pair for pair in local._runner.store.scan(b"", b"\xff" * 9) if pair[0] != COUNTS_KEY]


def alike(old, new, name, *args):
    """The outcome of an entry with that command, which is one and the same."""
    payload = encode_command(NO_SESSION, 0, 0, name, msgspec.msgpack.encode(args))
    outcome = old.apply(payload)
    assert new.apply(payload) == outcome
    assert held(new) == held(old)
    assert new.digest == old.digest
    return outcome


def test_a_later_class_keeps_and_answers_what_the_active_version_would():
    """New fields, tables and values leave no trace; commands see their own writes to those, and no others."""
    old, new = both()
    for number in range(4):
        outcome = alike(old, new, "put", f"k{number % 3}", number)
        assert (outcome.kind, msgspec.msgpack.decode(outcome.payload)) == (OutcomeKind.APPLIED, {"count": number})
    assert not [key for key, _ in held(new) if b"calls" in key or b"log" in key]
    new.upgrade()
    assert new.put("k0", 7) == Tagged(7, ["none"])
    assert [key for key, _ in held(new) if b"calls" in key]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (("drop", "k0"), "version 1 has no command drop"),
        (("drawn", 1, 2), "version 1 has no command drawn"),
        (("put", "k0", 1, "red"), "version 1 of the command put takes 2 arguments"),
        (("put", "k0", 1, "red", 5), "version 1 of the command put takes 2 arguments"),
    ],
)
def test_what_the_active_version_lacks_is_rejected_alike_by_all_classes(call, words):
    """No leader lets it into the log; if it is there nevertheless, no node stops, and none does it."""
    old, new = both()
    alike(old, new, "put", "k0", 1)
    before = held(old)
    rejection = read_rejection(alike(old, new, *call).payload)
    assert rejection.error_type == "NotActive"
    assert words in str(rejection)
    assert held(old) == before


def test_before_any_version_is_active_an_unknown_command_stops_the_node():
    """Nothing tells what the others have."""
    payload = encode_command(NO_SESSION, 0, 0, "drop", msgspec.msgpack.encode(("k0",)))
    runner = Runner(Shelf1, MemoryStore.open(SimDisk(), "/state"))
    with pytest.raises(UnknownCommand, match="Start this node with the version of the application that the others run"):
        runner.apply([make_entry(1, 1, 0, EntryKind.COMMAND, payload, GENESIS_CHAIN)])


def test_arguments_at_their_defaults_are_not_sent_and_are_filled_in():
    """So each understands the other."""
    old, new = Shelf1.methods["put"], Shelf2.methods["put"]
    sent = old.encode_args(("a", 1), {})
    for args, named in ((("a", 1), {}), (("a", 1, "none"), {}), (("a",), {"count": 1, "tag": "none"})):
        assert new.encode_args(args, named) == sent
    assert new.decode_args(msgspec.Raw(sent)) == ("a", 1, "none")
    assert new.decode_args(msgspec.Raw(new.encode_args(("a", 1, "red"), {}))) == ("a", 1, "red")
