"""Users and roles of whole clusters: ordered at the leader, the same on each node, kept through what may happen."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.access import (
    ROOT,
    AccessAsk,
    AddRole,
    Enable,
    GiveRole,
    Grant,
    GrantRight,
    NewPassword,
    NewToken,
    NewUser,
    RemoveUser,
    TurnOff,
    digest_of,
)
from raftkv.access.passwords import verify_password
from raftkv.errors import AccessRejected, ChangeRefused, Indeterminate, InvalidArgument, NotLeader
from raftkv.kv import KeyValue
from raftkv.testing import elapse, scenario
from tests.logged import capture_logs
from tests.node.steps import fill, follower_of

PASSWORD = "correct horse"


async def staff(cluster):
    """An operator's client, with a root user and a clerk in the cluster."""
    admin = cluster.admin()
    await admin.change_access(NewUser("boss", PASSWORD, (ROOT,)))
    await admin.change_access(AddRole("clerk"))
    await admin.change_access(GrantRight("clerk", Grant("query", "get*")))
    await admin.change_access(NewUser("ann", "", ("clerk",), ("ann.example.com",)))
    return admin


def generations(cluster):
    """How many changes each running node has applied."""
    return {node.access.generation for node in cluster.running}


@scenario(KeyValue, seed=1)
async def test_all_nodes_have_the_same_users(cluster):
    """What one orders is on each node once it has applied it, with equal digests, and each tells whoever watches."""
    heard = []
    follower = follower_of(cluster).node
    follower.watch_access(lambda: heard.append(follower.access.generation))
    admin = await staff(cluster)
    await cluster.until_equal()
    assert generations(cluster) == {4} and heard[-1] == 4
    for node in cluster.running:
        assert node.access.rights("boss").is_root and node.access.user_of_certificate(["ann.example.com"]) == "ann"
        assert verify_password(node.access.users["boss"].password, PASSWORD)
    assert len({node.applier.runner.applied.digest for node in cluster.running}) == 1
    await admin.close()


@scenario(KeyValue, seed=2)
async def test_they_come_with_a_snapshot_and_survive_restarts(cluster):
    """A node that joins so late that the log is cut has them, too; and all have them when all were stopped."""
    admin, client = await staff(cluster), cluster.client()
    token = await admin.change_access(NewToken("ann", 3_600_000))
    await admin.change_access(RemoveUser("boss"))
    await fill(client, 600)
    await elapse(4)
    new = cluster.add(4)
    await new.start()
    await admin.add_learner(new.member)
    await cluster.until_equal()
    assert new.node.snapshots.installed == 1
    for _ in range(2):
        assert generations(cluster) == {6} and len(cluster.running) == 4
        for node in cluster.running:
            assert set(node.access.users) == {"ann"} and node.access.tokens[digest_of(token)].user == "ann"
        await cluster.stop()
        await cluster.start()
        await cluster.until_equal()
    await admin.close()
    await client.close()


@scenario(KeyValue, seed=3)
async def test_what_is_not_possible_is_refused_by_name(cluster):
    """By the state, with its reason; by the leader, before anything is in the log; by others, who name the leader."""
    admin = await staff(cluster)
    for order, why in (
        (NewUser("bob", PASSWORD, ("nobody",)), "UnknownRole"),
        (NewUser("ann"), "UserExists"),
        (GiveRole("bob", "clerk"), "UnknownUser"),
        (NewToken("bob"), "UnknownUser"),
    ):
        with pytest.raises(AccessRejected) as caught:
            await admin.change_access(order)
        assert caught.value.error_type == why
    last = cluster.leader.raft.log.last_index
    for order in (
        NewUser("bob", "short"),
        NewUser("bob!", PASSWORD),
        NewPassword("ann", "x" * 2_000),
        GrantRight("clerk", Grant("read", "text")),
        GrantRight("clerk", Grant("admin", "stauts")),
        NewToken("ann", -1),
    ):
        with pytest.raises(InvalidArgument):
            await admin.change_access(order)
    assert cluster.leader.raft.log.last_index == last
    with pytest.raises(NotLeader):
        await follower_of(cluster).node.orders.change_access(TurnOff(), None, 1.0)
    await admin.close()


@scenario(KeyValue, seed=4)
async def test_it_is_turned_on_only_by_who_could_turn_it_off(cluster):
    """By a connection's user, or by a password or token in the order; anybody else is refused, and it stays off."""
    admin = await staff(cluster)
    await admin.change_access(NewPassword("ann", PASSWORD))
    root_token = await admin.change_access(NewToken("boss", 60_000))
    ann_token = await admin.change_access(NewToken("ann"))
    orders = cluster.leader.orders
    refused = [
        (Enable(), None),
        (Enable(), "ann"),
        (Enable(), "nobody"),
        (Enable("boss", "incorrect horse"), None),
        (Enable("nobody", PASSWORD), None),
        (Enable("ann", PASSWORD), None),
        (Enable("boss", PASSWORD), "ann"),
        (Enable(token=ann_token), None),
        (Enable(token=root_token + "x"), None),
    ]
    for order, by in refused:
        with pytest.raises(AccessRejected) as caught:
            await orders.change_access(order, by, 5.0)
        assert caught.value.error_type == "NotProven" and not cluster.leader.access.is_on
    for order, by in ((Enable("boss", PASSWORD), None), (Enable(token=root_token), None), (Enable(), "boss")):
        await orders.change_access(order, by, 5.0)
        assert cluster.leader.access.is_on
        await orders.change_access(TurnOff(), "boss", 5.0)
    await elapse(61)
    with pytest.raises(AccessRejected):
        await orders.change_access(Enable(token=root_token), None, 5.0)
    await admin.close()


@scenario(KeyValue, seed=5)
async def test_no_secret_is_in_the_log_or_in_what_is_logged(cluster):
    """Passwords are hashed, and tokens too, before the entry is made; the lines of the log name neither."""
    with capture_logs() as lines:
        admin = await staff(cluster)
        token = await admin.change_access(NewToken("boss"))
        await admin.change_access(Enable("boss", PASSWORD))
    await admin.close()
    admin = cluster.admin(user="boss", password=PASSWORD, insecure=True)
    log = cluster.leader.opened.log
    entries = b"".join(entry.record for entry in log.load(1, log.durable_index, 1 << 20))
    assert b"NewUser" not in entries and b"AddUser" in entries and b"$argon2id$" in entries
    for secret in (PASSWORD, token):
        assert secret.encode() not in entries and secret not in repr(lines)
    assert [line["event"] for line in lines].count("access_changed") == 6
    assert "argon2" not in repr(lines)
    shown = repr([await admin.show_access(), await admin.show_access(AccessAsk("roles"))])
    assert "boss" in shown and "clerk" in shown and "argon2" not in shown and token not in shown
    await admin.close()


@scenario(KeyValue, seed=6)
async def test_what_is_shown_is_what_was_acknowledged(cluster):
    """Asked at a follower too: it goes by the leader's index."""
    admin = await staff(cluster)
    follower = follower_of(cluster).node
    await admin.change_access(RemoveUser("ann"))
    shown = msgspec.msgpack.decode(await follower.orders.show_access(AccessAsk(), 5.0))
    assert [user["user"] for user in shown["some_users"]] == ["boss"] and shown["is_on"] is False
    await admin.close()


@scenario(KeyValue, seed=7)
async def test_a_change_waits_until_all_are_known_to_read_it(cluster):
    """The first one: a node of an older raftkv would take the entry for a command of the application."""
    leader = cluster.leader
    told, other = leader.peers.admission.told, follower_of(cluster).node_id
    before = told[other]
    told[other] = msgspec.structs.replace(before, knows_users=False)
    with pytest.raises(ChangeRefused, match=rf"\[{other}\] run an older raftkv"):
        await leader.orders.change_access(NewUser("boss"), None, 5.0)
    del told[other]
    with pytest.raises(ChangeRefused, match=rf"\[{other}\] were not met yet"):
        await leader.orders.change_access(NewUser("boss"), None, 5.0)
    told[other] = before
    await leader.orders.change_access(NewUser("boss"), None, 5.0)
    del told[other]
    await leader.orders.change_access(NewUser("ann"), None, 5.0)
    assert set(leader.access.users) == {"ann", "boss"}


@scenario(KeyValue, seed=8)
async def test_a_change_without_a_majority_may_still_happen(cluster):
    """It is `Indeterminate` after its deadline, and applied once a majority is back."""
    leader = cluster.leader
    await leader.orders.change_access(NewUser("boss"), None, 5.0)
    others = [sim for sim in cluster.nodes.values() if sim.node is not leader]
    for sim in others:
        await sim.stop()
    with pytest.raises(Indeterminate):
        await leader.orders.change_access(NewUser("ann"), None, 0.3)
    for sim in others:
        await sim.start()
    await cluster.until(lambda: cluster.leader is not None, 20, "a leader")
    await cluster.until_equal()
    assert generations(cluster) in ({1}, {2})
