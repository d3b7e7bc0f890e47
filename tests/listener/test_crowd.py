"""All connections together, where users have to sign in: who has not keeps no user out."""

from __future__ import annotations

import asyncio

import pytest

from raftkv.access import TurnOn
from raftkv.listener.crowd import LOOK_AGAIN_S
from raftkv.listener.limits import ClientLimits
from raftkv.testing.world.loop import elapse
from raftkv.wire import encode_frame
from tests.listener.raw import connect, settle
from tests.listener.test_gate import ADDRESS, World, run
from tests.logged import capture_logs


def test_who_has_not_signed_in_gives_place_to_who_comes() -> None:
    """All places but one are taken by nobodies: they keep no user out, and no user has to go for them or another."""

    async def story(world: World) -> None:
        boss = await world.connect("boss")
        nobodies = [await world.connect(who) for who in ("nobody", "mistyped", "stranger")]
        app, tenant = await world.connect("app"), await world.connect("tenant")
        assert [each.lost for each in nobodies] == [True, True, False]
        assert await world.connect("nobody") and nobodies[2].lost
        reader = await world.connect("reader")
        users = (boss, app, tenant, reader)
        assert not any(each.lost for each in users) and len(world.listener.crowd.connections) == 4
        assert (await world.connect("idler")).lost and not any(each.lost for each in users)
        assert world.listener.stats.connections_refused == 5 and world.listener.stats.connections == 4

    with capture_logs() as lines:
        run(story, connections_max=4)
    reasons = [line["reason"] for line in lines if line["event"] == "client_refused"]
    assert any("nobody has signed in on this one" in each for each in reasons)


def test_nobody_gives_place_while_nobody_has_to_sign_in() -> None:
    """Then all are equal, and who comes last is turned away; once they have to, that changes, a moment later."""

    async def story(world: World) -> None:
        first, second = await world.connect("nobody"), await world.connect("stranger")
        assert (await world.connect("boss")).lost and not first.lost and not second.lost
        world.change(TurnOn())
        await elapse(LOOK_AGAIN_S)
        boss = await world.connect("boss")
        assert first.lost and not second.lost and not boss.lost

    run(story, on=False, connections_max=2)


def test_who_is_just_signing_in_gives_place_to_nobody() -> None:
    """Their password waits to be tried: a crowd that comes back at once would else throw out one another for ever."""

    async def story(world: World) -> None:
        tried: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        world.try_one = lambda work: tried  # type: ignore[method-assign]
        world.listener.gate.sign_ins._workers = [world.try_one]
        signing, mute = await world.connect("boss"), await connect(world.network, ADDRESS, greet=False)
        assert (await world.connect("app")).lost and not signing.lost and not mute.lost
        tried.set_result(True)
        await settle()
        assert signing.hello is not None and signing.hello.user == "boss"

    run(story, connections_max=2)


@pytest.mark.parametrize("on", [True, False])
def test_who_says_nothing_gives_place_after_a_moment(on: bool) -> None:
    """Well before it would be closed for that: a crowd that comes back as soon as it is closed would have all places.
    Who has come a moment ago keeps its own, as its first words may be on their way."""

    async def story(world: World) -> None:
        first, second = [await connect(world.network, ADDRESS, greet=False) for _ in range(2)]
        assert (await world.connect("boss")).lost
        first.send(b"\0")
        await elapse(max(ClientLimits().silent_s, LOOK_AGAIN_S))
        boss, app = await world.connect("boss"), await world.connect("app")
        assert first.lost and second.lost and not boss.lost and not app.lost
        assert (await world.connect("tenant")).lost and not boss.lost and not app.lost

    run(story, on=on, connections_max=2)


def test_who_has_not_signed_in_goes_first_when_all_hold_too_much() -> None:
    """The beginnings of their frames cost no user the connection, however much more that holds."""

    async def story(world: World) -> None:
        app, mute = await world.connect("app"), await connect(world.network, ADDRESS, greet=False)
        nobodies = [await world.connect(who) for who in ("nobody", "mistyped")]
        app.send(encode_frame(bytes(30_000))[:15_000])
        mute.send(encode_frame(bytes(30_000))[:9_000])
        nobodies[0].send(encode_frame(bytes(30_000))[:6_000])
        await settle()
        assert not (app.lost or mute.lost or nobodies[0].lost)
        app.send(bytes(5_000))
        await settle()
        assert mute.lost and not (app.lost or nobodies[0].lost or nobodies[1].lost)

    run(story, held_bytes_max=32_000)
