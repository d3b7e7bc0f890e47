"""Runs many simulated worlds beside each other, and adds up their outcomes."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator

import msgspec

from raftkv.testing.judging.failure import Failure
from raftkv.testing.world.unheard import quiet
from raftkv.worlds.simulation import Simulation, replay_command
from tests.campaign.cluster import on_dask
from tests.campaign.coverage import by_kind, by_row
from tests.campaign.jobs import Ended, JobLost, in_order, processes_here


class WorldOutcome(msgspec.Struct):
    """The outcome of one world."""

    seed: int
    operations: int = 0
    unknown: int = 0
    undecided: int = 0
    """Keys of which it was not found out whether their history is linearizable."""
    virtual_s: float = 0.0
    faults: dict[str, int] = {}
    events: list[str] = []
    failure: str | None = None
    """What broke, and how to see it again; None when all is well."""


def run_world(seed: int, virtual_s: float, *, keep_events: bool = False) -> WorldOutcome:
    """Run one world here."""
    world = Simulation(seed, duration_s=virtual_s)
    failure = None
    with quiet():
        try:
            world.run()
        except Failure as exc:
            failure = str(exc)
    report = world.report
    return WorldOutcome(
        seed=seed,
        operations=report.operations,
        unknown=report.unknown,
        undecided=report.undecided,
        virtual_s=report.virtual_s,
        faults=report.faults,
        events=report.events if keep_events else [],
        failure=failure,
    )


def tell(outcome: WorldOutcome) -> str:
    """A world's outcome in one line."""
    undecided = f", {outcome.undecided} keys undecided" if outcome.undecided else ""
    return (
        f"seed {outcome.seed}: {outcome.operations} operations, {outcome.unknown} with unknown ends, "
        f"{sum(outcome.faults.values())} faults, {outcome.virtual_s:.0f} virtual seconds{undecided}"
    )


class Total(msgspec.Struct):
    """The outcomes of worlds with consecutive seeds, added up."""

    first: int
    worlds: int = 0
    operations: int = 0
    undecided: int = 0
    virtual_s: float = 0.0
    faults: Counter[str] = msgspec.field(default_factory=Counter)
    failed: list[int] = []

    def count(self, outcome: WorldOutcome) -> None:
        """One world more."""
        self.worlds += 1
        self.operations += outcome.operations
        self.undecided += outcome.undecided
        self.virtual_s += outcome.virtual_s
        self.faults.update(outcome.faults)
        if outcome.failure is not None:
            self.failed.append(outcome.seed)


class Campaign:
    """Runs worlds of consecutive seeds: in processes of this machine, or on a Dask cluster.

    `dask` is the address of its scheduler, or "" for a local cluster of its own.
    """

    def __init__(self, first: int, virtual_s: float, processes: int | None = None, dask: str | None = None) -> None:
        self._first = first
        self._virtual_s = virtual_s
        self._processes = processes
        self._dask = dask
        self._at_once = 1
        self._seconds = 0.0
        self.all = Total(first)
        """Since the beginning."""
        self.batch = Total(first)
        """Since `next_batch`."""
        self._batch_began = 0.0

    def run(self, *, seconds: float | None = None, worlds: int | None = None) -> Iterator[WorldOutcome]:
        """Run them, so long or so many; each is given when it is over, in the order of the seeds.

        Raises `JobsFailed` when they can't be run there; what was given until then counts.
        """

        def seeds() -> Iterator[tuple[int, float]]:
            for number in itertools.count(self._first):
                if time.monotonic() >= end or (worlds is not None and number >= self._first + worlds):
                    return
                yield number, self._virtual_s

        with processes_here(self._processes) if self._dask is None else on_dask(self._dask, self._processes) as place:
            began = time.monotonic()  # only now: on a busy machine the processes alone take longer than a short run
            end = began + seconds if seconds is not None else float("inf")
            for ended in in_order(place, _work, seeds()):
                outcome = outcome_of(ended)
                self.all.count(outcome)
                self.batch.count(outcome)
                self._seconds, self._at_once = time.monotonic() - began, place.slots() or self._at_once
                yield outcome

    def summary(self) -> str:
        """In a line."""
        found = self.all
        speed = found.virtual_s / self._seconds / self._at_once if self._seconds else 0.0
        return (
            f"{found.worlds} worlds from seed {self._first} on, {found.operations} operations, "
            f"{sum(found.faults.values())} faults, {speed:.0f} virtual seconds a second and process: "
            f"{len(found.failed)} failed {found.failed or ''}".rstrip()
        )

    @property
    def batch_s(self) -> float:
        """How long the batch has run."""
        return self._seconds - self._batch_began

    def next_batch(self) -> dict[str, object]:
        """End a batch, and begin the next one; returns the ended batch's outcomes, for a ledger."""
        found, seconds = self.batch, self.batch_s
        self.batch, self._batch_began = Total(found.first + found.worlds), self._seconds
        return {
            "first": found.first,
            "worlds": found.worlds,
            "seconds": round(seconds),
            "processes": self._at_once,
            "virtual_s": round(found.virtual_s),
            "operations": found.operations,
            "undecided": found.undecided,
            "faults": dict(found.faults),
            "failed": found.failed,
        }

    def coverage(self) -> list[str]:
        """Lines: each kind of fault with how often it met something, then each row with what covers it."""
        return [*by_kind(self.all.faults), "", *by_row(self.all.faults)]

    def again(self) -> list[str]:
        """What to type here to see each failed world again, wherever it was run."""
        return [replay_command(seed, duration_s=self._virtual_s) for seed in self.all.failed]


_one_world = threading.Lock()
"""A world sets where logs of its process go, so there is one at a time, however many threads a worker has."""


def _work(task: tuple[int, float]) -> WorldOutcome:
    with _one_world:
        return run_world(*task)


def outcome_of(ended: Ended[tuple[int, float], WorldOutcome]) -> WorldOutcome:
    """A world in which process after process ends has failed, too."""
    try:
        return ended.future.result()
    except JobLost as exc:
        seed, virtual_s = ended.task
        command = replay_command(seed, duration_s=virtual_s)
        return WorldOutcome(seed, failure=f"seed {seed}: {exc}\nsee what happens: {command}")
