"""The clients of a simulated world, and what must come of their calls: counters, registers and lists."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from raftkv.client import Client
from raftkv.config import KIB
from raftkv.errors import Indeterminate, InvalidArgument, NotAccepted, NotActive, RaftKVError, Rejected, SessionExpired
from raftkv.kv import KeyValue
from raftkv.machine import Table, command, on_expire, query
from raftkv.model import Index
from raftkv.testing.judging.history import History
from raftkv.testing.judging.operation import Operation, counter, register
from raftkv.testing.judging.search import Verdict
from raftkv.testing.judging.verdicts import judge
from raftkv.worlds.appends import append_problems
from raftkv.worlds.witness import witness_problems

KEYS = 2
"""Of each kind: few, so that clients meet."""

LIST_MAX = 500

ROWS_EACH = 4
"""Rows of one command that go and come together."""

LARGE_MAX = 64 * KIB
"""Limits of commands above this are not tried: the world would be about nothing else."""

RAISED, ENDLESS, DONE_AFTER_ALL = "command that raises", "command that calls itself", "unknown outcome that was done"
AT_LIMIT, OVER_LIMIT = "command at the limit", "command over the limit"
TOO_NEW = "command of a later version"

ENCOUNTERS = (RAISED, ENDLESS, DONE_AFTER_ALL, AT_LIMIT, OVER_LIMIT, TOO_NEW)


RENEWED_MS = 1_500
"""How long a lease is held when it is renewed."""


class Note(msgspec.Struct):
    """How many items were noted, and the last of them."""

    count: int = 0
    last: bytes = b""


class Reminder(msgspec.Struct):
    """A command that is to be run later: when, by which handle, and what came of it."""

    due_ms: int
    handle: int
    times: int = 0
    at_ms: int | None = None
    cancelled: bool = False
    over_ms: int | None = None
    """When the lease that comes with it ran out."""
    overs: int = 0
    """How often it did."""


class Workload(KeyValue):
    """The key-value machine, and lists. `raftkv.worlds.later` has its second version."""

    lists = Table(bytes, list[bytes])
    rows = Table(int, int)
    notes = Table(bytes, Note)
    reminders = Table(int, Reminder)
    leases = Table(int, int, expires=True)
    """Until when a reminder has one."""
    counted = Table(int, int, watch=True)

    @command
    def count_up(self, key: int) -> int:
        """Set a row that is watched; how often it was set."""
        self.counted[key] = self.counted.get(key, 0) + 1
        return self.counted[key]

    @query
    def counted_now(self) -> list[tuple[int, int]]:
        """How often each row was set."""
        return list(self.counted.items())

    @command
    def remind(self, number: int, after_ms: int) -> None:
        """Have `remember` run later, and hold a lease until then."""
        handle = self.schedule(after_ms / 1000, Workload.remember, number)
        self.reminders[number] = Reminder(self.now_ms + after_ms, handle)
        if after_ms:
            self.leases.put(number, self.now_ms + after_ms, ttl_s=after_ms / 1000)

    @command
    def forget(self, number: int) -> bool:
        """Or not; whether it was not too late for that. The lease is for longer then."""
        reminder = self.reminders[number]
        if number in self.leases:
            self.leases.put(number, self.now_ms + RENEWED_MS, ttl_s=RENEWED_MS / 1000)
        if not self.cancel(reminder.handle):
            return False
        reminder.cancelled = True
        self.reminders[number] = reminder
        return True

    @command
    def remember(self, number: int) -> None:
        """Write down that this was run, and when."""
        reminder = self.reminders[number]
        reminder.times, reminder.at_ms = reminder.times + 1, self.now_ms
        self.reminders[number] = reminder

    @command
    @on_expire("leases")
    def ran_out(self, number: int, until_ms: int) -> None:
        """Write down that a lease did, and when."""
        reminder = self.reminders[number]
        reminder.overs, reminder.over_ms = reminder.overs + 1, self.now_ms
        assert until_ms <= self.now_ms, f"the lease {number} ran out at {self.now_ms}, before {until_ms}"
        self.reminders[number] = reminder

    @command
    def reminders_now(self) -> tuple[int, list[tuple[int, Reminder]], list[tuple[int, int]]]:
        """The log's time, all that were ever scheduled, and until when there are leases."""
        return self.now_ms, list(self.reminders.items()), list(self.leases.items())

    @query
    def leases_now(self) -> tuple[int, list[tuple[int, int]]]:
        """The present, and until when there are leases."""
        return self.now_ms, list(self.leases.items())

    @command
    def note(self, key: bytes, item: bytes) -> int:
        """Keep the last item of many; returns how many there were."""
        count = self.notes.get(key, Note()).count + 1
        self.notes[key] = Note(count, item)
        return count

    @query
    def noted(self, key: bytes) -> int:
        """How many there were."""
        return self.notes.get(key, Note()).count

    @command
    def append(self, key: bytes, item: bytes) -> int:
        """Append; returns the new length."""
        items = self.lists.get(key, [])
        if len(items) >= LIST_MAX:
            raise ValueError("the list is full")
        self.lists[key] = [*items, item]
        return len(items) + 1

    @command
    def spoil(self, key: bytes, item: bytes) -> None:
        """Append, and then raise: all of it is undone."""
        self.lists[key] = [*self.lists.get(key, []), item]
        raise ValueError("spoiled")

    @command
    def dig(self, key: bytes, item: bytes) -> None:
        """Append, and then never end; no frame is left, and all of it is undone."""
        self.lists[key] = [*self.lists.get(key, []), item]
        self._deeper()

    def _deeper(self) -> None:
        self._deeper()

    @command
    def litter(self, number: int, deletes: bool) -> None:
        """Set some rows, which add up to nothing, or delete them."""
        for row in range(number * ROWS_EACH, (number + 1) * ROWS_EACH):
            if not deletes:
                self.rows[row] = self.index if row % 2 else -self.index
            elif row in self.rows:
                del self.rows[row]

    @query
    def sum_up(self) -> tuple[int, int]:
        """How many rows there are, and their sum."""
        values = [value for _, value in self.rows.items()]
        return len(values), sum(values)

    @query
    def items(self, key: bytes) -> list[bytes]:
        """The list."""
        return self.lists.get(key, [])


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What the checkers say of all that clients heard."""

    problems: list[str]
    """Empty if all is well."""
    undecided: int
    """Keys whose search for an order was given up; the other two checkers have judged them."""
    broken_at: float | None
    """When a client first heard what can't be true, if there is no order."""


class Clients:
    """Clients that act one operation after the other, and write down what they asked and heard.

    Counters show whether a command was applied twice or not at all, registers whether a read was stale, and lists
    what became of each single write.
    """

    def __init__(
        self, seed: int, history: History, command_bytes_max: int | None = None, *, pause_s: float = 0.1
    ) -> None:
        """Each rests for about `pause_s` seconds between two operations."""
        self._seed = seed
        self._pause_s = pause_s
        self._history = history
        self._command_bytes_max = command_bytes_max if (command_bytes_max or LARGE_MAX) < LARGE_MAX else None
        self._met: Counter[str] = Counter()
        self._witnessed: list[tuple[Index, bool, Operation]] = []
        self._unwitnessed: set[bytes] = set()
        """Keys with a write whose place in the log nobody heard."""
        self._numbers: dict[int, int] = {}
        self._doubtful: list[Operation] = []
        """Those of which nobody heard whether they were done."""
        self.unknown = 0
        self.refused = 0
        self.stopping = False

    async def act(self, client: Client[Workload], number: int) -> None:
        """Do one operation after the other until `stopping`."""
        dice = random.Random(f"{self._seed}.{number}")
        try:
            while not self.stopping:
                await asyncio.sleep(dice.expovariate(1 / self._pause_s))
                await self._operate(client, number, dice)
        finally:
            await client.close()

    async def _operate(self, client: Client[Workload], number: int, dice: random.Random) -> None:
        kind = dice.choice(list(_KINDS))
        key = _KINDS[kind] + b"%d" % dice.randrange(KEYS)
        if kind == "append" and dice.random() < 0.1:
            kind = "spoil"
        step = self._numbers[number] = self._numbers.get(number, 0) + 1
        if kind == "spoil" and step % 2:
            kind = "dig"
        value = b"%d.%d" % (number, step)
        is_large = kind == "put" and self._command_bytes_max is not None and dice.random() < 0.1
        if is_large:
            value = self._at_the_limit(value, dice)
        old = b"%d.%d" % (number, max(1, step - dice.randrange(1, 9))) if dice.random() < 0.5 else None
        if kind == "note" and client.machine.version > 1:
            kind = ("note", "mark", "again")[step % 3]
        argument = {"compare": (old, value), **_ONE_MORE}.get(kind, None if kind in _READS else value)
        name = {**dict.fromkeys(_READS, "read"), "put": "write", "spoil": "append", "dig": "append"}.get(kind, kind)
        name = "increment" if kind in _ONE_MORE else name
        loop = asyncio.get_running_loop()
        operation = self._history.call(number, key, name, argument, loop.time(), is_read=name == "read")
        try:
            result = await self._ask(client, kind, key, value, old, operation)
        except (Indeterminate, SessionExpired):
            self.unknown += 1
            self._unwitnessed.add(key)
            self._doubtful.append(operation)
        except (NotAccepted, Rejected) as exc:
            self._refused(operation)
            if isinstance(exc, NotActive):
                assert kind in _LATER, f"{kind} ended with {exc!r}, and is of the first version"
                self._met[TOO_NEW] += 1
            elif isinstance(exc, Rejected) and kind in _FAILING:
                self._met[_FAILING[kind]] += 1
        except InvalidArgument as exc:
            # A leader of the first version that has met no later node yet can't know that there will be such a command.
            assert is_large or kind in _LATER, f"{kind} ended with {exc!r}"
            self._refused(operation)
            self._met[OVER_LIMIT if is_large else TOO_NEW] += 1
        except RaftKVError as exc:
            raise AssertionError(f"{kind} ended with {exc!r}, which no client should see") from exc
        else:
            assert kind not in _FAILING, "a command that raises was answered"
            self._met[AT_LIMIT] += is_large
            self._history.returned(operation, result, loop.time())

    def _refused(self, operation: Operation) -> None:
        self.refused += 1
        self._history.refused(operation)

    def _at_the_limit(self, value: bytes, dice: random.Random) -> bytes:
        """A value whose command is as large as may be, or a few bytes larger or smaller."""
        assert self._command_bytes_max is not None
        return value.ljust(self._command_bytes_max - dice.randrange(120), b".")

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
            case "spoil":
                return await remote.spoil(key, value)
            case "dig":
                return await remote.dig(key, value)
            case "note":
                return await remote.note(key, value)
            case "mark":
                return await remote.note(key, value, value)
            case "again":
                return await remote.note_again(key)
            case "noted":
                return await remote.noted(key)
            case _:
                return tuple(await remote.items(key))

    async def read_lists(self, client: Client[Workload]) -> dict[Any, Any]:
        """Read all lists, at the end of the world."""
        remote: Any = client.remote
        keys = [b"l%d" % number for number in range(KEYS)]
        return {key: await remote.items(key) for key in keys}

    def met(self, lists: dict[Any, Any]) -> dict[str, int]:
        """How often clients met what the table of faults names (`ENCOUNTERS`)."""
        items = {item for found in lists.values() for item in found}
        done = sum(operation.argument in items for operation in self._doubtful if operation.name == "append")
        return {kind: times for kind, times in {**self._met, DONE_AFTER_ALL: done}.items() if times}

    def judge(self, lists: dict[Any, Any]) -> Findings:
        """What one machine could not have answered, by all three checkers."""
        operations = self._history.operations
        appends = [each for each in operations if each.key[:1] == b"l"]  # type: ignore[index]
        witnessed = [each for each in self._witnessed if each[2].key not in self._unwitnessed]
        judgement = judge(operations, model, None)
        refuted = judgement.verdict is Verdict.REFUTED
        problems = [*append_problems(appends, lists), *witness_problems(witnessed, register, None)]
        return Findings(
            problems=[*problems, judgement.describe()] if refuted else problems,
            undecided=len(judgement.undecided),
            broken_at=judgement.broken_at if refuted else None,
        )


_FAILING = {"spoil": RAISED, "dig": ENDLESS}
_READS = ("count", "look", "get", "list", "noted")
_LATER = ("mark", "again")
"""What only the second version has."""
_ONE_MORE = dict.fromkeys(("increment", "note", *_LATER), 1)

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
    "note": b"n",
    "noted": b"n",
}
"""What clients do, and the keys that they do it to."""


def model(state: Any, operation: Operation) -> tuple[object, object]:
    """What an operation gives, and what it leaves behind, by its kind of key."""
    models: dict[bytes, Callable[[Any, Operation], tuple[object, object]]] = {
        b"c": _counter,
        b"n": _counter,
        b"l": _list,
    }
    return models.get(bytes(operation.key)[:1], register)(state, operation)  # type: ignore[call-overload]


def _counter(state: Any, operation: Operation) -> tuple[object, object]:
    return counter(state or 0, operation)


def _list(state: Any, operation: Operation) -> tuple[object, object]:
    items = state or ()
    if operation.name == "append":
        return len(items) + 1, (*items, operation.argument)
    return items, items
