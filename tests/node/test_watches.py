"""How a node tells those who wait for changes: nothing twice, nothing left out, whatever it has read for others."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import msgspec
import pytest

from raftkv import Cursor, History, InvalidArgument, NotLeader, StateMachine, Table, Unavailable, command, query
from raftkv.history import Asked, Found, Recorded, lineage_of
from raftkv.machine import NO_SESSION
from raftkv.node import watches
from raftkv.node.watches import Watching
from raftkv.testing import elapse, scenario
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.settings import CONFIG
from tests.node.shops import called, lead, run, until_active


class Rows(StateMachine, history=History(count=100_000)):
    """Rows that are set."""

    rows = Table(int, int, watch=True)

    @command
    def put(self, key: int, value: int) -> None:
        """Set it."""
        self.rows[key] = value

    @query
    def value(self, key: int) -> int | None:
        """What it is."""
        return self.rows.get(key)


class Reader:
    """A client of a node's own: asks again and again, sometimes late, and keeps what it was told."""

    def __init__(self, node: Any, dice: random.Random, after: Cursor, key: int | None) -> None:
        self.node, self.dice, self.after, self.key = node, dice, after, key
        self.got: list[int] = []
        self.answers = 0
        self.waiting: Any = None

    def ask(self) -> None:
        """Wait for the next changes."""
        rows = Rows.rows
        start = b"" if self.key is None else rows.keys.encode(self.key)
        end = None if self.key is None else start + b"\0"
        asked = Watching("rows", self.after, start, end)
        self.waiting = self.node.requests.watch(asked, self.done, self.dice.choice([0.3, 5.0]), lambda: False)

    def done(self, index: int, result: Any) -> None:
        """Take what was told."""
        found = msgspec.msgpack.decode(result, type=Found)
        assert found.after >= self.after
        self.answers += 1
        self.got += [msgspec.msgpack.decode(each.value) for each in found.changes if each.value is not None]
        self.after, self.waiting = found.after, None


@scenario(Rows)
async def test_readers_of_all_sorts_get_every_change_once(cluster: SimCluster) -> None:
    """Forty of them at all nodes, of all rows or of one, who come back at once or late, while rows change in bursts."""
    dice = random.Random(3)
    client = cluster.client()
    await client.call(Rows.put, 9, 0)
    await cluster.until_equal()
    begin = Cursor.behind(cluster.running[0].applier.applied_index)
    readers = [Reader(cluster.running[at % 3], dice, begin, None if at % 2 else dice.randrange(4)) for at in range(40)]
    for each in readers:
        each.ask()
    values: list[tuple[int, int]] = []
    for value in range(1, 200):
        key = dice.randrange(4)
        await client.call(Rows.put, key, value)
        values.append((key, value))
        if dice.random() < 0.3:
            await elapse(dice.choice([0.02, 0.4]))
        for each in readers:
            if each.waiting is None and dice.random() < 0.5:
                each.ask()
    for _ in range(4):
        for each in readers:
            if each.waiting is None:
                each.ask()
        await elapse(6.0)
    for each in readers:
        assert each.got == [value for key, value in values if each.key in (None, key)]
    assert sum(each.answers for each in readers) > 400
    await client.close()


@scenario(Rows)
async def test_who_knows_what_was_applied_just_now_is_not_told_of_it(cluster: SimCluster) -> None:
    """A client asks behind its own change as soon as that is answered, before the others have been told of it."""
    client = cluster.client()
    await client.call(Rows.put, 1, 0)
    leader = await cluster.until_leader()
    others, own = (Reader(leader, random.Random(1), Cursor.behind(leader.applier.applied_index), 1) for _ in range(2))
    others.ask()
    await elapse(0.1)

    def done(index: int, result: Any) -> None:
        own.after = Cursor.behind(index)
        own.ask()

    put = Rows.methods["put"]
    leader.requests.submit(put.command_payload(NO_SESSION, 0, 0, put.encode_args((1, 7), {})), done)
    await elapse(0.1)
    await client.call(Rows.put, 1, 8)
    await elapse(0.1)
    assert (others.got, own.got) == ([7], [8])
    await client.close()


@scenario(Rows)
async def test_who_is_not_told_in_time_where_to_begin_does_not_begin_long_ago(
    cluster: SimCluster,
) -> None:
    """A node that can't reach its leader knows no place; the client asks another one."""
    client = cluster.client()
    await client.call(Rows.put, 1, 0)
    await cluster.until_equal()
    leader = await cluster.until_leader()
    node = next(each for each in cluster.running if each is not leader)
    for other in cluster.nodes:
        if other != node.node_id:
            cluster.network.cut(node.node_id, other)
    heard: list[Any] = []
    node.requests.watch(Watching("rows", None), lambda _, result: heard.append(result), 0.05, lambda: False)
    await cluster.until(lambda: bool(heard), 5)
    assert isinstance(heard[0], Unavailable)
    await client.close()


@scenario(Rows)
async def test_a_learner_that_is_cut_off_sends_its_clients_elsewhere(cluster: SimCluster) -> None:
    """It never campaigns, so it is not by an election that it knows of no leader any more; and they would wait for as
    long as it is there."""
    client = cluster.client()
    await client.call(Rows.put, 1, 0)
    leader = await cluster.until_leader()
    sim = cluster.add(4)
    await sim.start()
    await leader.orders.add_learner(sim.member, 10)
    await cluster.until_equal()
    learner = sim.node
    assert learner is not None
    heard: list[Any] = []
    begin = Cursor.behind(leader.applier.applied_index, lineage_of(learner.cluster_id))
    learner.requests.watch(Watching("rows", begin), lambda _, result: heard.append(result), 600.0, lambda: False)
    for other in cluster.nodes:
        if other != sim.node_id:
            cluster.network.cut(sim.node_id, other)
    await cluster.until(lambda: bool(heard), watches.LEADERLESS_S + 3)
    assert isinstance(heard[0], Unavailable) and "has not heard of a leader" in str(heard[0])
    await client.close()


@scenario(Rows)
async def test_a_node_that_hears_a_leader_again_lets_clients_wait_again(cluster: SimCluster) -> None:
    """As long as it hears none it refuses them at once, and keeps nothing of them."""
    client = cluster.client()
    await client.call(Rows.put, 1, 0)
    leader = await cluster.until_leader()
    node = next(each for each in cluster.running if each is not leader)
    for other in cluster.nodes:
        if other != node.node_id:
            cluster.network.cut(node.node_id, other)
    await elapse(watches.LEADERLESS_S + 3)
    begin, heard = Cursor.behind(leader.applier.applied_index), list[Any]()
    value = Rows.methods["value"]
    payload = value.query_payload(value.encode_args((1,), {}))
    with pytest.raises(Unavailable, match="has not heard of a leader for a while"):
        node.requests.watch(Watching("rows", begin), lambda _, result: heard.append(result), 600.0, lambda: False)
    with pytest.raises(NotLeader):
        node.requests.poll(payload, None, lambda _, result: heard.append(result), 600.0, lambda: False)
    assert (len(node.watches), len(node.polls)) == (0, 0)
    cluster.network.heal()
    await cluster.until(lambda: node.raft.leader is not None, 20)
    await cluster.until_equal()
    await elapse(1.0)
    node.requests.watch(Watching("rows", begin), lambda _, result: heard.append(result), 600.0, lambda: False)
    await elapse(watches.FOLLOWED_S + 2)  # it is not forgotten for how long it waits
    await client.call(Rows.put, 1, 7)
    await cluster.until(lambda: bool(heard), 5)
    (change,) = msgspec.msgpack.decode(heard[0], type=Found).changes
    assert change.value == b"\x07"
    await client.close()


@scenario(Rows)
async def test_a_cursor_of_another_cluster_is_refused_and_one_that_a_node_has_not_reached_is_not(
    cluster: SimCluster,
) -> None:
    """No entry of this cluster has it, as the leader can tell; a node that is behind, or cut off, waits."""
    client = cluster.client()
    await client.call(Rows.put, 1, 0)
    await cluster.until_equal()
    leader = await cluster.until_leader()
    index = leader.applier.applied_index
    heard: dict[str, Any] = {}

    def ask(name: str, node: Any, after: Cursor, wait_s: float = 600.0) -> None:
        node.requests.watch(
            Watching("rows", after), lambda _, result: heard.update({name: result}), wait_s, lambda: False
        )

    for node in cluster.running:
        ask(f"foreign at {node.node_id}", node, Cursor(index + 1_000, 0))
    await cluster.until(lambda: len(heard) == 3, 5)
    for said in heard.values():
        assert isinstance(said, InvalidArgument)
        assert f"the cursor {index + 1_000}.0 is of an entry that this cluster does not have" in str(said)
    heard.clear()
    follower = next(node for node in cluster.running if node is not leader)
    cluster.network.cut(leader.node_id, follower.node_id)
    for value in range(5):
        await client.call(Rows.put, 1, value)
    ask("ahead", follower, Cursor.behind(leader.applier.applied_index))
    ask("foreign", follower, Cursor(index + 1_000, 0))
    await elapse(2.0)
    assert not heard
    cluster.network.heal()
    await cluster.until(lambda: "foreign" in heard, 20)
    await cluster.until_equal()
    assert isinstance(heard.pop("foreign"), InvalidArgument)
    await elapse(1.0)
    assert not heard
    await client.call(Rows.put, 1, 9)
    await cluster.until(lambda: "ahead" in heard, 5)
    (change,) = msgspec.msgpack.decode(heard["ahead"], type=Found).changes
    assert change.value == b"\x09"
    await client.close()


@scenario(Rows)
async def test_a_node_that_applies_late_refuses_nobody_who_knows_more(cluster: SimCluster) -> None:
    """The leader has told it how far the log goes before it has got there itself."""
    client = cluster.client()
    await client.call(Rows.put, 1, 0)
    await cluster.until_equal()
    leader = await cluster.until_leader()
    node = next(each for each in cluster.running if each is not leader)
    node.applier.hold()
    for value in range(5):
        await client.call(Rows.put, 1, value)
    index, heard, own = leader.applier.applied_index, list[Any](), lineage_of(node.cluster_id)
    assert node.applier.applied_index < index
    for after in (Cursor(index, 0, own), Cursor.behind(index, own), Cursor(index + 1, 0, own)):
        node.requests.watch(Watching("rows", after), lambda _, result: heard.append(result), 600.0, lambda: False)
    await elapse(1.0)
    assert not heard
    node.applier.release()
    await cluster.until_equal()
    await elapse(1.0)
    (refused,) = heard
    assert isinstance(refused, InvalidArgument)
    assert f"the cursor {index + 1}.0 is of an entry" in str(refused)
    await client.call(Rows.put, 1, 9)
    await cluster.until(lambda: len(heard) == 3, 5)
    for told in heard[1:]:
        (change,) = msgspec.msgpack.decode(told, type=Found).changes
        assert change.value == b"\x09"
    await client.close()


@called("Rows")
class Many(StateMachine):
    """Many rows change in one command."""

    rows = Table(int, int, watch=True)

    @command
    def put_all(self, count: int, value: int) -> None:
        """Set them."""
        for key in range(count):
            self.rows[key] = value


@scenario(Many)
async def test_many_changes_are_read_on_in_several_turns_of_the_loop(cluster: SimCluster) -> None:
    """A page in each, with other things between them; who waits, and who comes meanwhile, hears of each change once."""
    kept, watches.CHANGES_MAX = watches.CHANGES_MAX, 10
    try:
        await read_in_turns(cluster)
    finally:
        watches.CHANGES_MAX = kept


async def read_in_turns(cluster: SimCluster) -> None:
    """Change five hundred rows, and count what is read of them in each turn."""
    client = cluster.client()
    await client.call(Many.put_all, 1, 0)
    node = await cluster.until_leader()
    begin = Cursor.behind(node.applier.applied_index)
    early, late, far = (Reader(node, random.Random(1), begin, None) for _ in range(3))
    early.ask()
    await elapse(0.1)
    turn, pages, told_late = 0, Counter[int](), list[int]()
    runner, loop = node.applier.runner, asyncio.get_running_loop()
    read = runner.changes

    def changes(asked: Any, *bounds: Any) -> Found:
        if not pages:
            loop.call_soon(count_turns)
        pages[turn] += 1
        if pages.total() == 5:
            late.after = asked.after  # as if another node had told it so much, or much more
            late.ask()
            far.after = Cursor(begin.index + 1, 299)
            far.ask()
        return read(asked, *bounds)

    def count_turns() -> None:
        nonlocal turn
        turn += 1
        if late.got and not told_late:
            told_late.append(turn)
        if turn < 200:
            loop.call_soon(count_turns)

    runner.changes = changes  # type: ignore[method-assign]
    await client.call(Many.put_all, 500, 7)
    runner.changes = read  # type: ignore[method-assign]
    assert turn == 200
    assert late.got == far.got == 10 * [7]
    assert told_late[0] < 20, "it need not wait until all was looked at"
    assert sum(pages.values()) >= 50
    assert max(pages.values()) <= 3, "one as it goes on, and one for each who asks"
    for reader in (early, late, far):
        for _ in range(60):
            if reader.waiting is None:
                reader.ask()
            await elapse(0.01)
    assert early.got == 500 * [7]
    assert late.got == (500 - 4 * 10) * [7]
    assert far.got == 200 * [7]
    for reader in (early, late, far):
        if reader.waiting is not None:
            reader.waiting.cancel()
    await client.close()


@called("Rows")
class Watched(StateMachine):
    """Two tables are watched, one with old values."""

    rows = Table(int, int, watch=True)
    others = Table(int, int, watch="old")

    @command
    def put(self, key: int, value: int) -> None:
        """Set it in both."""
        self.rows[key] = self.others[key] = value


@scenario(Watched)
async def test_only_who_wants_the_values_before_gets_them(cluster: SimCluster) -> None:
    """Though one reading is for all who wait."""
    client = cluster.client(machine=Watched)
    await client.call(Watched.put, 1, 5)
    leader = await cluster.until_leader()
    begin = Cursor.behind(leader.applier.applied_index)
    heard: dict[bool, Any] = {}
    for old in (True, False):
        asked = Watching("others", begin, old=old)
        leader.requests.watch(asked, lambda _, result, old=old: heard.update({old: result}), 600.0, lambda: False)
    await client.call(Watched.put, 1, 6)
    await cluster.until(lambda: len(heard) == 2, 5)
    found = {old: msgspec.msgpack.decode(result, type=Found).changes for old, result in heard.items()}
    assert {old: [each.old for each in changes] for old, changes in found.items()} == {True: [b"\x05"], False: [None]}
    await client.close()


@scenario(Rows)
async def test_those_who_are_far_behind_are_read_for_once_and_at_once(cluster: SimCluster) -> None:
    """Beside the loop; two who ask the same have the answer of one reading, and one who asks otherwise has its own."""
    client = cluster.client()
    near, watches.NEAR = watches.NEAR, 5
    for value in range(15):
        await client.call(Rows.put, 1, value)
    leader = await cluster.until_leader()
    runner, reads = leader.applier.runner, list[Any]()
    read = runner.changes

    def changes(asked: Any, *bounds: Any) -> Found:
        reads.append(asked.start)
        return read(asked, *bounds)

    runner.changes = changes  # type: ignore[method-assign]
    heard: list[int] = []
    for start in (b"", b"", b"\x00"):
        leader.requests.watch(
            Watching("rows", Cursor(1, 0), start),
            lambda _, result: heard.append(len(msgspec.msgpack.decode(result, type=Found).changes)),
            600.0,
            lambda: False,
        )
    await elapse(0.5)
    watches.NEAR = near
    runner.changes = read  # type: ignore[method-assign]
    assert heard == 3 * [15]
    assert reads == [b"", b"\x00"]
    await client.close()


def test_an_answer_is_kept_for_others_until_something_changes() -> None:
    """And no more of them than there is room for."""
    source = watches.Source("rows", Cursor(1, 0))
    asked = Asked("rows", Cursor(1, 0))
    source.keep(asked, b"page")
    assert source.page(asked) == b"page"
    source.changed(Cursor(2, 0))
    assert source.page(asked) is None
    for index in range(3):
        source.keep(Asked("rows", Cursor(index, 0)), bytes(watches.PAGES_BYTES_MAX // 2 + 1))
    assert [source.page(Asked("rows", Cursor(index, 0))) is None for index in range(3)] == [True, True, False]


def test_nothing_is_kept_of_a_group_that_all_have_left() -> None:
    """Of those who waited for one row, and of those who waited for all: changes are not collected for nobody."""
    source = watches.Source("rows", Cursor(1, 0))
    asked = [
        Asked("rows", Cursor(1, 0), b"a", end, old) for end, old in ((b"a\0", True), (b"a\0", False), (None, False))
    ]
    groups = [source.group(each) for each in asked]
    assert source.sort_in([Recorded(Cursor(2, 0), 0, b"a", b"\x01")]) == groups
    for at, group in enumerate(groups, 1):
        source.drop(group)
        assert source.sort_in([Recorded(Cursor(2, at), 0, b"a", b"\x01")]) == groups[at:]
    assert not (source.groups or source.rows or source.ranges)


@called("Rows")
class Unwatched(Watched):
    """One is not watched any more, and of the other no old values are kept."""

    version = 2
    rows = Table(int, int)
    others = Table(int, int, watch=True)


@scenario(Watched, config=msgspec.structs.replace(CONFIG, auto_upgrade=False))
async def test_who_waits_for_what_a_new_version_does_not_record_is_told_so(cluster: SimCluster) -> None:
    """It would wait for ever; who waits for what is recorded still is told of it as before."""
    client = cluster.client(machine=Watched)
    await client.call(Watched.put, 1, 0)
    await run(cluster, Unwatched)
    leader = await lead(cluster, 1)
    await cluster.until_equal()
    begin = Cursor.behind(leader.applier.applied_index)
    heard: dict[str, Any] = {}

    def ask(name: str, asked: Watching) -> None:
        leader.requests.watch(asked, lambda _, result: heard.update({name: result}), 600.0, lambda: False)

    ask("rows", Watching("rows", begin))
    ask("others with old values", Watching("others", begin, old=True))
    ask("others", Watching("others", begin))
    await elapse(1.0)
    assert not heard
    await leader.upgrades.upgrade(2, 5)
    await until_active(cluster, 2)
    for name, asked in (("rows", "rows"), ("others", "others"), ("others with old values", "others")):
        while isinstance(heard.get(name), bytes):
            found = msgspec.msgpack.decode(heard.pop(name), type=Found)
            assert found.changes == []
            ask(name, Watching(asked, found.after, old=name.endswith("values")))
            await elapse(0.5)
    for name in ("rows", "others with old values"):
        assert isinstance(heard[name], InvalidArgument)
    assert "others" not in heard
    await client.call(Watched.put, 1, 7)
    await cluster.until(lambda: "others" in heard, 5)
    (change,) = msgspec.msgpack.decode(heard["others"], type=Found).changes
    assert change.value == b"\x07"
    await client.close()
