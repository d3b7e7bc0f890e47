"""Log time of whole nodes: a wrong clock is bounded and told of, and a reset is the same on every replica (F82)."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from raftkv import StateMachine, Value, command, query
from raftkv.errors import ChangeRefused
from raftkv.node.status import seconds_text
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.cluster import START_MS
from tests.logged import capture_logs

HOUR = 3_600_000
YEARS = 10 * 365 * 24 * HOUR


class Diary(StateMachine):
    """Writes down when each of its entries was made."""

    times = Value(list[int], default=[])

    @command
    def note(self) -> int:
        """Write down the time; returns how many are written down."""
        self.times = [*self.times, self.now_ms]
        return len(self.times)

    @query
    def all(self) -> list[int]:
        """All of them."""
        return self.times


async def ahead_of_truth(diary):
    """How far the time of an entry that is made now is ahead of the true time, in seconds, rounded."""
    await diary.note()
    times = await diary.all()
    now = START_MS + asyncio.get_running_loop().time() * 1000
    return round((times[-1] - now) / 1000)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_leader_whose_clock_is_ten_years_ahead_for_a_second(size):
    """The case of the field: log time stays right, it is said once, and seen in the status while it lasts."""

    async def story(cluster):
        diary = cluster.client(deadline_s=20.0).remote
        await elapse(1)
        leader = await cluster.until_leader()
        sim = cluster.nodes[leader.node_id]
        with capture_logs() as said:
            sim.clock.set_wrong(YEARS)
            assert abs(await ahead_of_truth(diary)) <= 1
            await elapse(1)
            status = leader.status()
            assert "is 3650.0 days ahead of" in status.clock.doubt
            assert any("3650.0 days ahead" in problem for problem in status.problems())
            sim.clock.set_wrong(0)
            await elapse(1)
            assert abs(await ahead_of_truth(diary)) <= 1
        assert [line["event"] for line in said if line["event"].startswith("clock_")] == [
            "clock_doubted",
            "clock_trusted",
        ]
        assert not leader.status().clock_problems()
        assert leader.status().clock.doubts == 1

    play(Diary, story, size=size, seed=3)


@scenario(Diary, seed=3)
async def test_a_wrong_clock_that_begins_to_lead_stamps_its_first_entry_right(cluster):
    """Leadership is handed to whoever is an hour ahead: log time goes on as before."""
    diary = cluster.client(deadline_s=20.0).remote
    leader = await cluster.until_leader()
    wrong = next(node_id for node_id in cluster.nodes if node_id != leader.node_id)
    cluster.nodes[wrong].clock.set_wrong(HOUR)
    await elapse(0.5)
    (problem,) = leader.status().clock_problems()
    assert problem == f"the clock of node {wrong} is 60.0 min ahead of the others': set it right"
    await leader.orders.transfer_leadership(wrong)
    assert abs(await ahead_of_truth(diary)) <= 1
    assert (await cluster.until_leader()).node_id == wrong


@pytest.mark.parametrize("rate", [0.5, 2.0])
@scenario(Diary, seed=3)
async def test_a_leaders_clock_that_runs_fast_or_slow(cluster, rate):
    """It is followed up to the bound, then not any more."""
    diary = cluster.client(deadline_s=20.0).remote
    leader = await cluster.until_leader()
    cluster.nodes[leader.node_id].clock.go_at(rate)
    seen = []
    for _ in range(40):
        await elapse(1)
        seen.append(abs(await ahead_of_truth(diary)))
    assert 5 <= max(seen) <= 11
    assert seen[-1] <= 1
    assert leader.status().clock.doubts == 1


async def poison(cluster, diary):
    """Bring log time an hour ahead, as all clocks are for a moment; returns the leader."""
    for sim in cluster.nodes.values():
        sim.clock.set_wrong(HOUR)
    await elapse(1)
    assert 3_590 <= await ahead_of_truth(diary) <= 3_600
    for sim in cluster.nodes.values():
        sim.clock.set_wrong(0)
    await elapse(1)
    return await cluster.until_leader()


@scenario(Diary, seed=3)
async def test_log_time_that_is_ahead_stands_still_is_told_of_and_is_taken_back_by_a_reset(cluster):
    """On every replica at the same entry, through a restart and a snapshot, too; commands see it step back once."""
    diary = cluster.client(deadline_s=20.0).remote
    await diary.note()
    with capture_logs() as said:
        leader = await poison(cluster, diary)
        first, second = (await diary.note(), await diary.note())
        assert second == first + 1
    times = await diary.all()
    assert times[-2] == times[-1], "it stands still, where a query was told that it is"
    assert "log_time_ahead" in [line["event"] for line in said]
    (problem,) = leader.status().clock_problems()
    assert problem.startswith("log time is 60.0 min ahead of what the clocks say") and "clock reset" in problem
    done = await leader.orders.reset_clock()
    assert HOUR - 5_000 < done.before_ms - done.log_time_ms < HOUR + 5_000
    assert abs(await ahead_of_truth(diary)) <= 1
    assert not leader.status().clock_problems()
    await leader.orders.take_snapshot()
    follower = next(sim for sim in cluster.nodes.values() if sim.node_id != leader.node_id)
    follower.crash()
    await diary.note()
    await follower.start()
    await cluster.until_equal(20)
    times = await diary.all()
    assert sum(later < earlier for earlier, later in itertools.pairwise(times)) == 1


@scenario(Diary, seed=3)
async def test_a_session_of_before_a_reset_goes_on_and_applies_nothing_twice(cluster):
    """What was sent with log time ahead has its answer kept, and its session is neither forgotten nor kept for ever."""
    diary = cluster.client(deadline_s=20.0).remote
    client = cluster.client(deadline_s=20.0, sessions=True)
    assert await client.remote.note() == 1
    leader = await poison(cluster, diary)
    count = await client.remote.note()
    sessions = leader.applier.runner.sessions
    await leader.orders.reset_clock()
    assert leader.applier.runner.sessions == sessions
    assert await client.remote.note() == count + 1
    await client.close()


@scenario(Diary, size=1, seed=3)
async def test_one_node_is_told_that_its_clock_is_right_by_a_reset(cluster):
    """An operator who has set the clock by an hour need not wait, nor restart the node."""
    diary = cluster.client(deadline_s=20.0).remote
    leader = await cluster.until_leader()
    await elapse(1)
    cluster.nodes[1].clock.set_wrong(HOUR)
    assert abs(await ahead_of_truth(diary)) <= 1
    await elapse(1)
    assert "no majority of clocks" in leader.status().clock.doubt
    await leader.orders.reset_clock()
    assert 3_599 <= await ahead_of_truth(diary) <= 3_601
    assert leader.status().clock.doubt is None


@scenario(Diary, seed=3)
async def test_no_reset_while_somebody_follows_that_could_not_read_it(cluster):
    """A node of an older version tells no clock; it would lose the connection at such an entry, again and again."""
    leader = await cluster.until_leader()
    other = next(node for node in cluster.nodes if node != leader.node_id)
    cluster.nodes[other].node.raft.observe = lambda now_ms, monotonic_ms=None: None
    cluster.nodes[other].node.raft.now_ms = 0
    await elapse(0.5)  # what is on its way still tells one
    leader.raft.role.progress[other].clock_offset_ms = None
    last = leader.raft.log.last_index
    with pytest.raises(ChangeRefused, match=rf"nodes \[{other}\] follow, but do not tell their clocks"):
        await leader.orders.reset_clock()
    assert leader.raft.log.last_index == last


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0.0 s"), (90_000, "90.0 s"), (HOUR, "60.0 min"), (3 * HOUR, "3.0 h"), (YEARS, "3650.0 days")]
)
def test_times_are_told_for_people(ms, text):
    """In the unit of which there are at least two."""
    assert seconds_text(ms) == text
