"""What a node says, and that it acts first: whatever becomes of a line, what it tells of is done (F78)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from raftkv import logs
from raftkv.errors import DiskFull, Diverged, NodeStopped
from raftkv.kv import KeyValue
from raftkv.node import leaderless
from raftkv.testing import scenario
from raftkv.testing.world.workers import BACKGROUND
from raftkv.wire import Acquaintances
from raftkv.worlds.simulation import simulate
from tests.logged import capture_logs
from tests.node.steps import fill, follower_of


@contextlib.contextmanager
def looking(event: str, look: Callable[[dict[str, Any]], object]) -> Iterator[list[object]]:
    """Look whenever `event` is said, at that very moment; what was seen."""
    seen: list[object] = []

    def take(_: str, __: str, said: str, fields: dict[str, object]) -> None:
        if said == event:
            seen.append(look(fields))

    with logs.written_to(take):
        yield seen


@pytest.mark.parametrize("error", [Diverged("it differs"), DiskFull("the disk is full")], ids=["diverged", "full"])
@scenario(KeyValue, seed=1)
async def test_a_node_that_must_stop_has_stopped_before_it_says_so(cluster, error):
    """F78: it takes nothing more, whoever waits for its end knows, and what must outlive it is on its way to disk."""
    sim = follower_of(cluster)
    node, worker = sim.node, sim.workers[BACKGROUND]
    run, given = worker.run, []
    worker.run = lambda *work: given.append(work) or run(*work)
    with looking("node_failed", lambda _: (node.engine.stopped, node.stopped.done(), len(given))) as seen:
        node.fail(error)
    assert seen == [(True, True, isinstance(error, Diverged))]
    sim.crash()


@scenario(KeyValue, seed=1)
async def test_a_leader_whose_disk_hangs_has_stepped_down_before_it_says_so(cluster):
    """F78: others are waiting to lead."""
    node = cluster.leader
    with looking("disk_stalled", lambda _: node.raft.is_leader) as seen:
        cluster.nodes[node.node_id].hang()
        await fill(cluster.client(), 1)
    assert seen == [False]


@scenario(KeyValue, seed=1)
async def test_a_peer_in_doubt_is_dropped_before_it_is_said(cluster):
    """F78: what it acknowledged counts no more, and so the leader leads no more."""
    node = cluster.leader
    peer, teller = [node_id for node_id in cluster.nodes if node_id != node.node_id]

    def look(_):
        return node.raft.is_leader, node.transport.links()[peer].connected

    known = node.links.hello().known[peer]
    with looking("peer_doubted", look) as seen:
        node.links.on_message(teller, Acquaintances({peer: msgspec.structs.replace(known, nonce="another")}))
    assert seen == [(False, False)]


@scenario(KeyValue, seed=1)
async def test_a_lost_peer_is_acted_on_before_it_is_said(cluster):
    """F78: a follower that loses its leader goes about an election, whatever its log does."""
    node = follower_of(cluster).node
    with looking("peer_lost", lambda fields: (fields["peer"], node.engine.has_pending)) as seen:
        node.links.on_lost(cluster.leader.node_id, "gone")
    assert seen == [(cluster.leader.node_id, True)]


@scenario(KeyValue, seed=1)
async def test_a_cluster_goes_on_though_every_line_of_it_fails(cluster):
    """F78: elections, new links, snapshots, a failed disk and a graceful end, with logs that nobody takes."""
    for sim in cluster.nodes.values():
        sim.log_fails = True
    client = cluster.client()
    await fill(client, 10)
    first = cluster.leader
    cluster.nodes[first.node_id].crash()
    await cluster.until_leader()
    await fill(client, 10, start=10)
    await cluster.nodes[first.node_id].start()
    await cluster.until_equal()
    await cluster.leader.orders.take_snapshot()
    sim = follower_of(cluster)
    sim.node.fail(DiskFull("the disk is full"))
    with pytest.raises(NodeStopped):
        raise sim.node.stopped.result()
    sim.crash()
    await sim.start()
    await fill(client, 10, start=20)
    await cluster.until_equal()
    await client.close()
    assert cluster.fired["failing log"] > 20


def test_worlds_have_logs_that_fail():
    """F78: the fault meets nodes in worlds that have it, and is counted."""
    assert any(simulate(seed, duration_s=5.0).faults.get("failing log") for seed in range(6))


@scenario(KeyValue, seed=1)
async def test_one_lost_peer_is_one_line(cluster):
    """Its two connections end at nearly the same time, and nobody is to wonder whether that was one loss or three."""
    sim = follower_of(cluster)
    with capture_logs() as lines:
        sim.crash()
        await cluster.until(lambda: not cluster.leader.transport.links()[sim.node_id].connected, 20, "it is lost")
        await cluster.until_leader()
    said = [line for line in lines if line["log_level"] != "debug" and line.get("peer") == sim.node_id]
    own = [line for line in said if line.get("node") in (None, cluster.leader.node_id)]
    assert [line["event"] for line in own] == ["peer_lost"]
    assert own[0]["log_level"] == "warning" and own[0]["address"] == sim.member.peer_address and own[0]["reason"]
    await sim.start()


@scenario(KeyValue, seed=1)
async def test_a_node_that_stopped_by_itself_ends_with_an_error(cluster):
    """Whoever looks for errors finds why; an end that was asked for is none."""
    sim = follower_of(cluster)
    with capture_logs() as lines:
        sim.node.fail(DiskFull("the disk is full"))
        await sim.stop()
        await cluster.nodes[cluster.leader.node_id].stop()
    ends = [(line["log_level"], line.get("reason")) for line in lines if line["event"] == "node_stopped"]
    assert ends == [("error", "the disk is full"), ("info", None)]


@scenario(KeyValue, seed=1)
async def test_it_is_said_that_nobody_leads(cluster):
    """Soon, with who is reached and what to do, then less and less often, and anew for the next time."""

    def said(lines):
        return [line for line in lines if line["event"] == "no_leader"]

    alone = follower_of(cluster)
    with capture_logs() as lines:
        for sim in cluster.nodes.values():
            if sim is not alone:
                sim.crash()
        await cluster.until(lambda: len(said(lines)) == 3, 120, "it is said three times")
    first = said(lines)[0]
    assert first["log_level"] == "warning" and first["node"] == alone.node_id
    assert first["voters"] == [1, 2, 3] and first["reached"] == [] and "start nodes" in first["hint"]
    assert [round(line["seconds"] / leaderless.FIRST_S) for line in said(lines)] == [1, 2, 4]
    with capture_logs() as lines:
        await cluster.start()
        await cluster.until_leader()
    assert not said(lines)


def test_it_is_said_less_and_less_often_but_never_not_at_all():
    """A log that is rotated every day still says it."""
    watch = leaderless.Leaderless()
    said = [now for now in range(86_400) if watch.look(False, float(now)) is not None]
    assert said[:4] == [5, 10, 20, 40]
    assert max(later - earlier for earlier, later in itertools.pairwise(said)) <= leaderless.LAST_S + 1
    assert watch.look(True, 90_000.0) is None
    assert [now for now in range(90_001, 90_020) if watch.look(False, float(now)) is not None] == [90_006, 90_011]
