"""A trace says what happened in a world, and changes nothing in it."""

from __future__ import annotations

import pytest

from raftkv.core.messages import RequestVote
from raftkv.kv import KeyValue
from raftkv.testing.tracing.records import Fate, What
from raftkv.testing.tracing.trace import Trace
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.worlds.simulation import Simulation


def recorded(scenario, size=3, **settings):
    """The trace of `scenario(cluster)` in a world of its own."""
    trace = Trace(**settings)

    async def run():
        cluster = SimCluster(KeyValue, size)
        trace.attach(cluster)
        await cluster.start()
        await cluster.until_leader()
        await scenario(cluster)
        await cluster.stop()

    SimLoop().run(run())
    return trace


def happened(trace, what):
    """What is recorded of one kind, in order."""
    return [each for each in trace.happenings if each.what is what]


@pytest.mark.parametrize("seed", [3, 7])
def test_a_world_is_the_same_whether_one_looks_or_not(seed):
    """Recording draws no dice and sets no timer; else a failure would vanish when it is looked at."""
    plain = Simulation(seed, duration_s=6.0)
    trace = Trace()
    watched = Simulation(seed, duration_s=6.0, observe=trace.attach)
    assert plain.run() == watched.run()
    assert plain.history.operations == watched.history.operations
    assert trace.counts["AppendEntries"] > 0


def test_the_same_seed_is_the_same_trace():
    """Records are numbered and worded by what happened alone."""
    traces = [Trace(), Trace()]
    for trace in traces:
        Simulation(5, duration_s=5.0, observe=trace.attach).run()
    assert traces[0].records() == traces[1].records()


def test_messages_arrive_after_they_were_sent():
    """Each message has its sender's time and its receiver's, and what a crash took from it is lost."""

    async def crash(cluster):
        await elapse(1.0)
        await cluster.nodes[cluster.leader.node_id].stop()
        cluster.nodes[1 if cluster.nodes[1].is_up else 2].crash()
        await elapse(1.0)
        await cluster.start()
        await cluster.until_leader()

    trace = recorded(crash)
    arrived = [message for message in trace.messages if message.fate is Fate.ARRIVED]
    assert arrived
    assert all(message.at <= arrival for message in arrived for arrival in message.arrivals)
    assert all(len(message.arrivals) == 1 for message in arrived)
    assert any(message.fate is Fate.UNSENT for message in trace.messages)
    assert [each.label for each in happened(trace, What.CRASH)] == ["crash"]


def test_what_nodes_do_is_told_in_its_order():
    """A candidate is one before it asks for votes, and a leader before it sends entries."""

    async def nothing(cluster):
        await cluster.until(lambda: cluster.leader.raft.commit_index > 0)

    trace = recorded(nothing)
    (elected,) = happened(trace, What.ELECTED)
    labels = [(each.node, each.label) for each in trace.happenings]
    assert labels.index((elected.node, "candidate t1")) < labels.index((elected.node, "LEADS term 1"))
    votes = [message for message in trace.messages if message.label == "vote t1?"]
    became = next(each for each in trace.happenings if each.label == "candidate t1")
    assert votes
    assert all(became.number < vote.number < elected.number for vote in votes)
    first = next(message for message in trace.messages if message.label == "append 1")
    assert first.sender == elected.node
    assert first.number > elected.number
    assert trace.nodes == dict.fromkeys((1, 2, 3), "")


def test_cuts_and_clocks_and_disks_are_told():
    """What the world does to its nodes is in the trace, with who is concerned."""

    async def harm(cluster):
        cluster.network.cut(1, 2)
        cluster.network.cut(3, 1, one_way=True)
        await elapse(0.1)
        cluster.network.heal()
        cluster.network.delay_s = 0.05
        cluster.nodes[2].clock.set_wrong(-500)
        cluster.nodes[3].hang()
        await elapse(0.1)
        cluster.nodes[3].unhang()
        await elapse(0.1)
        cluster.nodes[1].freeze()
        await elapse(0.1)
        cluster.nodes[1].thaw()
        await elapse(0.1)

    trace = recorded(harm)
    assert [each.label for each in happened(trace, What.NETWORK)] == [
        "cut 1↔2 3→1",
        "healed 1↔2 3→1",
        "delay 50 ms",
    ]
    assert [(each.node, each.label) for each in happened(trace, What.CLOCK)] == [(2, "clock -500 ms")]
    assert [(each.node, each.label) for each in happened(trace, What.DISK)] == [(3, "disk hangs"), (3, "disk works")]
    assert [(each.node, each.label) for each in happened(trace, What.PAUSE)] == [(1, "paused"), (1, "goes on")]


def test_a_message_that_comes_twice_is_one_that_arrived_twice():
    """A repeated message is not taken for another one."""

    async def repeat(cluster):
        vote = RequestVote(sender=1, to=2, term=9, last_index=0, last_term=0)
        trace.sent(1, 2, vote, queued=True)
        await elapse(0.1)
        trace.received(1, 2, vote)
        await elapse(0.1)
        trace.received(1, 2, vote)

    trace = Trace()

    async def run():
        cluster = SimCluster(KeyValue, 2)
        trace.attach(cluster)
        await repeat(cluster)

    SimLoop().run(run())
    (message,) = trace.messages
    assert message.fate is Fate.ARRIVED
    assert message.arrivals == pytest.approx([0.1, 0.2])
    assert trace.counts["arrived again"] == 1


def test_memory_is_bounded():
    """The newest records are kept; the numbers are of all."""

    async def wait(cluster):
        await elapse(5.0)

    trace = recorded(wait, kept=100)
    assert len(trace.messages) == 100
    assert trace.counts["AppendEntries"] > 100
    assert trace.messages[-1].at > 4.0
    assert len(trace.records()) <= 300


def test_calls_of_clients_are_told_with_their_results():
    """What a client asked, when, what it heard, and when."""
    trace = Trace()
    world = Simulation(7, duration_s=4.0, observe=trace.attach)
    report = world.run()
    assert trace.counts["call"] == report.operations + report.refused
    answered = [call for call in trace.calls if call.result]
    assert answered
    assert all(call.at <= call.returned for call in answered)
