"""Commands that come to something else from node to node: who goes on, who stops, and what is left to do (F76)."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter as Counter_

import pytest

from raftkv.errors import Diverged, Indeterminate, NoAgreement, NodeStopped, RaftKVError, Unavailable
from raftkv.machine import StateMachine, Table, command, encode_command, query
from raftkv.node.waiting import Query
from raftkv.testing import play, scenario
from raftkv.testing.world.loop import PROCESS
from raftkv.wire import NoAgreementNotice
from tests.campaign.large import IS_LARGE
from tests.node.steps import follower_of

SIDES: dict[int, int] = {}
"""By node: what its process adds to whatever it is told to keep."""


WITHOUT = ("DigestsAgree", "NobodyStopsWithoutAReason")
"""They differ on purpose, and stop for it."""


WORLDS = 20 if IS_LARGE else 8
"""How many worlds there are in which nodes part at random."""


class Counter(StateMachine):
    """A machine whose command goes by something that is each process's own, as `next(COUNTER)` is."""

    kept = Table(str, int)

    @command
    def add(self, name: str, number: int) -> int:
        """Wrong on whoever is on another side."""
        total = self.kept.get(name, 0) + number + SIDES.get(PROCESS.get(), 0)
        self.kept[name] = total
        return total

    @query
    def get(self, name: str) -> int:
        return self.kept.get(name, 0)


@pytest.fixture(autouse=True)
def _one_side():
    """At first all agree."""
    SIDES.clear()
    yield
    SIDES.clear()


def nodes(cluster, kind):
    """Who has stopped for that reason."""
    return {sim.node_id for sim in cluster.nodes.values() if sim.node is not None and type(sim.node.failure) is kind}


async def passed(cluster, seconds):
    """Let virtual time pass."""
    end = cluster.loop.time() + seconds
    await cluster.until(lambda: cluster.loop.time() >= end, seconds + 1)


async def add(client, count, name="a"):
    """Commands that all nodes do alike, if they are on one side."""
    for _ in range(count):
        await client.remote.add(name, 1)


async def try_to_add(cluster, within_s=3.0):
    """One command, whatever becomes of it; for `within_s` at most."""
    client = cluster.client(deadline_s=within_s)
    try:
        return await client.remote.add("a", 1)
    except RaftKVError as exc:
        return exc
    finally:
        await client.close()


def sides_of(size):
    """Every way to part `size` nodes, by the sizes of the sides."""

    def parts(left, most):
        if left == 0:
            yield ()
        for first in range(min(left, most), 0, -1):
            yield from ((first, *rest) for rest in parts(left - first, first))

    return [each for each in parts(size, size) if len(each) > 1]


@pytest.mark.parametrize("parts", [each for size in (2, 3, 4, 5) for each in sides_of(size)])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_majority_goes_on_and_without_one_nobody_does(parts, seed):
    """F76, F86: every way in which two to five nodes may differ, whoever leads."""
    size = sum(parts)

    async def story(cluster):
        client = cluster.client()
        await add(client, 5)
        await cluster.until_equal()
        await passed(cluster, 0.3)  # they are compared once a heartbeat
        agreed = cluster.leader.applier.applied_index
        order = random.Random(seed).sample(range(1, size + 1), size)
        sides, at = [], 0
        for number, count in enumerate(parts):
            sides.append({*order[at : at + count]})
            SIDES.update(dict.fromkeys(sides[-1], number * 10))
            at += count
        await try_to_add(cluster)
        if 2 * parts[0] > size:
            lost = {*range(1, size + 1)} - sides[0]
            await cluster.until(lambda: nodes(cluster, Diverged) == lost, 20, "the others stop")
            assert await client.remote.get("a") == 6
            assert nodes(cluster, NoAgreement) == set()
        else:
            await cluster.until(lambda: nodes(cluster, NoAgreement) == {*order}, 20, "all stop")
            for sim in cluster.nodes.values():
                said = sim.node.status()
                assert said.stopped_error == "NoAgreement"
                assert said.role == "stopped"
                assert "--rebuild" in said.problems()[0]
                assert agreed <= sim.node.failure.agreed_index < 10, "at most a session more"
            assert isinstance(await try_to_add(cluster, 1), Unavailable)
        await client.close()

    play(Counter, story, size=size, seed=seed, without=WITHOUT)


async def stop_all(cluster, sides):
    """A few commands that all do alike, then one after which nobody agrees with anybody; all are down at the end."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    SIDES.update(sides)
    await try_to_add(cluster)
    await cluster.until(lambda: nodes(cluster, NoAgreement) == {*cluster.nodes}, 20, "all stop")
    unfit = "/data/state.unfit"
    await cluster.until(lambda: all(sim.disk.exists(unfit) for sim in cluster.nodes.values()), 5, "it is written down")
    await client.close()
    for sim in cluster.nodes.values():
        sim.crash()


@pytest.mark.parametrize("filled", [0, 600])
def test_all_start_again_with_a_mended_class_and_nothing_is_lost(filled):
    """F76: a restart alone changes nothing; with `--rebuild` each begins where all agreed, by a snapshot or the whole
    log, and everything that was acknowledged is done again."""

    async def story(cluster):
        client = cluster.client()
        await add(client, filled, "before")
        await cluster.until_equal()
        await stop_all(cluster, {1: 0, 2: 10, 3: 20})
        for sim in cluster.nodes.values():
            for _ in range(2):
                with pytest.raises(NoAgreement, match="--rebuild"):
                    await sim.start()
        SIDES.clear()
        for sim in cluster.nodes.values():
            assert (len(list(sim.disk.listdir("/data/snapshots"))) > 0) == (filled > 0)
            await sim.start(rebuild=True)
        await cluster.until_equal()
        assert await client.remote.get("before") == filled
        assert await client.remote.get("a") == 6
        await add(client, 5)
        for sim in cluster.nodes.values():
            sim.crash()
            await sim.start()
        await cluster.until_equal()
        assert await client.remote.get("a") == 11
        await client.close()

    play(Counter, story, seed=3, without=WITHOUT)


@scenario(Counter, seed=4, without=WITHOUT)
async def test_a_class_that_is_not_mended_stops_all_again(cluster):
    """It is found out by the first commands, or when the log is applied anew; then the same way out is open."""
    await stop_all(cluster, {1: 0, 2: 10, 3: 20})
    for sim in cluster.nodes.values():
        await sim.start(rebuild=True)
    await cluster.until(lambda: nodes(cluster, NoAgreement) == {*cluster.nodes}, 20, "all stop again")
    SIDES.clear()
    for sim in cluster.nodes.values():
        await cluster.until(lambda sim=sim: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
        sim.crash()
    for sim in cluster.nodes.values():
        await sim.start(rebuild=True)
    await cluster.until_equal()
    client = cluster.client()
    assert await client.remote.get("a") == 6
    await client.close()


@scenario(Counter, seed=5, without=WITHOUT)
async def test_a_leader_that_may_be_wrong_tells_clients_nothing(cluster):
    """F76: one of three is down, the two others differ. The third decides, when it is back."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    leader = cluster.leader
    down, other = [sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id]
    down.crash()
    SIDES[other.node_id] = 10
    asked = cluster.loop.time()
    await try_to_add(cluster)  # it was acknowledged before anybody knew
    await cluster.until(lambda: leader.body.doubt is not None, 5, "the leader doubts")
    assert cluster.loop.time() - asked < 4
    said = leader.status()
    assert said.doubt is not None
    assert f"[{down.node_id}]" in said.doubt
    assert any("nothing is served" in problem for problem in said.problems())
    assert isinstance(await try_to_add(cluster), Unavailable | Indeterminate)
    with pytest.raises(Unavailable, match="not decided"):
        leader.requests.open_view(lambda index, result: None, 1.0, lambda: False)
    with pytest.raises(Unavailable, match="not decided"):
        leader.requests.query(b"", False, lambda index, result: None)
    answers = []
    other.node.engine.query(Query(b"", lambda index, result: answers.append(result), instead=lambda: b"wrong"))
    await cluster.until(lambda: answers, 2, "a follower's client is answered")
    assert isinstance(answers[0], Unavailable)
    for place in (leader.node_id, other.node_id):
        reader = cluster.client(place, deadline_s=2.0)
        with pytest.raises(Unavailable):
            await reader.remote.get("a")
        await reader.close()
    assert leader.failure is other.node.failure is None
    await down.start()
    await cluster.until(lambda: nodes(cluster, Diverged) == {other.node_id}, 20, "the odd one stops")
    assert await client.remote.get("a") in (6, 7)
    assert cluster.leader.body.doubt is None
    await client.close()


@scenario(Counter, seed=6, size=5, without=WITHOUT)
async def test_what_was_not_answered_before_the_doubt_is_unknown(cluster):
    """Its client is told so within an election time-out, and a session's is told what came of it later."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    leader = cluster.leader
    others = [sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id]
    for sim in others[:2]:
        sim.crash()
    SIDES[others[2].node_id] = 10
    results = []
    while not results or isinstance(results[-1], int):  # acknowledged before anybody knew
        results.append(await try_to_add(cluster, 1.0))
    assert cluster.loop.time() < 5
    assert leader.body.doubt is not None
    assert isinstance(results[-1], Unavailable | Indeterminate)
    assert isinstance(await try_to_add(cluster, 1.0), Unavailable)
    done = client.remote.add("b", 1)
    for sim in others[:2]:
        await sim.start()
    assert await done == 1, "it was tried again until somebody knew"
    assert nodes(cluster, Diverged) == {others[2].node_id}
    await client.close()


@scenario(Counter, seed=6, size=5, without=WITHOUT)
async def test_a_leader_in_doubt_lets_nobody_wait_and_catches_up(cluster):
    """What was on its way ends as unknown after an election time-out, and is applied then."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    leader = cluster.leader
    others = [sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id]
    for sim in others[:2]:
        sim.crash()
    SIDES[others[2].node_id] = 10
    results = []
    args = Counter.methods["add"].encode_args(("a", 1), {})
    payload = encode_command(0, 0, 0, "add", args)
    hold = leader.applier.hold

    def submit_and_hold():
        leader.engine.submit(payload, lambda index, result: results.append(result))
        hold()

    leader.applier.hold = submit_and_hold
    await try_to_add(cluster, 0.5)
    await cluster.until(lambda: leader.body.doubt is not None, 2, "it doubts")
    held = leader.applier.applied_index
    await cluster.until(lambda: leader.raft.commit_index > held, 1, "something was on its way")
    assert leader.applier.applied_index == held
    assert not results
    await cluster.until(lambda: results, 2 * cluster.election_timeout_s, "it is told")
    assert isinstance(results[0], Indeterminate)
    assert "not decided" in str(results[0])
    await cluster.until(lambda: leader.applier.applied_index == leader.raft.commit_index, 1, "it goes on")
    assert leader.body.doubt is not None
    await client.close()


@scenario(Counter, seed=7, without=WITHOUT)
async def test_a_notice_may_get_lost(cluster):
    """It is said again before the leader stops; and when that is deposed meanwhile, it stops at once."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    leader = cluster.leader
    for sim in cluster.nodes.values():
        sim.node.divergence.told_all = lose_one(sim.node.divergence.told_all)
    SIDES.update({1: 0, 2: 10, 3: 20})
    await try_to_add(cluster, 0.2)
    await cluster.until(lambda: leader.divergence._found is not None, 5, "it is found")
    leader.divergence._tell_times += 100
    await cluster.until(lambda: len(nodes(cluster, NoAgreement)) == 2, 20, "the others stop")
    assert leader.failure is None
    leader.divergence.role_changed()
    assert isinstance(leader.failure, NoAgreement)
    await client.close()


@scenario(Counter, seed=7, without=WITHOUT)
async def test_the_others_are_told_three_times(cluster):
    """So a leader that nobody deposes can lose two of them."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    for sim in cluster.nodes.values():
        sim.node.divergence.told_all = lose_one(lose_one(sim.node.divergence.told_all))
    SIDES.update({1: 0, 2: 10, 3: 20})
    await try_to_add(cluster, 0.2)
    await cluster.until(lambda: nodes(cluster, NoAgreement) == {*cluster.nodes}, 20, "all stop")
    await client.close()


def lose_one(take):
    """The first of what is told gets lost."""
    left = [None]
    return lambda told: left.pop() if left else take(told)


@scenario(Counter, seed=7, without=WITHOUT)
async def test_who_was_asked_in_vain_is_asked_again(cluster):
    """The third opinion decides, and the question for it gets lost."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    third, other = [sim.node for sim in cluster.nodes.values() if not sim.node.raft.is_leader]
    left, answer = [None], third.divergence.on_request
    third.divergence.tick = lambda: None
    third.divergence.on_request = lambda peer, asked: left.pop() if left else answer(peer, asked)
    SIDES[other.node_id] = 10
    await try_to_add(cluster)
    await cluster.until(lambda: type(other.failure) is Diverged, 5, "it stops")
    assert await client.remote.get("a") == 6
    await client.close()


@scenario(Counter, seed=7)
async def test_only_the_leader_can_say_that_nobody_may_go_on(cluster):
    """What an old leader says late stops nobody."""
    one, other = [sim.node for sim in cluster.nodes.values() if not sim.node.raft.is_leader]
    one.links.on_message(other.node_id, NoAgreementNotice(1, 0, ((1,), (2,))))
    assert one.failure is None


@scenario(Counter, seed=7, without=WITHOUT)
async def test_who_was_not_told_can_do_no_harm(cluster):
    """The notice to one is lost: it finds no majority, and is compared when the others are back."""
    client = cluster.client()
    await add(client, 5)
    await cluster.until_equal()
    lone = follower_of(cluster)
    told = {*cluster.nodes} - {lone.node_id}
    lone.node.divergence.told_all = lambda notice: None
    SIDES.update({1: 0, 2: 10, 3: 20})
    await try_to_add(cluster, 0.2)
    await cluster.until(lambda: nodes(cluster, NoAgreement) == told, 20, "the others stop")
    assert isinstance(await try_to_add(cluster, 2), Unavailable)
    assert lone.node.failure is None
    SIDES.clear()
    for node in told:
        sim = cluster.nodes[node]
        await cluster.until(lambda sim=sim: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
        sim.crash()
        await sim.start(rebuild=True)
    await cluster.until(lambda: lone.node.failure is not None, 20, "it differs from a majority")
    assert type(lone.node.failure) is Diverged
    assert await client.remote.get("a") == 6
    await client.close()


@scenario(Counter, seed=8, without=WITHOUT)
async def test_a_state_is_made_anew_from_before_the_difference(cluster):
    """A snapshot from behind it is of no use and removed; without one from before it nothing is given up."""
    client = cluster.client()
    sim = follower_of(cluster)
    await add(client, 30)
    await cluster.until_equal()
    older = await sim.node.orders.take_snapshot()
    await add(client, 20)
    await cluster.until_equal()
    newer = await sim.node.orders.take_snapshot()
    await cluster.until(lambda: len(sim.node.opened.snapshots.list()) == 2, 5, "both are there")
    sim.node.fail(NoAgreement("as it happens", newer - 1))
    await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
    sim.crash()
    with pytest.raises(NoAgreement, match="as it happens") as caught:
        await sim.start()
    assert caught.value.agreed_index == newer - 1
    await sim.start(rebuild=True)
    assert [each.index for each in sim.node.opened.snapshots.list()] == [older]
    sim.crash()
    await sim.start()
    assert [each.index for each in sim.node.opened.snapshots.list()] == [older]
    await cluster.until_equal()
    while sim.node.raft.log.start.index <= older:
        await add(client, 200)
        await passed(cluster, 2)  # snapshots are not taken more often
    sim.node.fail(NoAgreement("as it happens", older))
    await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
    sim.crash()
    before = sim.disk.listdir("/data/snapshots")
    for _ in range(2):
        with pytest.raises(NoAgreement, match="new id"):
            await sim.start(rebuild=True)
    assert sim.disk.listdir("/data/snapshots") == before
    await client.close()


@pytest.mark.parametrize("filled", [0, 600])
def test_a_crash_while_a_state_is_made_anew_is_no_way_around_it(filled):
    """The power goes at every operation on the disk; the next start refuses again, or all is done."""

    async def story(cluster):
        client = cluster.client()
        await add(client, filled, "before")
        await cluster.until_equal()
        await passed(cluster, 0.3)
        await stop_all(cluster, {1: 0, 2: 10, 3: 20})
        SIDES.clear()
        refused = cut = 0
        for number in range(1, 200):
            sim = cluster.nodes[1]
            sim.crash_at_operation(number)
            try:
                await sim.start(rebuild=True)
            except NodeStopped:
                cut += 1
            sim.crash()
            try:
                await sim.start()
            except NoAgreement:
                refused += 1
            else:
                break
        assert cut >= refused > 3
        for sim in list(cluster.nodes.values())[1:]:
            await sim.start(rebuild=True)
        await cluster.until_equal()
        assert await client.remote.get("a") == 6
        assert await client.remote.get("before") == filled
        await client.close()

    play(Counter, story, seed=9, without=WITHOUT)


@pytest.mark.parametrize("seed", range(WORLDS))
def test_whoever_serves_in_the_end_has_a_majority_beside_it(seed):
    """Nodes part at random times, crash, are cut off, and come back: nobody serves whom no majority agrees with, and
    who stops has a reason."""
    dice = random.Random(seed)
    size = dice.randint(2, 5)

    async def story(cluster):
        writers = [asyncio.ensure_future(write(cluster, dice.random)) for _ in range(2)]
        await passed(cluster, 1)
        ids = sorted(cluster.nodes)
        for _ in range(dice.randint(1, 12)):
            sim = cluster.nodes[dice.choice(ids)]
            what = dice.choice(["part", "part", "crash", "cut", "heal", "start"])
            if what == "part":
                SIDES[sim.node_id] = dice.choice([0, 10, 20])
            elif what == "crash":
                sim.crash(power=dice.random() < 0.5)
            elif what == "cut":
                cluster.network.cut(sim.node_id, dice.choice(ids))
            elif what == "heal":
                cluster.network.heal()
            else:
                await start_again(sim)
            await passed(cluster, dice.choice([0.02, 0.3, 1.5]))
        cluster.network.heal()
        for sim in cluster.nodes.values():
            await start_again(sim)
        await passed(cluster, 4)
        for writer in writers:
            writer.cancel()
        await passed(cluster, 1)
        running = cluster.running
        ends = {node.node_id: (node.applier.applied_index, node.applier.runner.applied.digest) for node in running}
        leader = cluster.leader
        if (
            leader is not None
            and leader.body.doubt is None
            and leader.raft.commit_index == leader.applier.applied_index
        ):
            assert 2 * sum(end == ends[leader.node_id] for end in ends.values()) > size, cluster.describe()
        if leader is not None and len(running) == size:
            assert leader.body.doubt is None, "all have been asked"
        for sim in cluster.nodes.values():
            if sim.node is not None and sim.node.failure is not None:
                assert isinstance(sim.node.failure, Diverged)
        FOUND[
            "stopped"
            if any(isinstance(sim.node and sim.node.failure, NoAgreement) for sim in cluster.nodes.values())
            else "nobody"
            if leader is None
            else "doubt"
            if leader.body.doubt is not None
            else "odd one"
            if len(running) < size
            else "one side"
        ] += 1

    play(Counter, story, size=size, seed=seed, without=WITHOUT)


def test_all_ends_were_met():
    """Else the worlds above show little."""
    if sum(FOUND.values()) == WORLDS:
        assert min(FOUND[end] for end in ("stopped", "odd one", "one side")) >= WORLDS // 8, FOUND


FOUND: Counter_[str] = Counter_()
"""What the worlds came to."""


async def start_again(sim):
    """If it is down; one that has stopped for good stays so."""
    if not sim.is_up:
        with contextlib.suppress(NodeStopped):
            await sim.start()


async def write(cluster, chance):
    """Commands, one behind the other."""
    client = cluster.client(deadline_s=1.0)
    try:
        while True:
            with contextlib.suppress(RaftKVError):
                await client.remote.add("a", 1)
            await passed(cluster, 0.1 * chance())
    finally:
        await client.close()
