"""Changes and events are of the types that their tables and streams declare."""

import msgspec

from raftkv import Change, Events, LocalMachine, Set, StateMachine, Table, command


class Shipped(msgspec.Struct, tag=True):
    order: int


class Lost(msgspec.Struct, tag=True):
    order: int


class Orders(StateMachine):
    states = Table(int, str, watch="old")
    tags = Set(str, watch=True)
    moved = Events(Shipped, Lost)
    notes = Events(str)

    @command
    def ship(self, order: int) -> None:
        self.moved.emit(Shipped(order))
        self.moved.emit("shipped")  # bad
        self.notes.emit("shipped")
        self.notes.emit(order)  # bad


local = LocalMachine(Orders)
states: list[Change[int, str]] = local.changes(Orders.states, prefix=1, old=True)
tags: list[Change[str, None]] = local.changes(Orders.tags)
moved: list[Change[None, Shipped | Lost]] = local.changes(Orders.moved)
for change in local.changes(Orders.states):
    number: int = change.key
    text: str = change.value  # bad
    wrong: str = change.key  # bad
local.changes(Orders.moved, prefix="a")  # bad
local.changes("states")  # bad
local.changes(Orders.ship)  # bad
