"""A later release of raftkv, of which a recipe does otherwise from an entry on, beside nodes of this one.

It goes the way that `raftkv.machine.versions` describes, with what such a release would have: a recipe that asks the
state which way counts, an entry that says it, and a longer handshake. And it shows what it relies on in this release:
whoever breaks that leaves no way to change what a recipe does while nodes of this release are there.
"""

from __future__ import annotations

import msgspec
import pytest

from raftkv.entry import Entry
from raftkv.errors import MachineFailed
from raftkv.machine.upgrading import Upgrading
from raftkv.machine.versions import VersionChange
from raftkv.recipes import Locks as Released
from raftkv.testing import SimCluster, scenario
from raftkv.wire import FRAME_HEAD_BYTES, Hello, decode_message, encode_message
from tests.node.shops import lead, run

EDITION_KEY = b"\x00edition"
SECOND = 2
STEP = 10
"""By which tokens rise in the second edition."""


class Edition(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """What the later release adds to `VersionChange`."""

    number: int


_editions = msgspec.msgpack.Decoder(Edition)


class Locks(Released):
    """The recipe as the later release has it: each way as it was, and the new one once that counts."""

    def _next_number(self) -> int:
        data = self._overlay.get(EDITION_KEY)
        if data is None or _editions.decode(data).number < SECOND:
            return super()._next_number()
        return super()._next_number() // STEP * STEP + STEP


_apply = Upgrading.apply


def _applied(self: Upgrading, entry: Entry) -> None:
    """As the nodes of each release do: those of the later one know one change more."""
    if self._machine is not Locks:
        _apply(self, entry)
        return
    try:
        _editions.decode(entry.payload)
    except msgspec.ValidationError:
        _apply(self, entry)
    else:
        self._overlay.own[EDITION_KEY] = entry.payload


@pytest.fixture(autouse=True)
def _releases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Upgrading, "apply", _applied)


def propose(cluster: SimCluster) -> int:
    """As the leader of the later release does when all members have said that they know the edition; its index."""
    leader = cluster.leader
    assert leader is not None
    change: VersionChange = Edition(SECOND)  # type: ignore[assignment]
    leader.upgrades._propose(change)
    return leader.raft.log.last_index


@scenario(Released, seed=1)
async def test_a_recipe_does_otherwise_once_all_nodes_can(cluster: SimCluster) -> None:
    """Nodes of both releases do what the old one does; behind the entry all of them do the new thing, after a restart
    and from a snapshot as well."""
    client = cluster.client(machine=Released)
    tokens = [await client.remote.acquire("first", "ann")]
    for node_id in (1, 2, 3):
        await run(cluster, Locks, node_id)
        tokens += [await client.remote.acquire(f"beside {node_id}", owner) for owner in ("ann", "bob")]
        await cluster.until_equal()
    assert tokens == [2, 4, 0, 7, 0, 10, 0]
    propose(cluster)
    assert await client.remote.acquire("then", "ann") == 30
    await cluster.until_equal()
    for sim in cluster.nodes.values():
        sim.crash()
        await sim.start()
        await cluster.until_leader()
        await client.remote.acquire(f"restarted {sim.node_id}", "ann", 60.0)
        await cluster.until_equal()
    sim = cluster.nodes[3]
    assert sim.node is not None
    await sim.node.orders.take_snapshot()
    await sim.stop()
    await sim.start(rebuild=True)
    await cluster.until_leader()
    assert await client.remote.acquire("last", "ann") % STEP == 0
    await cluster.until_equal()


@scenario(Released, seed=1, without=["NobodyStopsWithoutAReason"])
async def test_a_node_of_this_release_stops_before_an_entry_of_a_later_one(cluster: SimCluster) -> None:
    """Whether it was proposed too early, or the node went back to this release with the entry in its log: it applies
    nothing that it would misread, and says what to start; with that it goes on."""
    client = cluster.client(machine=Released)
    assert await client.remote.acquire("first", "ann") == 2
    await run(cluster, Locks, 1, 2)
    await lead(cluster, 1)
    index = propose(cluster)
    old = cluster.nodes[3]
    for attempt in range(2):
        await cluster.until(lambda: old.node is not None and old.node.failure is not None, 30, "the end of node 3")
        assert old.node is not None
        failure, applied = old.node.failure, old.node.applier.runner.applied.index
        assert isinstance(failure, MachineFailed)
        assert f"entry {index} holds no change of the version that this raftkv knows" in str(failure)
        assert "It was not applied. Start this node with the version of raftkv that the others run" in str(failure)
        assert applied == index - 1
        assert await client.remote.acquire(f"without {attempt}", "ann") % STEP == 0
        await old.stop()
        await old.start()
    await old.stop()
    await run(cluster, Locks, 3)
    assert await client.remote.acquire("together", "ann") % STEP == 0
    await cluster.until_equal()


class LaterHello(Hello, tag=60):
    """What a node of the later release says."""

    edition: int = 1


@scenario(Released, seed=1)
async def test_handshakes_tell_nodes_of_this_release_from_later_ones(cluster: SimCluster) -> None:
    """What a later one says more is passed over here; and it knows what is not said by this one."""
    leader = cluster.leader
    assert leader is not None
    ours = leader.links.hello()
    fields = {name: getattr(ours, name) for name in ours.__struct_fields__}
    theirs = LaterHello(**fields, edition=SECOND)
    assert decode_message(encode_message(theirs)[FRAME_HEAD_BYTES:]) == ours
    read = msgspec.msgpack.decode(msgspec.msgpack.encode(ours), type=LaterHello)
    assert read == LaterHello(**fields, edition=1)
