"""What strangers and broken peers can do over TCP: nothing but cost their own connection."""

from __future__ import annotations

import asyncio
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.transport.refusals import LINES_MAX
from raftkv.wire import DigestReport, HelloReply, Ping, Pong, encode_frame, encode_message
from tests.logged import capture_logs
from tests.transport.raw import Listening, connect, hello, join
from tests.transport.worlds import LIMITS, Talker, TcpWorld, UvloopWorld, tell

QUICK = {"handshake_s": 0.2, "ping_s": 0.05, "silence_s": 0.4}


@pytest.fixture(params=[TcpWorld, UvloopWorld], ids=["tcp", "uvloop"])
def world(request: pytest.FixtureRequest) -> type[TcpWorld]:
    """Every story is told on both event loops."""
    return request.param


def damaged(frame: bytes) -> bytes:
    """A frame with one bit wrong."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


BIG = HelloReply(None, "x" * (LIMITS.frame_bytes_max // 8))
HELLO = encode_message(hello(2))
GARBAGE = {
    "no frames": b"GET / HTTP/1.1\r\nHost: node-1\r\n\r\n",
    "a damaged frame": damaged(HELLO),
    "no message": encode_frame(b"\x01\x00\x00\x00\xc1"),
    "arrays without end": encode_frame(struct.pack("<I", 60_003) + b"\x93\x3e\x01" + b"\x91" * 60_000),
    "text that is none": encode_frame(struct.pack("<I", 10) + b"\x9a\x3c\x01\xa1\xff\x01\xa1i\x01\xa1"),
    "a frame too long for a stranger": struct.pack("<IQ", LIMITS.hello_bytes_max + 1, 0),
    "a message instead of a hello": encode_message(DigestReport(1, 1)),
    "a hello and more": HELLO + encode_message(DigestReport(1, 1))[:-1],
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_closes_the_connection_and_nothing_else(garbage: bytes, world: type[TcpWorld]) -> None:
    """Whatever is no hello is counted and closed; peers don't notice, and the node hears nothing."""

    async def story(world: TcpWorld) -> None:
        one, two = await world.pair()
        raw = await connect(world.nodes[1].address)
        raw.transport.write(garbage)
        await raw.closed()
        assert world.nodes[1].stats.garbage_closed == 1
        world.nodes[2].send(1, DigestReport(7, 7))
        await one.until(lambda: one.messages)
        assert one.messages == [(2, DigestReport(7, 7))]
        assert not one.lost and not two.lost

    with capture_logs() as lines:
        tell(story, world)
    (line,) = [line for line in lines if line["event"] == "stranger_refused"]
    assert line["kind"] == "garbage" and line["address"].startswith("127.0.0.1:")
    assert line["reason"].startswith("it sent garbage: ")


def test_a_flood_of_wrong_hellos_is_no_flood_in_the_log(world: type[TcpWorld]) -> None:
    """Each from another node, so that no two are alike: the first are named, the others counted."""

    async def story(world: TcpWorld) -> None:
        await world.start(1)
        for node_id in range(2, 40):
            raw = await connect(world.nodes[1].address)
            raw.say(Talker(node_id, "other").hello())
            await raw.closed()
        assert world.nodes[1].stats.handshake_refused == 38

    with capture_logs() as lines:
        tell(story, world)
    assert [line["peer"] for line in lines if line["event"] == "peer_refused"] == list(range(2, 2 + LINES_MAX))


def test_a_peer_that_sends_garbage_is_lost_and_counted(world: type[TcpWorld]) -> None:
    """Behind the handshake it is a peer's connection that goes: too long, damaged, or out of place."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1)
        too_long = struct.pack("<IQ", LIMITS.frame_bytes_max + 1, 0)
        for count, garbage in enumerate((too_long, damaged(HELLO), HELLO, encode_message(Pong(1))), 1):
            raw = await join(world.nodes[1].address, 5)
            raw.transport.write(garbage)
            await raw.closed()
            assert world.nodes[1].stats.garbage_closed == count
            assert [peer for peer, _ in one.lost] == [5] * count
        assert one.messages == []

    tell(story, world)


@pytest.mark.parametrize("said", [b"", HELLO[:5], HELLO], ids=["nothing", "half a hello", "a hello and no ping"])
def test_a_handshake_that_does_not_end_is_ended(said: bytes, world: type[TcpWorld]) -> None:
    """A slow stranger is closed and counted (slow loris); it was never a peer, so none is lost."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1, **QUICK)
        raw = await connect(world.nodes[1].address)
        raw.transport.write(said)
        await raw.closed()
        assert world.nodes[1].stats.slow_closed == 1
        assert one.lost == []

    tell(story, world)


def test_a_stranger_that_hangs_up_is_nobody(world: type[TcpWorld]) -> None:
    """A truncated hello, or a hello and no more, is no loss of anybody."""

    async def story(world: TcpWorld) -> None:
        one, two = await world.pair()
        for said in (b"", HELLO[:20], HELLO):
            raw = await connect(world.nodes[1].address)
            raw.transport.write(said)
            raw.transport.write_eof()
            await raw.closed()
        assert not one.lost and not two.lost
        world.nodes[2].send(1, DigestReport(7, 7))
        await one.until(lambda: one.messages)

    tell(story, world)


def test_strangers_are_bounded(world: type[TcpWorld]) -> None:
    """Beyond so many open handshakes the oldest is closed at once; connected peers stay connected, others get in."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1, strangers_max=3)
        listening = Listening()
        world.nodes[1].set_peers({5: await listening.start()})
        first = await join(world.nodes[1].address, 5)
        strangers = [await connect(world.nodes[1].address) for _ in range(4)]
        await strangers[0].closed()
        assert world.nodes[1].stats.strangers_refused == 1
        first.say(DigestReport(1, 1))
        await one.until(lambda: one.messages)
        second = await join(world.nodes[1].address, 5)
        await strangers[1].closed()
        second.say(DigestReport(2, 2))
        await one.until(lambda: len(one.messages) == 2)
        assert not any(each.gone.is_set() for each in strangers[2:])
        for raw in (first, second, *strangers):
            raw.transport.abort()
        listening.close()

    tell(story, world)


def test_nodes_that_are_no_peers_are_bounded(world: type[TcpWorld]) -> None:
    """A stranger may claim any number of ids: they count as strangers until they are peers."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1, strangers_max=3)
        first = [await join(world.nodes[1].address, node_id) for node_id in (5, 6, 7)]
        fourth = await connect(world.nodes[1].address)
        await fourth.closed()
        assert world.nodes[1].stats.strangers_refused == 1
        listening = Listening()
        world.nodes[1].set_peers({5: await listening.start()})
        fifth = await join(world.nodes[1].address, 8)
        for raw in (*first, fifth):
            raw.say(DigestReport(1, 1))
        await one.until(lambda: len(one.messages) == 4)
        for raw in (*first, fifth):
            raw.transport.abort()
        listening.close()

    tell(story, world)


def test_the_newest_connection_of_a_peer_wins(world: type[TcpWorld]) -> None:
    """A peer that dials again has given up the old connection: it is closed, and nothing was lost."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1)
        old = await join(world.nodes[1].address, 5)
        new = await join(world.nodes[1].address, 5)
        await old.closed()
        new.say(DigestReport(1, 1))
        await one.until(lambda: one.messages)
        assert one.messages == [(5, DigestReport(1, 1))]
        assert one.lost == []
        new.transport.abort()
        await one.until(lambda: one.lost)

    tell(story, world)


def test_a_refusal_arrives_before_the_end(world: type[TcpWorld]) -> None:
    """The one who is refused reads why, then the connection is closed."""

    async def story(world: TcpWorld) -> None:
        await world.start(1)
        raw = await connect(world.nodes[1].address)
        raw.say(Talker(5, "other").hello())
        await raw.closed()
        assert raw.messages == [HelloReply(None, "node 5 is of cluster 'other': check its peers")]
        assert world.nodes[1].stats.handshake_refused == 1

    tell(story, world)


def test_a_silent_peer_is_given_up_in_both_directions(world: type[TcpWorld]) -> None:
    """A peer that doesn't answer pings and one that doesn't ping are both taken for dead."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1, **QUICK)
        listening = Listening()
        world.nodes[1].set_peers({2: await listening.start()})
        raw = await listening.next()
        raw.say(HelloReply(hello(2), ""))
        await one.until(lambda: one.lost)
        assert one.connected == [2]
        assert one.lost[0] == (2, "no sign of life for 0.4 s")
        world.nodes[1].set_peers({})
        await join(world.nodes[1].address, 5)
        await one.until(lambda: len(one.lost) == 2)
        assert one.lost[1] == (5, "no sign of life for 0.4 s")
        assert world.nodes[1].stats.slow_closed == 2
        listening.close()

    tell(story, world)


def test_a_peer_that_never_reads_is_bounded_and_given_up(world: type[TcpWorld]) -> None:
    """What waits for it stays below the bound all the time, and silence ends it (F34)."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1, **QUICK)
        listening = Listening()
        node = world.nodes[1]
        node.set_peers({2: await listening.start()})
        raw = await listening.next()
        raw.transport.pause_reading()
        raw.say(HelloReply(hello(2), ""))
        await one.until(lambda: one.connected)

        def fill() -> bool:
            while node.send(2, BIG):
                assert node.queued_bytes(2) <= LIMITS.queue_bytes_max
            return bool(one.lost)

        await world.until(fill)
        assert "no sign of life" in one.lost[0][1]
        assert node.stats.dropped > 0
        node.set_peers({})
        raw.transport.abort()
        listening.close()

    tell(story, world)


def test_a_peer_that_reads_slowly_is_not_given_up(world: type[TcpWorld]) -> None:
    """Bytes that leave a full queue are a sign of life: the pong has to wait behind them."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1, **QUICK)
        listening = Listening()
        node = world.nodes[1]
        node.set_peers({2: await listening.start()})
        raw = await listening.next()
        raw.say(HelloReply(hello(2), ""))
        await one.until(lambda: one.connected)
        raw.sips = True
        loop = asyncio.get_running_loop()
        until = loop.time() + 4 * QUICK["silence_s"]

        def sip() -> bool:
            """Read one piece, so that the queue never runs dry and no pong is ever due."""
            while node.send(2, BIG):
                pass
            raw.transport.resume_reading()
            return loop.time() > until or bool(one.lost)

        await world.until(sip)
        assert one.lost == []
        node.set_peers({})
        raw.transport.abort()
        listening.close()

    tell(story, world)


def test_a_node_that_was_stopped_does_not_blame_its_peers(world: type[TcpWorld]) -> None:
    """A loop that was busy for longer than the silence has heard nobody meanwhile; no link ends for that."""

    async def story(world: TcpWorld) -> None:
        one, two = await world.start(1, **QUICK), await world.start(2, **QUICK)
        world.introduce(1, 2)
        await one.until(lambda: one.connected)
        loop = asyncio.get_running_loop()
        until = loop.time() + 2 * QUICK["silence_s"]
        while loop.time() < until:
            pass
        received = world.nodes[1].stats.frames_received
        await world.until(lambda: world.nodes[1].stats.frames_received > received + 4)
        assert not one.lost and not two.lost

    tell(story, world)


@pytest.mark.parametrize(
    "reply",
    [damaged(HELLO), HELLO, b"HTTP/1.1 400 Bad Request\r\n\r\n"],
    ids=["damaged", "a hello", "another protocol"],
)
def test_garbage_instead_of_a_reply_closes_the_connection(reply: bytes, world: type[TcpWorld]) -> None:
    """A node that dials something else says nothing to it but hello, and tries again later."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1)
        listening = Listening()
        world.nodes[1].set_peers({2: await listening.start()})
        for _ in range(2):
            raw = await listening.next()
            raw.transport.write(reply)
            await raw.closed()
            assert raw.messages == [hello(1)]
        assert world.nodes[1].stats.garbage_closed >= 1
        assert not one.connected and not one.lost
        listening.close()

    tell(story, world)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:0", "127.0.0.1:99999", ":1", "a..b:1", "[::1]:x"])
def test_an_address_that_is_none_does_no_harm(address: str, world: type[TcpWorld]) -> None:
    """A membership may hold nonsense: the link is never up, and the node goes on."""

    async def story(world: TcpWorld) -> None:
        one, two = await world.pair()
        world.nodes[1].set_peers({2: world.nodes[2].address, 3: address})
        world.nodes[1].send(2, DigestReport(1, 1))
        await two.until(lambda: two.messages)
        assert not world.nodes[1].links()[3].connected
        assert one.connected == [2]

    tell(story, world)


TRUE_FRAMES = [HELLO, encode_message(Ping(0)), *(encode_message(DigestReport(i, i)) for i in range(3))]


@st.composite
def mistakes(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """A hello and what follows it, mutilated here or there."""

    def mutilate(data: bytes) -> bytes:
        mutable = bytearray(data)
        for _ in range(draw(st.integers(0, 2))):
            at = draw(st.integers(0, len(mutable)))
            match draw(st.sampled_from(["flip", "cut", "insert"])):
                case "flip" if at < len(mutable):
                    mutable[at] ^= 1 << draw(st.integers(0, 7))
                case "cut":
                    del mutable[at:]
                case _:
                    mutable[at:at] = draw(st.binary(max_size=20))
        return bytes(mutable)

    return mutilate(TRUE_FRAMES[0]), mutilate(b"".join(TRUE_FRAMES[1:]))


@settings(max_examples=60, deadline=None)
@given(mistakes())
def test_no_bytes_make_a_node_hear_what_was_not_said(said: tuple[bytes, bytes]) -> None:
    """Whatever is damaged on the way, the node hears a beginning of what was said, or nothing (fuzz)."""

    async def story(world: TcpWorld) -> None:
        one = await world.start(1)
        raw = await connect(world.nodes[1].address)
        raw.transport.write(said[0])
        if said[0] == HELLO:
            await raw.heard(1)
        raw.transport.write(said[1])
        raw.transport.write_eof()
        await raw.closed()
        reports = [DigestReport(i, i) for i in range(3)]
        assert [message for _, message in one.messages] == reports[: len(one.messages)]
        good = await join(world.nodes[1].address, 5)
        good.say(DigestReport(9, 9))
        await one.until(lambda: (5, DigestReport(9, 9)) in one.messages)
        good.transport.abort()

    tell(story, TcpWorld)
