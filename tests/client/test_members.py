"""A client finds its cluster also when all are gone that it was told of first (F80)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from raftkv.client import Client, ClientOptions
from raftkv.client.book import ADDRESSES_MAX, AddressBook
from raftkv.client.router import DIALS_MAX
from raftkv.errors import Unavailable, WrongCluster
from raftkv.kv import KeyValue
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.wire import PROTOCOL_VERSION, Members, ServerHello, encode_server_hello
from tests.client.cluster import FakeCluster, FakeServer
from tests.client.worlds import make_client, run_world


def tell(story: Callable[[SimCluster], Awaitable[None]], size: int = 3) -> None:
    """Tell `story` with a cluster of whole nodes that has a leader; nothing may fail behind its back."""
    loop = SimLoop()

    async def main() -> None:
        cluster = SimCluster(KeyValue, size, seed=1)
        await cluster.start()
        await cluster.until_leader()
        await story(cluster)
        await cluster.stop()

    loop.run(main())
    assert loop.failures == []


async def replace_all(cluster: SimCluster) -> None:
    """Put three new nodes in the place of the founders, one by one; these are gone for good then."""
    async with cluster.admin(1, 2, 3) as admin:
        for old in (1, 2, 3):
            new = cluster.add(old + 3)
            await new.start()
            await admin.add_learner(new.member)
            await admin.promote(old + 3)
            await admin.remove(old)
            await cluster.until_leader()
            await cluster.until(lambda old=old: cluster.leader.node_id != old)
            cluster.nodes[old].crash()
            await elapse(1)  # else a request could be on its way to whom nobody knows to be dead


async def kill_leader(cluster: SimCluster) -> None:
    """The leader dies, and a majority is left."""
    assert cluster.leader is not None
    cluster.nodes[cluster.leader.node_id].crash()


@pytest.mark.parametrize("used", ["busy", "idle", "only stale reads"])
def test_all_members_are_replaced_under_a_client_and_then_the_leader_dies(used: str) -> None:
    """F80: whether it is in use meanwhile or not, the client goes on with the members of today, in its session."""

    async def story(cluster: SimCluster) -> None:
        client = cluster.client()
        await client.remote.increment(b"n")
        session = client.session
        task = asyncio.ensure_future(use(client))
        await replace_all(cluster)
        await elapse(40)  # so long nobody may have asked it for anything
        await kill_leader(cluster)
        task.cancel()
        before = int((await client.remote.get(b"n")).value)
        assert await client.remote.increment(b"n") == before + 1
        assert client.session is session
        assert {"node-4:1", "node-5:1", "node-6:1"} <= set(client.addresses)
        await client.close()

    async def use(client: Client[KeyValue]) -> None:
        while used != "idle":
            await elapse(0.5)
            if used == "busy":
                await client.remote.increment(b"n")
            else:
                await client.remote.get.stale(b"n")

    tell(story)


def test_the_only_seed_and_the_leader_die_together() -> None:
    """F80: of five nodes a client was told one; when this one and the leader are gone, it asks the other three."""

    async def story(cluster: SimCluster) -> None:
        assert cluster.leader is not None
        seed = next(node_id for node_id in cluster.nodes if node_id != cluster.leader.node_id)
        client = cluster.client(seed)
        await client.remote.increment(b"n")
        cluster.nodes[seed].crash()
        await kill_leader(cluster)
        assert await client.remote.increment(b"n") == 2
        await client.close()

    tell(story, size=5)


def test_an_operator_finds_the_members_too() -> None:
    """F80: an `Admin` that outlived all whom it was told of changes members and asks for the status."""

    async def story(cluster: SimCluster) -> None:
        admin = cluster.admin(1, 2)
        await admin.status()
        await replace_all(cluster)
        await kill_leader(cluster)
        await cluster.until_leader()
        left = [node.node_id for node in cluster.running]
        assert await admin.transfer_leadership() in left
        assert (await admin.status())["node_id"] in left
        await admin.close()

    tell(story)


def test_who_asks_one_node_hears_of_no_other() -> None:
    """An operator who names one address means that node: when it is gone, nobody answers in its place."""

    async def story(cluster: SimCluster) -> None:
        async with cluster.admin(2) as admin:
            assert (await admin.status())["node_id"] == 2
            cluster.nodes[2].crash()
            with pytest.raises(Unavailable):
                await admin.status(2.0)
            await cluster.until_leader()
            await cluster.nodes[2].start()
            await cluster.until_equal()
            await elapse(1)
            assert await admin.transfer_leadership() in (1, 2, 3)

    tell(story)


def test_an_idle_client_of_a_node_that_is_cut_off_hears_of_the_members() -> None:
    """Its node knows nothing new, so when it is idle it looks for the leader and asks that one."""

    async def story(cluster: SimCluster) -> None:
        assert cluster.leader is not None
        cut = cluster.leader.node_id
        client = cluster.client(cut)
        await client.remote.increment(b"n")
        for other in (1, 2, 3):
            if other != cut:
                cluster.network.cut(cut, other)
        await cluster.until(lambda: cluster.leader is not None and cluster.leader.node_id != cut)
        new = cluster.add(4)
        await new.start()
        async with cluster.admin(*[node_id for node_id in (1, 2, 3) if node_id != cut]) as admin:
            await admin.add_learner(new.member)
        await cluster.until(lambda: "node-4:1" in client.addresses, 60)
        await client.close()

    tell(story)


def test_an_idle_client_costs_little_and_a_busy_one_nothing() -> None:
    """Nothing is asked while a leader answers; an idle client asks every half minute; without a cluster, rarely."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.members = Members(1, tuple(cluster.addresses))
        for _ in range(200):
            await client.remote.increment(b"n")
            await elapse(1)
        assert cluster.requests() == 201  # and the session
        await elapse(600)
        assert 15 <= cluster.requests() - 201 <= 30
        for node in cluster.nodes:
            node.die()
        dialled = len(cluster.network.dialled)
        await elapse(4 * 3600)
        assert len(cluster.network.dialled) - dialled < 400

    run_world(story)


def test_a_client_that_was_never_used_asks_nobody() -> None:
    """Making a client opens no connection, and costs the cluster nothing."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await elapse(3600)
        assert cluster.network.dialled == []

    run_world(story)


def test_a_foreign_cluster_is_refused_by_name_and_the_others_are_used() -> None:
    """An address that was given to another cluster meanwhile: it gets no request, and its members are not believed."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.members = Members(1, tuple(cluster.addresses))
        await client.remote.put(b"a", b"1")
        first, second, third = cluster.nodes
        second.cluster_id = "another"
        second.members = Members(9, ("10.9.9.9:1",))
        first.die()
        cluster.leader = third.address
        await client.remote.put(b"a", b"2")
        third.die()
        with pytest.raises(Unavailable, match="belongs to cluster 'another'") as caught:
            await client.remote.get.within(2)(b"a")
        assert isinstance(caught.value.__cause__ and caught.value.__cause__.__cause__, WrongCluster)
        assert second.requests == []
        assert "10.9.9.9:1" not in client.addresses

    run_world(story)


def test_a_node_that_has_not_joined_does_not_settle_which_cluster_it_is() -> None:
    """Who meets a brand-new node first is not bound to "no cluster" for ever."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.nodes[0].cluster_id = ""
        cluster.nodes[0].script = lambda _: None
        cluster.leader = cluster.addresses[1]
        await client.remote.put(b"a", b"1")
        assert client.connected_to == cluster.addresses[1]

    run_world(story)


def test_a_client_that_was_told_of_nobody_waits_for_its_next_call() -> None:
    """Its nodes are too old to say who the members are: when its connection breaks, there is nothing to ask for."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        assert await client.remote.get(b"x") is None
        cluster.nodes[0].break_connections()
        await elapse(100)
        assert len(cluster.network.dialled) == 1

    run_world(story)


def test_few_are_tried_at_once() -> None:
    """A cluster of black holes, and calls that keep coming: each attempt costs a socket. An error names some."""

    async def story(cluster: FakeCluster, _client: Client[KeyValue]) -> None:
        addresses = [f"10.9.0.{number}:1" for number in range(20)]
        cluster.network.silent.update(addresses)
        options = ClientOptions(connect_timeout_s=20.0)
        client = Client(KeyValue, addresses, options=options, dial=cluster.network.dial, sessions=False)
        asked = []
        for _ in range(10):
            asked.append(asyncio.ensure_future(client.within(60.0).call("get", b"x")))
            await elapse(1)
        assert len(cluster.network.dialled) == DIALS_MAX
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(error, Unavailable) and 1 <= str(error).count("10.9.0.") <= 8 for error in ended)
        await client.close()

    run_world(story)


def test_a_node_that_greets_and_hangs_up_in_one_breath_is_left() -> None:
    """It is about to stop: the next one is asked, and nothing fails behind the caller's back."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        class Rude(FakeServer):
            def data_received(self, data: bytes) -> None:
                here = self.transport.peer.protocol
                here.data_received(encode_server_hello(ServerHello(PROTOCOL_VERSION, "cluster", 1, "")))
                self.transport.peer._lost = self.transport._lost = True
                here.connection_lost(None)

        cluster.network.listeners[cluster.addresses[0]] = lambda: Rude(cluster.nodes[0])
        cluster.leader = cluster.addresses[1]
        assert await client.remote.increment(b"n") == 1

    run_world(story)


def test_black_holes_do_not_eat_the_deadline() -> None:
    """Of many addresses only the last one answers; they are tried beside each other, so it takes no second each."""

    async def story(cluster: FakeCluster, _: Client[KeyValue]) -> None:
        many = FakeCluster([f"10.0.0.{number}:1" for number in range(1, 8)])
        many.network.silent |= set(many.addresses[:-1])
        many.leader = many.addresses[-1]
        client = make_client(many)
        await client.remote.put.within(2)(b"a", b"1")
        await client.close()

    run_world(story)


def test_members_without_a_usable_address_are_left_out() -> None:
    """No address, no port, everywhere, nonsense: nobody can be found there."""
    book = AddressBook(["seed:1"])
    useless = ("", "0.0.0.0:7001", "[::]:7001", "127.0.0.1:0", "nonsense", "x" * 400 + ":1")
    assert book.learn(Members(5, ("a:1", *useless, "[::1]:2", "a:1")))
    assert book.known == ("seed:1", "a:1", "[::1]:2")
    assert not book.learn(Members(6, useless))
    assert not book.learn(Members(6, ()))
    assert book.known == ("seed:1", "a:1", "[::1]:2")


def test_older_news_is_no_news_and_seeds_stay() -> None:
    """A node that was removed tells what it knew; those that were given at first are a last resort for ever."""
    book = AddressBook(["seed:1"])
    book.learn(Members(5, ("a:1", "b:1")))
    assert not book.learn(Members(4, ("old:1",)))
    assert book.learn(Members(6, ("b:1", "c:1")))
    assert book.known == ("seed:1", "b:1", "c:1")


def test_a_book_has_a_bound() -> None:
    """However many members somebody tells of."""
    book = AddressBook(["seed:1", "seed:2"])
    book.learn(Members(1, tuple(f"a:{port}" for port in range(1, 1000))))
    assert len(book.known) <= ADDRESSES_MAX + 1
    assert "seed:1" in book.known


def test_nobody_is_left_out_for_ever() -> None:
    """Who failed is tried after who did not; but each is tried again and again, also beside ever new members."""
    book = AddressBook(["seed:1"])
    book.learn(Members(1, ("a:1", "b:1")))
    tried: list[str] = []
    for index in range(2, 60):
        address = book.next(0.0)
        assert address is not None
        tried.append(address)
        book.in_vain(address, unreachable=True)
        book.learn(Members(index, ("a:1", "b:1", f"new:{index}")))
    assert min(tried.count(address) for address in ("a:1", "b:1", "seed:1")) >= 10
    book.found("b:1")
    assert book.next(0.0) == "b:1"


def test_all_take_turns() -> None:
    """In the order in which they were given, while none is better than another. One that failed before the leader was
    found comes after those that did not, and no more is kept of how often."""
    book = AddressBook(["a:1", "b:1", "c:1"])
    tried = []
    for _ in range(7):
        tried.append(book.next(0.0) or "")
        book.in_vain(tried[-1])
    assert tried == ["a:1", "b:1", "c:1", "a:1", "b:1", "c:1", "a:1"]
    book = AddressBook(["a:1", "b:1", "c:1"])
    for _ in range(5):
        book.in_vain("a:1")
    book.found("b:1")
    assert [book.next(0.0), book.next(0.0, ["c:1"]), book.next(0.0, ["b:1", "c:1"])] == ["b:1", "b:1", "a:1"]
    book.in_vain("b:1")
    book.in_vain("c:1")
    assert book.next(0.0) == "b:1", "all of them have failed once by now"


def test_an_older_hello_is_understood() -> None:
    """A node that doesn't tell of members is asked for none."""
    from raftkv.wire import ServerHello, decode_server_hello

    older = msgspec.msgpack.encode([1, "cluster", 1, "machine", ""])
    assert decode_server_hello(older) == ServerHello(1, "cluster", 1, "machine")
