"""Whole nodes in simulated worlds: what is acknowledged stays, whatever breaks."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from raftkv.testing.checks import all_checks
from raftkv.testing.simulation import Simulation, simulate

SCRIPT = """
import hashlib
from raftkv.testing.simulation import Simulation
world = Simulation({seed}, duration_s=8.0)
report = world.run()
operations = [operation.describe() for operation in world.history.operations]
text = "\\n".join([*report.events, *operations, str(report.terms)])
print(hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.parametrize("seed", range(40))
def test_a_world_keeps_its_promise(seed):
    """Crashes, cuts, clocks, slow disks, snapshots, changing members: linearizable, nothing lost, and it recovers."""
    report = simulate(seed, duration_s=12.0)
    assert report.operations > 0


def test_there_are_enough_invariants():
    """Each has a class with a name and a sentence of its own."""
    checks = all_checks()
    assert len({check.name for check in checks}) == len(checks) >= 20
    assert all(type(check).__doc__ for check in checks)


@pytest.mark.parametrize("seed", [3, 11])
def test_the_same_seed_is_the_same_world(seed):
    """To the byte, in other processes with other hash seeds: a failure can always be seen again."""
    digests = set()
    for hash_seed in ("0", "12345"):
        found = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(seed=seed)],
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(found.stdout.splitlines()[-1])
    assert len(digests) == 1
    world = Simulation(seed, duration_s=8.0)
    report = world.run()
    text = "\n".join([*report.events, *[each.describe() for each in world.history.operations], str(report.terms)])
    assert digests == {hashlib.sha256(text.encode()).hexdigest()}


def test_other_seeds_are_other_worlds():
    """The seed decides, and nothing else."""
    assert simulate(1, duration_s=3.0).events != simulate(2, duration_s=3.0).events
