"""The listener against bytes that nobody meant."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.wire import (
    PROTOCOL_VERSION,
    ClientHello,
    Request,
    RequestKind,
    Status,
    encode_client_hello,
    encode_frame,
    encode_request,
)
from tests.listener.payloads import command
from tests.listener.raw import settle
from tests.listener.test_listener import World, run

GOOD = encode_client_hello(ClientHello(PROTOCOL_VERSION)) + b"".join(
    encode_request(Request(number, RequestKind.COMMAND, command("increment", b"n", 1), False, 1000))
    for number in range(5)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, len(GOOD)), max_size=20))
def test_frames_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    """How the network cuts the stream makes no difference."""

    async def story(world: World) -> None:
        client = await world.connect(greet=False)
        before = 0
        for cut in [*sorted(set(cuts)), len(GOOD)]:
            client.send(GOOD[before:cut])
            await settle(3)
            before = cut
        await settle()
        assert [(r.id, r.status) for r in client.responses] == [(number, Status.OK) for number in range(5)]

    run(story)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255), st.booleans())
def test_a_flipped_byte_never_does_anything_else(at: int, mask: int, whole: bool) -> None:
    """What came before the damage is answered; the rest closes the connection or waits for more bytes."""

    async def story(world: World) -> None:
        damaged = bytearray(GOOD)
        damaged[at] ^= mask
        client = await world.connect(greet=False)
        for piece in [bytes(damaged)] if whole else [damaged[i : i + 7] for i in range(0, len(damaged), 7)]:
            client.send(bytes(piece))
            await settle(3)
        await settle()
        assert world.service.log.index < 5
        assert all(r.status is Status.OK for r in client.responses)
        good = await world.connect()
        good.ask(1, command("increment", b"m", 1))
        await settle()
        assert good.responses[0].status is Status.OK

    run(story)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_noise_is_harmless(noise: bytes, framed: bool, greeted: bool) -> None:
    """Random bytes, also with a correct length and checksum around them, change nothing."""

    async def story(world: World) -> None:
        client = await world.connect(greet=greeted)
        client.send(encode_frame(noise) if framed else noise)
        await settle()
        assert world.service.log.index == 0

    run(story)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([RequestKind.QUERY, RequestKind.PROMOTE, RequestKind.TRANSFER]),
    st.sampled_from([b"\xa1\xff", b"\x92\xa1\xff\x90", b"\x95\0\0\0\xa1\xff\x90", b"\x91" * 60_000, b"\xc1"]),
    st.booleans(),
)
def test_a_payload_that_nobody_can_read_is_answered(kind: RequestKind, payload: bytes, stale: bool) -> None:
    """The request is `INVALID`, and nothing waits for ever or ends with it; the connection goes on."""

    async def story(world: World) -> None:
        client = await world.connect()
        client.send(encode_request(Request(1, kind, payload, stale, 1000)))
        await settle()
        client.ask(2, command("increment", b"m", 1))
        await settle()
        assert [(r.id, r.status) for r in client.responses] == [(1, Status.INVALID), (2, Status.OK)]
        assert world.listener.stats.requests_waiting == 0

    run(story)
