"""Budgets: `quick` while you work, `ci` before a change lands, `soak` over night."""

from __future__ import annotations

import os

import msgspec

from raftkv.errors import ConfigError

VARIABLE = "RAFTKV_BUDGET"


class Budget(msgspec.Struct, frozen=True):
    """How many scripts one `fault_test` may try, and how large these may be."""

    name: str
    examples: int
    """Scripts that are tried, alone and then in worlds."""
    shrinks: int
    """Smaller scripts that are tried once one has failed; one that needs no cluster counts for a tenth or three."""
    bursts_max: int
    """Of about five calls each."""
    faults_max: int
    duration_ms: int
    """Virtual time in which calls and faults of a script are due."""
    long_scripts: int = 20
    """Scripts of 60 calls each, over minutes, that are tried alone only: such a one takes no longer than a short one
    in a world."""


BUDGETS = {
    budget.name: budget
    for budget in (
        # A script takes about a tenth of a second.
        Budget("quick", examples=20, shrinks=120, bursts_max=12, faults_max=8, duration_ms=2_000),
        Budget("ci", examples=200, shrinks=500, bursts_max=20, faults_max=12, duration_ms=4_000, long_scripts=100),
        Budget(
            "soak", examples=5_000, shrinks=2_000, bursts_max=30, faults_max=20, duration_ms=8_000, long_scripts=1_000
        ),
    )
}


class Chosen(msgspec.Struct):
    """The options of pytest's command line or configuration file; None where one is not given."""

    budget: str | None = None
    seed: int | None = None
    directory: str = ".raftkv"
    """Where failures are saved."""
    reports: bool = False
    """Whether the plugin shows the program of a failure, so that its text need not."""
    tried: list[str] = []
    """What each `fault_test` of the test that runs has tried, for its report."""


chosen = Chosen()


def budget_of(name: str | Budget | None) -> Budget:
    """The budget `name`, or that of the command line, of `RAFTKV_BUDGET`, or `quick`. Raises `ConfigError`."""
    if isinstance(name, Budget):
        return name
    name = name or chosen.budget or os.environ.get(VARIABLE) or "quick"
    if name not in BUDGETS:
        raise ConfigError(f"budget {name!r}: must be one of {', '.join(BUDGETS)}")
    return BUDGETS[name]
