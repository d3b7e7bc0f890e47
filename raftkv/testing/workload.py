"""What the clients of a simulated world do, and what must come of it: counters, registers and lists."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from raftkv.client import Client
from raftkv.errors import Indeterminate, NotAccepted, RaftKVError, Rejected, SessionExpired
from raftkv.kv import KeyValue
from raftkv.machine import Table, command, query
from raftkv.model import Index
from raftkv.testing.appends import append_problems
from raftkv.testing.history import History, Operation, counter, register
from raftkv.testing.witness import witness_problems

KEYS = 2
"""Of each kind: few, so that clients meet."""

LIST_MAX = 500


class Workload(KeyValue):
    """The key-value machine, and lists."""

    lists = Table(bytes, list[bytes])

    @command
    def append(self, key: bytes, item: bytes) -> int:
        """Append; returns the new length."""
        items = self.lists.get(key, [])
        if len(items) >= LIST_MAX:
            raise ValueError("the list is full")
        self.lists[key] = [*items, item]
        return len(items) + 1

    @query
    def items(self, key: bytes) -> list[bytes]:
        """The list."""
        return self.lists.get(key, [])


class Clients:
    """Clients that act one operation after the other, and write down what they asked and heard.

    Counters show whether a command was applied twice or not at all, registers whether a read was stale, and lists
    what became of each single write.
    """

    def __init__(self, seed: int, history: History) -> None:
        self._seed = seed
        self._history = history
        self._witnessed: list[tuple[Index, bool, Operation]] = []
        self._unwitnessed: set[bytes] = set()
        """Keys with a write whose place in the log nobody heard."""
        self._numbers: dict[int, int] = {}
        self.unknown = 0
        self.refused = 0
        self.stopping = False

    async def act(self, client: Client[Workload], number: int) -> None:
        """Until `stopping`."""
        dice = random.Random(f"{self._seed}.{number}")
        try:
            while not self.stopping:
                await asyncio.sleep(dice.expovariate(1 / 0.1))
                await self._operate(client, number, dice)
        finally:
            await client.close()

    async def _operate(self, client: Client[Workload], number: int, dice: random.Random) -> None:
        kind = dice.choice(list(_KINDS))
        key = _KINDS[kind] + b"%d" % dice.randrange(KEYS)
        step = self._numbers[number] = self._numbers.get(number, 0) + 1
        value = b"%d.%d" % (number, step)
        old = b"%d.%d" % (number, max(1, step - dice.randrange(1, 9))) if dice.random() < 0.5 else None
        argument = {"increment": 1, "write": value, "put": value, "compare": (old, value), "append": value}.get(kind)
        name = {"count": "read", "look": "read", "get": "read", "put": "write", "list": "read"}.get(kind, kind)
        loop = asyncio.get_running_loop()
        operation = self._history.call(number, key, name, argument, loop.time())
        try:
            result = await self._ask(client, kind, key, value, old, operation)
        except (Indeterminate, SessionExpired):
            self.unknown += 1
            self._unwitnessed.add(key)
        except (NotAccepted, Rejected):
            self.refused += 1
            self._history.refused(operation)
        except RaftKVError as exc:
            raise AssertionError(f"{kind} ended with {exc!r}, which no client should see") from exc
        else:
            self._history.returned(operation, result, loop.time())

    async def _ask(
        self, client: Client[Workload], kind: str, key: bytes, value: bytes, old: bytes | None, operation: Operation
    ) -> object:
        remote: Any = client.remote
        match kind:
            case "increment":
                return await remote.increment(key)
            case "count":
                item = await remote.get(key)
                return int(item.value) if item is not None else 0
            case "write":
                await remote.put(key, value)
                return None
            case "compare":
                return await remote.compare_and_set(key, old, value)
            case "look":
                item = await remote.get(key)
                return item.value if item is not None else None
            case "put":
                stamp = await remote.put(key, value)
                self._witnessed.append((stamp.changed_index, False, operation))
                return None
            case "get":
                answer = await client.read("get", key)
                self._witnessed.append((answer.index, True, operation))
                return answer.value.value if answer.value is not None else None
            case "append":
                return await remote.append(key, value)
            case _:
                return tuple(await remote.items(key))

    # ------------------------------------------------------------------------------ the verdict

    async def read_lists(self, client: Client[Workload]) -> dict[Any, Any]:
        """What the lists are when all is over."""
        remote: Any = client.remote
        keys = [b"l%d" % number for number in range(KEYS)]
        return {key: await remote.items(key) for key in keys}

    def problems(self, lists: dict[Any, Any]) -> list[str]:
        """What can't be true of one machine, by all three checkers."""
        operations = self._history.operations
        appends = [each for each in operations if each.key[:1] == b"l"]  # type: ignore[index]
        witnessed = [each for each in self._witnessed if each[2].key not in self._unwitnessed]
        return [
            *append_problems(appends, lists),
            *witness_problems(witnessed, register, None),
            *self._history.problems(model, None),
        ]


_KINDS = {
    "increment": b"c",
    "count": b"c",
    "write": b"r",
    "compare": b"r",
    "look": b"r",
    "put": b"w",
    "get": b"w",
    "append": b"l",
    "list": b"l",
}
"""What clients do, and the keys that they do it to."""


def model(state: Any, operation: Operation) -> tuple[object, object]:
    """What an operation gives, and what it leaves behind, by its kind of key."""
    models: dict[bytes, Callable[[Any, Operation], tuple[object, object]]] = {b"c": _counter, b"l": _list}
    return models.get(bytes(operation.key)[:1], register)(state, operation)  # type: ignore[call-overload]


def _counter(state: Any, operation: Operation) -> tuple[object, object]:
    return counter(state or 0, operation)


def _list(state: Any, operation: Operation) -> tuple[object, object]:
    items = state or ()
    if operation.name == "append":
        return len(items) + 1, (*items, operation.argument)
    return items, items
