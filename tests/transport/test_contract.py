"""What a node may rely on, whatever carries the bytes."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntries
from raftkv.entry import make_entries
from raftkv.errors import ConfigError, PeerError
from raftkv.model import EntryKind
from raftkv.wire import DigestReport
from tests.transport.worlds import LIMITS, WORLDS, ProvingWorld, Talker, World, tell


@pytest.fixture(params=WORLDS, ids=["memory", "proven", "tcp", "uvloop"])
def world(request: pytest.FixtureRequest) -> type[World]:
    """Every story is told in all worlds."""
    return request.param


def report(index: int) -> DigestReport:
    """A small message."""
    return DigestReport(index, index)


def append(entries: int, size: int) -> AppendEntries:
    """A message of about `entries` times `size` bytes."""
    made = make_entries(1, 1, 0, EntryKind.COMMAND, [bytes(size)] * entries, 0)
    return AppendEntries(1, 2, 1, 0, 0, 0, entries, 0, 1, made)


def test_messages_arrive_in_order_and_whole(world: type[World]) -> None:
    """A thousand messages sent in one turn arrive in their order, each once, with their sender."""

    async def story(world: World) -> None:
        _, two = await world.pair()
        sent = [report(i) for i in range(1000)]
        assert all(world.nodes[1].send(2, message) for message in sent)
        await two.until(lambda: len(two.messages) == 1000)
        assert two.messages == [(1, message) for message in sent]

    tell(story, world)


def test_big_messages_arrive(world: type[World]) -> None:
    """A message near the largest frame arrives, and small ones behind it."""

    async def story(world: World) -> None:
        _, two = await world.pair()
        big = append(15, LIMITS.frame_bytes_max // 16)
        assert world.nodes[1].send(2, big)
        assert world.nodes[1].send(2, report(1))
        assert world.nodes[1].queued_bytes(2) > LIMITS.frame_bytes_max // 2
        await two.until(lambda: len(two.messages) == 2)
        assert two.messages == [(1, big), (1, report(1))]
        await two.until(lambda: world.nodes[1].queued_bytes(2) == 0)

    tell(story, world)


def test_the_caller_may_change_a_message_that_it_has_sent(world: type[World]) -> None:
    """Nodes share nothing with each other, nor does a queue with the code that fills it."""

    async def story(world: World) -> None:
        _, two = await world.pair()
        message = report(1)
        world.nodes[1].send(2, message)
        message.index = 2
        await two.until(lambda: two.messages)
        assert two.messages == [(1, report(1))]

    tell(story, world)


def test_what_was_corked_leaves_at_once_when_it_is_uncorked(world: type[World]) -> None:
    """Until then nothing of it does, and what is sent later needs no cork."""

    async def story(world: World) -> None:
        _, two = await world.pair()
        sender = world.nodes[1]
        before = sender.stats.frames_sent
        sender.cork()
        assert all(sender.send(2, report(i)) for i in range(3))
        assert sender.stats.frames_sent == before
        sender.uncork()
        assert sender.stats.frames_sent == before + 3
        sender.uncork()
        sender.send(2, report(3))
        await two.until(lambda: len(two.messages) == 4)
        assert two.messages == [(1, report(i)) for i in range(4)]

    tell(story, world)


def test_nothing_is_sent_to_who_is_not_connected(world: type[World]) -> None:
    """No link, or none that is up: `send` says so."""

    async def story(world: World) -> None:
        await world.start(1)
        assert not world.nodes[1].send(2, report(1))
        assert world.nodes[1].queued_bytes(2) == 0
        world.nodes[1].set_peers({2: "127.0.0.1:1"})
        assert not world.nodes[1].send(2, report(1))
        status = world.nodes[1].links()[2]
        assert not status.connected
        assert status.address == "127.0.0.1:1"

    tell(story, world)


def test_a_queue_is_bounded_and_drops_are_counted(world: type[World]) -> None:
    """Over twice the largest frame `send` says no at once; what was taken still arrives."""

    async def story(world: World) -> None:
        _, two = await world.pair()
        sender = world.nodes[1]
        big = append(15, LIMITS.frame_bytes_max // 16)
        taken = 0
        while sender.send(2, big):
            taken += 1
            assert sender.queued_bytes(2) <= LIMITS.queue_bytes_max
        assert taken == 2
        assert sender.links()[2].dropped == sender.stats.dropped == 1
        await two.until(lambda: len(two.messages) == taken)
        assert sender.send(2, big)

    tell(story, world)


def test_a_message_that_nobody_would_take_is_not_sent(world: type[World]) -> None:
    """A message over the largest frame is dropped here; the connection stays."""

    async def story(world: World) -> None:
        one, two = await world.pair()
        assert not world.nodes[1].send(2, append(1, LIMITS.frame_bytes_max))
        assert world.nodes[1].send(2, report(1))
        await two.until(lambda: two.messages)
        assert not one.lost and not two.lost

    tell(story, world)


def test_set_peers_opens_and_closes_links(world: type[World]) -> None:
    """A node that is not named any more is not connected any more; that is no loss."""

    async def story(world: World) -> None:
        one, two = await world.pair()
        three = await world.start(3)
        world.introduce(1, 2, 3)
        await one.until(lambda: one.connected == [2, 3])
        world.nodes[1].set_peers({3: world.nodes[3].address})
        assert list(world.nodes[1].links()) == [3]
        assert not world.nodes[1].send(2, report(1))
        await two.until(lambda: two.lost)
        assert two.lost[0][0] == 1
        world.nodes[1].send(3, report(2))
        await three.until(lambda: three.messages)
        assert one.lost == []

    tell(story, world)


def test_a_changed_address_is_dialled_anew(world: type[World]) -> None:
    """A peer that has moved is found at its new address."""

    async def story(world: World) -> None:
        one, two = await world.pair()
        await world.stop(2)
        await one.until(lambda: one.lost)
        two = await world.start(2, address="127.0.0.1:0")
        world.nodes[1].set_peers({2: world.nodes[2].address})
        await one.until(lambda: one.connected == [2, 2])
        assert world.nodes[1].links()[2].address == world.nodes[2].address
        world.nodes[1].send(2, report(1))
        await two.until(lambda: two.messages)

    tell(story, world)


def test_a_refused_handshake_says_what_to_do(world: type[World]) -> None:
    """Both sides of two clusters refuse each other, and say why (F23)."""

    async def story(world: World) -> None:
        one = await world.start(1)
        two = await world.start(2, talker=Talker(2, "other"))
        world.nodes[1].set_peers({2: world.nodes[2].address})
        status = world.nodes[1].links
        await world.until(lambda: status()[2].refused)
        assert status()[2].refused == "node 1 is of cluster 'c': check its peers"
        assert not status()[2].refused_here
        assert not status()[2].connected
        assert world.nodes[1].stats.handshake_refused > 0
        assert world.nodes[2].stats.handshake_refused > 0
        assert not one.connected and not two.connected and not one.lost and not two.lost

    tell(story, world)


def test_a_peer_that_is_dropped_is_lost_and_asked_anew(world: type[World]) -> None:
    """Both connections end, and nothing under way arrives; the handler decides whether new ones are accepted."""

    async def story(world: World) -> None:
        one, two = await world.pair()
        await world.until(lambda: one.connected and two.connected)
        accepted, one.cluster_id = one.cluster_id, "another"
        world.nodes[2].send(1, report(1))
        world.nodes[1].drop(2, "it is in doubt")
        assert not world.nodes[1].links()[2].connected
        assert one.lost == [(2, "it is in doubt")]
        await two.until(lambda: two.lost)
        await world.until(lambda: world.nodes[1].links()[2].refused and world.nodes[2].links()[1].refused)
        assert not one.messages
        one.cluster_id = accepted
        await world.until(lambda: all(world.nodes[a].links()[3 - a].connected for a in (1, 2)))
        world.nodes[1].drop(9, "nobody is called so")

    tell(story, world)


def test_an_address_that_is_taken_is_refused(world: type[World]) -> None:
    """An address that is taken is said by name."""

    async def story(world: World) -> None:
        await world.start(1)
        with pytest.raises(ConfigError, match="can't listen for peers on"):
            await world.start(2, address=world.nodes[1].address)

    tell(story, world)


def test_a_peer_that_dies_is_lost_at_once_and_once(world: type[World]) -> None:
    """Two connections break and are one loss, long before silence would tell; back again, it is connected again."""

    async def story(world: World) -> None:
        one, _ = await world.pair()
        address = await world.stop(2)
        await one.until(lambda: one.lost)
        assert not world.nodes[1].links()[2].connected
        assert not world.nodes[1].send(2, report(1))
        two = await world.start(2, address=address)
        world.introduce(1, 2)
        await one.until(lambda: one.connected == [2, 2])
        await two.until(lambda: two.connected == [1])
        assert [peer for peer, _ in one.lost] == [2]
        assert "sign of life" not in one.lost[0][1]
        await world.stop(2)
        await one.until(lambda: len(one.lost) == 2)

    tell(story, world)


def test_a_node_that_only_listens_notices_who_dies(world: type[World]) -> None:
    """The break of an incoming connection is a loss, too: a follower hears of its leader's death by it."""

    async def story(world: World) -> None:
        one, two = await world.start(1), await world.start(2)
        world.nodes[1].set_peers({2: world.nodes[2].address})
        await one.until(lambda: one.connected)
        world.nodes[1].send(2, report(1))
        await two.until(lambda: two.messages)
        await world.stop(1)
        await two.until(lambda: two.lost)
        assert two.lost[0][0] == 1
        assert two.connected == []

    tell(story, world)


def test_a_refused_peer_gets_in_when_the_reason_is_gone(world: type[World]) -> None:
    """Dialling goes on behind a refusal, and the refusal is forgotten with the first success."""

    async def story(world: World) -> None:
        one = await world.start(1)
        two = await world.start(2, talker=Talker(2, "other"))
        world.nodes[1].set_peers({2: world.nodes[2].address})
        await world.until(lambda: world.nodes[1].links()[2].refused)
        two.cluster_id = "c"
        await one.until(lambda: one.connected)
        assert world.nodes[1].links()[2].refused is None

    tell(story, world)


def test_another_version_is_refused_by_name(world: type[World]) -> None:
    """Both versions are said, and what to do."""

    async def story(world: World) -> None:
        await world.start(1)
        talker = Talker(2)
        talker.version = 99
        await world.start(2, talker=talker)
        world.nodes[1].set_peers({2: world.nodes[2].address})
        await world.until(lambda: world.nodes[1].links()[2].refused)
        refused = world.nodes[1].links()[2].refused
        assert "version 99" in refused
        assert "run versions of raftkv on both" in refused

    tell(story, world)


def test_the_wrong_node_at_an_address_is_refused_and_loses_nothing(world: type[World]) -> None:
    """A node that is dialled as another keeps the true connection of the dialler."""

    async def story(world: World) -> None:
        one, two = await world.pair()
        addresses = {2: world.nodes[2].address, 3: world.nodes[2].address}
        world.nodes[1].set_peers(addresses)
        refusals = world.nodes[1].stats
        await world.until(lambda: refusals.handshake_refused >= 2)
        assert "start the right node there" in world.nodes[1].links()[3].refused
        # Where a proof names whom it is for, the other side can tell, too.
        assert world.nodes[1].links()[3].refused_here != isinstance(world, ProvingWorld)
        assert world.nodes[1].send(2, report(1))
        await two.until(lambda: two.messages)
        assert not one.lost and not two.lost

    tell(story, world)


def test_a_message_that_makes_no_sense_to_the_node_closes_the_connection(world: type[World]) -> None:
    """A `PeerError` of the handler is the sender's fault: its connection goes, and it comes back."""

    async def story(world: World) -> None:
        one, two = await world.pair()
        two.raises = PeerError("an append of the future")
        world.nodes[1].send(2, report(1))
        await one.until(lambda: one.lost)
        two.raises = None
        await one.until(lambda: one.connected == [2, 2])
        assert two.messages == []
        assert world.nodes[2].stats.garbage_closed == 1
        assert "an append of the future" in two.lost[0][1]

    tell(story, world)


def test_round_trips_are_measured(world: type[World]) -> None:
    """The first ping goes with the handshake, so a link soon knows how far its peer is."""

    async def story(world: World) -> None:
        await world.pair()
        await world.until(lambda: world.nodes[1].links()[2].rtt_ms is not None)
        assert world.nodes[1].links()[2].rtt_ms >= 0

    tell(story, world)


def test_after_close_nothing_is_said_or_reported(world: type[World]) -> None:
    """A closed transport is silent, may be closed twice, and its address is free again."""

    async def story(world: World) -> None:
        one, two = await world.pair()
        transport = world.nodes[1]
        address = await world.stop(1)
        assert not transport.send(2, report(1))
        await transport.close()
        transport.set_peers({2: world.nodes[2].address})
        assert transport.links() == {}
        await two.until(lambda: two.lost)
        again = await world.start(1, address=address)
        await two.until(lambda: two.connected == [1, 1])
        assert one.lost == [] and one.messages == [] and again.lost == []

    tell(story, world)
