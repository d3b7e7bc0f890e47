"""Whole nodes in simulated worlds: what is acknowledged stays, whatever breaks."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from raftkv.kv import KeyValue
from raftkv.testing.judging.checks import all_checks
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.worlds.simulation import Simulation, simulate
from tests.campaign.campaign import Campaign, run_world
from tests.campaign.coverage import KINDS
from tests.campaign.large import IS_LARGE

TOOLS = Path(__file__).parent.parent.parent / "tools"

SCRIPT = """
import hashlib
from raftkv.worlds.simulation import Simulation
world = Simulation({seed}, duration_s=8.0)
report = world.run()
operations = [operation.describe() for operation in world.history.operations]
text = "\\n".join([*report.events, *operations, str(report.terms)])
print(hashlib.sha256(text.encode()).hexdigest())
"""


@pytest.mark.parametrize("seed", range(100, 120 if IS_LARGE else 103))
def test_a_world_keeps_its_promise(seed):
    """Crashes, cuts, clocks, slow disks, snapshots, changing members: linearizable, nothing lost, and it recovers."""
    report = simulate(seed, duration_s=12.0)
    assert report.operations > 0


def test_every_kind_of_fault_meets_something():
    """Whatever a world can do to a cluster is done in some of the first worlds, and all keep their promise.

    A plain run sees most of it, in the very first ones.
    """
    faults: Counter[str] = Counter()
    for seed in range(300 if IS_LARGE else 10):
        outcome = run_world(seed, 20.0)
        assert outcome.failure is None, outcome.failure
        faults.update(outcome.faults)
        if all(faults[kind] for kind in KINDS):
            break
    missing = [kind for kind in KINDS if not faults[kind]]
    assert len(missing) <= (0 if IS_LARGE else len(KINDS) // 3), missing


@pytest.mark.parametrize("cut", range(0, 64, 1 if IS_LARGE else 5))
def test_every_shape_of_a_partition_of_three(cut):
    """Each of the six ways between three nodes is cut or not: who can talk makes progress, then all do (F39-F41).

    A plain run takes every fifth shape, in which each way is cut as often as not.
    """
    ways = [way for bit, way in enumerate(itertools.permutations((1, 2, 3), 2)) if cut >> bit & 1]
    talking = [pair for pair in itertools.combinations((1, 2, 3), 2) if not {pair, pair[::-1]} & set(ways)]

    async def story():
        cluster = SimCluster(KeyValue, 3, seed=cut)
        await cluster.start()
        await cluster.until_leader()
        for way in ways:
            cluster.network.cut(*way, one_way=True)
        await elapse(3.0)
        client = cluster.client(deadline_s=20.0)
        if talking:
            await client.remote.put(b"during", b"1")
            terms = max(node.raft.term for node in cluster.running)
            await elapse(10.0)
            assert max(node.raft.term for node in cluster.running) <= terms + 1, "leadership flaps"
        cluster.network.heal()
        await client.remote.put(b"behind", b"2")
        await cluster.until_equal()
        await client.close()
        await cluster.stop()

    SimLoop().run(story())


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


def test_a_campaign_adds_up_its_worlds():
    """In processes beside each other, in the order of the seeds; the same worlds as here."""
    campaign = Campaign(7, 2.0, processes=2)
    outcomes = list(campaign.run(worlds=3))
    assert [outcome.seed for outcome in outcomes] == [7, 8, 9]
    assert outcomes[0] == run_world(7, 2.0)
    assert campaign.all.operations == sum(outcome.operations for outcome in outcomes)
    assert campaign.all.failed == []
    assert "3 worlds from seed 7 on" in campaign.summary()
    assert len(campaign.coverage()) > len(KINDS)


@pytest.mark.parametrize("least", [0, 100_000])
def test_a_campaign_that_has_no_time_left_says_so_and_fails_below_its_least(least):
    """On a slow machine fewer worlds are run, but not so few that they show nothing."""
    options = ["--worlds", "100000", "--seconds", "0.1", "--least", str(least), "--virtual", "1", "--processes", "1"]
    done = subprocess.run([sys.executable, TOOLS / "simulate", *options], capture_output=True, text=True, check=False)
    assert " of 100000 worlds were run" in done.stdout, done.stderr
    assert done.returncode == (least > 0)


def soak(ledger, *options):
    """What `tools/soak` is started with, for small worlds."""
    return [sys.executable, TOOLS / "soak", "--virtual", "1", "--processes", "2", "--ledger", ledger, *options]


def lines_of(ledger):
    """The whole lines of a ledger."""
    return [json.loads(line) for line in ledger.read_text().splitlines(keepends=True) if line.endswith("\n")]


def test_a_soak_goes_on_where_the_ledger_ends(tmp_path):
    """Each run adds a line that says which worlds it ran, and the next begins behind them."""
    ledger = tmp_path / "soak.jsonl"
    for _ in range(2):
        subprocess.run(soak(ledger, "--worlds", "3"), check=True, capture_output=True)
    first, second = lines_of(ledger)
    assert first["first"] == 0
    assert second["first"] == first["worlds"] == second["worlds"] == 3
    assert first["failed"] == second["failed"] == []
    assert sum(first["faults"].values()) > 0


def test_a_soak_that_is_interrupted_loses_nothing_that_was_done(tmp_path):
    """Each batch is in the ledger when it is over, and what was begun when the run is ended; the lines fit together."""
    ledger = tmp_path / "soak.jsonl"
    ledger.touch()
    command = soak(ledger, "--minutes", "30", "--batch", "0.2")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        deadline = time.monotonic() + 120
        while len(lines_of(ledger)) < 2 and running.poll() is None and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        running.send_signal(signal.SIGTERM)
        said = running.communicate()[0]
    assert running.returncode == 0, said
    assert "interrupted" in said
    lines = lines_of(ledger)
    assert len(lines) >= 2
    assert [line["first"] for line in lines] == [0, *itertools.accumulate(line["worlds"] for line in lines)][:-1]
    assert all(line["worlds"] > 0 and line["version"] == lines[0]["version"] for line in lines)
    worlds = sum(line["worlds"] for line in lines)
    assert f"{worlds} worlds from seed 0 on" in said
