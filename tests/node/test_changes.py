"""What went wrong when an application changed: each as a story on three nodes, with what comes of it now (F76).

Two more are told elsewhere: replicas that all differ stop (`test_agreement`), and a command that raises whatever it
may is the command's, or stops nobody for good (`test_poison`).
"""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from raftkv.errors import NotActive, SchemaChanged
from raftkv.machine import LocalMachine, StateMachine, Table, command, query
from raftkv.testing import elapse, scenario
from tests.node.shops import (
    Shop1,
    Shop2,
    active,
    called,
    commands_in_log,
    lead,
    run,
    until_active,
)
from tests.node.steps import follower_of


class Load:
    """One client that calls without a pause until the story says that it is over; every call must succeed."""

    def __init__(self, call):
        self._call = call
        self._is_over = False
        self.calls = 0
        self._task = asyncio.ensure_future(self._go_on())

    async def _go_on(self):
        while not self._is_over:
            await self._call(self.calls)
            self.calls += 1

    async def end(self):
        """Raises what a call has raised."""
        self._is_over = True
        await self._task


@called("Shop")
class Unversioned(Shop1):
    """A field more, and no other version."""

    stock = Table(str, msgspec.defstruct("Item", [("count", int), ("tags", list[str], [])]))

    @command
    def put(self, name: str, count: int) -> int:
        """The same."""
        self.stock[name] = Unversioned.stock.types[1](count)
        return sum(1 for _ in self.stock)


def test_two_versions_make_one_digest_of_the_same_calls():
    """Though the class of the later one would store a field more, and does as soon as its version is active."""
    old, new = LocalMachine(Shop1, version=1), LocalMachine(Shop2, version=1, begun_by=Shop1)
    for local in (old, new):
        for number in range(5):
            local.put(f"k{number % 3}", number)
    assert old.digest == new.digest
    new.upgrade()
    later = LocalMachine(Shop2, version=2)
    assert later.put("a", 1) == 1
    assert (new.put("a", 1), new.tags("a")) == (4, [])


@scenario(Shop1, seed=1)
async def test_a_field_with_a_default_comes_under_load_and_states_stay_equal(cluster):
    """One node after the other gets the class that has it, and goes back once; nobody differs, nobody stops."""
    load = Load(lambda number: cluster.client(machine=Shop1).remote.put(f"k{number % 9}", number))
    for machine, node_ids in ((Shop2, (1, 2)), (Shop1, (2,)), (Shop2, (2,))):
        for node_id in node_ids:
            sim = cluster.nodes[node_id]
            await sim.stop()
            sim.machine = machine
            await sim.start()
            await elapse(2)
            assert active(cluster) == [1, 1, 1]
    await load.end()
    assert load.calls > 50
    await cluster.until_equal()
    await run(cluster, Shop2, 3)
    await until_active(cluster, 2)
    load = Load(lambda number: cluster.client(machine=Shop1).remote.put(f"k{number % 9}", number))
    await elapse(2)
    await load.end()
    await cluster.until_equal()


@scenario(Shop1, seed=1)
async def test_a_field_more_needs_another_version(cluster):
    """Else the node does not start, nothing has changed on its disk, and the others go on."""
    client = cluster.client(machine=Shop1)
    await client.remote.put("a", 1)
    sim = follower_of(cluster)
    await cluster.until_equal()
    await refused(
        sim, Unversioned, "table stock, field Item.tags: was not there, is list[str]: raise the class's version"
    )
    await client.remote.put("a", 2)
    await run(cluster, Shop1, sim.node_id)
    assert await client.remote.all() == {"a": 2}


async def refused(sim, machine, words):
    """A node with that class does not start, with these words."""
    if sim.is_up:
        await sim.node.orders.take_snapshot()
        await sim.stop()
    sim.machine = machine
    with pytest.raises(SchemaChanged) as found:
        await sim.start()
    assert words in str(found.value)


@scenario(Shop1, seed=1)
async def test_an_early_call_takes_no_node_with_it(cluster):
    """The leader has a command that its followers lack. It refuses the call, and its status has said why before."""
    await run(cluster, Shop2, 1)
    leader = await lead(cluster, 1)
    problems = " ".join(leader.status().problems())
    assert "version 2 of the application is not active yet: node 2 runs version 1, node 3 runs version 1" in problems
    new = cluster.client(machine=Shop2)
    for _ in range(3):
        with pytest.raises(NotActive, match=r"nothing was done.*node 2 runs version 1, node 3 runs version 1"):
            await new.remote.order("b", 1)
    await elapse(3)
    assert [node.failure for node in cluster.running] == [None] * 3
    assert await new.remote.put("a", 1) == 1
    await cluster.until_equal()
    assert not any("order" in names for names in commands_in_log(cluster).values())


@scenario(Shop1, seed=1)
async def test_an_optional_argument_is_understood_both_ways(cluster):
    """By clients of before at later nodes, by later clients at nodes of before, and in entries that are replayed."""
    old, new = cluster.client(machine=Shop1), cluster.client(machine=Shop2)
    assert await new.remote.put("a", 1) == 1
    assert await new.remote.put("b", 1, "") == 2
    await run(cluster, Shop2, 1, 2)
    for leader in (1, 3):
        await lead(cluster, leader)
        assert await old.remote.put("a", 2) == 2
        assert await new.remote.put("b", 2) == 2
        with pytest.raises(NotActive, match="nothing was done"):
            await new.remote.put("b", 2, "red")
    await run(cluster, Shop2, 3)
    await until_active(cluster, 2)
    assert await new.remote.put("b", 3, "red") == 2
    assert await old.remote.put("b", 3) == 2
    for sim in cluster.nodes.values():
        sim.crash()
    await cluster.start()  # on what the disks hold: the whole log is applied again
    await until_active(cluster, 2)
    sim = cluster.add(4)
    sim.machine = Shop2
    await cluster.leader.orders.add_learner(sim.member, 10)
    await sim.start()
    await cluster.until_equal()
    assert sim.node.snapshots.installed == 0
    assert await old.remote.all() == {"a": 2, "b": 8}
    assert await new.remote.tags("b") == ["red"]


def ledger(version=1, key=str, item=None):
    """A class with such keys and records; `item` has one field that is required, the first."""
    item = item or msgspec.defstruct("Item", [("n", int), ("note", str, "")])

    class Ledger(StateMachine):
        """Keeps numbers."""

        kept = Table(key, item)

        @command
        def put(self, name: str, n: int) -> int:
            """Keep it."""
            self.kept[key(name)] = item(n)
            return n

        @query
        def all(self) -> dict[str, int]:
            """All of them."""
            return {str(name): msgspec.structs.astuple(row)[0] for name, row in self.kept.items()}

    Ledger.version = version
    return Ledger


LEDGER = ledger()


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": int}, "table kept, key: was str, is int"),
        ({"item": msgspec.defstruct("Item", [("m", int), ("note", str, "")])}, "field Item.n: was int, is gone"),
        ({"item": msgspec.defstruct("Item", [("n", int)])}, "field Item.note: was str, is gone"),
        ({"item": msgspec.defstruct("Item", [("n", str), ("note", str, "")])}, "field Item.n: was int, is str"),
    ],
    ids=["key", "renamed", "removed", "type"],
)
@scenario(LEDGER, seed=1)
async def test_a_change_that_would_lose_data_is_refused_before_it_runs(cluster, changes, words, version):
    """Under the same version as under a later one: by the node's own state, and by the others while it has none."""
    client = cluster.client(machine=LEDGER)
    for number in range(5):
        await client.remote.put(str(number), number)
    sim = follower_of(cluster)
    await cluster.until_equal()
    changed = ledger(version, **changes)
    await refused(sim, changed, words)
    new = cluster.add(4)
    new.machine = changed
    await cluster.leader.orders.add_learner(new.member, 5)
    await new.start()

    def told():
        problems = [text for node in cluster.running for text in node.status().problems()]
        return [text for text in problems if (words if version == 2 else "run different code under one ver") in text]

    await cluster.until(told, 20, "what differs")
    assert new.node.raft.commit_index == 0
    await client.remote.put("5", 5)
    for each in (sim, new):
        if each.is_up:
            await each.stop()
        each.machine = LEDGER
        await each.start()
    await cluster.until_equal()
    assert await client.remote.all() == {str(number): number for number in range(6)}
    assert [node.failure for node in cluster.running] == [None] * 4
