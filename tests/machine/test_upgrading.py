"""What upgrades of a state machine can read and write."""

from __future__ import annotations

from typing import Any

import pytest

from raftkv import LocalMachine, StateMachine, Table, Value, command, query, upgrade


def shop(last: int, *, in_pieces: bool = False) -> type[StateMachine]:
    """Its rows are in another table in each version, and their number is in a value up to version 1."""

    def move(old: Any, new: Any, after: str | None) -> str | None:
        for key, count in old.range(after, limit=2 if in_pieces else None):
            if key != after:
                new[key] = count + 1
                if in_pieces:
                    return str(key)
        return None

    class Shop(StateMachine):
        version = last
        first = Table(str, int, until=None if last == 1 else 2)
        rows = Value(int, 0, until=None if last == 1 else 2)
        if last > 1:
            second = Table(str, int, since=2, until=None if last == 2 else 3)
            counted = Value(int, 0, since=2)

            if in_pieces:

                @upgrade(to=2)
                def move_first(self, after: str | None) -> str | None:
                    self.counted = self.rows
                    return move(self.first, self.second, after)
            else:

                @upgrade(to=2)
                def move_first(self) -> None:
                    self.counted = self.rows
                    move(self.first, self.second, None)

        if last > 2:
            third = Table(str, int, since=3)

            if in_pieces:

                @upgrade(to=3)
                def move_second(self, after: str | None) -> str | None:
                    return move(self.second, self.third, after)
            else:

                @upgrade(to=3)
                def move_second(self) -> None:
                    move(self.second, self.third, None)

        @command
        def put(self, key: str, count: int) -> None:
            self.first[key] = count
            self.rows += 1

        @query
        def read(self) -> list[dict[str, int]]:
            return [dict(getattr(self, name).items()) for name in ("first", "second", "third") if name in self.parts]

        @query
        def counts(self) -> list[int]:
            return [self.rows, self.counted]

    return Shop


@pytest.mark.parametrize("in_pieces", [False, True], ids=["at once", "in pieces"])
@pytest.mark.parametrize("last", [2, 3])
def test_an_upgrade_reads_what_goes_with_the_version_that_it_leads_to(last: int, in_pieces: bool) -> None:
    """Rows that move to another table are not lost, from version to version and over several at once."""
    local = LocalMachine(shop(last, in_pieces=in_pieces), begun_by=shop(1))
    for number, key in enumerate("abc"):
        local.put(key, number)
    local.upgrade()
    moved = {key: number + last - 1 for number, key in enumerate("abc")}
    assert local.read() == [*[{}] * (last - 1), moved]
    assert local.counts() == [0, 3]
    assert not [row for row in local._runner.store.scan(b"", b"\xff") if b"first\0" in row[0] or b"rows\0" in row[0]]
    assert last == 2 or not [row for row in local._runner.store.scan(b"", b"\xff") if b"second\0" in row[0]]


@pytest.mark.parametrize("seconds", [0, 10])
def test_the_leader_tries_an_upgrade_with_the_time_and_dice_that_its_entry_has(seconds):
    """Else one that depends on them could go well in the trial and raise in the log, and stop every node (F85)."""
    seen = []

    class Clocked(StateMachine):
        version = 2
        total = Value(int, 0)

        @command
        def add(self) -> int:
            self.total += 1
            return self.total

        @upgrade(to=2)
        def look(self) -> None:
            seen.append((self.index, self.now_ms, self.random.random()))

    local = LocalMachine(Clocked, version=1)
    for _ in range(3):
        local.add()
        local.now_ms += 1_000
    local.now_ms += seconds * 1_000
    local.upgrade()
    tried, applied = seen
    assert tried == applied
    assert applied[:2] == (4, local.now_ms - (seconds + 1) * 1_000)
