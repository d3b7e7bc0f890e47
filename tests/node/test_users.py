"""Users on three nodes: turned on while clients work, through failovers, and on nodes that are behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import argon2
import pytest

from raftkv import Admin, Client
from raftkv.access import (
    AddRole,
    Enable,
    GiveRole,
    Grant,
    GrantRight,
    NewPassword,
    NewToken,
    NewUser,
    RemoveUser,
    RevokeRight,
    TakeRole,
    TurnOff,
    passwords,
)
from raftkv.client.methods import OPEN_SESSION_PAYLOAD, read_session_id
from raftkv.errors import Forbidden, InvalidArgument, NotActive, RaftKVError, Unauthenticated, Unavailable
from raftkv.kv import KeyValue
from raftkv.machine import NO_SESSION, encode_command
from raftkv.testing import elapse, play
from raftkv.testing.world.cluster import SimCluster
from raftkv.wire import RequestKind

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What passwords are worth is of no matter here."""
    monkeypatch.setattr(passwords, "_hasher", argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


Story = Callable[[SimCluster], Awaitable[None]]


def cluster(story: Story, **settings: Any) -> None:
    """Tell `story` of three nodes without faults."""
    play(KeyValue, story, **settings)


def operator(world: SimCluster, *nodes: int, user: str = "boss") -> Admin:
    """An operator's client of this user."""
    return world.admin(*nodes, user=user, password=PASSWORD, insecure=True)


def client_of(world: SimCluster, user: str, *nodes: int, **options: Any) -> Client[Any]:
    """A client of this user."""
    return world.client(*nodes, user=user, password=PASSWORD, insecure=True, **options)


async def settle_in(world: SimCluster, *, on: bool = True) -> Admin:
    """Make a root user `boss`, and `ann` and `bob`, whose keys begin with their names; turn it on."""
    await world.until_leader()
    async with world.admin() as nobody:
        await nobody.change_access(NewUser("boss", PASSWORD, ("root",)))
    admin = operator(world)
    for user in ("ann", "bob"):
        await admin.change_access(AddRole(user))
        for what in ("read", "write"):
            await admin.change_access(GrantRight(user, Grant(what, user.encode())))  # type: ignore[arg-type]
        await admin.change_access(NewUser(user, PASSWORD, (user,)))
    if on:
        await admin.change_access(Enable())
    return admin


def test_users_do_what_they_may_whichever_node_they_ask_first() -> None:
    """A client that begins at a follower gets to the leader, with its rights; nobody else gets anything done."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        for node in world.nodes:
            async with client_of(world, "ann", node) as ann:
                await ann.put(b"ann/%d" % node, b"v")
                with pytest.raises(Forbidden):
                    await ann.put(b"bob/1", b"v")
                with pytest.raises(Forbidden):
                    await ann.get.stale(b"bob/1")
        async with world.client() as nobody:
            with pytest.raises(Unauthenticated):
                await nobody.put(b"ann/1", b"v")
        await admin.close()
        await world.until_equal()

    cluster(story)


def test_it_is_turned_on_under_clients_that_work() -> None:
    """Those who have signed in miss nothing: each increment counts once. All others are refused from then on."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world, on=False)
        ann, nobody = client_of(world, "ann"), world.client()
        done, refused = 0, 0
        turning = asyncio.ensure_future(_turn_on_after(admin, 0.5))
        while not turning.done() or done < 100:
            done = await ann.call(KeyValue.increment, b"ann/n", 1)
            try:
                await nobody.call(KeyValue.increment, b"n", 1)
            except Unauthenticated:
                refused += 1
            await elapse(0.01)
        assert refused > 0
        item = await ann.call(KeyValue.get, b"ann/n")
        assert item is not None and item.value == b"%d" % done
        await turning
        for each in (ann, nobody, admin):
            await each.close()

    cluster(story)


async def _turn_on_after(admin: Admin, seconds: float) -> None:
    await elapse(seconds)
    await admin.change_access(Enable())


def test_a_session_and_its_owner_survive_the_leader() -> None:
    """Its user goes on in it at the next leader, each command once; nobody else gets into it there either."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        ann = client_of(world, "ann")
        assert await ann.call(KeyValue.increment, b"ann/n", 1) == 1
        session = ann.session
        assert session is not None
        first = await world.until_leader()
        world.nodes[first.node_id].crash()
        assert await ann.call(KeyValue.increment, b"ann/n", 1) == 2
        assert ann.session is session
        leader = await world.until_leader()
        assert leader.node_id != first.node_id
        assert leader.requests.session_owner(session.id) == "ann"
        increment = KeyValue.methods["increment"]
        args = increment.encode_args((b"bob/n", 1), {})
        bob = client_of(world, "bob")
        for payload in (
            increment.command_payload(session.id, 3, 0, args),
            increment.command_payload(session.id, 1, 0, args),
            encode_command(session.id, 0, 0, "*close", b"\x90"),
        ):
            with pytest.raises(Forbidden, match="another user has opened it"):
                await bob._request(RequestKind.COMMAND, payload, 5.0)
        assert await ann.call(KeyValue.increment, b"ann/n", 1) == 3
        await world.nodes[first.node_id].start()
        await world.until_equal()
        for each in (ann, bob, admin):
            await each.close()

    cluster(story)


def test_a_node_that_was_down_knows_the_users_when_it_is_back() -> None:
    """It goes by what it has applied: once that is all, a removed user gets nothing from it, and a new one does."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        leader = await world.until_leader()
        behind = next(node for node in world.nodes if node != leader.node_id)
        world.nodes[behind].crash()
        await admin.change_access(RemoveUser("bob"))
        await admin.change_access(NewUser("cat", PASSWORD, ("ann",)))
        await world.nodes[behind].start()
        await world.until_equal()
        async with client_of(world, "cat", behind) as cat:
            await cat.get.stale(b"ann/1")
        async with client_of(world, "bob", behind) as bob:
            with pytest.raises(Unauthenticated):
                await bob.get.stale(b"bob/1")
        await admin.close()

    cluster(story)


def test_a_follower_that_is_behind_sends_a_new_user_on() -> None:
    """What it has not applied yet is no reason to refuse what the leader is to decide; what it answers itself, it
    refuses."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        leader = await world.until_leader()
        behind = next(node for node in world.nodes if node != leader.node_id)
        follower = world.nodes[behind].node
        assert follower is not None
        follower.applier.hold()
        await admin.change_access(NewUser("cat", PASSWORD, ("ann",)))
        async with client_of(world, "cat", behind) as cat:
            await cat.put(b"ann/1", b"v")
            with pytest.raises(Forbidden):
                await cat.put(b"bob/1", b"v")
        follower.applier.release()
        await admin.close()

    cluster(story)


def test_rights_change_under_a_client_without_a_new_connection() -> None:
    """From the entry on that is applied: what is granted works, what is revoked does not, a removed user is nobody."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        ann = client_of(world, "ann")
        with pytest.raises(Forbidden):
            await ann.call(KeyValue.put, b"bob/1", b"v")
        await admin.change_access(GiveRole("ann", "bob"))
        await ann.call(KeyValue.put, b"bob/1", b"v")
        await admin.change_access(RevokeRight("bob", Grant("write", b"bob")))
        with pytest.raises(Forbidden):
            await ann.call(KeyValue.put, b"bob/1", b"v")
        await admin.change_access(TakeRole("ann", "ann"))
        with pytest.raises(Forbidden):
            await ann.call(KeyValue.get, b"ann/1")
        await admin.change_access(RemoveUser("ann"))
        with pytest.raises(Unauthenticated):
            await ann.call(KeyValue.get, b"bob/1")
        await ann.close()
        await admin.close()

    cluster(story)


def test_a_token_is_over_at_its_time_on_every_node() -> None:
    """By the cluster's time on the leader, and by each node's own elsewhere."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        token = await admin.change_access(NewToken("ann", 60_000))
        clients = [world.client(node, token=token, insecure=True) for node in world.nodes]
        for client in clients:
            await client.call(KeyValue.put, b"ann/1", b"v")
        await elapse(61)
        for client in clients:
            with pytest.raises(Unauthenticated, match="over"):
                await client.call(KeyValue.put, b"ann/1", b"v")
            await client.close()
        await admin.close()

    cluster(story)


def test_a_new_password_ends_what_rests_on_the_old_one() -> None:
    """Connections by the old one are closed, and it gets nobody in again."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        ann = client_of(world, "ann")
        await ann.call(KeyValue.put, b"ann/1", b"v")
        await admin.change_access(NewPassword("ann", "battery staple"))
        with pytest.raises(Unauthenticated):
            await ann.call(KeyValue.put, b"ann/1", b"v")
        async with world.client(user="ann", password="battery staple", insecure=True) as again:
            await again.put(b"ann/1", b"v")
        await ann.close()
        await admin.close()

    cluster(story)


def test_nothing_of_what_is_refused_gets_into_the_log() -> None:
    """After dozens of refused requests at every node, the leader's log has no entry more."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        leader = await world.until_leader()
        await world.until_equal()
        before = leader.raft.log.last_index
        clients = [*(client_of(world, "ann", node, sessions=False) for node in world.nodes), world.client()]
        for client in clients:
            for number in range(15):
                with pytest.raises((Forbidden, Unauthenticated)):
                    await client.call(KeyValue.put, b"bob/%d" % number, b"v")
                with pytest.raises((Forbidden, Unauthenticated)):
                    await client.call(KeyValue.get, b"bob/%d" % number)
            await client.close()
        ann = operator(world, user="ann")
        for work in (lambda: ann.transfer_leadership(), lambda: ann.remove(3), lambda: ann.change_access(TurnOff())):
            with pytest.raises(Forbidden):
                await work()
        assert leader.raft.log.last_index == before and leader.raft.is_leader
        await ann.close()
        await admin.close()

    cluster(story)


@pytest.mark.parametrize("name", ["*access", "*own"])
def test_nobody_sends_what_only_nodes_write(name: str) -> None:
    """Also while everybody may do everything: a change of users is an order, and a session is opened for who one is."""

    async def story(world: SimCluster) -> None:
        await world.until_leader()
        client = world.client()
        await client.call(KeyValue.put, b"a", b"v")
        payload = encode_command(NO_SESSION, 0, 0, name, b"\x91\xa4boss")
        with pytest.raises((InvalidArgument, NotActive)):
            await client._request(RequestKind.COMMAND, payload, 5.0)
        assert await client.call(KeyValue.get, b"a") is not None
        await client.close()

    cluster(story)


def test_without_users_sessions_are_nobodys() -> None:
    """Their records are as they were before there were users, so nodes of before agree in their digests."""

    async def story(world: SimCluster) -> None:
        leader = await world.until_leader()
        client = world.client()
        answer = await client._request(RequestKind.COMMAND, OPEN_SESSION_PAYLOAD, 5.0)
        assert leader.requests.session_owner(read_session_id(answer.payload)) == ""
        assert leader.requests.session_owner(1) is None
        await client.close()

    cluster(story)


def test_without_a_leader_nobody_is_let_in_either() -> None:
    """Then the leader can't decide: a request ends as not accepted, with what a follower would say."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        leader = await world.until_leader()
        await world.until_equal()
        others = [node for node in world.nodes if node != leader.node_id]
        for node in (leader.node_id, others[0]):
            world.nodes[node].crash()
        async with client_of(world, "ann", others[1], deadline_s=2.0) as ann:
            with pytest.raises(Unavailable):
                await ann.put(b"bob/1", b"v")
            with pytest.raises(Forbidden):
                await ann.get.stale(b"bob/1")
            await ann.get.stale(b"ann/1")
        await world.start()
        await admin.close()

    cluster(story)


def test_errors_are_of_the_public_kinds() -> None:
    """They are neither tried again by a client, nor taken for anything else."""
    for error in (Unauthenticated("why"), Forbidden("why")):
        assert isinstance(error, RaftKVError) and not isinstance(error, InvalidArgument)


def put_payload(key: bytes) -> bytes:
    """A put, in no session."""
    put = KeyValue.methods["put"]
    return put.command_payload(NO_SESSION, 0, 0, put.encode_args((key, b"v"), {}))


def test_who_was_removed_gets_nothing_done_at_the_next_leader() -> None:
    """It may not have applied yet that the user is gone: then it decides nothing, and goes by nothing older."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        leader = await world.until_leader()
        heir = world.nodes[next(node for node in world.nodes if node != leader.node_id)].node
        assert heir is not None
        ann = client_of(world, "ann", heir.node_id, sessions=False)
        await ann.remote.get.stale(b"ann/1")  # it is connected there, as a user
        await world.until_equal()
        heir.applier.hold()
        await admin.change_access(RemoveUser("ann"))
        await leader.orders.transfer_leadership(heir.node_id)
        puts = [
            asyncio.ensure_future(ann._request(RequestKind.COMMAND, payload, 20.0))
            for payload in (put_payload(b"ann/1"), put_payload(b"ann/2"))
        ]
        await elapse(2.0)
        assert heir.raft.is_leader and not heir.requests.knows_all
        heir.applier.release()
        for end in await asyncio.gather(*puts, return_exceptions=True):
            assert isinstance(end, Unauthenticated | Forbidden), end
        await world.until_equal()
        boss = client_of(world, "boss")
        assert await boss.call(KeyValue.get, b"ann/1") is None
        for each in (ann, boss, admin):
            await each.close()

    cluster(story)


def test_who_got_a_right_is_not_refused_by_a_leader_of_before() -> None:
    """It stood still while it was deposed, and is asked before it hears of that: it makes sure, and sends on."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        old = await world.until_leader()
        ann = client_of(world, "ann", old.node_id)
        await ann.call(KeyValue.put, b"ann/1", b"v")
        others = [node for node in world.nodes if node != old.node_id]
        for other in others:
            world.network.cut(old.node_id, other)
        world.nodes[old.node_id].freeze()
        try:
            await world.until(lambda: world.leader not in (None, old), 10, "another leader")
            async with operator(world, *others) as boss:
                await boss.change_access(GrantRight("ann", Grant("write", b"more/")))
            put = asyncio.ensure_future(ann.call(KeyValue.put, b"more/1", b"v"))
            await elapse(0.1)
        finally:
            world.nodes[old.node_id].thaw()
            await elapse(0.3)
            world.network.heal()
        await put
        assert not old.raft.is_leader
        for each in (ann, admin):
            await each.close()

    cluster(story)


def test_a_node_that_is_behind_reads_nothing_for_nobody_once_users_have_to_sign_in() -> None:
    """It does not know yet, and so does not ask who it is; what it reads later is not told."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world, on=False)
        leader = await world.until_leader()
        behind = world.nodes[next(node for node in world.nodes if node != leader.node_id)].node
        assert behind is not None
        reader = world.client(behind.node_id)
        assert await reader.call(KeyValue.get, b"ann/1") is None
        behind.applier.hold()
        await admin.change_access(Enable())
        read = asyncio.ensure_future(reader.call(KeyValue.get, b"ann/1"))
        await elapse(0.3)
        assert not behind.access.is_on and not read.done(), "it does not know"
        behind.applier.release()
        with pytest.raises(Unauthenticated):
            await read
        for each in (reader, admin):
            await each.close()

    cluster(story)


@pytest.mark.parametrize("change", ["right taken", "user removed"])
def test_a_node_that_is_behind_reads_nothing_for_who_may_no_more(change: str) -> None:
    """It has not applied the change when it is asked, and has when it reads: what it reads is not told."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world)
        leader = await world.until_leader()
        behind = world.nodes[next(node for node in world.nodes if node != leader.node_id)].node
        assert behind is not None
        reader = client_of(world, "ann", behind.node_id)
        assert await reader.call(KeyValue.get, b"ann/1") is None
        assert reader.connected_to == world.nodes[behind.node_id].member.client_address
        behind.applier.hold()
        await admin.change_access(
            RemoveUser("ann") if change == "user removed" else RevokeRight("ann", Grant("read", b"ann"))
        )
        read = asyncio.ensure_future(reader.call(KeyValue.get, b"ann/1"))
        await elapse(0.3)
        assert "ann" in behind.access.users and not read.done(), "it does not know"
        behind.applier.release()
        with pytest.raises((Unauthenticated, Forbidden)):
            await read
        for each in (reader, admin):
            await each.close()

    cluster(story)


@pytest.mark.parametrize("change", ["turned on", "user removed"])
def test_a_node_that_starts_lets_nobody_in_who_was_refused_before(change: str) -> None:
    """Not even one that is alone, and knows of no leader: a state that is read from the disk is not one of before users
    had to sign in, or before one of them was removed, as each change of that is made durable at once."""

    async def story(world: SimCluster) -> None:
        admin = await settle_in(world, on=False)
        if change == "user removed":
            await admin.change_access(Enable())
            await elapse(1.0)
            await admin.change_access(RemoveUser("ann"))
        else:
            await elapse(1.0)
            await admin.change_access(Enable())
        await world.until_equal()
        await elapse(1.0)
        for sim in world.nodes.values():
            sim.crash()
        await world.nodes[1].start()
        node = world.nodes[1].node
        assert node is not None and node.access.is_on
        assert ("ann" in node.access.users) is (change == "turned on")
        await admin.close()
        for number in (2, 3):
            await world.nodes[number].start()
        await world.until_leader()

    cluster(story)
