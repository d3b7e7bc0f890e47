"""The listener: answers, bounds, and what it does to those who misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from raftkv.errors import Busy, Indeterminate, NodeStopped, NotLeader, RaftKVError, Unavailable
from raftkv.kv import KeyValue
from raftkv.listener import ClientLimits, Listener
from raftkv.model import Member
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.wire import (
    PROTOCOL_VERSION,
    ClientHello,
    RequestKind,
    Status,
    encode_client_hello,
    encode_frame,
)
from tests.client.network import Network
from tests.listener.payloads import command, query
from tests.listener.raw import RawClient, connect, settle
from tests.listener.service import FakeService
from tests.logged import capture_logs

ADDRESS = "10.0.0.1:1"


class World:
    """A listener on a network in memory."""

    def __init__(self, **limits: Any) -> None:
        self.network = Network()
        self.service = FakeService(KeyValue)
        self.listener = Listener(self.service, ClientLimits(**limits))
        self.listener.begin()
        self.network.listeners[ADDRESS] = self.listener.connection

    async def connect(self, *, greet: bool = True) -> RawClient:
        return await connect(self.network, ADDRESS, greet=greet)


def run(story: Callable[[World], Awaitable[None]], **limits: Any) -> None:
    """Tell `story` in virtual time; nothing may fail behind its back."""
    loop = SimLoop()

    async def main() -> None:
        world = World(**limits)
        await story(world)
        await world.listener.close()
        assert world.listener.stats.connections == 0
        assert world.listener.stats.requests_waiting == 0 or world.service.held

    loop.run(main())
    assert loop.failures == []


def test_requests_are_answered_with_results_and_their_index() -> None:
    """A command gives its outcome, a query its result, each with the log index it stands for."""

    async def story(world: World) -> None:
        client = await world.connect()
        assert client.hello is not None
        assert client.hello.cluster_id == "cluster"
        client.ask(1, command("put", b"a", b"1"))
        client.ask(2, query("get", b"a"), RequestKind.QUERY)
        await settle()
        assert [(r.id, r.status, r.index) for r in client.responses] == [(1, Status.OK, 1), (2, Status.OK, 1)]

    run(story)


def test_answers_of_one_turn_leave_in_one_write() -> None:
    """A hundred answers that become due together are one write, and so one packet."""

    async def story(world: World) -> None:
        client = await world.connect()
        world.service.holding = True
        for number in range(100):
            client.ask(number, command("put", b"a", b"1"))
        await settle()
        world.service.release()
        await settle()
        assert client.arrivals[-1] == 100

    run(story)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotLeader(2), Status.NOT_LEADER),
        (Busy("full"), Status.BUSY),
        (Unavailable("no quorum"), Status.UNAVAILABLE),
        (Indeterminate("deposed"), Status.INDETERMINATE),
        (NodeStopped("the disk is gone"), Status.INDETERMINATE),
    ],
)
def test_errors_have_their_status(error: RaftKVError, status: Status) -> None:
    """What is not certain to be undone is `INDETERMINATE`; a stopping node's commands too."""

    async def story(world: World) -> None:
        client = await world.connect()
        world.service.fail = error
        client.ask(1, command("put", b"a", b"1"))
        await settle()
        assert [r.status for r in client.responses] == [status]

    run(story)


def test_a_follower_names_the_leaders_address() -> None:
    """The redirect has the address that clients use, not the peers'."""

    async def story(world: World) -> None:
        world.service.leader = Member(2, "10.0.0.2:8001", "10.0.0.2:7001")
        world.service.refuse = NotLeader(2)
        client = await world.connect()
        client.ask(1, command("put", b"a", b"1"))
        await settle()
        assert client.responses[0].leader == "10.0.0.2:7001"

    run(story)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 4,
        b"\xff" * 64,
        bytes(64),
        encode_frame(b"\xc1 no message"),
        encode_frame(b"\x93\x01\x02\x03")[:-1] + b"\x00",
    ],
)
@pytest.mark.parametrize("greeted", [False, True])
def test_garbage_closes_the_connection_and_nothing_else(data: bytes, greeted: bool) -> None:
    """Wrong lengths, checksums and contents: closed, counted, and others are served as before."""

    async def story(world: World) -> None:
        good, bad = await world.connect(), await world.connect(greet=greeted)
        bad.send(data)
        await settle()
        assert bad.lost
        assert world.listener.stats.closed_garbage == 1
        good.ask(1, command("put", b"a", b"1"))
        await settle()
        assert good.responses[0].status is Status.OK

    run(story)


def test_an_oversized_frame_is_refused_by_its_length_alone() -> None:
    """The listener never collects what it would not take."""

    async def story(world: World) -> None:
        client = await world.connect()
        client.send(encode_frame(bytes(5000))[:64])
        await settle()
        assert client.lost
        assert world.listener.stats.closed_garbage == 1

    run(story, frame_bytes_max=4096)


def test_another_version_or_cluster_is_told_why() -> None:
    """The refusal says what this node is, then the connection ends."""

    async def story(world: World) -> None:
        for hello in (ClientHello(PROTOCOL_VERSION + 1), ClientHello(PROTOCOL_VERSION, "another")):
            client = await world.connect(greet=False)
            client.send(encode_client_hello(hello))
            await settle()
            assert client.hello is not None
            assert client.hello.refused
            assert client.lost
        assert world.listener.stats.handshakes_refused == 2

    run(story)


def test_slow_loris_is_closed() -> None:
    """Neither a handshake nor a frame may take for ever; a connection that is merely idle may."""

    async def story(world: World) -> None:
        mute = await world.connect(greet=False)
        idle = await world.connect()
        drip = await world.connect()
        frame = encode_frame(bytes(1000))
        for at in range(15):
            drip.send(frame[at : at + 1])
            await elapse(1.1)
            assert mute.lost == (asyncio.get_running_loop().time() > 4)
        assert drip.lost
        assert not idle.lost
        assert world.listener.stats.closed_slow == 2

    run(story, hello_timeout_s=4, frame_timeout_s=10)


def test_connections_are_bounded() -> None:
    """One more than allowed is closed at once; when one goes, the next may come."""

    async def story(world: World) -> None:
        first = await world.connect()
        await world.connect()
        third = await world.connect()
        assert third.lost
        assert world.listener.stats.connections_refused == 1
        first.transport.abort()
        await settle()
        fourth = await world.connect()
        assert not fourth.lost

    run(story, connections_max=2)


def test_a_connection_with_too_many_requests_is_not_read() -> None:
    """What is over the bound stays with the client until answers have gone out; none is lost or refused."""

    async def story(world: World) -> None:
        client = await world.connect()
        world.service.holding = True
        for number in range(25):
            client.ask(number, command("increment", b"n", 1))
            await settle(2)
        assert len(world.service.held) == 10
        assert world.listener.stats.paused == 1
        while len(client.responses) < 25:
            world.service.release()
            await settle()
            assert len(world.service.held) <= 10
        assert [r.id for r in client.responses] == list(range(25))

    run(story, requests_max=10)


def test_a_client_that_does_not_read_is_not_read_either() -> None:
    """Answers pile up to a bound, then no more requests are taken until the client reads."""

    async def story(world: World) -> None:
        client = await world.connect()
        client.ask(0, command("put", b"a", bytes(1000)))
        await settle()
        client.transport.pause_reading()
        for number in range(1, 101):
            client.ask(number, query("get", b"a"), RequestKind.QUERY)
            await settle(3)
        assert 8 < world.listener.stats.answered < 15
        client.transport.resume_reading()
        await settle(200)
        assert [r.id for r in client.responses] == list(range(101))

    run(story, write_pause_bytes=8192)


def test_a_client_that_never_reads_large_answers_is_closed() -> None:
    """Answers to what was asked before can still be large: over the bound the connection goes."""

    async def story(world: World) -> None:
        client = await world.connect()
        world.service.log.apply(command("put", b"a", bytes(1000)))
        client.transport.pause_reading()
        for number in range(1, 101):
            client.ask(number, query("get", b"a"), RequestKind.QUERY)
        await settle()
        assert world.listener.stats.closed_unread == 1
        assert client.lost

    run(story, write_pause_bytes=8192, write_bytes_max=32768)


def test_a_client_that_goes_loses_only_its_answers() -> None:
    """What it asked for is done; the answers fall on the floor."""

    async def story(world: World) -> None:
        client = await world.connect()
        world.service.holding = True
        client.ask(1, command("put", b"a", b"1"))
        await settle()
        client.transport.abort()
        await settle()
        world.service.release()
        await settle()
        assert world.service.log.index == 1
        assert world.listener.stats.requests_waiting == 0

    run(story)


def test_closing_waits_for_answers_that_are_due() -> None:
    """Requests that were taken are answered; new ones are told to go elsewhere; then the connections end."""

    async def story(world: World) -> None:
        client, idle = await world.connect(), await world.connect()
        world.service.holding = True
        client.ask(1, command("put", b"a", b"1"))
        await settle()
        closing = asyncio.ensure_future(world.listener.close())
        await settle()
        assert idle.lost
        client.ask(2, command("put", b"a", b"2"))
        await settle()
        world.service.release()
        await closing
        await settle()
        assert [(r.id, r.status) for r in client.responses] == [(2, Status.UNAVAILABLE), (1, Status.OK)]
        assert client.lost

    run(story)


def test_closing_does_not_wait_for_ever() -> None:
    """A request that is never answered delays the end by the grace and no more."""

    async def story(world: World) -> None:
        client = await world.connect()
        world.service.holding = True
        client.ask(1, command("put", b"a", b"1"))
        await settle()
        await world.listener.close(grace_s=3)
        await settle()
        assert client.lost
        assert asyncio.get_running_loop().time() == pytest.approx(3)

    run(story)


def test_every_refusal_is_in_the_log() -> None:
    """An operator sees who was refused and why: garbage, another cluster, too slow, too many."""

    async def story(world: World) -> None:
        garbage = await world.connect()
        garbage.send(encode_frame(b"\xc1"))
        other = await world.connect(greet=False)
        other.send(encode_client_hello(ClientHello(PROTOCOL_VERSION, "other")))
        await settle()
        assert garbage.lost and other.lost
        await world.connect(greet=False)
        await world.connect(greet=False)
        await world.connect(greet=False)
        await elapse(5)

    with capture_logs() as lines:
        run(story, hello_timeout_s=4, connections_max=2)
    refused = [line for line in lines if line["event"] == "client_refused"]
    assert [line["kind"] for line in refused] == ["garbage", "handshake", "connections", "slow", "slow"]
    assert all(line["reason"] and line["address"] for line in refused)


def test_who_asks_without_end_does_not_keep_out_who_asks_once() -> None:
    """Over the bound a connection has an equal share and no more: the greedy one is `BUSY`, the modest one served."""

    async def story(world: World) -> None:
        world.service.holding = True
        greedy, modest = await world.connect(), await world.connect()
        for number in range(30):
            greedy.ask(number, command("increment", b"n", 1))
        await settle()
        assert [r.status for r in greedy.responses] == [Status.BUSY] * 10
        modest.ask(1, command("increment", b"n", 1))
        await settle()
        assert modest.responses == [] and len(world.service.held) == 21
        world.service.holding = False
        world.service.release()
        await settle()
        assert [r.status for r in modest.responses] == [Status.OK]
        greedy.ask(31, command("increment", b"n", 1))
        await settle()
        assert greedy.responses[-1].status is Status.OK

    run(story, crowd_requests=20)


def test_what_all_clients_together_hold_is_bounded() -> None:
    """Half frames and unread answers of many: those that hold most go, the log says why, and nothing is left."""

    async def story(world: World) -> None:
        world.service.log.apply(command("put", b"a", bytes(2000)))
        modest = await world.connect()
        halves = [await world.connect() for _ in range(4)]
        for number, client in enumerate(halves):
            client.send(encode_frame(bytes(30_000))[: 6_000 + number])
        await settle()
        assert [client.lost for client in halves] == [False, False, False, False]
        deaf = await world.connect()
        deaf.transport.pause_reading()
        for number in range(8):
            deaf.ask(number, query("get", b"a"), RequestKind.QUERY)
        await settle()
        assert deaf.lost and world.listener.stats.closed_memory == 1
        halves[0].send(bytes(10_000))
        await settle()
        assert [client.lost for client in halves] == [True, False, False, False]
        modest.ask(1, command("increment", b"n", 1))
        await settle()
        assert modest.responses[0].status is Status.OK
        for client in halves[1:]:
            client.transport.abort()
        await settle()
        modest.ask(2, command("increment", b"n", 1))
        await settle()
        assert world.listener.stats.held_bytes <= 100 and world.listener.stats.connections == 1

    with capture_logs() as lines:
        run(story, held_bytes_max=32_000)
    assert [line["kind"] for line in lines if line["event"] == "client_refused"] == ["memory", "memory"]
