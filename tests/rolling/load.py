"""Clients of both versions, which go on all the time, and the history of what they were told."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from raftkv.client import Client
from raftkv.errors import InvalidArgument, NotActive, RaftKVError
from raftkv.machine import StateMachine
from tests.rolling import first, second

DEADLINE_S = 30.0
"""For one call: several elections, and a start between them."""

PAGE = 500


class History:
    """What clients were told. Every name is used once, so a job that is there twice, or not at all, is seen."""

    def __init__(self) -> None:
        self.added: dict[int, str] = {}
        self.finished: set[int] = set()
        self.tagged: dict[int, str] = {}
        self.errors: list[str] = []
        """What clients must not see, as they try again by themselves."""
        self.refused: Counter[str] = Counter()
        """What is of the second version, while the first is active; by the kind of error."""
        self.answered = 0
        self.by_version: Counter[int] = Counter()
        self.longest_s = 0.0
        self.newest_began = 0.0
        """When the call began that was answered and began last."""
        self.active_since: float | None = None
        """When the second version was seen to be active."""


class Clients:
    """Workers of both versions, one call after the other each."""

    def __init__(self, addresses: Sequence[str], history: History, *, each: int = 3) -> None:
        """`each` is how many workers of each version there are."""
        self._history = history
        self._stopping = False
        self._clients: list[Client[Any]] = [
            Client(machine, addresses, deadline_s=DEADLINE_S) for machine in (first.Jobs, second.Jobs)
        ]
        self._each = each
        self._tasks: list[asyncio.Future[None]] = []

    def start(self) -> None:
        """Begin to work."""
        self._tasks = [
            asyncio.ensure_future(self._work(client, f"{client.machine.version}.{number}"))
            for client in self._clients
            for number in range(self._each)
        ]

    async def stop(self) -> None:
        """Let each end the call it is at, and close."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        for client in self._clients:
            await client.close()

    async def fill(self, count: int) -> None:
        """Add jobs, many at a time."""
        client = self._clients[0]
        for begin in range(0, count, PAGE):
            names = [f"filled.{number}" for number in range(begin, min(begin + PAGE, count))]
            numbers = await asyncio.gather(*[client.remote.add(name) for name in names])
            self._history.added.update(zip(numbers, names, strict=True))

    async def _work(self, client: Client[Any], worker: str) -> None:
        history, turn = self._history, 0
        is_later = client.machine.version == 2
        while not self._stopping:
            turn += 1
            name = f"{worker}.{turn}"
            tags = ["rare"] if is_later and turn % 5 == 0 else None
            number = await self._call(client, "add", *((name, tags) if tags else (name,)), later=tags is not None)
            if number is None:
                continue
            history.added[number] = name
            await self._call(client, "take", number, worker)
            if is_later and await self._call(client, "tag", number, worker, later=True) is not None:
                history.tagged[number] = worker
            if turn % 2 and await self._call(client, "finish", number):
                history.finished.add(number)

    async def _call(self, client: Client[Any], name: str, *args: object, later: bool = False) -> Any:
        """One call; None when it failed. `later`: it is of the second version."""
        history, began = self._history, time.monotonic()
        try:
            result = await client.call(name, *args)
        except (NotActive, InvalidArgument) as exc:
            # A leader of the first version that has met no later node takes it for a mistake of the caller's.
            if later and (history.active_since is None or began < history.active_since):
                history.refused[type(exc).__name__] += 1
            else:
                history.errors.append(f"{name}: {exc!r}")
            return None
        except RaftKVError as exc:
            history.errors.append(f"{name}: {exc!r}")
            return None
        now = time.monotonic()
        history.answered += 1
        history.by_version[client.machine.version] += 1
        history.longest_s = max(history.longest_s, now - began)
        history.newest_began = max(history.newest_began, began)
        return result


async def judged(addresses: Sequence[str], machine: type[StateMachine], history: History) -> list[str]:
    """What is not as clients were told, seen by a client of the second version."""
    problems: list[str] = []
    found: dict[int, second.Job] = {}
    async with Client(machine, addresses, deadline_s=DEADLINE_S) as remote:
        after, names = 0, Counter[str]()
        while jobs := await remote.page(after, PAGE):
            found.update((job.number, job) for job in jobs)
            names.update(job.name for job in jobs)
            after = jobs[-1].number
        finished = {number for number in history.finished if await remote.is_finished(number)}
        named = await asyncio.gather(*[remote.number_of(name) for name in list(history.added.values())[::7]])
    for number, name in history.added.items():
        if number not in found or found[number].name != name:
            problems.append(f"job {number} was added as {name} and is {found.get(number)}")
    problems += [f"{name} was added {times} times" for name, times in names.items() if times > 1]
    problems += [f"job {number} was finished, and is not" for number in history.finished - finished]
    problems += [
        f"job {number} was tagged {tag} and is {found.get(number)}"
        for number, tag in history.tagged.items()
        if number not in found or tag not in found[number].tags
    ]
    problems += [f"job {job.number} was left out by the upgrade" for job in found.values() if not {*job.tags} & _MARKS]
    if named != list(history.added)[::7]:
        problems.append("jobs are not found by their names")
    return problems


_MARKS = {"new", "old"}
