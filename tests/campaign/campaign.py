"""Runs many simulated worlds in parallel processes, and adds up their outcomes."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.pool import IMapIterator

import msgspec

from raftkv.testing.judging.failure import Failure
from raftkv.testing.world.unheard import quiet
from raftkv.worlds.simulation import Simulation
from tests.campaign.coverage import by_kind, by_row


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
    """Runs worlds of consecutive seeds."""

    def __init__(self, first: int, virtual_s: float, processes: int | None = None) -> None:
        self._first = first
        self._virtual_s = virtual_s
        self._processes = processes or os.cpu_count() or 1
        self._seconds = 0.0
        self.all = Total(first)
        """Since the beginning."""
        self.batch = Total(first)
        """Since `next_batch`."""
        self._batch_began = 0.0

    def run(self, *, seconds: float | None = None, worlds: int | None = None) -> Iterator[WorldOutcome]:
        """Run them, so long or so many; each is given when it is over, in the order of the seeds."""

        def seeds() -> Iterator[tuple[int, float]]:
            for number in itertools.count(self._first):
                if time.monotonic() >= end or (worlds is not None and number >= self._first + worlds):
                    return
                yield number, self._virtual_s

        context = multiprocessing.get_context("spawn")
        with context.Pool(self._processes, _begin) as pool:
            began = time.monotonic()  # only now: on a busy machine the processes alone take longer than a short run
            end = began + seconds if seconds is not None else float("inf")
            for outcome in self._in_pieces(pool.imap, seeds()):
                self.all.count(outcome)
                self.batch.count(outcome)
                self._seconds = time.monotonic() - began
                yield outcome

    def _in_pieces(self, imap: object, seeds: Iterator[tuple[int, float]]) -> Iterator[WorldOutcome]:
        """Hands the pool few seeds at a time: it takes all that it is given at once, so it would never end."""
        while piece := list(itertools.islice(seeds, 8 * self._processes)):
            found: IMapIterator[WorldOutcome] = imap(_work, piece)  # type: ignore[operator]
            yield from found

    def summary(self) -> str:
        """In a line."""
        found = self.all
        speed = found.virtual_s / self._seconds / self._processes if self._seconds else 0.0
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
            "processes": self._processes,
            "virtual_s": round(found.virtual_s),
            "operations": found.operations,
            "undecided": found.undecided,
            "faults": dict(found.faults),
            "failed": found.failed,
        }

    def coverage(self) -> list[str]:
        """Lines: each kind of fault with how often it met something, then each row with what covers it."""
        return [*by_kind(self.all.faults), "", *by_row(self.all.faults)]


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process gets Ctrl-C, and ends this one


def _work(task: tuple[int, float]) -> WorldOutcome:
    return run_world(*task)
