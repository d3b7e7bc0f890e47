"""Random worlds of cores: whatever happens, the five properties of Figure 3 hold, and peace brings progress.

Covers, by chance and in every run: F1-F6 (crashes that lose what was not written, votes and entries
alike), F15 (writes that never finish), F25-F31 (old terms, repeated, reordered, late messages),
F37-F41 and F43 (partitions of any shape, one-way cuts, nodes that come back), F45-F48 (transfers that
fail), F49-F56 (membership churn), F59-F67 (snapshots at any moment) and F71 (reads).
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.campaign.large import IS_LARGE
from tests.core.harness.language import Script
from tests.core.harness.simulation import Simulation

SEEDS = 300 if IS_LARGE else 60
STEPS = 350

MUST_HAPPEN = (
    "apply", "ask", "change", "compact", "crash", "drop", "duplicate", "install", "lost", "propose", "read",
    "snapshot", "transfer",
)  # fmt: skip
"""A campaign in which one of these did not happen shows nothing."""


def test_seeded_worlds_are_safe_and_make_progress():
    """Hundreds of worlds of up to eight nodes; every kind of trouble must have happened in some of them."""
    counts: dict[str, int] = {}
    for seed in range(SEEDS):
        simulation = Simulation(random.Random(seed).randrange)
        try:
            simulation.run(STEPS)
        except Exception as exc:
            exc.add_note(f"replay it: Simulation(random.Random({seed}).randrange).run({STEPS})")
            raise
        for what, count in simulation.world.counts.items():
            counts[what] = counts.get(what, 0) + count
    print(counts)
    missing = [what for what in MUST_HAPPEN if counts.get(what, 0) < 10]
    assert not missing, f"{missing} hardly happened: {counts}"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), steps=st.integers(1, 120))
def test_worlds_of_hypothesis_are_safe(data, steps):
    """The same worlds with hypothesis at the helm: a failing one is shrunk, and prints itself as a script."""
    Simulation(lambda n: data.draw(st.integers(0, n - 1))).run(steps)


def test_a_run_is_repeated_by_its_script():
    """What a run prints when it fails does the same again: every node ends in the same state."""
    for seed in range(5):
        simulation = Simulation(random.Random(seed).randrange)
        simulation.run(120)
        script = Script()
        for line in simulation.world.to_script().splitlines():
            script.execute(line)
        for node_id, node in simulation.world.nodes.items():
            again = script.world.nodes[node_id]
            assert again.core.describe() == node.core.describe()
            assert again.commands == node.commands


def test_a_run_is_the_same_every_time():
    """One seed is one world: the history of two runs is equal to the letter."""
    histories = []
    for _ in range(2):
        simulation = Simulation(random.Random(7).randrange)
        simulation.run(200)
        histories.append(simulation.world.to_script())
    assert histories[0] == histories[1]
