"""Runs a saved failure of an application's test again, and records its world."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec

from raftkv.errors import InvalidArgument
from raftkv.testing.judging.failure import Failure
from raftkv.testing.tracing.trace import Trace
from raftkv.testing.trying.saved import load, rerun
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.unheard import quiet

KEPT_MAX = 500_000
"""Records of a kind: as good as all, since one wants to look at any part of the world."""


class Replay(msgspec.Struct, kw_only=True):
    """The outcome of a world that was run again, and its trace."""

    title: str
    """The command that shows it."""
    failed: bool
    verdict: str
    at: float
    """Virtual seconds: when it was clear that a promise is broken, else when the world ended."""
    trace: Trace
    """Empty where a mistake shows without a cluster."""


def replay_file(path: str) -> Replay:
    """Run a saved failure again. Raises `InvalidArgument` for a file that is none."""
    if not os.path.isfile(path):
        raise InvalidArgument(f"{path!r} is neither a seed nor a file")
    saved = load(path)
    return replayed(f"raftkv replay {path}", lambda observe: rerun(saved, observe))


def replayed(title: str, run: Callable[[Callable[[SimCluster], None]], None]) -> Replay:
    """Record the world that `run` runs; it is given what observes that."""
    trace = Trace(KEPT_MAX)
    verdict, failed = "it does not fail any more", False
    try:
        with quiet():
            run(trace.attach)
    except Failure as exc:
        verdict, failed = str(exc), True
        trace.broken(trace.now, verdict.partition("\n")[0])
    return Replay(title=title, failed=failed, verdict=verdict, at=trace.now, trace=trace)
