"""A migration: people had one telephone number; from version 2 on they have as many as they like, and what calls cost.

Install version 2 node by node while all goes on: the cluster migrates by itself when the last node has it.
"""

from __future__ import annotations

from raftkv import StateMachine, Table, command, query, upgrade


def version_1() -> type[StateMachine]:
    """What is installed now."""

    class People(StateMachine):
        numbers = Table(str, str)

        @command
        def add(self, name: str, number: str) -> None:
            self.numbers[name] = number

        @query
        def number(self, name: str) -> str | None:
            return self.numbers.get(name)

    return People


class People(StateMachine):
    """What is to be installed; the first version's clients go on with `add` and `number`."""

    version = 2
    numbers = Table(str, str, until=2)
    phones = Table(tuple[str, int], str, since=2)

    @command
    def add(self, name: str, number: str) -> None:
        """One more number; before version 2 is active, the only one."""
        if self.version < 2:
            self.numbers[name] = number
        else:
            self._append(name, number)

    def _append(self, name: str, number: str) -> None:
        last = next(self.phones.prefix((name,), reverse=True, limit=1), None)
        self.phones[name, last[0][1] + 1 if last else 0] = number

    @command(since=2)
    def forget(self, name: str) -> int:
        """All numbers of somebody; returns how many there were."""
        keys = [key for key, _ in self.phones.prefix((name,))]
        for key in keys:
            del self.phones[key]
        return len(keys)

    @query
    def number(self, name: str) -> str | None:
        """The first number."""
        return self.numbers.get(name) if self.version < 2 else self.phones.get((name, 0))

    @query
    def edition(self) -> int:
        """The version that is active."""
        return self.version

    @query(since=2)
    def all_numbers(self, name: str) -> list[str]:
        """All numbers of somebody."""
        return [number for _, number in self.phones.prefix((name,))]

    @upgrade(to=2)
    def move(self, after: str | None) -> str | None:
        """A thousand people at a time."""
        last = None
        for name, number in self.numbers.range(after, limit=1_000):
            if name != after:
                self.phones[name, 0], last = number, name
        return last
