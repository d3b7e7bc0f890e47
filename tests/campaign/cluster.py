"""Runs jobs on an existing Dask cluster, or on a local one that is made for them.

A job whose worker is lost is run again by another; of one that was run twice, one end counts. Each job looks at the
code that its worker has loaded, and refuses to run on another version than the one that sent it.

A Dask cluster must be trusted, and trusts whoever reaches it: scheduler and workers send each other pickles, and run
whatever they get. Nothing is pickled for the network here beyond what Dask itself does.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from tests.campaign.fingerprint import own_fingerprint
from tests.campaign.jobs import JobLost, JobsFailed

T = TypeVar("T")
R = TypeVar("R")

ANSWERS_WITHIN_S = 20.0
"""A scheduler, when it is dialled."""

WORKERS_WITHIN_S = 60.0
"""So long a cluster may be without workers: time to start some, also instead of those that were lost."""

LOOKS_S = 1.0
"""From one count of the workers to the next."""

START = "in a checkout of this version: PYTHONPATH=. dask worker ADDRESS --nworkers 4 --nthreads 1"


class NoCluster(JobsFailed):
    """Nobody answers as a Dask scheduler, or there are no workers."""


class CodeDiffers(JobsFailed):
    """A worker has another version of the code, or none."""


def run_job(function: Callable[[T], R], task: T, fingerprint: str) -> R:
    """Run a job on a worker. Raises `CodeDiffers`."""
    if (found := own_fingerprint()) != fingerprint:
        raise CodeDiffers(_differs({f"process {os.getpid()} of {platform.node()}": found}, fingerprint))
    return function(task)


def _launcher() -> Callable[[bytes, str], Any]:
    """What is sent to a worker by its own text, as it has no name: schedulers load functions, too, and by their names
    they could load only those of code that they have themselves."""

    def launch(sent: bytes, fingerprint: str) -> Any:
        from distributed.protocol.pickle import loads

        from tests.campaign.cluster import run_job

        function, task = loads(sent)
        return run_job(function, task, fingerprint)

    return launch


def _differs(found: dict[str, object], fingerprint: str) -> str:
    lines = [
        f"  {worker}: {what if isinstance(what, str) else f'none that can be loaded ({what!r})'}"
        for worker, what in sorted(found.items())
    ]
    return "\n".join([f"workers have other code than {fingerprint}; start them anew {START}", *lines])


class OnDask:
    """The workers of a Dask cluster. It does not end with a worker, but with the scheduler."""

    def __init__(self, client: Any, address: str) -> None:
        self._client = client
        self._address = address
        self._slots = 0
        self._looked = self._had_workers = time.monotonic()

    def check(self) -> None:
        """Wait for a first worker. Raises `CodeDiffers` if one has other code than this."""
        try:
            self._client.wait_for_workers(1, timeout=WORKERS_WITHIN_S)
        except TimeoutError as exc:
            raise NoCluster(
                f"no worker came to {self._address} in {WORKERS_WITHIN_S:.0f} s; start some {START}"
            ) from exc
        found = self._client.run(own_fingerprint, on_error="return")
        if wrong := {address: what for address, what in found.items() if what != own_fingerprint()}:
            raise CodeDiffers(_differs(wrong, own_fingerprint()))
        self._count()

    def slots(self) -> int:
        if time.monotonic() - self._looked >= LOOKS_S:
            self._count()
        return self._slots

    def _count(self) -> None:
        try:
            self._slots = sum(self._client.nthreads().values())
        except OSError as exc:
            raise NoCluster(f"the Dask scheduler at {self._address} is gone: {exc}") from exc
        self._looked = time.monotonic()
        if self._slots:
            self._had_workers = self._looked
        elif self._looked - self._had_workers > WORKERS_WITHIN_S:
            raise NoCluster(f"no worker is left at {self._address} since {WORKERS_WITHIN_S:.0f} s; start some {START}")

    def submit(self, function: Callable[[T], R], task: T) -> Future[R]:
        from distributed.protocol.pickle import dumps

        theirs = self._client.submit(_launcher(), dumps((function, task)), own_fingerprint(), pure=False)
        ours: Future[R] = Future()
        ours.add_done_callback(lambda _: theirs.cancel() if ours.cancelled() else None)
        theirs.add_done_callback(partial(self._end, ours))
        return ours

    def _end(self, ours: Future[R], theirs: Any) -> None:
        from distributed import KilledWorker

        if not ours.set_running_or_notify_cancel():
            return
        if theirs.cancelled():
            ours.set_exception(NoCluster(f"the Dask scheduler at {self._address} is gone, or has cancelled a job"))
            return
        raised = theirs.exception()
        if isinstance(raised, KilledWorker):
            lost = JobLost(
                f"{raised.allowed_failures + 1} workers were lost while each ran it, the last {raised.last_worker}"
            )
            ours.set_exception(lost)
        elif isinstance(raised, ModuleNotFoundError):
            ours.set_exception(CodeDiffers(f"a worker lacks {raised.name}; start workers {START}"))
        elif raised is not None:
            ours.set_exception(raised)
        else:
            ours.set_result(theirs.result())


@contextlib.contextmanager
def on_dask(address: str, at_once: int | None = None) -> Iterator[OnDask]:
    """The cluster whose scheduler has this address; without one, a local cluster of so many processes that ends with
    the block (by default one a core). Raises `NoCluster`, `CodeDiffers`."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as exc:
        raise NoCluster("a Dask cluster needs distributed: pip install 'raftkv[dask]'") from exc
    with contextlib.ExitStack() as stack:
        try:
            if not address:
                local = LocalCluster(n_workers=at_once, threads_per_worker=1, dashboard_address=None)
                address = stack.enter_context(local).scheduler_address
            client = Client(address, timeout=ANSWERS_WITHIN_S, set_as_default=False)
        except (OSError, ValueError) as exc:
            raise NoCluster(f"no Dask scheduler answers at {address}: {exc}") from exc
        place = OnDask(stack.enter_context(client), address)
        place.check()
        yield place
