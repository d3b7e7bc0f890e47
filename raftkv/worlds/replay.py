"""Runs the world of a seed again, and records it."""

from __future__ import annotations

from raftkv.testing.judging.failure import Failure
from raftkv.testing.tracing.trace import Trace
from raftkv.testing.trying.replay import KEPT_MAX, Replay
from raftkv.testing.world.unheard import quiet
from raftkv.worlds.simulation import Simulation


def replay_seed(seed: int, *, size: int | None = None, duration_s: float = 20.0, clients: int = 4) -> Replay:
    """Run the `Simulation` of a seed."""
    trace = Trace(KEPT_MAX)
    world = Simulation(seed, size=size, duration_s=duration_s, clients=clients, observe=trace.attach)
    failure: Failure | None = None
    try:
        with quiet():
            report = world.run()
    except Failure as exc:
        failure = exc
        verdict = str(exc)
    else:
        undecided = f", {report.undecided} keys undecided" if report.undecided else ""
        verdict = (
            f"seed {seed} keeps its promise: {report.operations} operations, {report.unknown} with unknown ends, "
            f"{report.terms} terms, {report.virtual_s:.0f} virtual seconds{undecided}"
        )
    at = world.broken_at if world.broken_at is not None else trace.now
    if failure is not None:
        trace.broken(at, verdict.partition("\n")[0])
    return Replay(title=world.command, failed=failure is not None, verdict=verdict, at=at, trace=trace)
