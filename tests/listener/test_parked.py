"""Requests that wait until something happens: counted apart, bounded, and not left behind."""

from __future__ import annotations

import msgspec

from raftkv.listener.crowd import PARKED_AT_ONCE
from raftkv.wire import Poll, Request, RequestKind, Status, encode_request
from tests.listener.payloads import command, query
from tests.listener.raw import settle
from tests.listener.test_listener import World, run


def poll(known: int | None = 7) -> bytes:
    """A query whose result the client knows, or does not."""
    return msgspec.msgpack.encode(Poll(query("get", b"a"), known))


def test_who_waits_for_something_does_not_keep_others_of_the_connection_waiting() -> None:
    """A connection that may have two requests waiting has a third one answered while two are parked."""

    async def story(world: World) -> None:
        client = await world.connect()
        for number in (1, 2):
            client.ask(number, poll(), RequestKind.POLL)
        client.ask(3, command("put", b"a", b"1"))
        client.ask(4, poll(None), RequestKind.POLL)
        await settle()
        stats = world.listener.stats
        assert [r.id for r in client.responses] == [3, 4]
        assert (stats.requests_parked, stats.requests_waiting) == (2, 0)
        assert [each.wait_s for each in world.service.polls] == [0.75, 0.75], "the answer has time for its way"
        world.service.polls[1].done(9, b"news")
        await settle()
        assert (client.responses[-1].id, client.responses[-1].index, client.responses[-1].payload) == (2, 9, b"news")
        assert (stats.requests_parked, stats.requests_waiting) == (1, 0)

    run(story, requests_max=2)


def test_a_connection_may_have_only_so_many_parked() -> None:
    """One more is told that it is busy; a number that is taken already is the client's mistake."""

    async def story(world: World) -> None:
        client = await world.connect()
        for number in (1, 2, 3):
            client.ask(number, poll(), RequestKind.POLL)
        await settle()
        assert [(r.id, r.status) for r in client.responses] == [(3, Status.BUSY)]
        world.service.polls[0].done(1, b"news")
        client.ask(2, poll(), RequestKind.POLL)
        await settle()
        assert [(r.id, r.status) for r in client.responses[1:]] == [(1, Status.OK), (2, Status.INVALID)]
        assert world.listener.stats.requests_parked == 1

    run(story, parked_max=2)


def test_what_is_no_poll_is_refused() -> None:
    """As the client's mistake, whatever the bytes are."""

    async def story(world: World) -> None:
        client = await world.connect()
        client.ask(1, b"\xc1", RequestKind.POLL)
        await settle()
        assert [r.status for r in client.responses] == [Status.INVALID]

    run(story)


def test_a_client_that_goes_takes_its_parked_requests_along() -> None:
    """The node is told, so that nothing of it stays."""

    async def story(world: World) -> None:
        client = await world.connect()
        client.ask(1, poll(), RequestKind.POLL)
        await settle()
        client.transport.abort()
        await settle()
        assert world.service.polls[0].is_over
        assert world.listener.stats.requests_parked == 0

    run(story)


def test_who_waits_no_longer_says_so_and_the_rest_of_its_connection_goes_on() -> None:
    """Neither request is answered; a number of which nothing waits means nothing, as its answer is on its way."""

    async def story(world: World) -> None:
        client = await world.connect()
        assert client.hello is not None and client.hello.cancels
        for number in (1, 2):
            client.ask(number, poll(), RequestKind.POLL)
        for number in (1, 3, 1):
            client.ask(number, b"", RequestKind.CANCEL)
        await settle()
        stats = world.listener.stats
        assert [each.is_over for each in world.service.polls] == [True, False]
        assert (client.responses, stats.requests_parked, stats.requests_waiting) == ([], 1, 0)
        client.ask(1, poll(), RequestKind.POLL)
        await settle()
        assert (client.responses, stats.requests_parked) == ([], 2), "its number may be used again"
        world.service.polls[1].done(9, b"news")
        await settle()
        assert [r.id for r in client.responses] == [2]

    run(story)


def test_many_requests_to_park_that_arrive_at_once_leave_the_loop_to_others() -> None:
    """Only so many are taken in a turn, of all connections together, each of which gets on; a command that comes then
    waits for none of them."""

    async def story(world: World) -> None:
        clients, writer = [await world.connect() for _ in range(3)], await world.connect()
        for client in clients:
            frames = [encode_request(Request(each, RequestKind.POLL, poll(), False, 1000)) for each in range(150)]
            client.send(b"".join(frames))
        stats, sizes, answered_at = world.listener.stats, [0], 0
        while stats.requests_parked < 450:
            if sizes[-1] and sizes[-2] == 0:
                writer.ask(1, command("put", b"a", b"1"))
            await settle(1)
            sizes.append(stats.requests_parked)
            assert sizes[-1] - sizes[-2] <= PARKED_AT_ONCE + len(clients)
            if writer.responses and not answered_at:
                answered_at = sizes[-1]
        assert 0 < answered_at < 300 and len(sizes) < 20

    run(story)


def test_large_requests_that_are_parked_count_as_memory_that_is_held() -> None:
    """Ten thousand small ones may wait; of large ones, the connection that holds most is closed."""

    async def story(world: World) -> None:
        modest, greedy = await world.connect(), await world.connect()
        modest.ask(1, poll(), RequestKind.POLL)
        large = msgspec.msgpack.encode(Poll(query("get", b"a") + bytes(100_000), 7))
        for number in range(5):
            greedy.ask(number, large, RequestKind.POLL)
            await settle()
        stats = world.listener.stats
        assert (greedy.lost, modest.lost, stats.closed_memory, stats.requests_parked) == (True, False, 1, 1)
        assert all(each.is_over for each in world.service.polls[1:]) and stats.held_bytes < 1000

    run(story, held_bytes_max=400_000)


def test_a_listener_that_closes_sends_parked_requests_elsewhere() -> None:
    """At once: it waits for no change, and its client asks another node."""

    async def story(world: World) -> None:
        client = await world.connect()
        client.ask(1, poll(), RequestKind.POLL)
        await settle()
        await world.listener.close()
        await settle()
        assert [r.status for r in client.responses if r.id == 1] == [Status.UNAVAILABLE]
        assert world.service.polls[0].is_over and client.lost

    run(story)
