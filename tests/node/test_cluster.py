"""Clusters of whole nodes, one story each, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import posixpath
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from raftkv.config import KIB, Config
from raftkv.core import invariants
from raftkv.core.messages import AppendReply, ReadIndex
from raftkv.errors import (
    ChangeRefused,
    Corruption,
    DiskError,
    DiskFull,
    Diverged,
    InvalidArgument,
    NodeRemoved,
    NodeStopped,
    NotAccepted,
    PeerError,
    StateCorruption,
    Unavailable,
    WrongDataDir,
)
from raftkv.kv import KeyValue
from raftkv.log import VoteFile
from raftkv.node import Options, met
from raftkv.node.directory import open_directory
from raftkv.node.links import LEARNED_MAX
from raftkv.node.met import save_known
from raftkv.snapshot import Receipts, SnapshotOffer
from raftkv.testing.judging.checks import SnapshotsHoldWhatTheySay
from raftkv.testing.tracing.trace import Trace
from raftkv.testing.world.cluster import CONFIG, SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.testing.world.workers import BACKGROUND, TRANSFERS
from raftkv.wire import Acquaintance, encode_message
from tests.node.files import load_known


def tell(story, size=3, observe=None, **settings):
    """Tell `story` with a fresh cluster that has a leader; nothing may fail behind its back."""
    loop = SimLoop()

    async def main():
        cluster = SimCluster(KeyValue, size, seed=settings.pop("seed", 1), config=settings.pop("config", CONFIG))
        if observe is not None:
            observe(cluster)
        await cluster.start()
        await cluster.until_leader()
        await story(cluster)
        await cluster.stop()

    loop.run(main())
    assert loop.failures == []


def follower_of(cluster):
    """Some follower's machine."""
    leader = cluster.leader.node_id
    return next(sim for sim in cluster.nodes.values() if sim.node_id != leader)


async def fill(client, count, start=0):
    """Write `count` keys."""
    for number in range(start, start + count):
        await client.remote.put(b"key-%05d" % number, b"x" * 64)


async def read_all(cluster, client, count):
    """Every key is there, at the leader."""
    for number in range(count):
        item = await client.remote.get(b"key-%05d" % number)
        assert item is not None, f"key {number} is lost"


def test_what_was_acknowledged_survives_a_crash_of_all():
    """F4: the power goes out everywhere at once; every acknowledged write is there again."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 60)
        for sim in cluster.nodes.values():
            sim.crash()
        await cluster.start()
        await read_all(cluster, client, 60)
        await client.close()

    tell(story)


def test_one_node_alone_is_a_cluster():
    """The smallest cluster serves, crashes and recovers like any other."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 30)
        cluster.nodes[1].crash()
        await cluster.start()
        await read_all(cluster, client, 30)
        await client.close()

    tell(story, size=1)


def test_a_dead_leader_is_replaced_at_once():
    """A killed leader's connections break, so a new one is there long before the election time-out."""

    async def story(cluster):
        loop = asyncio.get_running_loop()
        client = cluster.client()
        await fill(client, 5)
        cluster.nodes[cluster.leader.node_id].crash()
        began = loop.time()
        await fill(client, 1, start=5)
        assert loop.time() - began < CONFIG.election_timeout_ms / 1000
        await client.close()

    tell(story)


def test_a_lagging_follower_gets_a_snapshot_and_the_rest_from_the_log():
    """F67: the entries that it needs are gone, so it installs a snapshot and catches up behind it."""

    async def story(cluster):
        client = cluster.client()
        sim = follower_of(cluster)
        sim.crash()
        await fill(client, 600)
        await elapse(4)
        await fill(client, 100, start=600)
        assert cluster.leader.raft.log.first_index > 10
        await sim.start()
        await cluster.until_equal()
        assert sim.node.snapshots.installed >= 1
        await client.close()

    tell(story)


def test_an_install_that_is_interrupted_anywhere_is_finished_later():
    """F60: the power goes out before every operation on the disk, from the first chunk to the new state."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 300)
        await cluster.leader.take_snapshot()
        number, crashes = 3, 0
        while True:
            new = cluster.add(10 + number)
            await new.start()
            leader = await cluster.until_leader()
            await leader.add_learner(new.member)
            new.crash_at_operation(number)
            node = new.node
            await cluster.until(
                lambda new=new, node=node: new.node is not node or node.snapshots.installed, 30, "a crash, or the end"
            )
            crashed = new.node is not node
            new.disk.fault = None
            if not new.is_up:
                await new.start()
            await cluster.until(
                lambda new=new: new.node.applier.applied_index == cluster.leader.raft.commit_index, 30, "it catches up"
            )
            assert new.node.applier.runner.applied == cluster.leader.applier.runner.applied
            await new.stop()
            leader = await cluster.until_leader()
            await leader.remove(new.node_id)
            del cluster.nodes[new.node_id]
            if not crashed:
                break
            number, crashes = number + 3, crashes + 1
        assert crashes >= 10
        await client.close()

    with capture_logs() as lines:
        tell(story)
    said = {(line["event"], line["log_level"]) for line in lines}
    assert ("install_resumed", "warning") in said  # it is expected, and needs nobody
    assert not {"state_damaged", "snapshot_damaged", "node_failed"} & {event for event, _ in said}


@pytest.mark.parametrize("leaves_trace", [False, True])
def test_a_state_that_is_gone_is_damage_unless_an_install_was_cut_off(leaves_trace):
    """Both are rebuilt from the snapshot, but only one is a reason to look at the disk (F11, F60)."""

    async def story(cluster):
        client = cluster.client()
        sim = follower_of(cluster)
        await fill(client, 600)
        await elapse(4)
        await fill(client, 100, start=600)
        await cluster.until_equal()
        assert sim.node.raft.log.first_index > 10
        await sim.stop()
        if leaves_trace:
            sim.disk.rename("/data/state", "/data/state.old")
        else:
            sim.disk.remove_tree("/data/state")
        with capture_logs() as lines:
            await sim.start()
        said = [line["event"] for line in lines if line["event"] in ("install_resumed", "state_damaged")]
        assert said == ["install_resumed" if leaves_trace else "state_damaged"]
        await cluster.until_equal()
        await client.close()

    tell(story)


def test_a_new_node_joins_learns_and_votes():
    """A brand-new node is added without a vote, installs a snapshot, is promoted, and then its vote is needed."""

    async def story(cluster):
        client, admin = cluster.client(), cluster.admin()
        await fill(client, 500)
        await cluster.leader.take_snapshot()
        new = cluster.add(4)
        await new.start()
        learned = await admin.add_learner(new.member)
        assert learned.learners == (4,)
        promoted = await admin.promote(4)
        assert promoted.voters == (1, 2, 3, 4)
        await cluster.until_equal()
        assert new.node.cluster_id == cluster.leader.cluster_id
        for node_id in [node_id for node_id in (1, 2, 3) if node_id != cluster.leader.node_id][:1]:
            cluster.nodes[node_id].crash()
        await fill(client, 5, start=500)
        await client.close()
        await admin.close()

    tell(story)


def test_a_removed_leader_hands_over():
    """It manages the change that removes it, and then another one leads; it disturbs nobody afterwards (F37)."""

    async def story(cluster):
        client, admin = cluster.client(), cluster.admin()
        await fill(client, 5)
        old = cluster.leader.node_id
        membership = await admin.remove(old)
        assert old not in membership.voters
        await fill(client, 5, start=5)
        leader, term = cluster.leader.node_id, cluster.leader.raft.term
        await elapse(10)
        assert cluster.leader.node_id == leader != old
        assert cluster.leader.raft.term == term
        await client.close()
        await admin.close()

    tell(story)


def test_leadership_is_handed_over_when_asked():
    """Transfer to a named node, and writes go on there; to a node that is no voter it is refused."""

    async def story(cluster):
        client, admin = cluster.client(), cluster.admin()
        await fill(client, 5)
        to = follower_of(cluster).node_id
        assert await admin.transfer_leadership(to) == to
        await fill(client, 5, start=5)
        with pytest.raises((ChangeRefused, InvalidArgument)):
            await admin.transfer_leadership(9)
        await client.close()
        await admin.close()

    tell(story)


def test_a_minority_serves_nothing_but_stale_reads():
    """A leader cut off from its majority steps down; who asks it for more than a stale read is told so (F39)."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        old = cluster.leader
        for other in cluster.nodes:
            if other != old.node_id:
                cluster.network.cut(old.node_id, other)
        await cluster.until(lambda: cluster.leader not in (None, old), 5, "another leader")
        await cluster.until(lambda: not old.raft.is_leader, 5, "the old one steps down")
        got: list[Any] = []
        payload = KeyValue.methods["get"].query_payload(KeyValue.methods["get"].encode_args((b"key-00001",), {}))
        with pytest.raises(NotAccepted):
            old.query(payload, False, lambda index, result: got.append(result))
        old.query(payload, True, lambda index, result: got.append(index))
        assert got == [old.applier.applied_index]
        await fill(client, 5, start=5)
        cluster.network.heal()
        await cluster.until_equal()
        await client.close()

    tell(story)


@pytest.mark.parametrize("asks", ["a client", "a follower"])
def test_a_leader_that_wakes_from_a_pause_does_not_trust_its_lease(asks):
    """F72: the question is there when the process goes on, before any timer has counted the time that has passed."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 1)
        leader, follower = cluster.leader, follower_of(cluster)
        payload = KeyValue.methods["get"].query_payload(KeyValue.methods["get"].encode_args((b"key-00000",), {}))
        got: list[Any] = []

        def ask():
            if asks == "a client":
                leader.query(payload, False, lambda index, result: got.append(result))
            else:
                leader.engine.step(ReadIndex(follower.node_id, leader.node_id, leader.raft.term, 2**40))
            leader.engine.turn()

        await cluster.until(lambda: leader.raft.role.lease_round > 0, 5, "a lease")
        ask()
        assert leader.raft.role.reads_count == 0, "the lease does not hold"
        asyncio.get_running_loop().advance(1.0)
        got.clear()
        ask()
        assert got == []
        assert leader.raft.role.reads_count == 1, "it waits for no round"
        await client.close()

    tell(story, config=msgspec.structs.replace(CONFIG, lease_reads=True))


def test_a_follower_answers_queries_by_asking_the_leader():
    """A linearizable read on a follower waits until it has applied what the leader had committed."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 20)
        method, got = KeyValue.methods["get"], []
        follower = follower_of(cluster).node
        payload = method.query_payload(method.encode_args((b"key-00019",), {}))
        follower.query(payload, False, lambda index, result: got.append(method.decode_result(result)))
        await cluster.until(lambda: got, 5, "an answer")
        assert got[0].value == b"x" * 64
        await client.close()

    tell(story)


# ---------------------------------------------------------------- handshakes


async def refusal(cluster, node_id):
    """What the others say to a node that they refuse."""

    def found():
        return [
            link.refused
            for sim in cluster.nodes.values()
            if sim.node is not None
            for peer, link in sim.node.transport.links().items()
            if link.refused is not None and node_id in (peer, sim.node_id)
        ]

    await cluster.until(found, 10, "a refusal")
    return found()[0]


def test_a_wiped_data_directory_under_an_old_id_is_refused():
    """openraft#2002: who has forgotten what it acknowledged must not count as the one that did."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        sim = follower_of(cluster)
        sim.crash()
        sim.disk.__init__()
        await sim.start()
        assert "remove it and add it under a new id" in await refusal(cluster, sim.node_id)
        assert sim.node.raft.commit_index == 0
        await fill(client, 5, start=5)
        await client.close()

    tell(story)


def test_a_new_member_knows_a_wiped_directory_too():
    """It never met the node before, but was told by those who did: else the two would elect each other (F20)."""

    async def story(cluster):
        leader = cluster.leader
        wiped = follower_of(cluster)
        wiped.crash()
        new = cluster.add(4)
        await new.start()
        await leader.add_learner(new.member, 10)
        await leader.promote(4, 10)
        for other in cluster.nodes:
            if other not in (4, wiped.node_id):
                cluster.network.cut(other, wiped.node_id)
        wiped.disk.__init__()
        await wiped.start()
        assert "another data directory" in await refusal(cluster, wiped.node_id)
        assert new.node.transport.links()[wiped.node_id].refused is not None
        cluster.network.heal()

    tell(story)


@pytest.mark.parametrize(("starts", "why"), [(1, "copies of one data directory"), (2, "older copy")])
def test_a_copied_data_directory_is_refused(starts, why):
    """Two processes as one node: the second is told to go, and so is whoever comes with the older copy (F21, F22)."""

    async def story(cluster):
        sim = follower_of(cluster)
        sim.crash()
        image = sim.disk.copy()
        for _ in range(starts):
            await sim.start()
            await cluster.until_equal()
            sim.crash()
        sim.disk = image
        await sim.start()
        await cluster.until_leader()
        text = await refusal(cluster, sim.node_id)
        assert why in text

    tell(story)


def test_an_older_copy_is_refused_however_often_it_is_started():
    """Its number of starts catches up with the one that the others know, but it has not had the same starts (F21)."""

    async def story(cluster):
        sim = follower_of(cluster)
        sim.crash()
        image = sim.disk.copy()
        for _ in range(2):
            await sim.start()
            await cluster.until_equal()
            sim.crash()
        sim.disk = image
        for _ in range(5):
            await sim.start()
            await elapse(3.0)
            assert not any(link.connected for link in sim.node.transport.links().values())
            sim.crash()
        await sim.start()
        assert "older copy" in await refusal(cluster, sim.node_id)

    tell(story)


def test_a_removed_node_is_refused():
    """F57: its id was used, and it is told what to do instead of coming back."""

    async def story(cluster):
        sim = follower_of(cluster)
        await cluster.leader.remove(sim.node_id)
        await cluster.until(lambda: all(len(node.raft.membership.voters) == 2 for node in cluster.running[:1]))
        sim.crash()
        with contextlib.suppress(NodeRemoved):  # it may know by its own log, or else it is told
            node = await sim.start()
            assert f"node {sim.node_id} was removed" in await refusal(cluster, sim.node_id)
            await cluster.until(lambda: isinstance(node.failure, NodeRemoved))

    tell(story)


def test_a_peer_speaks_only_for_itself():
    """F22: a message that names another sender, or another receiver, ends the connection and counts for nothing."""

    async def story(cluster):
        node = cluster.leader
        one, other = [sim.node_id for sim in cluster.nodes.values() if sim.node_id != node.node_id]
        for sender, to in ((other, node.node_id), (one, other)):
            reply = AppendReply(sender=sender, to=to, term=node.raft.term, round=1, match_index=1)
            with pytest.raises(PeerError, match="sent a AppendReply from"):
                node.links.on_message(one, reply)

    tell(story)


def test_a_node_of_another_cluster_is_refused():
    """Its addresses are right and its cluster is not: the text says what to check."""

    async def story(cluster):
        sim = follower_of(cluster)
        sim.crash()
        sim.disk.__init__()
        cluster.founders = tuple(
            msgspec.structs.replace(m, peer_address=m.peer_address + "0") for m in cluster.founders
        )
        options = Options(node_id=sim.node_id, data_dir="/data", members=cluster.founders, config=CONFIG)
        assert options.members[0].peer_address.endswith("0")
        sim.member = next(member for member in cluster.founders if member.node_id == sim.node_id)
        cluster.nodes[sim.node_id] = sim
        node = await sim.start()
        own = cluster.member(sim.node_id)
        node.transport.set_peers({peer: cluster.member(peer).peer_address for peer in cluster.nodes})
        assert own.node_id == sim.node_id
        assert "belongs to the cluster" in await refusal(cluster, sim.node_id)

    tell(story)


def test_a_node_that_was_not_added_is_told_to_be():
    """It waits, harmless, until it is added."""

    async def story(cluster):
        new = cluster.add(7)
        node = await new.start()
        node.transport.set_peers({1: cluster.nodes[1].member.peer_address})
        assert "add it first" in await refusal(cluster, 7)
        async with cluster.admin() as admin:
            await admin.add_learner(new.member)
        await cluster.until_equal()

    tell(story)


def test_a_data_directory_of_another_node_is_refused():
    """A mixed-up mount is found before anything is written."""

    async def story(cluster):
        one, other = [sim for sim in cluster.nodes.values() if sim.node_id != cluster.leader.node_id]
        one.crash()
        other.crash()
        one.disk, other.disk = other.disk, one.disk
        with pytest.raises(WrongDataDir, match=f"belongs to node {other.node_id}"):
            await one.start()
        one.disk, other.disk = other.disk, one.disk
        await cluster.start()

    tell(story)


# ---------------------------------------------------------------- damage


def test_a_damaged_state_is_rebuilt_from_the_local_snapshot():
    """F10: the state's file is damaged; the newest snapshot and the log make it whole again."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 300)
        sim = follower_of(cluster)
        await cluster.until_equal()
        await sim.node.take_snapshot()
        await sim.stop()
        sim.disk.flip("/data/state/image", 100, 1)
        await sim.start()
        await cluster.until_equal()
        await client.close()

    tell(story)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_lost_state_is_not_behind_a_snapshot_of_it(is_damaged):
    """F11: the state's file is gone, the log is whole, and there is a snapshot, which may be damaged.

    The state opens as an empty one. A core that takes a snapshot for its own which its state has not come to might
    cut off what is still to be applied.
    """

    async def story(cluster):
        client = cluster.client()
        await fill(client, 20)
        sim = follower_of(cluster)
        await cluster.until_equal()
        index = await sim.node.take_snapshot()
        await fill(client, 5, start=20)
        await cluster.until_equal()
        await sim.stop()
        sim.disk.lose("/data/state/image")
        if is_damaged:
            (path,) = [path for path in sim.disk.image() if "/snapshots/" in path and path.endswith("/image")]
            sim.disk.flip(path, 100, 1)
        for other in cluster.nodes.values():
            other.crash()
        await sim.start()  # alone: it hears of no commit, so all that it has it has from its disk
        invariants.check(sim.node.raft)
        assert sim.node.raft.applied_index == (0 if is_damaged else index)
        await cluster.start()
        await cluster.until_equal()
        await client.close()

    tell(story)


def test_a_snapshot_that_is_durable_before_its_term_brings_the_term():
    """F60: its log's thread hangs, so the vote file is of an older term when the power goes behind the last chunk.

    A node whose log has entries of a term that it does not know could stand for election in that very term.
    """

    async def story(cluster):
        client = cluster.client()
        sim = follower_of(cluster)
        sim.crash()
        old = cluster.nodes[cluster.leader.node_id]
        await fill(client, 20)
        old.crash()
        await old.start()
        await fill(client, 300, start=20)
        leader = await cluster.until_leader()
        await leader.take_snapshot()
        for path, data in cluster.nodes[leader.node_id].disk.image().items():
            if path.startswith("/data/snapshots/"):
                sim.disk.mkdir(posixpath.dirname(path))
                sim.disk.write_atomic(path, data)
        owner = VoteFile.look(sim.disk, "/data/vote").identity
        receipts = Receipts.open(sim.disk, "/data/receipts", owner)
        receipts.accept(leader.opened.snapshots.manifest(leader.raft.snapshot).digest, from_leader=True)
        for other in cluster.nodes.values():
            other.crash()
        await sim.start()  # alone: what it knows it has from its disk
        raft = sim.node.raft
        assert raft.log.last_term >= 2
        invariants.check(raft)
        await cluster.start()
        await cluster.until_equal()
        await client.close()

    tell(story)


def test_a_data_directory_of_another_cluster_is_refused():
    """F23: the members that are given found another cluster than the one whose data this is."""

    async def story(cluster):
        sim = cluster.nodes[1]
        await sim.stop()
        founders = cluster.founders
        cluster.founders = founders[:2]
        with pytest.raises(WrongDataDir, match="belongs to the cluster"):
            await sim.start()
        cluster.founders = founders
        await sim.start()
        await cluster.until_equal()

    tell(story)


@pytest.mark.parametrize("name", ["vote", "cluster"])
def test_a_data_directory_without_its_vote_or_its_cluster_is_refused(name):
    """F11: a node that begins anew with a log could vote twice in a term, or in another cluster."""

    async def story(cluster):
        sim = cluster.nodes[1]
        await sim.stop()
        sim.disk.remove(f"/data/{name}")
        with pytest.raises(Corruption, match=f"/data/{name} is missing"):
            await sim.start()

    tell(story)


@pytest.mark.parametrize(("tries", "said"), [(3, "it knows of 1 starts"), (0, "it knows of term")])
def test_an_older_vote_beside_newer_files_is_refused_however_often_it_is_started(tries, said):
    """F19: with its older vote a node would vote twice in a term; the record of starts and the log show it.

    Nobody else can: the record of starts is the true one, and peers believe who has had the starts that they know.
    """

    async def story(cluster):
        sim = cluster.nodes[1]
        await sim.stop()
        older, young = sim.disk.read_bytes("/data/vote"), sim.disk.read_bytes("/data/starts")
        for _ in range(tries):
            await sim.start()
            await cluster.until_equal()
            await sim.stop()
        await sim.start()
        await cluster.until_equal()
        cluster.nodes[cluster.leader.node_id].crash()
        await elapse(3)
        for other in cluster.nodes.values():
            if not other.is_up:
                await other.start()
        await cluster.until_equal()
        await sim.stop()
        if not tries:  # then its starts are as few as the vote knows of
            sim.disk.write_atomic("/data/starts", young)
        sim.disk.write_atomic("/data/vote", older)
        for _ in range(tries + 3):
            with pytest.raises(Corruption, match=said):
                await sim.start()

    tell(story)


@pytest.mark.parametrize("part", ["log", "store"])
def test_why_a_node_has_stopped_is_not_hidden_by_a_disk_that_fails_again(part):
    """F15: what could not be closed is said in the log, but the reason that the operator gets is the first one."""

    async def story(cluster):
        node = follower_of(cluster).node

        def fail():
            raise DiskError("it fails again")

        (node.opened.log if part == "log" else node.applier.runner.store).close = fail
        node.fail(DiskError("it has failed"))
        await node.stop()
        assert str(node.stopped.result()) == "it has failed"

    tell(story)


def test_a_state_that_is_ahead_of_the_log_is_not_served():
    """F6: log, vote and starts are older copies, so acknowledged entries are missing, though the state has them."""

    async def story(cluster):
        sim = cluster.nodes[1]
        client = cluster.client()
        await fill(client, 5)
        await client.close()
        await sim.stop()
        older = {
            path: data
            for path, data in sim.disk.image().items()
            if "/log/" in path or path.endswith(("/vote", "/starts"))
        }
        await sim.start()
        await cluster.until_leader()
        client = cluster.client()
        await fill(client, 80, start=5)
        await client.close()
        await elapse(1.0)
        await sim.stop()
        for path, data in older.items():
            file = sim.disk.open(path)
            file.truncate(0)
            file.pwrite([data], 0, sync=True)
            file.close()
        with pytest.raises(Corruption, match=r"has applied .* entries, but the log ends at"):
            await sim.start()

    tell(story, size=1)


def test_a_state_with_nothing_to_rebuild_from_needs_the_operators_word():
    """Damaged state and snapshots: a typed error that says what to do, and with --rebuild a peer's snapshot comes."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 600)
        sim = follower_of(cluster)
        await cluster.until_equal()
        await sim.node.take_snapshot()
        assert sim.node.raft.log.first_index > 1
        await sim.stop()
        sim.disk.flip("/data/state/image", 100, 1)
        for name in sim.disk.listdir("/data/snapshots"):
            sim.disk.flip(f"/data/snapshots/{name}/image", 100, 1)
        with pytest.raises(StateCorruption, match="--rebuild"):
            await sim.start()
        await sim.start(rebuild=True)
        await cluster.until_equal()
        assert sim.node.snapshots.installed == 1
        await client.close()

    tell(story)


def test_without_any_snapshot_nobody_guesses_who_the_members_are():
    """The log was cut, its snapshots are gone, and the founders are long removed: the node must not elect with them."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 600)
        sim = follower_of(cluster)
        await cluster.until_equal()
        await sim.node.take_snapshot()
        assert sim.node.raft.log.first_index > 1
        await sim.stop()
        for name in sim.disk.listdir("/data/snapshots"):
            sim.disk.flip(f"/data/snapshots/{name}/MANIFEST", 40, 1)
        with pytest.raises(StateCorruption, match="the list of members"):
            await sim.start()
        node = await sim.start(rebuild=True)
        assert not node.raft.membership.voters
        await cluster.until_equal()
        assert node.raft.membership.voters == (1, 2, 3)
        await client.close()

    tell(story)


@pytest.mark.parametrize("by", ["a query", "a command"])
def test_damage_that_is_met_later_stops_the_node_and_is_not_forgotten(by):
    """F10: a block that can't be read: the node stops, and its next start rebuilds the state before it serves."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 300)
        sim = follower_of(cluster)
        await sim.node.take_snapshot()
        await cluster.until_equal()

        def damaged(key):
            raise StateCorruption("a block does not match its checksum")

        sim.node.applier.runner.store.get = damaged
        if by == "a query":
            payload = KeyValue.methods["get"].query_payload(KeyValue.methods["get"].encode_args((b"key-00001",), {}))
            got: list[Any] = []
            sim.node.query(payload, True, lambda index, result: got.append(result))
            assert isinstance(got[0], Unavailable)
        else:
            await fill(client, 1, start=300)
        await cluster.until(lambda: sim.node.failure is not None, 5, "it stops")
        assert isinstance(sim.node.failure, StateCorruption)
        await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
        sim.crash()
        await sim.start()
        await cluster.until_equal()
        assert not sim.disk.exists("/data/state.unfit")
        await client.close()

    tell(story)


def test_a_snapshot_that_rots_at_the_sender_is_not_sent_for_ever():
    """F70: the receiver finds it wrong twice; the sender looks at its own copy, and takes another snapshot."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 300)
        leader = await cluster.until_leader()
        disk = cluster.nodes[leader.node_id].disk
        await leader.take_snapshot()
        await fill(client, 60, start=300)
        for name in disk.listdir("/data/snapshots"):
            disk.flip(f"/data/snapshots/{name}/image", 100, 1)
        new = cluster.add(4)
        await new.start()
        await leader.add_learner(new.member, 10)
        await cluster.until_equal()
        assert new.node.snapshots.installed == 1
        await client.close()

    tell(story)


def test_a_diverged_replica_is_found_and_stopped():
    """F76: one replica's state is changed behind its back; it stops, says so, and the others go on."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 20)
        await cluster.until_equal()
        sim = follower_of(cluster)
        runner = sim.node.applier.runner
        runner.applied = msgspec.structs.replace(runner.applied, digest=runner.applied.digest ^ 1)
        runner.store._applied = runner.applied
        await fill(client, 20, start=20)
        await cluster.until(lambda: sim.node.failure is not None, 10, "it stops")
        assert isinstance(sim.node.failure, Diverged)
        assert "deterministic" in str(sim.node.failure)
        await fill(client, 20, start=40)
        await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
        sim.crash()
        await sim.start()
        await cluster.until_equal()
        await fill(client, 500, start=60)
        await cluster.until_equal()
        await sim.node.take_snapshot()
        runner = sim.node.applier.runner
        runner.applied = msgspec.structs.replace(runner.applied, digest=runner.applied.digest ^ 1)
        runner.store._applied = runner.applied
        await fill(client, 20, start=600)
        await cluster.until(lambda: sim.node.failure is not None, 10, "it stops again")
        await cluster.until(lambda: sim.disk.exists("/data/state.unfit"), 5, "it is written down")
        sim.crash()
        with pytest.raises(StateCorruption, match="--rebuild"):
            await sim.start()
        await sim.start(rebuild=True)
        await cluster.until_equal()
        await client.close()

    tell(story)


def test_a_full_disk_stops_the_node_and_space_brings_it_back():
    """F13: no acknowledgement without space; started again with space, it has all that was acknowledged."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 20)
        sim = follower_of(cluster)
        sim.disk.capacity_bytes = sim.disk.used_bytes() + 3_000
        await fill(client, 200, start=20)
        assert isinstance(sim.node.failure, DiskFull)
        sim.disk.capacity_bytes = 1 << 30
        sim.crash()
        await sim.start()
        await cluster.until_equal()
        await client.close()

    tell(story)


def test_a_leader_whose_disk_hangs_gives_up_leadership():
    """etcd#13527: its heartbeats would keep everybody quiet while nothing commits."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        old = cluster.leader.node_id
        cluster.nodes[old].hang()
        await fill(client, 5, start=5)
        assert cluster.leader.node_id != old
        cluster.nodes[old].unhang()
        await cluster.until_equal()
        await client.close()

    tell(story)


@pytest.mark.parametrize("thread", [BACKGROUND, TRANSFERS])
def test_a_thread_that_hangs_keeps_only_its_own_work_waiting(thread):
    """F16: whoever writes snapshots, or receives them, may hang on every node: commands are done as ever."""

    async def story(cluster):
        for sim in cluster.nodes.values():
            sim.hang_for(thread, 3.0)
        loop = asyncio.get_running_loop()
        client = cluster.client()
        began = loop.time()
        await fill(client, 50)
        assert loop.time() - began < 1.0
        assert all(sim.workers[thread].stalled for sim in cluster.nodes.values())
        taking = loop.create_task(cluster.leader.take_snapshot())
        await elapse(1.0)
        assert taking.done() == (thread != BACKGROUND)
        await taking
        assert loop.time() - began > 3.0 or thread != BACKGROUND
        await client.close()

    tell(story)


def test_a_node_that_was_stopped_itself_does_not_blame_its_disk():
    """Paused in the middle of a write for longer than a disk may take, by SIGSTOP or with its whole virtual machine:
    it goes on (F16, F72)."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        sim = follower_of(cluster)
        sim.hang()
        await fill(client, 5, start=5)
        await cluster.until(lambda: sim.node.writer.started_at is not None)
        sim.freeze()
        await elapse(2 * CONFIG.disk_stall_stop_s)
        sim.thaw()
        await elapse(1.0)
        sim.unhang()
        await cluster.until_equal()
        assert sim.node.failure is None
        await client.close()

    tell(story)


def test_damage_that_shows_when_the_state_is_closed_is_said_and_mended():
    """RocksDB may read a damaged block only then: the node says what to do, and its next start rebuilds (F10)."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        sim = follower_of(cluster)
        node, store = sim.node, sim.node.applier.runner.store

        def close():
            raise StateCorruption("closing /data/state: block checksum mismatch")

        store.close = close
        with pytest.raises(StateCorruption, match="Start the node again: it rebuilds its state"):
            await sim.stop()
        assert isinstance(node.stopped.result(), StateCorruption)
        sim.crash()
        await sim.start()
        assert sim.node.applier.runner.applied.index == 0, "it was rebuilt"
        await cluster.until_equal()
        await client.close()

    tell(story)


def test_a_disk_that_never_comes_back_stops_the_node():
    """A node that waits for ever is neither there nor gone: it stops, says so, and the others go on (F16)."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        sim = follower_of(cluster)
        sim.hang()
        await fill(client, 5, start=5)
        await cluster.until(lambda: sim.node.failure is not None, CONFIG.disk_stall_stop_s + 5, "it stops")
        assert isinstance(sim.node.failure, DiskError)
        assert "has not finished a write" in str(sim.node.failure)
        await fill(client, 5, start=10)
        sim.crash()
        await sim.start()
        await cluster.until_equal()
        await client.close()

    tell(story)


def test_appends_that_wait_for_the_disk_are_not_overtaken():
    """What a follower lacks is read from disk, and what is in memory waits behind it: else each of its refusals would
    begin the sending anew (F28)."""
    trace = Trace()

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        leader, sim = cluster.leader, follower_of(cluster)
        sim.crash()
        await fill(client, 120, start=5)
        trace.messages.clear()
        cluster.nodes[leader.node_id].disk_s = 0.02
        await sim.start()
        await fill(client, 60, start=125)
        await cluster.until_equal()
        await client.close()
        assert cluster.leader is leader
        sent = [message for message in trace.messages if message.to == sim.node_id and "append" in message.label]
        spans = [[int(end) for end in message.label.split()[1].split("-")] for message in sent]
        reached = spans[0][-1]
        for span in spans:
            assert span[0] <= reached + 1, f"{span} was sent behind {reached}"
            reached = max(reached, span[-1])

    tell(story, observe=trace.attach, config=msgspec.structs.replace(CONFIG, batch_bytes_max=KIB))


def test_low_space_refuses_writes_and_lets_them_in_again():
    """Below the reserve commands are refused, safe to retry; reads go on; with space all is well by itself."""

    async def story(cluster):
        client = cluster.client(deadline_s=2.0)
        await fill(client, 5)
        sim = cluster.nodes[1]
        capacity = sim.disk.capacity_bytes
        sim.disk.capacity_bytes = sim.disk.used_bytes() + 100_000
        await cluster.until(lambda: cluster.leader.engine.refuse_writes is not None, 5, "writes are refused")
        with pytest.raises(NotAccepted):
            await fill(client, 1, start=5)
        assert await client.remote.get(b"key-00001") is not None
        sim.disk.capacity_bytes = capacity
        await cluster.until(lambda: cluster.leader.engine.refuse_writes is None, 5, "writes are let in")
        await fill(client, 1, start=5)
        await client.close()

    config = msgspec.structs.replace(CONFIG, disk_free_bytes_min=200_000, disk_free_fraction_min=0.9)
    tell(story, size=1, config=config)


# ---------------------------------------------------------------- limits


def test_commands_are_checked_before_they_get_into_the_log():
    """F33: too large, unknown or unreadable: refused at the edge, and the log is as before."""

    async def story(cluster):
        leader = cluster.leader
        last = leader.raft.log.last_index
        for payload in (b"", b"\xc1", bytes(leader.config.command_bytes_max + 1)):
            with pytest.raises(InvalidArgument):
                leader.submit(payload, lambda index, outcome: None)
        assert leader.raft.log.last_index == last
        with pytest.raises(NotAccepted):
            follower_of(cluster).node.submit(b"", lambda index, outcome: None)

    tell(story)


def test_a_query_that_nobody_can_read_stops_nobody():
    """F75: text that is none and arrays without end, asked of the leader and of a follower, fresh and stale."""

    async def story(cluster):
        answers = []
        asked = 0
        for node in (cluster.leader, follower_of(cluster).node):
            for payload in (b"\xc1", b"\x92\xa1\xff\x90", b"\x92\xa3get" + b"\x91" * 60_000):
                for stale in (False, True):
                    node.query(payload, stale, lambda index, result: answers.append(result))
                    asked += 1
        await elapse(1)
        assert len(answers) == asked
        assert all(isinstance(answer, InvalidArgument) for answer in answers)
        client = cluster.client()
        await fill(client, 3)
        await client.close()

    tell(story)


def test_strangers_who_introduce_themselves_are_not_remembered_without_end():
    """Who knows the cluster's name may say to be a thousand nodes: what is kept still fits into a hello."""

    async def story(cluster):
        node = cluster.leader
        for number in range(1_000):
            known = {5_000 + number: Acquaintance(f"i{number}", 1, "x" * 32)}
            hello = msgspec.structs.replace(node.links.hello(), node_id=1_000 + number, nonce="n", known=known)
            node.links.check_hello(hello)
        follower = follower_of(cluster)
        follower.crash()
        await elapse(1)
        await follower.start()
        await cluster.until(lambda: follower.node.raft.leader == node.node_id, 10, "the follower back among friends")
        assert len(node.links.hello().known) <= LEARNED_MAX + 3
        assert len(encode_message(node.links.hello())) < 16 * KIB

    tell(story)


def test_who_starts_again_and_again_does_not_fill_the_queue_of_the_disk(monkeypatch):
    """A thousand starts of one node are a few writes, and the newest is on disk when they are over."""
    writes = []

    def save(node, known):
        writes.append(node.node_id)
        save_known(node, known)

    monkeypatch.setattr(met, "save_known", save)

    async def story(cluster):
        node = cluster.leader
        await elapse(1)
        writes.clear()
        for boot in range(1, 1_001):
            hello = msgspec.structs.replace(node.links.hello(), node_id=77, boot=boot, nonce=f"n{boot}", starts=[])
            node.links.check_hello(hello)
        await elapse(1)
        assert 1 <= writes.count(node.node_id) <= 3
        assert load_known(node)[77].boot == 1_000

    tell(story)


def test_a_snapshot_under_load_is_the_state_at_its_index():
    """F69: the disk is slow, and commands are committed while the state is copied; none of them is in the copy."""

    async def story(cluster):
        client = cluster.client()
        check = SnapshotsHoldWhatTheySay()
        leader = cluster.leader
        cluster.nodes[leader.node_id].disk_s = 0.01
        load = asyncio.ensure_future(fill(client, 150))
        while not load.done():
            await elapse(0.1)
            await leader.take_snapshot()
            check.look(cluster)
        await load
        assert leader.snapshots.taken > 5
        await client.close()

    tell(story)


def test_a_snapshot_of_a_deposed_leader_is_not_even_begun():
    """F65: its term is over, so nobody knows whether its log still counts; nor is one taken from who does not lead."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 30)
        leader, sim = cluster.leader, follower_of(cluster)
        await leader.take_snapshot()
        store = leader.opened.snapshots
        manifest, term = store.manifest(store.latest()).data, leader.raft.term
        (other,) = {1, 2, 3} - {leader.node_id, sim.node_id}
        for sender, of_term in ((leader.node_id, term - 1), (other, term), (other, term + 1)):
            offer = SnapshotOffer(sender=sender, to=sim.node_id, term=of_term, attempt=1, manifest=manifest)
            sim.node.snapshots.on_message(offer)
            await elapse(0.02)
            assert sim.node.snapshots.receiving() is None
        await client.close()

    tell(story)


def test_a_log_that_begins_anew_is_no_loss_at_the_next_start():
    """F63: a deposed leader's longer log makes way for a snapshot; what its vote file counted as durable is gone."""

    async def story(cluster):
        client, late = cluster.client(), cluster.client()
        await fill(client, 5)
        old = cluster.leader
        for other in cluster.nodes:
            if other != old.node_id:
                cluster.network.cut(old.node_id, other)
        lost = [asyncio.ensure_future(client.remote.put(b"lost-%d" % number, b"")) for number in range(80)]
        await cluster.until(lambda: old.raft.log.last_index > 80)
        tail = old.raft.log.last_index
        await cluster.until(lambda: not old.raft.is_leader and cluster.leader is not None)
        await cluster.until_leader()
        for task in lost:
            task.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        await fill(late, 55)
        await cluster.leader.take_snapshot()
        assert old.raft.log.last_index == tail > cluster.leader.raft.log.last_index
        for other in cluster.nodes:
            cluster.network.reset(old.node_id, other)  # else the new leader's first appends would still arrive
        cluster.network.heal()
        await cluster.until(lambda: old.snapshots.installed)
        sim = cluster.nodes[old.node_id]
        sim.crash()
        await sim.start()
        await cluster.until_equal()
        await client.close()
        await late.close()

    tell(story)


def test_a_snapshot_at_the_same_index_is_not_taken_twice():
    """Asking again gives the one that is there."""

    async def story(cluster):
        client = cluster.client()
        await fill(client, 5)
        first, again = await cluster.leader.take_snapshot(), await cluster.leader.take_snapshot()
        assert first == again
        assert len(cluster.leader.opened.snapshots.list()) == 1
        await client.close()

    tell(story)


def test_requests_after_the_end_are_refused():
    """A node that was stopped answers nobody, and says why."""

    async def story(cluster):
        sim = follower_of(cluster)
        node = sim.node
        await sim.stop()
        with pytest.raises(Unavailable):
            await node.until(lambda: False, 0.1, "nothing")

    tell(story)


def test_config_with_room_for_nothing_is_refused():
    """A config is checked when it is made, before any node is."""
    with pytest.raises(InvalidArgument):
        Config(segment_bytes=1)


def test_a_crashed_node_is_gone_for_good():
    """It dials nobody, whoever would listen, and to end what has ended is nothing."""

    async def story(cluster):
        sim = follower_of(cluster)
        others = [each for each in cluster.nodes.values() if each is not sim]
        for other in others:
            cluster.network.cut(sim.node_id, other.node_id)  # so that it is about to dial again
        await elapse(1.0)
        node = sim.node
        sim.crash()
        cluster.network.heal()
        await elapse(5.0)
        assert node.transport.links() == {}
        names = [task.get_name() for task in asyncio.all_tasks()]
        assert sum(name.startswith("raftkv-link-") for name in names) == 4, names  # two of each other node
        await sim.stop()

    tell(story)


def test_a_node_that_crashes_while_it_starts_goes_no_further():
    """Wherever it waits at that moment: who starts it hears of it, nobody listens, and it can start anew."""

    async def story(cluster):
        sim = follower_of(cluster)
        for wait_s in [number * 0.0005 for number in range(1, 60)]:
            sim.crash()
            starting = asyncio.ensure_future(sim.start())
            await elapse(wait_s)
            sim.crash()
            with contextlib.suppress(NodeStopped):
                await starting
            assert not sim.is_up
            with pytest.raises(ConnectionRefusedError):
                await cluster.network.dial(0, asyncio.Protocol, sim.member.peer_address)
        await sim.start()
        await cluster.until_equal()

    tell(story)


def test_a_crash_right_behind_recovery_is_one_too(monkeypatch):
    """Its files are open, and the node has not heard of it yet: it does not listen once it is gone (seed 1265)."""

    async def story(cluster):
        sim = follower_of(cluster)
        sim.crash()

        def open_and_crash(options, world):
            opened = open_directory(options, world)
            asyncio.get_running_loop().call_soon(sim.crash)
            return opened

        with monkeypatch.context() as patch, pytest.raises(NodeStopped):
            patch.setattr("raftkv.node.node.open_directory", open_and_crash)
            await sim.start()
        await sim.start()
        await cluster.until_equal()

    tell(story)


def test_a_node_that_is_stopped_before_its_first_step_is_up():
    """It can't be started beside itself; when it goes on it comes up, and a crash before that ends it."""

    async def story(cluster):
        sim = follower_of(cluster)
        for crashes in (True, False):
            sim.crash()
            starting = asyncio.ensure_future(sim.start())
            await elapse(0)
            sim.freeze()
            await elapse(0.1)
            assert not hasattr(sim.node, "stopped")
            with pytest.raises(AssertionError, match="is up"):
                await sim.start()
            if crashes:
                sim.crash()
                with pytest.raises(NodeStopped):
                    await starting
            else:
                sim.thaw()
                await starting
        await cluster.until_equal()

    tell(story)
