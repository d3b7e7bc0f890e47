"""Clients and nodes of different versions of one application, over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftkv import (
    Admin,
    BlockingClient,
    ChangeRefused,
    Client,
    ClientOptions,
    Config,
    InvalidArgument,
    Member,
    NotActive,
    Rejected,
    Server,
    StateMachine,
    command,
    query,
)
from raftkv.machine import encode_query
from raftkv.model import NodeId
from raftkv.processes.ports import free_ports
from tests.shop import First, Order, Second, TaggedOrder

CONFIG = Config(auto_upgrade=False)


class Cluster:
    """Three servers in this process, of which each runs what it is told to."""

    def __init__(self, directory: Path) -> None:
        ports = free_ports(6)
        self.members = [Member(n + 1, f"127.0.0.1:{ports[2 * n]}", f"127.0.0.1:{ports[2 * n + 1]}") for n in range(3)]
        self.addresses = [member.client_address for member in self.members]
        self.servers: dict[NodeId, Server[Any]] = {}
        self._directory = directory

    async def start(self, node_id: NodeId, machine: type[Any]) -> None:
        """Start a node, which runs `machine` from now on."""
        data = self._directory / str(node_id)
        server = Server(machine, data_dir=data, node_id=node_id, members=self.members, config=CONFIG)
        self.servers[node_id] = server
        await server.start()

    async def restart(self, node_id: NodeId, machine: type[Any]) -> None:
        """Stop a node, and start it with another class; all reach each other on return."""
        await self.servers.pop(node_id).stop()
        await self.start(node_id, machine)
        await self.settle()

    async def settle(self) -> None:
        """Wait until all know one leader and the active version, and all reach each other."""
        while True:
            found = [server.status() for server in self.servers.values()]
            leaders = {status.leader for status in found}
            know = all(status.versions is not None and status.versions.active for status in found)
            connected = all(peer.connected for status in found for peer in status.peers)
            if len(leaders) == 1 and None not in leaders and know and connected:
                return
            await asyncio.sleep(0)

    async def lead(self, node_id: NodeId) -> Server[Any]:
        """Make a node the leader; returns it."""
        leader = self.servers[node_id].status().leader
        assert leader is not None
        await self.servers[leader].node.orders.transfer_leadership(node_id)
        await self.settle()
        return self.servers[node_id]


@asynccontextmanager
async def cluster_of(directory: Path, *machines: type[Any]) -> AsyncIterator[Cluster]:
    """Nodes 1 to 3 that run these."""
    cluster = Cluster(directory)
    try:
        await asyncio.gather(*(cluster.start(node, machine) for node, machine in enumerate(machines, 1)))
        await cluster.settle()
        yield cluster
    finally:
        await asyncio.gather(*(server.stop() for server in cluster.servers.values()))


def run(story: Any) -> None:
    """Run a story, at most a minute of it."""
    asyncio.run(asyncio.wait_for(story, 60))


def test_what_is_not_active_is_refused_by_name_and_works_later_on_the_same_connection(tmp_path):
    """From either client, with and without sessions, and of old and new leaders; nothing of it gets into the log."""

    async def story() -> None:
        async with cluster_of(tmp_path, First, Second, Second) as cluster:
            one = Client(Second, cluster.addresses)
            bare = Client(Second, cluster.addresses, options=ClientOptions(sessions=False))
            with BlockingClient(Second, cluster.addresses) as remote:
                await one.remote.order(1, TaggedOrder("apple"))
                connected = set()
                for leader, behind in ((2, "node 1 runs version 1"), (1, "node 1, which leads, runs version 1")):
                    server = await cluster.lead(leader)
                    await one.remote.find(1)
                    before = server.status().last_index
                    for client in (one, bare):
                        for call in (
                            client.remote.tag(1, "red"),
                            client.remote.send(1, "boat"),
                            client.remote.order(2, TaggedOrder("pear", 1, ["red"])),
                            client.remote.count_sent(),
                            *([client.remote.like(TaggedOrder("apple", 1, ["red"]))] if leader == 1 else []),
                        ):
                            with pytest.raises(NotActive, match=behind) as caught:
                                await call
                            assert isinstance(caught.value, Rejected) and "nothing was done" in str(caught.value)
                    with pytest.raises(NotActive, match=behind):
                        await asyncio.to_thread(remote.tag, 1, "red")
                    session = await asyncio.to_thread(remote.find, 1)
                    assert session == TaggedOrder("apple")
                    connected.add(one.connected_to)
                    assert server.status().last_index - before <= 2, "two clients have opened their sessions"
                assert len(connected) == 2
                await cluster.restart(1, Second)
                server = await cluster.lead(2)
                await one.remote.order(2, TaggedOrder("pear"))
                link = one.connected_to
                assert await server.node.orders.upgrade() == 2
                assert await one.remote.tag(1, "red") == ["old", "red"]
                assert await asyncio.to_thread(remote.tag, 1, "ripe") == ["old", "red", "ripe"]
                assert await bare.remote.send(1, "boat") == 1
                assert await one.remote.count_sent() == 1
                assert link is not None and one.connected_to == link
            await one.close()
            await bare.close()

    run(story())


def test_a_leader_that_is_itself_behind_says_so(tmp_path):
    """In its status, and to who orders the upgrade without naming a version: that is not done, which is no success."""

    async def story() -> None:
        async with cluster_of(tmp_path, First, Second, Second) as cluster:
            server = await cluster.lead(1)
            why = "node 1, which leads, runs version 1"
            versions = server.status().versions
            assert versions is not None and versions.waits_for == why
            assert f"version 2 of the application is not active yet: {why}" in server.status().problems()
            async with Admin(cluster.addresses) as admin:
                with pytest.raises(ChangeRefused, match=f"version 2 can't be made active: {why}"):
                    await admin.upgrade()
                assert await admin.upgrade(1) == 1

    run(story())


def test_a_stale_query_of_a_later_version_is_refused_as_well(tmp_path):
    """By a node of the old class, which does not lead: it names itself."""

    async def story() -> None:
        async with cluster_of(tmp_path, First, Second, Second) as cluster:
            await cluster.lead(2)
            for node_id in (1, 2):
                answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                requests = cluster.servers[node_id].node.requests
                requests.query(
                    encode_query("count_sent", b"\x90"), True, lambda _, found, to=answer: to.set_result(found)
                )  # type: ignore[misc]
                refused = await answer
                assert isinstance(refused, NotActive) and "node 1 runs version 1" in str(refused)

    run(story())


@pytest.mark.parametrize("active", [1, 2])
def test_old_and_new_clients_work_with_old_and_new_versions(tmp_path, active):
    """Arguments and fields with defaults, left out by one and added by the other; results with more or fewer fields."""

    async def story() -> None:
        machines = [First, First, Second] if active == 1 else [Second] * 3
        async with (
            cluster_of(tmp_path, *machines) as cluster,
            Client(First, cluster.addresses) as old,
            Client(Second, cluster.addresses) as new,
        ):
            for leader in (2, 3):
                await cluster.lead(leader)
                assert await old.order(1, Order("apple", 2)) == Order("apple", 2)
                assert await new.find(1) == TaggedOrder("apple", 2)
                assert await new.order(2, TaggedOrder("pear")) == TaggedOrder("pear")
                assert await old.find(2) == Order("pear")
                assert await new.like(TaggedOrder("pear")) == await old.like(Order("pear")) == [2]
                assert (await old.send(1), await new.send(2, "post")) == (2, 1)
            versions = cluster.servers[3].status().versions
            assert versions is not None and versions.active == active
            if active == 2:
                assert await new.order(4, TaggedOrder("fig", 1, ["ripe"])) == TaggedOrder("fig", 1, ["ripe"])
                assert await old.find(4) == Order("fig"), "what it does not know it does not see"
                assert await new.tag(4, "blue") == ["ripe", "blue"]
                assert await old.send(4) == 1 and await new.count_sent() == 7

    run(story())


class Misspelt(msgspec.Struct):
    """An order as a client has it whose class nobody else has."""

    sku: str
    colour: str = "red"


def test_a_field_that_no_version_has_is_refused_and_not_lost(tmp_path):
    """A record in an argument has a field that the active version lacks: nothing is stored; at its default it is."""

    async def story() -> None:
        async with Server(Second, data_dir=tmp_path) as server, Client(_misspelt(), [server.address]) as remote:
            with pytest.raises(InvalidArgument, match="colour"):
                await remote.order(1, Misspelt("apple", "green"))
            with pytest.raises(InvalidArgument, match="colour"):
                await remote.like(Misspelt("apple", "green"))
            assert await remote.find(1) is None and await remote.like(Misspelt("apple")) == []
            assert await remote.order(1, Misspelt("apple")) == Misspelt("apple")

    run(story())


def _misspelt() -> type[Any]:
    class Shop(StateMachine):
        """Orders have a colour."""

        @command
        def order(self, number: int, order: Misspelt) -> Misspelt:
            """Keep an order."""
            return order

        @query
        def find(self, number: int) -> Misspelt | None:
            """An order."""

        @query
        def like(self, order: Misspelt) -> list[int]:
            """The numbers of all such orders."""
            return []

    return Shop
