"""Clusters whose nodes run classes of different versions: what is active when, and what is refused until then."""

from __future__ import annotations

import asyncio
import contextlib
import re

import msgspec
import pytest

from raftkv.config import KIB
from raftkv.errors import ChangeRefused, InvalidArgument, MachineError, MachineFailed, NotActive, WrongVersion
from raftkv.machine import Activation, Founding, Step, Value, upgrade
from raftkv.node.upgrades import Upgrades
from raftkv.state import VERSION_KEY
from raftkv.testing import elapse, scenario
from raftkv.testing.world.settings import CONFIG
from tests.logged import capture_logs
from tests.node.shops import (
    Shop1,
    Shop2,
    Shop3,
    active,
    called,
    commands_in_log,
    lead,
    run,
    until_active,
)
from tests.node.steps import follower_of

MANUAL = msgspec.structs.replace(CONFIG, auto_upgrade=False)


@scenario(Shop1, seed=1)
async def test_a_version_is_active_once_all_members_run_it_and_not_before(cluster):
    """One node after the other gets the new class; meanwhile all of them do what the old one does."""
    old = cluster.client(machine=Shop1)
    await old.remote.put("a", 1)
    for node_id in (1, 2):
        await run(cluster, Shop2, node_id)
        await elapse(3)
        assert active(cluster) == [1, 1, 1]
        await old.remote.put("a", node_id)
        await cluster.until_equal()
    new = cluster.client(machine=Shop2)
    await run(cluster, Shop2, 3)
    await until_active(cluster, 2)
    assert await old.remote.put("a", 3) == 1
    assert await new.remote.all() == {"a": 5}
    assert await new.remote.order("b", 7) == 7
    assert await new.remote.put("a", 1, "red") == 1
    assert await new.remote.tags("a") == ["red"]
    await cluster.until_equal()


@pytest.mark.parametrize("who", [1, 3])
@scenario(Shop1, seed=1)
async def test_a_leader_refuses_what_the_active_version_lacks(cluster, who):
    """Be its class newer (node 1) or older (node 3): nothing of it gets into the log, and who is behind is named."""
    new = cluster.client(machine=Shop2)
    await run(cluster, Shop2, 1, 2)
    await lead(cluster, who)
    for call in (lambda: new.remote.order("b", 1), lambda: new.remote.put("a", 1, "red")):
        with pytest.raises(NotActive) as found:
            await call()
        assert "nothing was done" in str(found.value)
        assert "version 1" in str(found.value)
        assert re.search("node 3(, which leads,)? runs version 1", str(found.value))
    with pytest.raises(NotActive, match="query"):
        await new.remote.tags("a")
    assert await new.remote.put("a", 1) == 1
    await cluster.until_equal()
    for names in commands_in_log(cluster).values():
        assert names.count("put") == 1
        assert "order" not in names
    if who == 1:
        problems = " ".join(cluster.leader.status().problems())
        assert "version 2 of the application is not active yet: node 3 runs version 1" in problems


@scenario(Shop2, seed=1)
async def test_a_node_that_cant_run_the_active_version_does_not_start(cluster):
    """It says what to install, and the others go on; with that class it is there again."""
    client = cluster.client(machine=Shop2)
    await client.remote.put("a", 1)
    sim = follower_of(cluster)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    await sim.stop()
    sim.machine = Shop1
    with pytest.raises(WrongVersion) as found:
        await sim.start()
    text = str(found.value)
    assert "version 2 of Shop is active, and this class runs version 1" in text
    assert "install a version of the application that runs version 2" in text
    await client.remote.put("a", 1)
    await run(cluster, Shop2, sim.node_id)
    assert await client.remote.all() == {"a": 2}


@scenario(Shop2, seed=1)
async def test_a_class_that_lacks_the_active_version_because_it_is_too_new_does_not_start(cluster):
    """Its `oldest_version` is above what is active: one in between has to come first."""

    @called("Shop")
    class Shop4(Shop3):
        """Has forgotten version 2."""

        version = 4
        oldest_version = 3

    sim = follower_of(cluster)
    await cluster.until_equal()
    await sim.node.orders.take_snapshot()
    await sim.stop()
    sim.machine = Shop4
    with pytest.raises(WrongVersion, match=r"version 2 of Shop is active, and this class runs versions 3 to 4: insta"):
        await sim.start()
    await run(cluster, Shop2, sim.node_id)


@scenario(Shop2, seed=1)
async def test_an_empty_node_that_cant_run_the_active_version_is_refused_in_the_handshake(cluster):
    """Its state is empty, so only the others know; they say what to install, and so does the status."""
    await cluster.client(machine=Shop2).remote.put("a", 1)
    sim = cluster.add(4)
    leader = cluster.leader
    await leader.orders.add_learner(sim.member, 5)
    sim.machine = Shop1
    await sim.start()

    def refused():
        return [
            text for node in cluster.running for text in node.status().problems() if "runs version 1: install" in text
        ]

    await cluster.until(refused, 20, "a refusal")
    said = (
        "version 2 of Shop is active( on node 1)?, and node 4 runs version 1: install a version of the application on"
    )
    assert re.search(f"{said} node 4 that runs version 2", refused()[0])
    assert sim.node.raft.commit_index == 0
    await sim.stop()
    sim.machine = Shop2
    await sim.start()
    await cluster.until_equal()
    assert active(cluster) == [2, 2, 2, 2]


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@scenario(Shop1, seed=1)
async def test_a_snapshot_brings_the_version_that_was_active(cluster, is_after):
    """Of before or after the activation, to a node whose state is empty: it goes on as the others do."""
    client = cluster.client(machine=Shop1)
    for number in range(300):
        await client.remote.put(f"k{number % 7}", number)
    await run(cluster, Shop2, 1, 2)
    if is_after:
        await run(cluster, Shop2, 3)
        await until_active(cluster, 2)
        await cluster.client(machine=Shop2).remote.put("a", 1, "red")
    for kind in [Shop2] if is_after else [Shop1, Shop2]:
        for node in cluster.running:
            await node.orders.take_snapshot()
        sim = cluster.add(4 if kind is Shop2 else 5)
        sim.machine = kind
        await cluster.leader.orders.add_learner(sim.member, 10)
        await sim.start()
        await cluster.until_equal()
        assert sim.node.snapshots.installed == 1
        assert set(active(cluster)) == {2 if is_after else 1}
        await client.remote.put("c", 1)
        await cluster.until_equal()
        if kind is Shop1:
            await cluster.leader.orders.remove(sim.node_id)
            await sim.stop()
            del cluster.nodes[sim.node_id]


@scenario(Shop1, seed=2)
async def test_an_upgrade_goes_on_in_pieces_over_leaders_restarts_and_snapshots(cluster, monkeypatch):
    """Each row is seen once, whatever happens between two pieces; commands go on meanwhile."""
    client = cluster.client(machine=Shop1)
    for number in range(9):
        await client.remote.put(f"k{number}", number)
    pause = [True]
    look = Upgrades.look

    def look_now(self):
        """A piece at a time, when the story says so."""
        kept = self._active.kept
        if not (pause[0] and kept is not None and kept.left and kept.steps >= pause[0]):
            look(self)

    monkeypatch.setattr(Upgrades, "look", look_now)
    for machine in (Shop2, Shop3):
        await run(cluster, machine)
    for steps in (1, 2, 3):
        await cluster.until(lambda: all(_kept(node).steps == pause[0] for node in cluster.running), 30, f"{steps}")
        assert [_kept(node).left for node in cluster.running] == [("mark",)] * 3
        await client.remote.put("k0", 1)  # what was behind it is not gone through again
        if steps == 1:
            await lead(cluster, next(node.node_id for node in cluster.running if node is not cluster.leader))
        elif steps == 2:
            for sim in cluster.nodes.values():
                sim.crash()
            await cluster.start()
            await cluster.until_leader()
        else:
            for number in range(250):
                await client.remote.put("k8", number)
            for node in cluster.running:
                await node.orders.take_snapshot()
            sim = cluster.add(4)
            sim.machine = Shop3
            await cluster.leader.orders.add_learner(sim.member, 10)
            await sim.start()
            await cluster.until_equal()
            assert sim.node.snapshots.installed == 1
        pause[0] += 1
    pause[0] = False
    await until_active(cluster, 3)
    for node in cluster.running:
        assert node.applier.runner.instance.seen == 9
    new = cluster.client(machine=Shop3)
    for number in range(9):
        assert await new.remote.tags(f"k{number}") == ["seen"]


def _kept(node):
    return node.applier.runner.active.kept


@called("Shop")
class Failing(Shop2):
    """Its upgrade changes something, and then can't go on."""

    @upgrade(to=2)
    def empty(self) -> None:
        """Raises."""
        for name in list(self.stock):
            del self.stock[name]
        raise ValueError("there is no shelf for it")


@called("Shop")
class Mended(Failing):
    """The same without the mistake."""

    @upgrade(to=2)
    def empty(self) -> None:
        """As it was meant."""
        del self.stock["b"]


@scenario(Shop1, seed=1)
async def test_an_upgrade_that_raises_is_undone_and_goes_through_when_it_is_mended_and_ordered(cluster):
    """Every node says it, the old version goes on, and nothing is tried again before somebody says so."""
    client = cluster.client(machine=Shop1)
    await client.remote.put("a", 1)
    await client.remote.put("b", 2)
    with capture_logs() as said:
        await run(cluster, Failing)
        await cluster.until(lambda: all(_kept(node).failed for node in cluster.running), 30, "a failure")
        await elapse(5)
    failed = [line for line in said if line["event"] == "upgrade_failed"]
    assert sorted(line["node"] for line in failed) == [1, 2, 3]
    assert all(line["version"] == 2 and line["log_level"] == "error" for line in failed)
    assert all("empty: ValueError: there is no shelf for it" in line["error"] for line in failed)
    for node in cluster.running:
        problems = " ".join(node.status().problems())
        assert "empty: ValueError: there is no shelf for it" in problems
        assert "start all nodes with a mended class, then raftkv upgrade" in problems
    assert active(cluster) == [1, 1, 1]
    assert await client.remote.put("c", 3) == 3
    with pytest.raises(ChangeRefused, match="empty: ValueError: there is no shelf"):
        await cluster.leader.upgrades.upgrade(None, 10)
    assert await client.remote.all() == {"a": 1, "b": 2, "c": 3}
    await run(cluster, Mended)
    await elapse(3)
    assert active(cluster) == [1, 1, 1]
    assert await cluster.leader.upgrades.upgrade(None, 10) == 2
    await until_active(cluster, 2)
    assert await client.remote.all() == {"a": 1, "c": 3}
    assert not any("upgrade" in text for node in cluster.running for text in node.status().problems())


@scenario(Shop1, seed=1)
async def test_two_leaders_that_both_propose_raise_it_once(cluster):
    """One is cut off with its proposal; what two of them got into the log has an effect once."""
    await run(cluster, Shop2, 1, 2)
    first = cluster.leader
    sim = cluster.nodes[3]
    await sim.stop()
    sim.machine = Shop2
    if first.node_id == 3:
        first = await cluster.until_leader()
    await sim.start()
    await cluster.until(lambda: first.upgrades._entries._last[1] > 0, 30, "a proposal")
    others = [node_id for node_id in cluster.nodes if node_id != first.node_id]
    for node_id in others:
        cluster.network.cut(first.node_id, node_id)
    await cluster.until(lambda: cluster.leader is not None and cluster.leader.node_id in others, 30)
    await cluster.until(lambda: all(_kept(cluster.nodes[each].node).version == 2 for each in others), 30)
    cluster.network.heal()
    await until_active(cluster, 2)
    # And by a leader who did not know that it is active already.
    leader = cluster.leader
    before = _kept(leader)
    leader.upgrades._propose(Activation(2, before.schema))
    leader.upgrades._propose(Activation(1, b"of before"))
    leader.upgrades._propose(Founding(1, b"of before"))
    leader.upgrades._propose(Step(2, 7))
    await cluster.until_equal()
    assert [_kept(node) for node in cluster.running] == [before] * 3


@scenario(Shop1, seed=1, started=False)
async def test_a_leader_proposes_nothing_before_it_knows_what_is_active(cluster, monkeypatch):
    """It is known when what its term begins with is applied: a state begins with one entry, and goes on with one."""
    proposed = []
    propose = Upgrades._propose

    def noted(self, change):
        proposed.append((change, self._applier.runner.applied.term, self._body.raft.term))
        propose(self, change)

    monkeypatch.setattr(Upgrades, "_propose", noted)
    cluster.network.delay_s = 0.1
    await cluster.start()
    await until_active(cluster, 1)
    assert proposed == []
    await run(cluster, Shop2)
    await until_active(cluster, 2)
    assert [(type(change), applied == term) for change, applied, term in proposed] == [(Activation, True)]


@scenario(Shop1, seed=1, config=MANUAL)
async def test_an_operator_may_say_when(cluster):
    """With `auto_upgrade` off: the status says what it waits for, and errors of the leader do."""
    await run(cluster, Shop2, 1, 2)
    leader = await lead(cluster, 1)
    with pytest.raises(ChangeRefused, match="version 2 can't be made active: node 3 runs version 1"):
        await leader.upgrades.upgrade(2, 5)
    with pytest.raises(InvalidArgument, match="leader's class runs versions 1 to 2: install version 3 on all nodes"):
        await leader.upgrades.upgrade(3, 5)
    await run(cluster, Shop2, 3)
    leader = await lead(cluster, 1)
    await elapse(5)
    assert active(cluster) == [1, 1, 1]
    assert "raftkv upgrade" in " ".join(leader.status().problems())
    client = cluster.client(machine=Shop2)
    with pytest.raises(NotActive, match="version 2 is not active yet: raftkv upgrade makes the next one active"):
        await client.remote.order("a", 1)
    assert await leader.upgrades.upgrade(2, 5) == 2
    await until_active(cluster, 2)
    assert await client.remote.order("a", 1) == 1
    with pytest.raises(InvalidArgument, match="version 2 is active already: there is no way back to 1"):
        await cluster.leader.upgrades.upgrade(1, 5)


@pytest.mark.parametrize("kind", [Shop1, Shop2])
@scenario(Shop1, seed=1, started=False)
async def test_a_state_that_was_begun_before_there_were_versions_gets_one(cluster, monkeypatch, kind):
    """Its leader says which, once every member has said what it can run."""
    client = cluster.client()
    with monkeypatch.context() as patch:
        patch.setattr(Upgrades, "look", lambda self: None)  # as it was then
        await cluster.start()
        await client.remote.put("a", 1)
        await cluster.until_equal()
        for sim in cluster.nodes.values():
            assert sim.node.opened.store.get(VERSION_KEY) is None
            await sim.stop()
            sim.machine = kind
    for node_id in (1, 2):
        await cluster.nodes[node_id].start()
    await cluster.until_leader()
    await elapse(3)
    assert [_kept(node) for node in cluster.running] == [None, None]  # the third may be one that knows no versions
    await cluster.start()
    await until_active(cluster, kind.version)
    assert await client.remote.all() == {"a": 1}


@scenario(Shop1, seed=1, started=False)
async def test_a_cluster_that_nodes_of_different_versions_found_begins_with_the_older(cluster):
    """Whoever leads first; the newer begins when all can run it."""
    for node_id, machine in ((1, Shop2), (2, Shop2), (3, Shop1)):
        cluster.nodes[node_id].machine = machine
        await cluster.nodes[node_id].start()
    await until_active(cluster, 1)
    client = cluster.client(machine=Shop2)
    await client.remote.put("a", 1)
    await cluster.until_equal()
    await run(cluster, Shop2, 3)
    await until_active(cluster, 2)


@scenario(Shop1, seed=1, started=False)
async def test_a_node_goes_by_the_version_that_it_would_begin_a_state_with(cluster):
    """Before anything is applied: what that version lacks must not get into the log behind it."""
    cluster.network.delay_s = 0.1
    for node_id, machine in ((1, Shop2), (2, Shop2), (3, Shop1)):
        cluster.nodes[node_id].machine = machine
        await cluster.nodes[node_id].start()
    node = cluster.nodes[1].node
    await cluster.until(lambda: node.upgrades._offered == 1, 30, "node 3 is known")
    assert _kept(node) is None
    put = Shop2.methods["put"]
    node.applier.runner.check(put.command_payload(0, 0, 0, put.encode_args(("a", 1), {})))
    with pytest.raises(NotActive, match="version 1, which is active, refuses it"):
        node.applier.runner.check(put.command_payload(0, 0, 0, put.encode_args(("a", 1, "red"), {})))
    await until_active(cluster, 1)


@called("Shop")
class Forgetful(Shop3):
    """Its upgrade has a piece that can't go on."""

    @upgrade(to=3)
    def mark(self, after: str | None) -> str | None:
        """Raises at the second piece."""
        if after is not None:
            raise ValueError("there is no second piece")
        return next(iter(self.stock))


@called("Shop")
class Going(Forgetful):
    """Goes on where that has failed."""

    @upgrade(to=3)
    def mark(self, after: str | None) -> str | None:
        """The first piece is as before."""
        if after is None:
            return next(iter(self.stock))
        self.seen += 1
        return None


@scenario(Shop2, seed=3)
async def test_a_piece_that_raises_is_undone_and_the_rest_goes_through_when_it_is_mended(cluster):
    """Its version is active, and stays so; commands go on under load; a new node goes the same way by the log."""
    client = cluster.client(machine=Shop2)
    for name in "abc":
        await client.remote.put(name, 1)
    await run(cluster, Forgetful)
    await cluster.until(lambda: all(_kept(node).failed for node in cluster.running), 30, "a failure")
    assert active(cluster) == [3, 3, 3]
    assert {(_kept(node).steps, _kept(node).failed) for node in cluster.running} == {
        (2, "mark: ValueError: there is no second piece")
    }
    for _ in range(3):
        await client.remote.put("d", 1)
    await run(cluster, Going)
    await elapse(3)
    assert {_kept(node).steps for node in cluster.running} == {2}  # an operator says when
    writes = [asyncio.ensure_future(client.remote.put("e", number)) for number in range(20)]
    assert await cluster.leader.upgrades.upgrade(None, 10) == 3
    await asyncio.gather(*writes)
    sim = cluster.add(4)
    sim.machine = Going
    await cluster.leader.orders.add_learner(sim.member, 10)
    await sim.start()
    await until_active(cluster, 3)
    assert sim.node.snapshots.installed == 0  # it met the entries that had failed


@scenario(Shop1, seed=1, without=["NobodyStopsWithoutAReason"])
async def test_an_upgrade_that_raises_on_one_node_only_stops_that_node(cluster):
    """It runs other code than the leader, which tried the same before; nothing of it is applied there."""
    client = cluster.client(machine=Shop1)
    await client.remote.put("b", 1)
    await run(cluster, Mended, 1, 2)
    await lead(cluster, 1)
    sim = cluster.nodes[3]
    await sim.stop()
    sim.machine = Failing
    with pytest.raises(MachineFailed) as found:
        await sim.start()
        await cluster.until(lambda: sim.node.failure is not None, 30, "the end of one")
        raise sim.node.failure
    assert "the upgrade empty: ValueError: there is no shelf for it" in str(found.value)
    assert "with the version of the application that the others run" in str(found.value)
    await sim.stop()
    await run(cluster, Mended, 3)
    await until_active(cluster, 2)
    assert await client.remote.all() == {}


@called("Shop")
class Picky(Shop2):
    """Its upgrade goes by what is there at that very entry."""

    @upgrade(to=2)
    def count(self) -> None:
        """Raises now and then."""
        if sum(1 for _ in self.stock) % 3:
            raise ValueError("they can't be shared out")


@scenario(Shop1, seed=1, config=MANUAL)
async def test_commands_hold_back_while_an_upgrade_is_tried(cluster):
    """Under load its entry finds the state on which the leader has tried it; else nodes would stop."""
    client = cluster.client(machine=Shop1)
    await run(cluster, Picky)
    is_over = False

    async def write(number):
        count = 0
        while not is_over:
            count += 1
            await client.remote.put(f"{number}-{count}", 1)

    writers = [asyncio.ensure_future(write(number)) for number in range(5)]
    for _ in range(20):
        await elapse(0.1)
        with contextlib.suppress(ChangeRefused):
            assert await cluster.leader.upgrades.upgrade(2, 10) == 2
            break
    is_over = True
    await asyncio.gather(*writers)
    await until_active(cluster, 2)


@scenario(Shop1, seed=1)
async def test_versions_may_be_far_apart(cluster, monkeypatch):
    """A leader of version 202611 asks once a tick for whom it waits, and not for each version between."""

    @called("Shop")
    class Late(Shop2):
        version = 202_611

    await run(cluster, Late, 1)
    await lead(cluster, 1)
    asked = []
    behind = Upgrades.behind
    monkeypatch.setattr(Upgrades, "behind", lambda *args: asked.append(args) or behind(*args))
    cluster.leader.upgrades.look()
    assert len(asked) <= 1
    await run(cluster, Late, 2, 3)
    await until_active(cluster, 202_611)


@called("Shop")
class Wordy(Shop2):
    """Declares nearly as much as a class may."""

    words = Value(str, "x" * 180 * KIB)


@scenario(Wordy, seed=1)
async def test_a_class_that_declares_much_forms_a_cluster(cluster):
    """What a class declares is in the handshake."""
    assert await cluster.client(machine=Wordy).remote.put("a", 1) == 1
    await cluster.until_equal()


def test_a_class_that_declares_too_much_is_refused():
    """Before a node of it starts, and could not say it to others."""

    class Wordier(Shop2):
        words = Value(str, "x" * 200 * KIB)

    with pytest.raises(MachineError, match="more than the 196608 that nodes exchange"):
        Wordier.schema()
