"""A queue of jobs, in its first version."""

from __future__ import annotations

import msgspec

from raftkv.machine import StateMachine, Table, Value, command, query


class Job(msgspec.Struct):
    """Something to be done."""

    number: int
    name: str
    worker: str = ""
    """Who has taken it; empty: nobody."""


class Jobs(StateMachine):
    """Jobs are added, taken, and finished."""

    open = Table(int, Job)
    finished = Table(int, Job)
    last = Value(int, 0)

    @command
    def add(self, name: str) -> int:
        """Returns the new job's number."""
        self.last += 1
        self.open[self.last] = Job(self.last, name)
        return self.last

    @command
    def take(self, number: int, worker: str) -> Job:
        job = self.open.get(number)
        if job is None:
            raise ValueError("there is no such job")
        job.worker = worker
        self.open[number] = job
        return job

    @command
    def finish(self, number: int) -> bool:
        job = self.open.pop(number, None)
        if job is None:
            return False
        self.finished[number] = job
        return True

    @query
    def page(self, after: int, limit: int) -> list[Job]:
        """Of all jobs, whether finished or not, in the order of their numbers."""
        both = [*self.open.range(after + 1, limit=limit), *self.finished.range(after + 1, limit=limit)]
        return [job for _, job in sorted(both, key=lambda each: each[0])][:limit]

    @query
    def is_finished(self, number: int) -> bool:
        return number in self.finished
