"""Faults that are made in simulated clusters, and found by name in what their nodes say."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime

import argon2
import msgspec
import pytest

from raftkv.access import ROOT, Enable, NewToken, NewUser, passwords
from raftkv.disk.simulated import SimDisk
from raftkv.doctor import ClusterView, Evidence, Silent, diagnose
from raftkv.errors import Busy, NodeStopped, Rejected, Unauthenticated, Unavailable
from raftkv.kv import KeyValue
from raftkv.testing import elapse, play, scenario
from raftkv.testing.world.harm import Harm
from raftkv.testing.world.settings import CONFIG
from tests.logged import capture_logs
from tests.node.belongings import put
from tests.node.steps import fill, follower_of
from tests.node.test_members import move
from tests.node.test_mistakes import Careless
from tests.node.test_room import RESERVE, fill_disk

HOUR = 3_600_000


def look(cluster):
    """What the nodes say that run; a node that has failed still says why, as in a program of its own."""
    up = {number: sim.node.status() for number, sim in cluster.nodes.items() if sim.node is not None and sim.is_up}
    newest = max(up.values(), key=lambda status: status.commit_index, default=None)
    members = newest.membership.members if newest is not None else ()
    silent = [Silent(each.client_address, "refused", each.node_id) for each in members if each.node_id not in up]
    return ClusterView(list(up.values()), silent)


async def findings(cluster):
    """What is found at two looks, a second apart, by name."""
    before = look(cluster)
    await elapse(1.0)
    evidence = Evidence(view=look(cluster), before=before, options=("-a", "node-1:1"))
    return {each.condition: each for each in diagnose(evidence, datetime.now(UTC))}


@scenario(KeyValue, seed=1)
async def test_a_cluster_that_is_well_has_nothing_wrong(cluster):
    """Also while it takes writes."""
    client = cluster.client()
    await fill(client, 20)
    writing = asyncio.ensure_future(fill(client, 100, start=20))
    assert await findings(cluster) == {}
    await writing
    assert await findings(cluster) == {}
    await client.close()


@scenario(KeyValue, seed=1)
async def test_nodes_that_are_down(cluster):
    """One of three: one more may not go. Two of three: nothing is served, and since when."""
    follower_of(cluster).crash()
    found = await findings(cluster)
    assert set(found) == {"voter-silent", "quorum-at-risk"}
    follower = next(sim for sim in cluster.nodes.values() if sim.is_up and sim.node is not cluster.leader)
    follower.crash()
    await elapse(5.0)
    found = await findings(cluster)
    assert set(found) == {"quorum-lost", "voter-silent"}
    assert found["quorum-lost"].since is not None


@scenario(KeyValue, seed=1)
async def test_two_that_do_not_reach_each_other(cluster):
    """F39: both answer, and the leader hears both; it is a matter of the network between them."""
    lost, other = (number for number in cluster.nodes if number != cluster.leader.node_id)
    cluster.network.cut(lost, other)
    await elapse(10.0)
    found = await findings(cluster)
    assert set(found) == {"peer-unreached"}
    assert "does not reach node" in found["peer-unreached"].what


@scenario(KeyValue, seed=1)
async def test_nobody_reaches_anybody(cluster):
    """All are up, and there is no leader."""
    for one, other in ((1, 2), (1, 3), (2, 3)):
        cluster.network.cut(one, other)
    await elapse(20.0)
    assert set(await findings(cluster)) == {"no-leader", "peer-unreached"}


@scenario(KeyValue, seed=1)
async def test_a_wiped_directory_is_known_by_those_that_met_the_old_one(cluster):
    """F20."""
    await fill(cluster.client(), 5)
    sim = follower_of(cluster)
    sim.crash()
    sim.disk, sim.harm = SimDisk(), Harm.WIPED
    await sim.start()
    await elapse(5.0)
    found = await findings(cluster)
    assert "directory-replaced" in found
    assert found["directory-replaced"].commands[0] == f"raftkv member remove {sim.node_id} -a node-1:1"


@pytest.mark.parametrize(("starts", "name"), [(1, "directory-copied"), (2, "directory-set-back")])
@scenario(KeyValue, seed=1)
async def test_an_older_copy_of_a_directory(cluster, starts, name):
    """F21, F22."""
    sim = follower_of(cluster)
    sim.crash()
    image = sim.disk.copy()
    for _ in range(starts):
        await sim.start()
        await cluster.until_equal()
        sim.crash()
    sim.disk, sim.harm = image, Harm.OLDER_COPY
    await sim.start()
    await elapse(5.0)
    assert name in await findings(cluster)


@scenario(KeyValue, seed=1)
async def test_a_node_that_waits_to_be_added_and_one_that_learns(cluster):
    """F54, F83: what to type is said for each."""
    new = cluster.add(4)
    await new.start()
    node = cluster.leader
    hello = msgspec.structs.replace(node.links.hello(), node_id=4, cluster_id="", incarnation="i", nonce="n", starts=[])
    with pytest.raises(Exception, match="is no member of the cluster yet"):
        node.links.check_hello(hello)
    await cluster.leader.orders.add_learner(new.member)
    await cluster.until_equal()
    found = await findings(cluster)
    assert set(found) == {"learner-waits"}
    assert found["learner-waits"].commands == ("raftkv member promote 4 -a node-1:1",)


@scenario(KeyValue, seed=1)
async def test_a_node_that_listens_elsewhere(cluster):
    """F83: the others meet it where the membership does not have it."""
    sim = follower_of(cluster)
    await sim.stop()
    moved = move(cluster, sim)
    await sim.start()
    await cluster.until_equal()
    await elapse(5.0)
    found = await findings(cluster)
    assert set(found) == {"elsewhere"}
    assert f"{sim.node_id}={moved.peer_address}/" in found["elsewhere"].commands[0]


@scenario(KeyValue, seed=1, config=RESERVE)
async def test_disks_without_room(cluster):
    """F13: one, whose node does not lead, and then all: writes are refused."""
    sim = follower_of(cluster)
    fill_disk(sim)
    await elapse(3.0)
    found = await findings(cluster)
    assert set(found) - {"disk-nearly-low"} == {"disk-low"}
    assert found["disk-low"].since is not None
    for each in cluster.nodes.values():
        fill_disk(each)
    client = cluster.client(deadline_s=2.0)
    with contextlib.suppress(Busy, Unavailable):
        await fill(client, 1)
    await elapse(20.0)
    assert {"disk-low", "writes-refused"} <= set(await findings(cluster))
    await client.close()


@scenario(KeyValue, seed=3)
async def test_clocks_that_are_wrong(cluster):
    """F82: a follower's, and the leader's."""
    leader = await cluster.until_leader()
    wrong = follower_of(cluster)
    wrong.clock.set_wrong(HOUR)
    await elapse(1.0)
    assert set(await findings(cluster)) == {"clock-off"}
    wrong.clock.set_wrong(0)
    cluster.nodes[leader.node_id].clock.set_wrong(-HOUR)
    await fill(cluster.client(), 3)
    await elapse(1.0)
    found = await findings(cluster)
    assert set(found) == {"clock-doubted"}
    assert found["clock-doubted"].since is not None


@scenario(KeyValue, seed=1, without=["DigestsAgree"])  # they do not, on purpose
async def test_a_replica_that_differs(cluster):
    """F76: it stops, and its status says with what; the others go on."""
    client = cluster.client()
    await fill(client, 20)
    await cluster.until_equal()
    sim = follower_of(cluster)
    sim.harm = Harm.ROT
    runner = sim.node.applier.runner
    runner.applied = msgspec.structs.replace(runner.applied, digest=runner.applied.digest ^ 1)
    runner.store.write({}, runner.applied)
    assert "replicas-differ" in {each.condition for each in diagnose(Evidence(view=look(cluster)), datetime.now(UTC))}
    await fill(client, 20, start=20)
    await cluster.until(lambda: sim.node.failure is not None, 10, "it stops")
    evidence = Evidence(view=ClusterView([sim.node.status()], []))
    found = {each.condition: each for each in diagnose(evidence, datetime.now(UTC))}
    assert found["stopped-diverged"].commands == (f"raftkv serve --node-id {sim.node_id} --data-dir /data --rebuild",)
    await client.close()


@scenario(KeyValue, seed=1)
async def test_a_disk_that_fails(cluster):
    """F15."""
    sim = follower_of(cluster)
    sim.fail_at_operation(1)
    with contextlib.suppress(NodeStopped):
        await fill(cluster.client(), 5)
    node = sim.node
    await cluster.until(lambda: node.failure is not None, 10, "it stops")
    found = diagnose(Evidence(view=ClusterView([node.status()], [])), datetime.now(UTC))
    stopped = next(each for each in found if each.condition == "stopped-disk")
    assert stopped.since is not None
    assert "simulated" in stopped.why[0]


@scenario(KeyValue, seed=1)
async def test_a_snapshot_of_another_node_in_the_directory(cluster):
    """F77: it is passed over, and named."""
    await fill(cluster.client(), 5)
    await cluster.until_equal()
    one, other = (sim for sim in cluster.nodes.values() if sim.node is not cluster.leader)
    await one.node.orders.take_snapshot()
    name = one.disk.listdir("/data/snapshots")[-1]
    other.crash()
    put(other.disk, f"/data/snapshots/{name}", one.disk, f"/data/snapshots/{name}")
    await other.start()
    await cluster.until_equal()
    assert set(await findings(cluster)) == {"unused-snapshot"}


def test_a_method_with_a_mistake():
    """F75: which it is, and how often it was met."""

    async def story(cluster):
        client = cluster.client(sessions=True)
        with capture_logs():
            with pytest.raises(Rejected):
                await client.remote.divide(0)
            await cluster.until_equal()
        found = await findings(cluster)
        assert set(found) == {"method-mistakes"}
        assert found["method-mistakes"].what.startswith("divide (")
        await client.close()

    play(Careless, story, seed=1)


@scenario(KeyValue, seed=1, config=msgspec.structs.replace(CONFIG, sessions_max=10))
async def test_sessions_that_run_out(cluster):
    """F74: before the first one is pushed out."""
    clients = [cluster.client(sessions=True) for _ in range(9)]
    for client in clients:
        await client.remote.put(b"key", b"value")
    await cluster.until_equal()
    found = await findings(cluster)
    assert set(found) == {"sessions-exhausted"}
    assert "9 of 10" in found["sessions-exhausted"].why[0]
    for client in clients:
        await client.close()


@scenario(KeyValue, seed=1)
async def test_a_disk_that_hangs(cluster):
    """F16: in a write that does not end."""
    client = cluster.client(deadline_s=20.0)
    sim = follower_of(cluster)
    sim.hang()
    await fill(client, 5)
    await elapse(4.0)
    found = await findings(cluster)
    assert "disk-stalled" in found
    assert found["disk-stalled"].since is not None
    sim.unhang()
    await client.close()


async def tries(cluster, node, user, password):
    """Somebody who signs in, at one node; whether they get in."""
    async with cluster.admin(node, user=user, password=password, insecure=True) as admin:
        try:
            await admin.status(2.0)
        except Unauthenticated:
            return False
        return True


@scenario(KeyValue, seed=1)
async def test_who_guesses_passwords_and_who_has_to_wait(cluster, monkeypatch):
    """Seven wrong ones of a user, and more than fifty names from one place; on the node that was asked, and nowhere
    else. A right one that need not wait ends it for the user."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", hasher)
    admin = cluster.admin()
    await admin.change_access(NewUser("boss", "correct horse", (ROOT,)))
    await admin.change_access(Enable("boss", "correct horse"))
    await cluster.until_equal()
    leader, follower = cluster.leader.node_id, follower_of(cluster).node_id
    assert await tries(cluster, leader, "boss", "correct horse")
    assert await findings(cluster) == {}
    for number in range(7):
        assert not await tries(cluster, follower, "boss", f"guess {number}")
        await elapse(2.0)
    found = await findings(cluster)
    assert set(found) == {"user-slowed"} and f"boss has to wait before signing in at node {follower}" in (
        found["user-slowed"].what
    )
    for number in range(60):
        assert not await tries(cluster, follower, f"ghost{number}", f"guess {number}")
    found = await findings(cluster)
    assert set(found) == {"user-slowed", "passwords-guessed"}
    for number in range(7):
        assert not await tries(cluster, follower, "battery staple", f"guess {number}")
        await elapse(20.0)
    signs = cluster.nodes[follower].node.status().sign_ins
    slowed = {(each.of, each.user) for each in signs.slowed}
    assert slowed == {("user from host", "boss"), ("user from host", ""), ("host", "")} and signs.slowed_count == 3
    assert "staple" not in repr(signs), "what was typed for a name may be a password"
    await elapse(901.0)
    assert await findings(cluster) == {}
    await admin.close()


@scenario(KeyValue, seed=2)
async def test_a_token_that_ends(cluster):
    """The last one of its user, three days before; not where there is a later one, and not for ever."""
    admin, day = cluster.admin(), 24 * HOUR
    for user, ends in (("ann", [2 * day]), ("bob", [2 * day, 9 * day]), ("cat", [2 * day, None]), ("dan", [9 * day])):
        await admin.change_access(NewUser(user, ""))
        for ttl_ms in ends:
            await admin.change_access(NewToken(user, ttl_ms))
    await cluster.until_equal()
    found = await findings(cluster)
    assert set(found) == {"token-ending"} and found["token-ending"].what == "the last token of ann ends in 48.0 h"
    for sim in cluster.nodes.values():
        status = sim.node.status().sign_ins
        assert [each.user for each in status.ending] == ["ann"] and status.ending_count == 1
    await admin.close()
