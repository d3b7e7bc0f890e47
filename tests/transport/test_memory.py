"""The network in memory: cuts that behave as TCP makes them, and the same story every time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from raftkv.testing.world.loop import PROCESS, SimLoop, elapse
from raftkv.transport import MemoryNetwork
from raftkv.wire import DigestReport
from tests.logged import capture_logs
from tests.transport.worlds import LIMITS, MemoryWorld, tell


def test_what_a_short_cut_holds_up_still_arrives() -> None:
    """Bytes wait while the way is cut and travel on when it is healed, in their order; nothing is lost."""

    async def story(world: MemoryWorld) -> None:
        one, two = await world.pair()
        world.network.cut(1, 2)
        sent = [DigestReport(i, i) for i in range(10)]
        assert all(world.nodes[1].send(2, message) for message in sent)
        await world.until(lambda: world.nodes[1].queued_bytes(2) > 0)
        world.network.heal()
        await two.until(lambda: len(two.messages) == 10)
        assert [message for _, message in two.messages] == sent
        assert not one.lost and not two.lost

    tell(story, MemoryWorld)


def test_a_cut_is_noticed_by_silence_on_both_sides() -> None:
    """No connection breaks, so it takes the silence; the links come back by themselves when it is healed (F39)."""

    async def story(world: MemoryWorld) -> None:
        one, two = await world.pair()
        began = asyncio.get_running_loop().time()
        world.network.cut(1, 2)
        await one.until(lambda: one.lost)
        await two.until(lambda: two.lost)
        assert asyncio.get_running_loop().time() - began >= LIMITS.silence_s - LIMITS.ping_s
        assert "no sign of life" in one.lost[0][1]
        assert not world.nodes[1].send(2, DigestReport(1, 1))
        world.network.heal()
        await one.until(lambda: len(one.connected) == 2)
        await two.until(lambda: len(two.connected) == 2)
        assert [peer for peer, _ in one.lost] == [2]

    tell(story, MemoryWorld)


def test_a_one_way_cut_stalls_both_links() -> None:
    """One side's messages get through for a while, but its pings are not answered: both links end."""

    async def story(world: MemoryWorld) -> None:
        one, two = await world.pair()
        world.network.cut(1, 2, one_way=True)
        world.nodes[2].send(1, DigestReport(1, 1))
        await one.until(lambda: one.messages)
        await one.until(lambda: one.lost)
        await two.until(lambda: two.lost)
        await world.until(lambda: not world.nodes[1].links()[2].connected)
        await world.until(lambda: not world.nodes[2].links()[1].connected)
        world.network.heal()
        await one.until(lambda: len(one.connected) == 2)
        await two.until(lambda: len(two.connected) == 2)

    tell(story, MemoryWorld)


def test_a_node_that_dies_behind_a_cut_is_found_dead() -> None:
    """The end of a connection cannot cross a cut; silence tells, and nobody is dialled in vain for ever."""

    async def story(world: MemoryWorld) -> None:
        one, _ = await world.pair()
        world.network.cut(1, 2)
        address = await world.stop(2)
        await one.until(lambda: one.lost)
        world.network.heal()
        await world.start(2, address=address)
        await one.until(lambda: len(one.connected) == 2)

    tell(story, MemoryWorld)


def test_a_reset_is_noticed_at_once() -> None:
    """Connections that the network breaks are lost at once, and dialled again."""

    async def story(world: MemoryWorld) -> None:
        one, two = await world.pair()
        world.network.reset(1, 2)
        await one.until(lambda: len(one.connected) == 2)
        await two.until(lambda: len(two.connected) == 2)
        assert [peer for peer, _ in one.lost] == [2]
        assert "reset by the network" in one.lost[0][1]

    tell(story, MemoryWorld)


def test_a_story_is_the_same_every_time() -> None:
    """Same seeds, same story, same trace with the same times: a simulator may stand on it."""

    def trace() -> list[object]:
        seen: list[object] = []

        async def story(world: MemoryWorld) -> None:
            loop = asyncio.get_running_loop()
            nodes = [await world.start(i) for i in (1, 2, 3)]
            world.introduce(1, 2, 3)
            for node in nodes:
                await node.until(lambda node=node: len(node.connected) == 2)
            for i in range(20):
                world.nodes[1 + i % 3].send(1 + (i + 1) % 3, DigestReport(i, i))
            world.network.cut(1, 2)
            address = await world.stop(3)
            await nodes[0].until(lambda: len(nodes[0].lost) == 2)
            world.network.heal()
            three = await world.start(3, address=address)
            world.introduce(1, 2, 3)
            await three.until(lambda: len(three.connected) == 2)
            seen.extend((node.messages, node.connected, node.lost) for node in [*nodes, three])
            seen.append((loop.time(), [node.stats for node in world.nodes.values()]))

        tell(story, MemoryWorld)
        return seen

    assert trace() == trace()


class _End(asyncio.Protocol):
    """Notes what it hears, and in whose process."""

    def __init__(self, seen: list[object]) -> None:
        self.seen = seen

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen.append((data, PROCESS.get()))

    def resume_writing(self) -> None:
        self.seen.append(("may write", PROCESS.get()))


def _as_process(number: int, what: Callable[..., Any], *arguments: Any) -> Any:
    context = copy_context()
    context.run(PROCESS.set, number)
    return context.run(what, *arguments)


def test_who_was_stopped_reads_what_has_come_before_its_timers_tell_it_how_late_it_is() -> None:
    """As a real loop does it, which looks at its sockets first; also at what came later than a timer was due (F72)."""
    seen: list[object] = []

    async def story() -> None:
        loop, network = asyncio.get_running_loop(), MemoryNetwork(0.001)
        assert isinstance(loop, SimLoop)
        _as_process(2, network.listen, 2, "two", lambda: _End(seen))
        one = _End([])
        await network.dial(1, lambda: one, "two")
        network.freeze(2)
        loop.freeze(2)
        _as_process(2, loop.call_later, 0.01, lambda: seen.append("timer"))
        one.transport.write(b"early")  # type: ignore[attr-defined]
        await elapse(0.5)
        one.transport.write(b"late")  # type: ignore[attr-defined]
        await elapse(0.5)
        assert seen == []
        network.thaw(2)
        loop.thaw(2)
        await elapse(0.1)
        assert seen == [(b"early", 2), (b"late", 2), "timer"]

    SimLoop().run(story())


def test_what_a_process_sent_before_it_was_stopped_arrives() -> None:
    """It is on its way; but the process itself is told of nothing before it goes on."""
    seen: list[object] = []

    async def story() -> None:
        loop, network = asyncio.get_running_loop(), MemoryNetwork(0.001)
        assert isinstance(loop, SimLoop)
        _as_process(2, network.listen, 2, "two", lambda: _End(seen))
        one = _End(seen)
        await loop.create_task(network.dial(1, lambda: one, "two"), context=_as_process(1, copy_context))
        one.transport.set_write_buffer_limits(1)  # type: ignore[attr-defined]
        one.transport.write(b"bytes")  # type: ignore[attr-defined]
        network.freeze(1)
        loop.freeze(1)
        await elapse(0.5)
        assert seen == [(b"bytes", 2)]
        network.thaw(1)
        loop.thaw(1)
        await elapse(0.1)
        assert seen == [(b"bytes", 2), ("may write", 1)]

    SimLoop().run(story())


def test_a_connection_that_does_not_go_holds_up_no_stop() -> None:
    """It was closed as hard as can be, so its end is waited for a while only, and the log says so."""

    async def story(world: MemoryWorld) -> None:
        one, _ = await world.pair()
        world.nodes[1]._connections.opened(Stuck())
        await world.stop(1)
        assert one.connected

    with capture_logs() as lines:
        tell(story, MemoryWorld)
    assert {line["connections"] for line in lines if line["event"] == "connections_left"} == {1}


class Stuck:
    """A connection that is never gone."""

    def after_fork(self) -> None:
        """Nothing is the parent's."""
