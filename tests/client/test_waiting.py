"""Waiting for a query's result: over sockets, and through whatever happens to the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import xxhash

from raftkv import (
    BlockingClient,
    Busy,
    Client,
    LocalMachine,
    NotLeader,
    Rejected,
    Server,
    StateMachine,
    Table,
    TimedOut,
    Unavailable,
    Value,
    command,
    query,
)
from raftkv.client import UnknownMethod
from raftkv.testing import elapse, scenario
from raftkv.testing.world.cluster import SimCluster, SimNode
from raftkv.testing.world.settings import CONFIG


class Hall(StateMachine):
    """Doors that open and shut, a bell that rings when its time has come, and guests who stay for some time."""

    doors = Table(str, bool)
    rings_at = Value(int, 0)
    guests = Table(str, int, expires=True)

    @command
    def set_door(self, name: str, is_open: bool) -> None:
        """Open it, or shut it."""
        self.doors[name] = is_open

    @command
    def take_out(self, name: str) -> None:
        """There is no such door any more."""
        del self.doors[name]

    @command
    def wind(self, seconds: int) -> None:
        """Have the bell ring later."""
        self.rings_at = self.now_ms + 1000 * seconds

    @command
    def welcome(self, name: str, seconds: int) -> None:
        """Let a guest in."""
        self.guests.put(name, 1, ttl_s=seconds)

    @query
    def is_open(self, name: str, unless: str = "") -> bool:
        """Whether one may pass."""
        return self.doors[name] and not self.doors.get(unless, False)

    @query
    def rings(self) -> bool:
        """Whether its time has come."""
        return 0 < self.rings_at <= self.now_ms

    @query
    def names(self) -> list[str]:
        """All guests."""
        return list(self.guests)

    @query
    def opened(self) -> int:
        """How many doors are open: reads all of them."""
        return sum(is_open for _, is_open in self.doors.items())


@asynccontextmanager
async def hall(cluster: SimCluster, **settings: Any) -> AsyncIterator[Client[Hall]]:
    """A client, and a door that is shut."""
    client: Client[Hall] = cluster.client(**settings)
    await client.call(Hall.set_door, "north", False)
    yield client
    await client.close()


async def parked(cluster: SimCluster, count: int = 1) -> None:
    """Wait until so many wait at the nodes."""
    await cluster.until(lambda: sum(len(node.polls) for node in cluster.running) == count, 30, "nobody waits")


def waits(
    client: Client[Hall], *args: Any, until: Callable[[Any], object] = bool, s: float = 60.0
) -> asyncio.Task[Any]:
    """Wait in a task of its own."""
    work: Awaitable[Any] = client.wait_until(*args, until=until, timeout_s=s)
    return asyncio.ensure_future(work)


@scenario(Hall)
async def test_whoever_waits_hears_of_it_at_once(cluster: SimCluster) -> None:
    """Not when somebody asks again: nothing is asked while nothing changes, and the answer comes with the change."""
    async with hall(cluster) as client:
        task = waits(client, Hall.is_open, "north")
        await parked(cluster)
        await elapse(20.0)
        assert not task.done()
        assert cluster.leader is not None
        before = cluster.leader.status().methods["is_open"].runs
        assert before <= 2
        began = cluster.loop.time()
        await client.call(Hall.set_door, "north", True)
        assert await task is True
        assert cluster.loop.time() - began < 0.1
        await parked(cluster, 0)


@scenario(Hall)
async def test_what_holds_already_is_not_waited_for(cluster: SimCluster) -> None:
    """The first result may do; and a result that changes without doing is waited on with."""
    async with hall(cluster) as client:
        assert await client.wait_until(Hall.is_open, "north", until=lambda is_open: not is_open) is False
        task = waits(client, Hall.opened, until=lambda count: count == 3)
        for name in "abc":
            await client.call(Hall.set_door, name, True)
            await elapse(0.5)
        assert await task == 3


@scenario(Hall)
async def test_a_wait_that_is_over_says_so(cluster: SimCluster) -> None:
    """At its time, as a `TimeoutError` too; without a time of its own, at the deadline of all calls."""
    async with hall(cluster, deadline_s=4.0) as client:
        for settings, seconds in (({"timeout_s": 45.0}, 45.0), ({}, 4.0)):
            began = cluster.loop.time()
            with pytest.raises(TimedOut, match=rf"is_open gave nothing within {seconds:g} s"):
                await client.wait_until(Hall.is_open, "north", until=bool, **settings)
            assert cluster.loop.time() - began == pytest.approx(seconds, abs=0.05)
        assert issubclass(TimedOut, TimeoutError)
        await parked(cluster, 0)


@scenario(Hall)
async def test_poll_waits_for_another_result(cluster: SimCluster) -> None:
    """Whatever it is: the caller says which one it knows."""
    async with hall(cluster) as client:
        assert await client.poll(Hall.opened, unlike=7) == 0
        task = asyncio.ensure_future(client.poll(Hall.opened, unlike=0, timeout_s=60))
        await parked(cluster)
        await client.call(Hall.set_door, "north", True)
        assert await task == 1


@scenario(Hall)
async def test_time_alone_wakes_who_waits_for_it(cluster: SimCluster) -> None:
    """A query that asks what time it is gives another result although nothing is applied."""
    async with hall(cluster) as client:
        await client.call(Hall.wind, 12)
        began = cluster.loop.time()
        assert cluster.leader is not None
        index = cluster.leader.applier.applied_index
        assert await client.wait_until(Hall.rings, until=bool, timeout_s=60)
        assert 11.9 < cluster.loop.time() - began < 12.5
        assert cluster.leader.applier.applied_index == index, "nothing was applied meanwhile"


@scenario(Hall)
async def test_who_waits_for_a_time_waits_at_the_leader(cluster: SimCluster) -> None:
    """Elsewhere time stands still while nothing is applied: a follower sends its client on; but for a row it waits."""
    async with hall(cluster) as client:
        await client.call(Hall.wind, 5)
        leader = cluster.leader
        follower = next(node for node in cluster.running if node is not leader)
        for name, args in (("rings", ()), ("opened", ()), ("is_open", ("north",))):
            heard: list[Any] = []
            method = client.method(name)
            payload = method.query_payload(method.encode_args(args, {}))
            known = xxhash.xxh3_64_intdigest(b"\xc2")
            follower.requests.poll(payload, known, lambda index, result, heard=heard: heard.append(result), 600, bool)
            await elapse(1.0)
            assert [type(each) for each in heard] == {"rings": [NotLeader], "opened": [bytes], "is_open": []}[name]
        short: Client[Hall] = cluster.client(follower.node_id)
        assert await short.wait_until(Hall.rings, until=bool, timeout_s=60)
        await short.close()


@scenario(Hall)
async def test_a_row_that_is_over_wakes_who_waits_for_that(cluster: SimCluster) -> None:
    """Without being asked for again and again: the entry that removes it says so."""
    async with hall(cluster) as client:
        await client.call(Hall.welcome, "ann", 12)
        began = cluster.loop.time()
        assert await client.wait_until(Hall.names, until=lambda names: not names, timeout_s=60) == []
        assert 11.9 < cluster.loop.time() - began < 12.5
        assert cluster.leader is not None
        assert cluster.leader.status().methods["names"].runs < 8


@scenario(Hall)
async def test_a_query_that_reads_much_is_asked_again_beside_the_loop_and_seldom(cluster: SimCluster) -> None:
    """Its client hears within a second or so, however many writes there are."""
    async with hall(cluster) as client:
        for number in range(40):
            await client.call(Hall.set_door, str(number), False)
        assert cluster.leader is not None
        scans = cluster.leader.scans
        begun = scans.begun
        task = waits(client, Hall.opened)
        await parked(cluster)
        for number in range(50):
            await client.call(Hall.set_door, str(number % 5), False)
            await elapse(0.1)
        assert 3 <= scans.begun - begun <= 8
        began = cluster.loop.time()
        await client.call(Hall.set_door, "7", True)
        assert await task == 1
        assert cluster.loop.time() - began < 1.2


@scenario(Hall)
async def test_many_who_wait_for_the_same_are_asked_for_once(cluster: SimCluster) -> None:
    """Five hundred clients' query is run once for a change, not five hundred times, and all hear of it."""
    async with hall(cluster) as client:
        tasks = [waits(client, Hall.is_open, "north") for _ in range(500)]
        await parked(cluster, 500)
        assert cluster.leader is not None
        before = cluster.leader.status().methods["is_open"].runs
        await client.call(Hall.set_door, "south", True)
        await elapse(0.2)
        await client.call(Hall.set_door, "north", True)
        assert await asyncio.gather(*tasks) == [True] * 500
        assert cluster.leader.status().methods["is_open"].runs - before == 2


@scenario(Hall)
async def test_a_node_that_is_no_longer_the_leader_sends_its_waiters_on(cluster: SimCluster) -> None:
    """They hear of the change from the next leader; the caller notices nothing."""
    async with hall(cluster) as client:
        task = waits(client, Hall.is_open, "north")
        await parked(cluster)
        old = cluster.leader
        assert old is not None
        await old.orders.transfer_leadership(None)
        await cluster.until(lambda: cluster.leader not in (None, old), 30)
        await cluster.until(lambda: len(old.polls) == 0, 5, "the old leader keeps it")
        await parked(cluster)
        await client.call(Hall.set_door, "north", True)
        assert await task is True


async def lose_leader(cluster: SimCluster, harm: Callable[[SimNode], None]) -> None:
    """Harm the leader while somebody waits there: the wait goes on at another node, and its caller notices nothing."""
    async with hall(cluster) as client:
        task = waits(client, Hall.is_open, "north", s=600)
        await parked(cluster)
        await elapse(5.0)
        old = cluster.leader
        assert old is not None
        harm(cluster.nodes[old.node_id])
        await cluster.until(lambda: cluster.leader not in (None, old), 30)
        others = [node for node in cluster.running if node is not old]
        await cluster.until(lambda: any(len(node.polls) for node in others), 10, "it waits at the dead node")
        other = cluster.client()
        await other.call(Hall.set_door, "north", True)
        assert await task is True
        await other.close()


@scenario(Hall)
async def test_a_leader_that_dies_is_noticed(cluster: SimCluster) -> None:
    """Its connections break."""
    await lose_leader(cluster, SimNode.crash)


@scenario(Hall)
async def test_a_leader_that_falls_silent_is_noticed(cluster: SimCluster) -> None:
    """It gives no sign of life for some seconds, though nobody was owed an answer."""
    await lose_leader(cluster, SimNode.freeze)


@scenario(Hall)
async def test_a_client_that_goes_leaves_nothing_behind(cluster: SimCluster) -> None:
    """Its connection's requests are dropped with it."""
    async with hall(cluster) as client:
        other: Client[Hall] = cluster.client()
        tasks = [waits(other, Hall.is_open, "north") for _ in range(3)]
        await parked(cluster, 3)
        await other.close()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(end, Unavailable)
        await parked(cluster, 0)
        await client.call(Hall.set_door, "north", True)


@scenario(Hall)
async def test_who_waits_no_longer_leaves_nothing_behind(cluster: SimCluster) -> None:
    """The client goes on, and its node hears at once that one of its callers has given up."""
    async with hall(cluster) as client:
        tasks = [waits(client, Hall.is_open, "north") for _ in range(2)]
        await parked(cluster, 2)
        tasks[0].cancel()
        await elapse(0.1)
        assert sum(len(node.polls) for node in cluster.running) == 1
        await client.call(Hall.set_door, "north", True)
        assert await tasks[1]


@scenario(Hall, config=msgspec.structs.replace(CONFIG, polls_max=3))
async def test_only_so_many_wait_at_one_node(cluster: SimCluster) -> None:
    """One more is told that it is busy; other calls go on."""
    async with hall(cluster) as client:
        tasks = [waits(client, Hall.is_open, "north", s=20) for _ in range(3)]
        await parked(cluster, 3)
        with pytest.raises(Busy, match="polls_max"):
            await client.wait_until(Hall.is_open, "north", until=bool, timeout_s=2.0)
        await client.call(Hall.set_door, "north", True)
        assert await asyncio.gather(*tasks) == [True] * 3


@scenario(Hall)
async def test_what_the_query_raises_is_the_callers(cluster: SimCluster) -> None:
    """At once, or when it begins to raise; what is no query is refused before it is sent."""
    async with hall(cluster) as client:
        with pytest.raises(Rejected, match="KeyError"):
            await client.wait_until(Hall.is_open, "west", until=bool)
        task = waits(client, Hall.is_open, "north")
        await parked(cluster)
        await client.call(Hall.take_out, "north")
        with pytest.raises(Rejected, match="KeyError"):
            await task
        with pytest.raises(UnknownMethod, match="'set_door' is a command"):
            await client.wait_until("set_door", "north", True, until=bool)


@scenario(Hall, config=msgspec.structs.replace(CONFIG, inflight_messages_max=1))
async def test_a_snapshot_in_place_of_entries_wakes_who_waits(cluster: SimCluster) -> None:
    """A follower that gets the change as a part of a snapshot tells its waiters all the same, though it applies nothing
    behind that. It is cut off for less than it takes to miss the leader, so nobody is sent on; and of what the leader
    has written meanwhile a single message is on its way."""
    async with hall(cluster) as client:
        follower = next(sim for sim in cluster.nodes.values() if sim.node_id != cluster.leader.node_id)  # type: ignore[union-attr]
        node, others = follower.node, [each for each in cluster.nodes if each != follower.node_id]
        assert node is not None and cluster.leader is not None
        heard: list[Any] = []
        method = client.method("is_open")
        payload = method.query_payload(method.encode_args(("north",), {}))
        known = xxhash.xxh3_64_intdigest(b"\xc2")
        node.requests.poll(payload, known, lambda index, result: heard.append((index, result)), 600.0, lambda: False)
        await cluster.until(lambda: len(node.polls._questions) == 1, 10)
        for other in others:
            cluster.network.cut(follower.node_id, other)
        for is_open in (False, False, True):
            await asyncio.gather(*(client.call(Hall.set_door, "north", is_open) for _ in range(100)))
        index = await cluster.leader.orders.take_snapshot()
        assert not heard and node.applier.applied_index < cluster.leader.raft.log.start.index
        cluster.network.heal()
        await cluster.until(lambda: bool(heard and node.snapshots.installed), 10)
        assert heard == [(index, b"\xc3")] and node.applier.applied_index == index, "nothing has come behind it"


def test_a_blocking_client_waits_and_its_predicate_may_call_it(tmp_path: Any) -> None:
    """`until` runs on the caller's own thread, so it can't hold up the client's loop."""

    async def serve() -> None:
        async with Server(Hall, data_dir=tmp_path / "n1") as server:
            await asyncio.to_thread(use, server.address)

    def use(address: str) -> None:
        with BlockingClient(Hall, [address]) as remote:
            client = remote._caller
            assert isinstance(client, BlockingClient)
            client.call(Hall.set_door, "north", False)

            def suits(count: int) -> bool:
                client.call(Hall.set_door, str(count), True)
                return count == 2

            assert client.wait_until(Hall.opened, until=suits, timeout_s=30) == 2
            assert client.poll(Hall.opened, unlike=0) == 3
            assert remote.opened.until(lambda count: count == 3) == 3
            with pytest.raises(TimedOut):
                client.within(0.2).wait_until(Hall.is_open, "north", until=bool)

    asyncio.run(serve())


def test_a_local_machine_lets_time_pass() -> None:
    """As far as it was told to, from one thing that is due to the next."""
    local = LocalMachine(Hall)
    local.call(Hall.set_door, "north", False)
    with pytest.raises(TimedOut):
        local.wait_until(Hall.is_open, "north", until=bool)
    assert local.wait_until(Hall.is_open, "north", until=lambda is_open: not is_open) is False
    local.call(Hall.welcome, "ann", 10)
    began_ms = local.now_ms
    assert local.wait_until(Hall.names, until=lambda names: not names, timeout_s=60) == []
    assert local.now_ms - began_ms == 10_000
    with pytest.raises(TimedOut, match="names gave nothing within 5 s"):
        local.wait_until(Hall.names, until=bool, timeout_s=5)
    assert local.now_ms - began_ms == 15_000
