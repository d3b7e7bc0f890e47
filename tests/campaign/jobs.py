"""Runs jobs that don't depend on each other, here or elsewhere, and gives what they came to, each once.

A job is a function of a module and a task for it; both, and what comes of them, can be pickled. Where jobs are run is a
`Place`: processes or threads of this machine, or a Dask cluster (`tests.campaign.cluster`).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, NamedTuple, Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")

LOOKS_S = 2.0
"""From one look at what a place can do to the next, while no job ends."""


class JobsFailed(Exception):
    """Jobs can't be run where they were to be; the text says what to do."""


class JobLost(JobsFailed):
    """The process that ran this job ended while it did, as often as it was tried."""


class Ended(NamedTuple, Generic[T, R]):
    """A job that was run."""

    number: int
    """Of the task, counted from 0."""
    task: T
    future: Future[R]
    """What came of it. Its `result` raises what the job did, or `JobsFailed`."""


class Place(Protocol):
    """Where jobs are run."""

    def slots(self) -> int:
        """How many are run at once; may be 0 for a while. Raises `JobsFailed` when it won't run any more."""

    def submit(self, function: Callable[[T], R], task: T) -> Future[R]:
        """Begin a job. Its future raises what the job does, or `JobsFailed`."""


def as_they_come(place: Place, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Ended[T, R]]:
    """Run a job for each task, and give them as they end.

    Tasks are taken when there is room for them: as many as are run at once, and as many again that wait for their turn.
    Raises `JobsFailed` when the place is gone. What was begun is cancelled when nobody asks for more.
    """
    coming, running = enumerate(tasks), dict[Future[R], tuple[int, T]]()
    try:
        while True:
            for number, task in itertools.islice(coming, max(0, max(1, 2 * place.slots()) - len(running))):
                running[place.submit(function, task)] = number, task
            if not running:
                return
            ended, _ = concurrent.futures.wait(running, LOOKS_S, concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                yield Ended(*running.pop(future), future)
    finally:
        for future in running:
            future.cancel()


def in_order(place: Place, function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[Ended[T, R]]:
    """As `as_they_come`, but in the order of the tasks: what ends early waits for those before it."""
    early: dict[int, Ended[T, R]] = {}
    due = 0
    for ended in as_they_come(place, function, tasks):
        early[ended.number] = ended
        while due in early:
            yield early.pop(due)
            due += 1


class Here:
    """Processes or threads of this machine."""

    def __init__(self, executor: Executor, at_once: int) -> None:
        self._executor = executor
        self._at_once = at_once

    def slots(self) -> int:
        return self._at_once

    def submit(self, function: Callable[[T], R], task: T) -> Future[R]:
        return self._executor.submit(function, task)


@contextlib.contextmanager
def processes_here(at_once: int | None = None) -> Iterator[Here]:
    """So many processes, by default one a core. The first has begun, and all end with the block, whatever they do.

    Raises `JobsFailed` when one is killed meanwhile.
    """
    at_once = at_once or os.cpu_count() or 1
    executor = ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn"), _leave_interrupts)
    try:
        executor.submit(os.getpid).result()  # on a busy machine the start alone takes longer than a short run
        yield Here(executor, at_once)
    except BrokenProcessPool as exc:
        raise JobsFailed("a process was killed, and nobody knows which job it had: is memory short?") from exc
    finally:
        children = executor._processes or {}
        for child in list(children.values()):
            child.terminate()
        executor.shutdown(cancel_futures=True)


@contextlib.contextmanager
def threads_here(at_once: int) -> Iterator[Here]:
    """So many threads, for jobs that wait for processes which they start. What was begun is waited for."""
    with ThreadPoolExecutor(at_once) as executor:
        yield Here(executor, at_once)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process gets Ctrl-C, and ends this one
