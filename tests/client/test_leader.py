"""How a client finds the leader, and what it does while there is none."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from raftkv.client import Client
from raftkv.client.book import ADDRESSES_MAX
from raftkv.errors import NotLeader, Unavailable
from raftkv.kv import KeyValue
from raftkv.testing.world.loop import elapse
from raftkv.wire import RequestKind, Response, Status
from tests.client.cluster import FakeCluster, FakeNode, FakeServer
from tests.client.worlds import run_world


def test_a_redirect_is_followed_at_once() -> None:
    """A node that isn't the leader names it, and the call goes there without waiting."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.leader = cluster.addresses[2]
        await client.remote.put(b"a", b"1")
        assert asyncio.get_running_loop().time() == 0
        assert cluster.network.dialled == [cluster.addresses[0], cluster.addresses[2]]

    run_world(story)


def test_a_leader_that_nobody_named_is_learned_from_a_hint() -> None:
    """Addresses outside of the list that the client was given are tried when a node names them."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.leader = cluster.addresses[2]
        short = Client(KeyValue, cluster.addresses[:1], dial=cluster.network.dial)
        await short.remote.put(b"a", b"1")
        assert short.connected_to == cluster.addresses[2]
        await short.close()

    run_world(story)


def test_dead_servers_are_passed_over() -> None:
    """Refused connections lead on to the next address within some tens of milliseconds."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.nodes[0].die()
        cluster.nodes[1].die()
        cluster.leader = cluster.addresses[2]
        await client.remote.put(b"a", b"1")
        assert asyncio.get_running_loop().time() < 0.2

    run_world(story)


def test_a_host_that_swallows_everything_costs_a_head_start() -> None:
    """An address that never answers is not waited for: the next one is tried beside it after `head_start_s`."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.network.silent.add(cluster.addresses[0])
        cluster.leader = cluster.addresses[1]
        await client.remote.put(b"a", b"1")
        assert 0.25 <= asyncio.get_running_loop().time() < 0.3

    run_world(story)


def test_a_redirect_loop_is_slowed_down_and_ends_at_the_deadline() -> None:
    """Two nodes that name each other get fewer and fewer requests, not a flood."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        first, second, _ = cluster.nodes
        first.script = lambda request: Response(request.id, Status.NOT_LEADER, b"", leader=second.address)
        second.script = lambda request: Response(request.id, Status.NOT_LEADER, b"", leader=first.address)
        with pytest.raises(Unavailable, match="not the leader"):
            await client.remote.put.within(5)(b"a", b"1")
        assert asyncio.get_running_loop().time() == pytest.approx(5)
        assert 10 < cluster.requests() < 90

    run_world(story)


def test_nodes_that_name_each_other_do_not_hide_the_leader() -> None:
    """Two nodes that were removed still believe in each other; the third address is reached all the same."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        first, second, third = cluster.nodes
        cluster.leader = third.address
        first.script = lambda request: Response(request.id, Status.NOT_LEADER, b"", leader=second.address)
        second.script = lambda request: Response(request.id, Status.NOT_LEADER, b"", leader=first.address)
        await client.remote.put.within(2)(b"a", b"1")

    run_world(story)


def test_hints_do_not_fill_the_memory() -> None:
    """Whoever answers with ever new addresses is believed up to a bound; the ones that were given are still asked."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        chain = [*cluster.addresses, *(f"10.1.0.{number}:1" for number in range(1, 200))]
        for address, following in itertools.pairwise(chain):
            node = FakeNode(cluster, address)
            node.script = lambda request, hint=following: Response(  # type: ignore[misc]
                request.id, Status.NOT_LEADER, b"", leader=hint
            )
            cluster.network.listeners[address] = lambda node=node: FakeServer(node)  # type: ignore[misc]
        with pytest.raises(Unavailable):
            await client.remote.put.within(60)(b"a", b"1")
        assert len(set(cluster.network.dialled)) == ADDRESSES_MAX
        assert set(cluster.addresses) <= set(cluster.network.dialled)

    run_world(story)


def test_a_cluster_without_a_leader_is_not_flooded_and_found_again() -> None:
    """Many waiting calls search together; when a leader is elected, all of them are answered at once."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.put(b"a", b"1")
        cluster.leader = None
        loop = asyncio.get_running_loop()
        before = cluster.requests()
        calls = [asyncio.ensure_future(client.remote.increment(b"n")) for _ in range(100)]
        loop.call_later(2.0, setattr, cluster, "leader", cluster.addresses[1])
        await asyncio.gather(*calls)
        assert loop.time() < 2.7
        assert await client.remote.increment(b"n") == 101
        assert (cluster.requests() - before) / 100 < 60

    run_world(story)


def test_an_outage_ends_in_unavailable_with_the_reason() -> None:
    """When nobody can be reached, the error says so, and that the command was not done."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        for node in cluster.nodes:
            node.die()
        with pytest.raises(Unavailable, match="nobody listens"):
            await client.remote.put.within(3)(b"a", b"1")
        with pytest.raises(Unavailable, match=r"no answer within 1 s.*nobody listens"):
            await client.remote.get.within(1)(b"a")
        assert cluster.log.index == 0

    run_world(story)


def test_a_node_of_another_cluster_is_never_used() -> None:
    """A session number means nothing elsewhere: a client that has met one cluster never crosses over."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.put(b"a", b"1")
        first, second, third = cluster.nodes
        second.cluster_id = "another"
        first.die()
        third.die()
        with pytest.raises(Unavailable, match="belongs to cluster 'another'"):
            await client.remote.get.within(2)(b"a")
        assert second.requests == []

    run_world(story)


def test_a_silent_leader_is_left_and_its_calls_sent_again() -> None:
    """F72 from the client's side: a paused leader keeps its connection but answers nothing."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.increment(b"n")
        cluster.nodes[0].script = lambda _: None
        cluster.leader = cluster.addresses[1]
        assert await client.remote.increment(b"n") == 2
        assert 0.8 <= asyncio.get_running_loop().time() < 1.0

    run_world(story)


def test_a_silent_leader_that_others_still_name_is_passed_over() -> None:
    """F72: followers need an election time-out to notice; nobody waits for the silent node a second time."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.increment(b"n")
        cluster.nodes[0].script = lambda _: None
        cluster.network.silent.add(cluster.addresses[0])
        asyncio.get_running_loop().call_later(1.1, setattr, cluster, "leader", cluster.addresses[2])
        assert await client.remote.increment(b"n") == 2
        assert asyncio.get_running_loop().time() < 1.4

    run_world(story)


def test_when_all_nodes_are_silent_they_are_tried_again() -> None:
    """Passing over is for choosing among nodes; when there is no other, the silent ones are asked."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.increment(b"n")
        scripts = [node.script for node in cluster.nodes]
        for node in cluster.nodes:
            node.script = lambda _: None

        def wake() -> None:
            for node, script in zip(cluster.nodes, scripts, strict=True):
                node.script = script

        asyncio.get_running_loop().call_later(3.0, wake)
        assert await client.remote.increment(b"n") == 2
        assert asyncio.get_running_loop().time() < 5.0

    run_world(story)


def test_a_leader_that_is_slow_but_alive_is_kept_longer() -> None:
    """One whose disk is slow gives a sign of life, so its calls are not sent to everybody else at once."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.increment(b"n")
        leader = cluster.nodes[0]
        behave = leader.script
        leader.script = lambda request: Response(request.id, Status.OK) if request.kind is RequestKind.STATUS else None
        call = asyncio.ensure_future(client.remote.increment(b"n"))
        await elapse(1.9)
        assert len(leader.connections) == 1
        assert not cluster.nodes[1].requests
        assert not call.done()
        leader.script = behave
        assert await call == 2
        assert 2.0 <= asyncio.get_running_loop().time() < 2.2

    run_world(story)


def test_a_stale_read_needs_no_leader() -> None:
    """A query that asks for it is answered by whoever is there, with the index it was read at."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.put(b"a", b"1")
        cluster.leader = None
        read = await client.remote.get.stale(b"a")
        assert read.value.value == b"1"
        assert read.index == cluster.log.index
        assert cluster.nodes[0].requests[-1].kind is RequestKind.QUERY
        with pytest.raises((NotLeader, Unavailable)):
            await client.remote.get.within(1)(b"a")

    run_world(story)
