"""Watching changes: each once and in order, from any node, through whatever happens to the cluster."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import msgspec
import pytest

from raftkv import (
    BlockingClient,
    Busy,
    Client,
    Compacted,
    Cursor,
    Events,
    History,
    InvalidArgument,
    Server,
    Set,
    StateMachine,
    Table,
    Unavailable,
    Value,
    command,
    query,
)
from raftkv.client import Watch
from raftkv.client.call import Answer
from raftkv.client.watching import Pages
from raftkv.history import Asked, Found, Recorded, lineage_of
from raftkv.machine.changes import read_change
from raftkv.node import watches
from raftkv.testing import elapse, scenario
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.settings import CONFIG
from raftkv.wire import Watching


class Sold(msgspec.Struct):
    """That something was sold."""

    sku: str


class Shop(StateMachine, history=History(count=400)):
    """Everything that can be watched, and two things that can't."""

    stock = Table(str, int, watch="old")
    plain = Table(str, int, watch=True)
    tags = Set(str, watch=True)
    sold = Events(Sold)
    dull = Table(str, int)
    total = Value(int, 0)

    @command
    def put(self, sku: str, count: int) -> None:
        """Set it."""
        self.stock[sku] = count

    @command
    def put_many(self, skus: list[str], count: int) -> None:
        """Set all of them."""
        for sku in skus:
            self.stock[sku] = count

    @command
    def put_plain(self, sku: str, count: int) -> None:
        """Set it where nobody looks."""
        self.plain[sku] = count

    @command
    def tag(self, name: str) -> None:
        """Add it."""
        self.tags.add(name)

    @command
    def sell(self, sku: str) -> None:
        """Tell of it."""
        del self.stock[sku]
        self.sold.emit(Sold(sku))

    @query
    def all(self) -> dict[str, int]:
        """What there is."""
        return dict(self.stock.items())


async def take(watch: Any, count: int, within_s: float = 60.0) -> list[tuple[Any, Any]]:
    """The keys and values of the next changes."""
    async with asyncio.timeout(within_s):
        return [(change.key, change.value) for change in [await anext(watch) for _ in range(count)]]


async def parked(cluster: SimCluster, count: int = 1) -> None:
    """Wait until so many wait at the nodes."""
    await cluster.until(lambda: sum(len(node.watches) for node in cluster.running) == count, 30, "nobody waits")


def test_each_page_is_asked_for_behind_the_one_before() -> None:
    """With the cursor that the node has given, and the cluster that it is of; no page is asked for twice."""
    asked: list[Cursor | None] = []

    async def ask(payload: bytes, deadline_s: float) -> Answer:
        asked.append(msgspec.msgpack.decode(payload, type=Watching).after)
        index = len(asked)
        change = Recorded(Cursor(index, 0), 0, b"a\0\0", msgspec.msgpack.encode(index))
        return Answer(msgspec.msgpack.encode(Found([change], Cursor.behind(index))), index)

    async def use() -> None:
        pages = Pages(ask, Asked("stock"), Cursor(0, 0), 1.0, partial(read_change, Shop.stock), lambda: "0f1e2d3c4b5a")
        watching = Watch(pages)
        changes = [await anext(watching) for _ in range(3)]
        assert [each.value for each in changes] == [1, 2, 3]
        assert [str(each.cursor) for each in changes] == [f"{index}.0@0f1e2d3c4b5a" for index in (1, 2, 3)]

    asyncio.run(use())
    assert [str(each) for each in asked] == ["0.0", "1@0f1e2d3c4b5a", "2@0f1e2d3c4b5a"]


@scenario(Shop)
async def test_each_change_is_told_once_and_in_order(cluster: SimCluster) -> None:
    """Of all rows, of some, of one; of a set, and events; with the values before, where they are kept."""
    client: Client[Shop] = cluster.client()
    everything = await client.watch(Shop.stock, old=True).begin()
    some = await client.watch(Shop.stock, prefix="a").begin()
    one = await client.watch(Shop.stock, start="ab", end="ab\0").begin()
    tags, sold = await client.watch(Shop.tags).begin(), await client.watch(Shop.sold).begin()
    waiting = asyncio.ensure_future(anext(everything))
    await parked(cluster)
    await client.call(Shop.put, "ab", 1)
    first = await waiting
    assert (first.key, first.value, first.old, first.index) == ("ab", 1, None, first.cursor.index)
    await client.call(Shop.put_many, ["b", "ac", "ab"], 2)
    await client.call(Shop.tag, "new")
    await client.call(Shop.sell, "ab")
    assert await take(everything, 4) == [("b", 2), ("ac", 2), ("ab", 2), ("ab", None)]
    assert await take(some, 4) == [("ab", 1), ("ac", 2), ("ab", 2), ("ab", None)]
    assert await take(one, 3) == [("ab", 1), ("ab", 2), ("ab", None)]
    assert await take(tags, 1) == [("new", None)]
    assert await take(sold, 1) == [(None, Sold("ab"))]
    again = client.watch(Shop.stock, first.cursor, old=True)
    assert [(await anext(again)).old for _ in range(4)] == [None, None, 1, 2]
    assert again.cursor == everything.cursor
    await client.close()


@scenario(Shop)
async def test_nothing_lies_between_what_was_read_and_what_is_watched(cluster: SimCluster) -> None:
    """A read tells at which index it was; the changes behind that are what it lacks."""
    client: Client[Shop] = cluster.client()
    for number in range(5):
        await client.call(Shop.put, f"{number}", number)
    read = await client.read(Shop.all)
    await client.call(Shop.put, "0", 7)
    watch = client.watch(Shop.stock, read.cursor)
    assert len(read.value) == 5 and await take(watch, 1) == [("0", 7)]
    late = client.watch(Shop.stock)
    waiting = asyncio.ensure_future(anext(late))
    await parked(cluster)
    await client.call(Shop.put, "0", 8)
    assert (await waiting).value == 8, "without a cursor it begins behind all that was acknowledged"
    await client.close()


@scenario(Shop)
async def test_a_watch_goes_on_through_leaders_that_die(cluster: SimCluster) -> None:
    """Each change once, in order, whatever node answers; writes go on meanwhile."""
    client: Client[Shop] = cluster.client()
    writer: Client[Shop] = cluster.client()
    watch = await client.watch(Shop.stock).begin()
    seen: list[int] = []

    async def look() -> None:
        async for change in watch:
            seen.append(change.value or 0)
            if change.value == 60:
                return

    looking = asyncio.ensure_future(look())
    for number in range(1, 61):
        await writer.call(Shop.put, "a", number)
        if number % 20 == 0:
            leader = await cluster.until_leader()
            cluster.nodes[leader.node_id].crash()
            await cluster.until_leader()
            await cluster.nodes[leader.node_id].start()
        await elapse(0.1)
    async with asyncio.timeout(60):
        await looking
    assert seen == list(range(1, 61))
    await client.close()
    await writer.close()


@scenario(Shop)
async def test_a_node_that_gets_a_snapshot_tells_what_was_in_it(cluster: SimCluster) -> None:
    """A client waits at a node that is cut off; the changes that come as a snapshot are told like any others."""
    asked_before, asked_then = await told_by_a_snapshot(cluster)
    (told,) = asked_before
    assert len(told) > 200 and told == list(range(1, len(told) + 1)), "all that is in the snapshot, from the first on"
    assert asked_then == asked_before, "so is told who asks at the moment in which the snapshot is put in place"


@scenario(Shop)
async def test_what_is_too_much_to_be_read_at_once_is_asked_for_again(cluster: SimCluster) -> None:
    """A snapshot has so many changes that the node tells its clients to ask again; they get each once."""
    far, watches.FAR = watches.FAR, 50
    try:
        asked_before, asked_then = await told_by_a_snapshot(cluster)
    finally:
        watches.FAR = far
    assert asked_before == [[]] and len(asked_then[0]) > 200


async def told_by_a_snapshot(cluster: SimCluster) -> tuple[list[list[int]], list[list[int]]]:
    """Cut a follower off with two who wait there, change much, and have it catch up.

    Returns the values in each answer to one who asked there before, and to one who asks when the snapshot is put in
    place.
    """
    leaderless_s, watches.LEADERLESS_S = watches.LEADERLESS_S, 600.0  # it keeps those who wait
    client: Client[Shop] = cluster.client()
    await client.call(Shop.put, "a", 0)
    follower = next(sim for sim in cluster.nodes.values() if cluster.leader and sim.node_id != cluster.leader.node_id)
    node = follower.node
    assert node is not None
    near: Client[Shop] = cluster.client(follower.node_id)
    watch = await near.watch(Shop.stock).begin()
    read = await client.read(Shop.all)
    asked_before, asked_then = list[list[int]](), list[list[int]]()

    def ask(answers: list[list[int]]) -> None:
        def done(index: int, result: Any) -> None:
            changes = msgspec.msgpack.decode(result, type=Found).changes
            answers.append([msgspec.msgpack.decode(each.value or b"", type=int) for each in changes])

        node.requests.watch(watches.Watching("stock", read.cursor), done, 600.0, lambda: False)

    def resume_and_ask(runner: Any) -> None:
        resume(runner)
        ask(asked_then)

    resume, node.applier.resume = node.applier.resume, resume_and_ask  # type: ignore[method-assign]
    for other in cluster.nodes:
        if other != follower.node_id:
            cluster.network.cut(follower.node_id, other)
    ask(asked_before)
    await elapse(0.5)
    try:
        for number in range(1, 300):
            await client.call(Shop.put, "a", number)
        await elapse(5.0)
        assert not asked_before
        cluster.network.heal()
        await cluster.until_equal()
        await elapse(0.5)
    finally:
        watches.LEADERLESS_S = leaderless_s
    assert await take(watch, 299) == [("a", number) for number in range(1, 300)]
    await near.close()
    await client.close()
    return asked_before, asked_then


@scenario(Shop)
async def test_who_was_away_for_too_long_is_told_so(cluster: SimCluster) -> None:
    """Changes that are not kept any more are not passed over in silence; a watch does not begin anew by itself."""
    client: Client[Shop] = cluster.client()
    await client.call(Shop.put, "a", 0)
    watch = await client.watch(Shop.stock).begin()
    for number in range(500):
        await client.call(Shop.put_plain, "x", number)
    await client.call(Shop.put, "a", 1)
    with pytest.raises(Compacted) as gone:
        await anext(watch)
    assert gone.value.oldest.lineage == lineage_of(cluster.running[0].cluster_id)
    assert await take(client.watch(Shop.stock, gone.value.oldest), 1) == [("a", 1)]
    with pytest.raises(Compacted):
        await anext(watch)
    await client.close()


@scenario(Shop)
async def test_a_watcher_of_what_seldom_changes_is_not_left_behind(cluster: SimCluster) -> None:
    """While it waits, others change more than is kept: it has heard of all that it asked for, and goes on."""
    client: Client[Shop] = cluster.client()
    watch = await client.watch(Shop.stock, prefix="b").begin()
    waiting = asyncio.ensure_future(anext(watch))
    await parked(cluster)
    for number in range(500):
        await client.call(Shop.put, "a", number)
        if number % 100 == 0:
            await elapse(15.0)
    await client.call(Shop.put, "b", 1)
    assert (await waiting).key == "b"
    await client.close()


@scenario(Shop)
async def test_what_can_not_be_watched_is_refused(cluster: SimCluster) -> None:
    """By the client, as far as the class says; by the node, as far as the active version does."""
    client: Client[Shop] = cluster.client()
    wrong: Any
    for wrong in (Shop.total, Shop.put, "stock", None):
        with pytest.raises(InvalidArgument, match="is no table, set or stream of events of Shop"):
            client.watch(wrong)
    with pytest.raises(InvalidArgument, match="events have no keys"):
        client.watch(Shop.sold, prefix="a")  # type: ignore[call-overload]
    with pytest.raises(InvalidArgument, match="dull"):
        await anext(client.watch(Shop.dull))
    watch = await client.watch(Shop.plain).begin()
    waiting = asyncio.ensure_future(anext(watch))
    await parked(cluster)
    for after in (None, watch.cursor):
        with pytest.raises(InvalidArgument, match="no old values of plain are kept"):
            await take(client.watch(Shop.plain, after, old=True), 1)
    await client.call(Shop.put_plain, "x", 1)
    assert (await waiting).value == 1, "it is none of the others' business"
    await client.close()


@scenario(Shop)
async def test_a_cursor_says_of_which_cluster_it_is(cluster: SimCluster) -> None:
    """That of a change, of a watch, and of a read, whether it was linearizable or not."""
    client: Client[Shop] = cluster.client()
    watch = await client.watch(Shop.stock).begin()
    began = watch.cursor
    await client.call(Shop.put, "a", 0)
    change = await anext(watch)
    linearizable, stale = await client.read(Shop.all), await client.stale(Shop.all)
    assert began is not None and watch.cursor is not None
    for cursor in (began, watch.cursor, change.cursor, linearizable.cursor, stale.cursor):
        assert cursor.lineage == lineage_of(cluster.running[0].cluster_id)
    await client.close()


@scenario(Shop)
async def test_a_client_may_know_more_than_the_node_that_it_asks(cluster: SimCluster) -> None:
    """The node lets it wait until it has caught up, and tells it nothing twice."""
    client: Client[Shop] = cluster.client()
    await client.call(Shop.put, "a", 0)
    leader = cluster.leader
    assert leader is not None
    await cluster.until_equal()
    node = next(each for each in cluster.running if each is not leader)
    heard: list[Any] = []
    cluster.network.cut(leader.node_id, node.node_id)
    for number in (1, 2):
        await client.call(Shop.put, "a", number)
    ahead = Cursor.behind(leader.applier.applied_index, lineage_of(leader.cluster_id))
    assert node.applier.applied_index < ahead.index
    node.requests.watch(watches.Watching("stock", ahead), lambda _, result: heard.append(result), 60.0, lambda: False)
    await elapse(1.0)
    cluster.network.heal()
    await cluster.until_equal()
    await elapse(1.0)
    assert heard == []
    await client.call(Shop.put, "a", 3)
    await cluster.until(lambda: bool(heard), 5)
    found = msgspec.msgpack.decode(heard[0], type=watches.Found)
    assert [each.value for each in found.changes] == [b"\x03"]
    await client.close()


@scenario(Shop)
async def test_many_who_watch_the_same_are_read_for_once(cluster: SimCluster) -> None:
    """Five hundred clients get each change, and the history is read some times, not some hundred times."""
    client: Client[Shop] = cluster.client()
    watching = [await client.watch(Shop.stock).begin() for _ in range(500)]
    first = [asyncio.ensure_future(anext(watch)) for watch in watching]
    await parked(cluster, 500)
    leader = cluster.leader
    assert leader is not None
    runner, reads = leader.applier.runner, 0
    changes = runner.changes

    def counted(*args: Any) -> Any:
        nonlocal reads
        reads += 1
        return changes(*args)

    runner.changes = counted  # type: ignore[method-assign]
    for number in range(5):
        await client.call(Shop.put, "a", number)
        assert [(await task).value for task in first] == [number] * 500
        first = [asyncio.ensure_future(anext(watch)) for watch in watching]
        await parked(cluster, 500)
    assert reads < 25
    await client.close()
    for task in first:
        with pytest.raises(Unavailable):
            await task


@scenario(Shop)
async def test_who_is_far_behind_is_read_for_beside_the_loop(cluster: SimCluster) -> None:
    """Once for all that ask the same."""
    client: Client[Shop] = cluster.client()
    watch = await client.watch(Shop.stock).begin()
    begun = cluster.leader.scans.begun if cluster.leader else 0
    for number in range(300):
        await client.call(Shop.put, "a", number)
    found = await asyncio.gather(*(take(client.watch(Shop.stock, watch.cursor), 300) for _ in range(20)))
    assert found == [[("a", number) for number in range(300)]] * 20
    assert cluster.leader is not None and 1 <= cluster.leader.scans.begun - begun <= 3
    await client.close()


@scenario(Shop)
async def test_a_node_that_hears_no_leader_sends_its_watchers_on(cluster: SimCluster) -> None:
    """It would wait in vain with them; they go on at a node that hears one."""
    client: Client[Shop] = cluster.client()
    await client.call(Shop.put, "a", 0)
    follower = next(sim for sim in cluster.nodes.values() if cluster.leader and sim.node_id != cluster.leader.node_id)
    near: Client[Shop] = cluster.client(follower.node_id)
    watch = await near.watch(Shop.stock).begin()
    waiting = asyncio.ensure_future(anext(watch))
    await cluster.until(lambda: follower.node is not None and len(follower.node.watches) == 1, 5)
    for other in cluster.nodes:
        if other != follower.node_id:
            cluster.network.cut(follower.node_id, other)
    await client.call(Shop.put, "a", 1)
    async with asyncio.timeout(15):
        assert (await waiting).value == 1
    cluster.network.heal()
    await near.close()
    await client.close()


@scenario(Shop, config=msgspec.structs.replace(CONFIG, polls_max=2))
async def test_only_so_many_watch_at_one_node(cluster: SimCluster) -> None:
    """One more is told that it is busy, when it has been so for half a minute."""
    client: Client[Shop] = cluster.client()
    watching = [asyncio.ensure_future(anext(await client.watch(Shop.stock).begin())) for _ in range(2)]
    await parked(cluster, 2)
    with pytest.raises(Busy, match="polls_max"):
        await anext(client.watch(Shop.stock, Cursor(0, 0)))
    await client.call(Shop.put, "a", 1)
    assert [(await task).value for task in watching] == [1, 1]
    await client.close()


def test_a_blocking_client_watches_too(tmp_path: Any) -> None:
    """As an iterator, which goes on behind a cursor as well."""

    async def serve() -> None:
        async with Server(Shop, data_dir=tmp_path / "n1") as server:
            await asyncio.to_thread(use, server.address)

    def use(address: str) -> None:
        client = BlockingClient(Shop, [address])
        watch = client.watch(Shop.stock).begin()
        for number in range(3):
            client.call(Shop.put, "a", number)
        assert [next(watch).value for _ in range(3)] == [0, 1, 2]
        for change in client.watch(Shop.stock, watch.cursor and Cursor(0, 0)):
            assert (change.key, change.value) == ("a", 0)
            break
        client.close()
        with pytest.raises(Unavailable):
            next(watch)

    asyncio.run(serve())


def test_a_change_that_the_class_can_not_read_is_refused_in_its_place_and_no_other_is_told_twice() -> None:
    """Those before it come once, and it is refused each time; who knows its cursor may go on behind it."""

    async def ask(payload: bytes, deadline_s: float) -> Answer:
        after = msgspec.msgpack.decode(payload, type=Watching).after or Cursor(0, 0)
        values = [1, 2, "of a later version", 4]
        changes = [Recorded(Cursor(5, at), 0, b"a\0\0", msgspec.msgpack.encode(each)) for at, each in enumerate(values)]
        behind = [change for change in changes if change.cursor > after]
        return Answer(msgspec.msgpack.encode(Found(behind, Cursor.behind(5))), 5)

    async def use() -> None:
        def watch(after: Cursor) -> Watch[Any, Any]:
            read = partial(read_change, Shop.stock)
            return Watch(Pages(ask, Asked("stock"), after, 1.0, read, lambda: ""))

        watching = watch(Cursor(0, 0))
        assert [(await anext(watching)).value for _ in range(2)] == [1, 2]
        for _ in range(2):
            with pytest.raises(InvalidArgument, match=r"stock at 5\.2 is of another type .* another version"):
                await anext(watching)
            assert watching.cursor == Cursor(5, 1)
        assert (await anext(watch(Cursor(5, 2)))).value == 4

    asyncio.run(use())
