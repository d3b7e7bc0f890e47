"""While an older version is active, a class of a later one leaves the state and the digest that the older one does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from raftkv import LocalMachine, Rejected, Rejection, StateMachine, Table, command
from raftkv.machine import OPEN_SESSION, encode_command


def store(number: int) -> type[StateMachine]:
    """Its record, its rejection and a result's type grow with version 2; what its commands do stays."""

    class Item(Struct):
        count: Annotated[int, Meta(ge=0)]
        if number == 2:
            shelf: str = ""

    class Missing(Rejection):
        name: str
        if number == 2:
            owner: str = "nobody"

    colours: Any = Literal["red", "green"] if number == 1 else Literal["red", "green", "blue"]

    class Store(StateMachine):
        version = number
        items = Table(str, Item)

        @command
        def take(self, name: str, count: int) -> Item:
            item = self.items.get(name) or Item(5)
            item.count -= count
            self.items[name] = item
            return item

        @command
        def say(self, name: str) -> None:
            raise ValueError(f"{name}: {Item(5)}")

        @command
        def miss(self, name: str) -> None:
            raise Missing(name)

        @command
        def colour(self, name: str) -> colours:
            return name

        @command
        def wrong(self, name: str) -> Item:
            return Item(name)  # type: ignore[arg-type]

    return Store


CALLS: dict[str, tuple[Any, ...]] = {
    "take": ("apple", 7),
    "say": ("apple",),
    "miss": ("apple",),
    "colour": ("blue",),
    "wrong": ("apple",),
}


def in_session(local: LocalMachine[Any], name: str, args: tuple[Any, ...]) -> None:
    """A call whose answer is kept, and a retry of it."""
    session = 1
    for _ in range(2):
        encoded = local.machine.methods[name].encode_args(args, {})
        local.apply(encode_command(session, 0, 0, name, encoded))


def alone(local: LocalMachine[Any], name: str, args: tuple[Any, ...]) -> None:
    """A call without a session."""
    with pytest.raises(Rejected):
        getattr(local, name)(*args)


@pytest.mark.parametrize("call", [in_session, alone])
@pytest.mark.parametrize("name", CALLS)
def test_texts_of_rejections_part_no_replicas(name: str, call: Callable[..., None]) -> None:
    """A text that shows a record, with the fields that the class of the node has, is no difference of states."""
    found = []
    for number in (1, 2):
        local = LocalMachine(store(number), begun_by=store(1))
        local.apply(encode_command(0, 0, 0, OPEN_SESSION, b"\x90"))
        call(local, name, CALLS[name])
        found.append((local.digest, local._runner.sessions))
    assert found[0] == found[1]
    assert found[0][1] == 1


def test_what_was_raised_is_part_of_the_digest() -> None:
    """So nodes that raise different exceptions stop."""
    digests = []
    for error in (ValueError, LookupError):

        class Raising(StateMachine):
            @command
            def fail(self) -> None:
                raise error("text")  # noqa: B023

        local = LocalMachine(Raising)
        with pytest.raises(Rejected):
            local.fail()
        digests.append(local.digest)
    assert digests[0] != digests[1]


def shelves(number: int) -> type[StateMachine]:
    """Its record is a dataclass, which grows with version 2."""

    @dataclass
    class Shelf:
        name: str
        room: int | None = None
        if number == 2:
            tag: str = ""

    class Shelves(StateMachine):
        version = number
        shelves = Table(str, Shelf)

        @command
        def put(self, shelf: Shelf) -> Shelf:
            self.shelves[shelf.name] = shelf
            return shelf

    return Shelves


@pytest.mark.parametrize("shelf", [{"name": "a"}, {"name": "a", "room": None}, {"name": "a", "room": 1}])
def test_a_dataclass_that_was_sent_without_defaults_is_kept_without_them(shelf: dict[str, Any]) -> None:
    """As the old class keeps it: msgspec does not set fields of a dataclass that it has not read."""
    found = []
    for number in (1, 2):
        local = LocalMachine(shelves(number), begun_by=shelves(1))
        local.put(shelf)
        found.append(local.digest)
    assert found[0] == found[1]
