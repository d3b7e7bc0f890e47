"""Looks at a world while something is done in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

import structlog

from raftkv.testing.checks import Check
from raftkv.testing.cluster import SimCluster
from raftkv.testing.failure import Failure

T = TypeVar("T")

LOOK_S = 0.02
"""Virtual seconds between two looks."""


async def watched(cluster: SimCluster, checks: Sequence[Check], work: Coroutine[Any, Any, T]) -> T:
    """Do `work`, and hold the cluster to `checks` meanwhile. Raises `Failure`, or what `work` does."""
    __tracebackhide__ = True
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(_watch(cluster, checks))
    try:
        await asyncio.wait([task, watcher], return_when=asyncio.FIRST_COMPLETED)
        if watcher.done():
            watcher.result()
        return task.result()
    finally:
        for each in (task, watcher):
            each.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def _watch(cluster: SimCluster, checks: Sequence[Check]) -> None:
    while True:
        await asyncio.sleep(LOOK_S)
        look(cluster, checks)


def look(cluster: SimCluster, checks: Sequence[Check]) -> None:
    """Look once. Raises `Failure`."""
    for check in checks:
        try:
            check.look(cluster)
        except AssertionError as exc:
            raise Failure(f"{check.name}: {exc}\n{cluster.describe()}") from exc


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nothing be logged: a simulated cluster has much to say, and nobody reads it."""
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), cache_logger_on_first_use=False)
    try:
        yield
    finally:
        if before is not None:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()
