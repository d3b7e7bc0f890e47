"""The harness itself: rounds that must fail do, scenes that hold are reported, and a run knows what it owes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from raftkv.client import Client
from raftkv.model import Member
from raftkv.worlds.workload import Workload
from tests.campaign.large import CAMPAIGN
from tests.chaos import certificates
from tests.chaos.clients import MACHINE, Contradiction, recorded
from tests.chaos.clocks import FAST, TEN_YEARS_MS, ClockWrong
from tests.chaos.differences import SlowFollower, Surroundings
from tests.chaos.expiry import CertificatesRunOut
from tests.chaos.fault import RealFault
from tests.chaos.forks import Forks
from tests.chaos.foundings import Founded
from tests.chaos.host import HostClock
from tests.chaos.kills import LeaderKilled, Paused
from tests.chaos.kinds import KINDS, LONG, QUOTAS, RUN_S, expected, owed
from tests.chaos.lineages import BackupRestored, SurvivorRecovered
from tests.chaos.moves import SeedGone
from tests.chaos.names import NamesLost
from tests.chaos.points import SPARES, KilledAt
from tests.chaos.restarts import KilledTwice
from tests.chaos.rights import RightsChanged
from tests.chaos.rotation import SecretReplaced
from tests.chaos.round import Bounds, play_round, play_scene
from tests.chaos.stage import ChaosStage
from tests.chaos.tally import check
from tests.chaos.transfers import SETTINGS
from tests.chaos.waking import READS
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

ROOT = Path(__file__).parents[2]
choose = runpy.run_path(str(ROOT / "tools/chaos"))["choose"]
BOUNDS = Bounds(hold_s=(0.1, 0.2), operations_min=10)


class Harmless(RealFault):
    """Says that it did something, or not."""

    kind = "harmless"
    rows = ""

    def __init__(self, *, counts: bool, kills: bool = False) -> None:
        self._counts = counts
        self._kills = kills

    async def inject(self, stage: ChaosStage) -> None:
        if self._counts:
            stage.met(self.kind)
        if self._kills:
            leader = (await stage.leader()).node_id
            stage.cluster.kill(next(node_id for node_id in stage.cluster.nodes if node_id != leader))

    def describe(self) -> str:
        return self.kind


def test_a_round_whose_fault_does_nothing_fails(tmp_path: Path) -> None:
    """And so does one that leaves a node dead behind; one that did something passes."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 3, arguments=MACHINE) as cluster:
            stage = start(cluster, tmp_path)
            await stage.leader()
            async with recorded(cluster.addresses) as clients:
                await play_round(stage, clients, Harmless(counts=True), BOUNDS)
                with pytest.raises(AssertionError, match="did nothing"):
                    await play_round(stage, clients, Harmless(counts=False), BOUNDS)
                with pytest.raises(AssertionError, match="have ended by themselves"):
                    await play_round(stage, clients, Harmless(counts=True, kills=True), BOUNDS)
            assert stage.fired == {"harmless": 2}

    tell(story())


def test_a_scene_of_kills_and_a_restart_holds(tmp_path: Path) -> None:
    """The leader killed again and again, all nodes at once, a rolling restart (F2, F4, F26)."""

    async def story() -> None:
        kinds = ["kill-leader", "kill-nodes", "rolling-restart"]
        report = await play_scene(3, kinds, tmp_path, BOUNDS)
        assert report.failure is None
        assert report.fired[LeaderKilled.kind] >= 3 and len(report.fired) == 3
        assert report.operations > 40
        assert "SIGKILL" in (tmp_path / "run.log").read_text()

    tell(story())


def on_a_stage(tmp_path: Path, make: Callable[[random.Random], RealFault]) -> ChaosStage:
    """One fault, with recorded clients, on a cluster without a proxy."""
    cluster = ForkedCluster(tmp_path, 3, arguments=[*MACHINE, *SETTINGS])

    async def story() -> ChaosStage:
        stage = start(cluster, tmp_path)
        await stage.leader()
        async with recorded(cluster.addresses) as clients:
            await play_round(stage, clients, make(stage.dice), BOUNDS)
        await stage.until_equal()
        return stage

    with cluster:
        return asyncio.run(story())


def test_a_leader_that_wakes_answers_nothing_stale(tmp_path: Path) -> None:
    """Reads and writes lie at its port, and the others have counted on meanwhile (F72)."""
    stage = on_a_stage(tmp_path, lambda dice: Paused(dice, 2.0, of_leader=True))
    assert stage.fired[READS] > 0


def test_surroundings_make_no_difference(tmp_path: Path) -> None:
    """Seeds of hashes, time zones and languages differ, the states don't (F76)."""
    assert on_a_stage(tmp_path, Surroundings).fired[Surroundings.kind] == 3


def test_a_slow_follower_costs_the_leader_little(tmp_path: Path) -> None:
    """Its memory is bounded while a follower does not listen, and that follower catches up (F34)."""
    assert on_a_stage(tmp_path, lambda dice: SlowFollower(dice, 4.0)).fired[SlowFollower.kind] == 1


def after(tmp_path: Path, *faults: Callable[[random.Random], RealFault]) -> ChaosStage:
    """Several faults on one cluster, as starting its nodes takes the most time; the members are as before then."""
    cluster = ForkedCluster(tmp_path, 3, arguments=[*MACHINE, *SETTINGS])

    async def story() -> ChaosStage:
        stage = start(cluster, tmp_path)
        await stage.leader()
        async with recorded(cluster.addresses) as clients:
            for make in faults:
                await play_round(stage, clients, make(stage.dice), BOUNDS)
        await stage.until_equal()
        assert {*cluster.nodes} == {1, 2, 3}
        return stage

    with cluster:
        return asyncio.run(story())


@CAMPAIGN
def test_members_starts_and_processes_are_taken_from_under_clients(tmp_path: Path) -> None:
    """The member that they know, then the leader (F80); a start behind a killed install (F88); their process (F89)."""
    fired = after(
        tmp_path, SeedGone, lambda dice: KilledTwice(dice, ["install.state_aside"]), lambda dice: Forks(dice, 2)
    ).fired
    assert [fired[each.kind] for each in (SeedGone, KilledTwice, Forks)] == [1, 1, 2]
    assert fired["failpoint install.state_aside"] == 1


@CAMPAIGN
def test_a_host_whose_clock_and_names_are_wrong_is_told_of(tmp_path: Path) -> None:
    """The leader's clock ten years ahead, a follower's that goes fast (F82), and a member's name that fails (F81)."""
    fired = after(
        tmp_path,
        lambda dice: ClockWrong(dice, HostClock(TEN_YEARS_MS), of_leader=True),
        lambda dice: ClockWrong(dice, HostClock(rate=FAST), of_leader=False),
        lambda dice: NamesLost(dice, ["unknown"]),
    ).fired
    assert (fired[ClockWrong.kind], fired[ClockWrong.rate]) == (1, 1)
    assert (fired[NamesLost.kind], fired["name unknown"]) == (1, 1)


@CAMPAIGN
@pytest.mark.parametrize("make", [Founded, CertificatesRunOut, SurvivorRecovered, RightsChanged, SecretReplaced])
def test_small_clusters_beside_the_stage(tmp_path: Path, make: Callable[[random.Random], RealFault]) -> None:
    """A founding that is cut off and a member that moves (F83), certificates run out and replaced (F84), a majority
    that is lost (F87), rights that are changed while their users write (F90), and a secret that is replaced (F91)."""
    if make is CertificatesRunOut and (reason := certificates.missing()) is not None:
        pytest.skip(reason)
    stage = ChaosStage(ForkedCluster(tmp_path), random.Random(1), tmp_path)
    fault = make(stage.dice)
    tell(fault.inject(stage))
    assert stage.fired[fault.kind] > 0


def test_members_that_a_killed_node_was_to_take_away_are_taken_away(tmp_path: Path) -> None:
    """Else whoever waits later for all members to be connected waits for one that never was."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 3, arguments=MACHINE) as cluster:
            stage = start(cluster, tmp_path)
            await stage.leader()
            async with stage.admin() as admin:
                await admin.add_learner(Member(SPARES + 1, "127.0.0.1:1", "127.0.0.1:2"))
                await KilledAt(stage.dice, []).heal(stage)
                assert (await admin.status())["membership"]["learners"] == []

    tell(story())


@pytest.mark.parametrize(
    ("numbers", "unknown", "value", "said"),
    [([1, 2, 2], 0, 2, "to the same number twice"), ([1, 2], 1, 1, "is 1, though 2"), ([1, 2], 1, 4, "is 4, though 2")],
)
def test_a_counter_that_lost_or_repeated_an_increment_is_told_of(
    numbers: list[int], unknown: int, value: int, said: str
) -> None:
    """What faults count beside recorded clients is judged too."""
    check(b"n", [1, 2], 1, 3)
    with pytest.raises(AssertionError, match=said):
        check(b"n", numbers, unknown, value)


def test_losses_are_counted(tmp_path: Path) -> None:
    """A counter that somebody else moves is as wrong for the checkers as an increment applied twice."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 3, arguments=MACHINE) as cluster:
            start(cluster, tmp_path)
            async with Client(Workload, cluster.addresses) as stranger:
                with pytest.raises(Contradiction) as found:
                    async with recorded(cluster.addresses) as clients:
                        await clients.more(10)
                        for key in (b"c0", b"c1"):
                            await stranger.increment(key)
                        await clients.more(60)
            assert found.value.count >= 1

    tell(story())


def test_what_a_run_owes_can_be_met() -> None:
    """Every quota names kinds that there are; a run that did nothing owes all of it, one that did all owes nothing."""
    assert all(set(quota.kinds) <= set(KINDS) for quota in QUOTAS)
    assert {quota.name for quota in owed(Counter(), RUN_S)} == {quota.name for quota in QUOTAS}
    everything = Counter({counted: quota.wanted for quota in QUOTAS for counted in quota.kinds.values()})
    assert owed(everything, RUN_S) == []


def test_what_is_owed_is_done_evenly_and_not_more_than_that() -> None:
    """Of rounds that do what they are expected to, nearly as many are enough as are owed; none is owed at the end."""
    dice, fired, rounds = random.Random(1), Counter[str](), 0
    while owed(fired, RUN_S):
        kinds = choose(dice, list(KINDS), fired, RUN_S)
        fired += expected(kinds)
        rounds += len(kinds)
    least = sum(math.ceil(quota.wanted / quota.a_round) for quota in QUOTAS)
    assert rounds < 1.3 * least


def test_what_is_played_now_is_not_chosen_again() -> None:
    """Else three scenes that begin together would all serve what is owed once or twice."""
    coming = Counter({counted: quota.wanted for quota in QUOTAS for counted in quota.kinds.values()})
    for chosen in ("scans", "seed-gone"):
        coming -= expected([chosen] * 3)
    kinds = choose(random.Random(1), ["scans", "seed-gone", "bridge"], coming + expected(["scans"] * 3), RUN_S)
    assert kinds.count("seed-gone") >= 3 and kinds.count("scans") + kinds.count("bridge") <= 3


@pytest.mark.parametrize("late", LONG)
def test_a_long_kind_that_is_owed_is_played_once_in_a_scene(late: str) -> None:
    """Also when nothing else is owed, or allowed; and by chance only, a long kind is not chosen."""
    fired = Counter({counted: quota.wanted for quota in QUOTAS for counted in quota.kinds.values()})
    assert not {*LONG} & {*choose(random.Random(1), list(KINDS), fired, RUN_S)}
    del fired[next(quota.kinds[late] for quota in QUOTAS if late in quota.kinds)]
    assert choose(random.Random(1), list(KINDS), fired, RUN_S).count(late) == 1
    assert set(choose(random.Random(1), [*LONG], fired, RUN_S)) <= {*LONG}


def running_in(directory: Path) -> list[str]:
    """The commands of the processes that were told of this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [command for command in found if str(directory) in command]


def test_a_run_that_is_ended_leaves_no_node_behind(tmp_path: Path) -> None:
    """SIGTERM ends its scenes, wherever they are; what was done until then is in the ledger."""
    place, ledger = tmp_path / "scenes", tmp_path / "ledger.jsonl"
    command = [sys.executable, ROOT / "tools/chaos", "--only", "rolling-restart", "--directory", place]
    with subprocess.Popen([*command, "--ledger", ledger], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        deadline = time.monotonic() + 120
        while not [*place.glob("*/run.log")] and run.poll() is None and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=120)[0].decode()
    assert run.returncode == 143, said
    assert "Traceback" not in said
    assert running_in(tmp_path) == []
    assert not place.exists() or not [*place.iterdir()]
    assert json.loads(ledger.read_text())["only"] == ["rolling-restart"]


def test_the_tool_says_what_there_is() -> None:
    """Without starting anything."""
    done = subprocess.run([sys.executable, ROOT / "tools/chaos", "--list"], capture_output=True, text=True, check=True)
    assert set(KINDS) <= set(done.stdout.splitlines())
    assert "200,000 malformed frames" in done.stdout


@CAMPAIGN
def test_a_backup_of_a_cluster_under_load_begins_another_one(tmp_path: Path) -> None:
    """What was acknowledged before it began is in the new cluster, each once (F87)."""
    fired = after(tmp_path, BackupRestored).fired
    assert fired[BackupRestored.kind] == 2
