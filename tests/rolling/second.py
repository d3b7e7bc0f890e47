"""The second version: fields, a table, a command and an argument more, and takers of a job are counted."""

from __future__ import annotations

import msgspec

from raftkv.machine import Table, command, query, upgrade
from tests.rolling import first

PIECE = 10
"""Rows that one piece of the upgrade writes: few, so that there are many pieces."""


class Job(msgspec.Struct):
    """Something to be done."""

    number: int
    name: str
    worker: str = ""
    takes: int = 0
    tags: list[str] = []


class Jobs(first.Jobs):
    """Jobs have tags, and are found by their names."""

    version = 2
    open = Table(int, Job)  # type: ignore[assignment]  # fields more
    finished = Table(int, Job)  # type: ignore[assignment]
    named = Table(str, int, since=2)

    @command
    def add(self, name: str, tags: list[str] = []) -> int:  # noqa: B006 (nobody changes it)
        """Returns the new job's number."""
        self.last += 1
        self.open[self.last] = Job(self.last, name, tags=[*tags, "new"])
        self.named[name] = self.last
        return self.last

    @command
    def take(self, number: int, worker: str) -> Job:  # type: ignore[override]  # fields more
        job = self.open.get(number)
        if job is None:
            raise ValueError("there is no such job")
        job.worker = worker if self.version == 1 else f"{worker} ({job.takes})"
        job.takes += 1
        self.open[number] = job
        return job

    @command(since=2)
    def tag(self, number: int, tag: str) -> list[str]:
        """Returns all tags of the job."""
        table = self.open if number in self.open else self.finished
        job = table[number]
        if tag not in job.tags:
            job.tags.append(tag)
        table[number] = job
        return job.tags

    @query
    def page(self, after: int, limit: int) -> list[Job]:  # type: ignore[override]  # fields more
        """Of all jobs, whether finished or not, in the order of their numbers."""
        both = [*self.open.range(after + 1, limit=limit), *self.finished.range(after + 1, limit=limit)]
        return [job for _, job in sorted(both, key=lambda each: each[0])][:limit]

    @query(since=2)
    def number_of(self, name: str) -> int | None:
        return self.named.get(name)

    @upgrade(to=2)
    def name_all(self, after: int | None) -> int | None:
        """Find jobs of the first version by their names too, and mark them."""
        begin = (after or 0) + 1
        numbers = range(begin, min(begin + PIECE, self.last + 1))
        for number in numbers:
            table = self.open if number in self.open else self.finished
            job = table[number]
            self.named[job.name] = number
            if "new" not in job.tags:
                job.tags.append("old")
                table[number] = job
        return numbers[-1] if numbers and numbers[-1] < self.last else None
