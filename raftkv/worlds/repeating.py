"""Simulated worlds in which a command repeats by itself: each turn is run once, at its time, and there is always a next
one, whatever becomes of leaders, clocks and versions."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

from raftkv.client import Client
from raftkv.machine import StateMachine, Table, Value, command, every, query
from raftkv.testing.world.cluster import SimCluster

TURN = "turn of a command that repeats"

WORLDS_PART = 0.3
"""Of all worlds have such a command: in the others nothing is written by itself for ever."""

EVERY_MS = 700

TURNS_KEPT = 500


class Turns(StateMachine):
    """A command that repeats, and writes down when it was run."""

    turns = Table(int, int)
    """The log's times of the last turns, by their numbers."""
    last_turn = Value(int, 0)

    @command
    @every(EVERY_MS / 1000)
    def take_turn(self) -> None:
        """Write down that it is this one's time."""
        self.last_turn += 1
        self.turns[self.last_turn] = self.now_ms
        self.turns.pop(self.last_turn - TURNS_KEPT, None)

    @query
    def turns_taken(self) -> list[tuple[int, int]]:
        """The last turns, and when each was run."""
        return list(self.turns.items())


def with_turns(machine: type[StateMachine]) -> type[StateMachine]:
    """The machine and the command that repeats, under the machine's own name, as it is the same application."""
    kind: Any = type(machine)
    made: type[StateMachine] = kind(machine.__name__, (machine, Turns), {"__doc__": machine.__doc__})
    return made


class Repeating:
    """Says whether a world has the command that repeats, and judges its turns."""

    def __init__(self, seed: int) -> None:
        self.is_wanted = random.Random(f"what repeats in {seed}").random() < WORLDS_PART

    async def judge(self, client: Client[Any], cluster: SimCluster) -> None:
        """Raises `AssertionError` when a turn was run twice or early, or none is to come."""
        found: list[tuple[int, int]] = await client.call("turns_taken")
        numbers = [number for number, _ in found]
        assert not found or numbers == list(range(numbers[0], numbers[-1] + 1)), f"a turn was lost: {numbers}"
        if not cluster.fired["clock reset"]:  # else log time may have gone back between two turns
            for (number, before_ms), (_, at_ms) in pairwise(found):
                assert at_ms > before_ms, f"turns {number} and {number + 1} were both run at {at_ms}"
            # A turn may come late, and the next one in time: but never more than one in an interval.
            for (number, before_ms), (_, at_ms) in zip(found, found[2:], strict=False):
                assert at_ms - before_ms > EVERY_MS, (
                    f"turns {number} to {number + 2} were run from {before_ms} to {at_ms}, and there are {EVERY_MS} ms "
                    "between two of them"
                )
        leader = await cluster.until_leader()
        due_ms, now_ms = leader.applier.runner.next_due_ms, leader.raft.entry_time_ms()
        assert due_ms is not None and due_ms <= now_ms + EVERY_MS, f"at {now_ms} the next turn is at {due_ms}"
        cluster.fired[TURN] += len(found)
