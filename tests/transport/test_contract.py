"""What a node may rely on, whatever carries the bytes."""

from __future__ import annotations

import pytest

from raftkv.core.messages import AppendEntries
from raftkv.entry import make_entries
from raftkv.errors import ConfigError
from raftkv.model import EntryKind
from raftkv.wire import DigestReport
from tests.transport.worlds import LIMITS, MemoryWorld, Talker, TcpWorld, World, tell


@pytest.fixture(params=[MemoryWorld, TcpWorld], ids=["memory", "tcp"])
def world(request: pytest.FixtureRequest) -> type[World]:
    """Every story is told in both worlds."""
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
    """Nothing is shared between nodes, nor between a queue and who fills it."""

    async def story(world: World) -> None:
        _, two = await world.pair()
        message = report(1)
        world.nodes[1].send(2, message)
        message.index = 2
        await two.until(lambda: two.messages)
        assert two.messages == [(1, report(1))]

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
    """Who is not named any more is not connected any more; that is no loss."""

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
        two = await world.start(2, address=None if world is TcpWorld else "127.0.0.1:0")
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
        assert not status()[2].connected
        assert world.nodes[1].stats.handshake_refused > 0
        assert world.nodes[2].stats.handshake_refused > 0
        assert not one.connected and not two.connected and not one.lost and not two.lost

    tell(story, world)


def test_an_address_that_is_taken_is_refused(world: type[World]) -> None:
    """An address that is taken is said by name."""

    async def story(world: World) -> None:
        await world.start(1)
        with pytest.raises(ConfigError, match="can't listen for peers on"):
            await world.start(2, address=world.nodes[1].address)

    tell(story, world)
