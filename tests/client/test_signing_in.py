"""Clients that sign in: what they send where, what they do when they are refused, and what nobody gets to see."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from raftkv.access import GiveRole, SetPassword, TurnOff, TurnOn
from raftkv.client import Admin, Client, ClientOptions
from raftkv.errors import Forbidden, Unauthenticated, Unavailable
from raftkv.kv import KeyValue
from raftkv.listener import ClientLimits, Listener
from raftkv.testing.world.loop import elapse
from raftkv.wire import FrameDecoder, decode_client_hello
from tests.listener.people import hashed, make, password_of
from tests.listener.raw import settle
from tests.listener.test_gate import ADDRESS, World, run


def client_of(world: World, **options: Any) -> Client[KeyValue]:
    """A client of the node in memory."""
    settings = ClientOptions(insecure=True, deadline_s=5.0, **options)
    return Client(KeyValue, [ADDRESS], options=settings, dial=world.network.dial)


def admin_of(world: World, **options: Any) -> Admin:
    """An operator's client of it."""
    return Admin([ADDRESS], options=ClientOptions(insecure=True, **options), dial=world.network.dial)


def signed_in(story: Callable[[World], Awaitable[None]]) -> None:
    """Tell `story` of a node that asks who one is."""
    run(story)


def test_a_user_does_what_they_may_and_is_refused_the_rest_once() -> None:
    """The error is raised at once, and the request was sent a single time."""

    async def story(world: World) -> None:
        client = client_of(world, user="tenant", password=password_of("tenant"))
        await client.call(KeyValue.put, b"ten/1", b"v")
        item = await client.call(KeyValue.get, b"ten/1")
        assert item is not None and item.value == b"v"
        before = world.listener.stats.requests
        for _ in range(3):
            with pytest.raises(Forbidden, match="tenant may not"):
                await client.call(KeyValue.put, b"other", b"v")
        assert world.listener.stats.requests == before + 3
        assert world.listener.stats.forbidden == 3
        assert world.network.dialled == [ADDRESS]
        await client.close()

    signed_in(story)


def test_who_shows_nothing_is_told_so_at_once() -> None:
    """Not after the deadline; an operator's client the same."""

    async def story(world: World) -> None:
        client, admin = client_of(world), admin_of(world)
        with pytest.raises(Unauthenticated, match="give a user and password, a token, or a user's certificate"):
            await client.call(KeyValue.put, b"ten/1", b"v")
        with pytest.raises(Unauthenticated):
            await admin.status()
        await client.close()
        await admin.close()

    signed_in(story)


def test_a_wrong_password_is_no_password_until_it_is_set() -> None:
    """Each call is refused once; when the password is set, the same client gets in with its next call."""

    async def story(world: World) -> None:
        client = client_of(world, user="tenant", password="to be set")
        for _ in range(3):
            with pytest.raises(Unauthenticated, match="no user of this name with this password"):
                await client.call(KeyValue.put, b"ten/1", b"v")
        assert world.listener.stats.sign_ins_failed == 3
        world.change(SetPassword("tenant", hashed("to be set")))
        await client.call(KeyValue.put, b"ten/1", b"v")
        assert world.listener.stats.connections == 1
        await client.close()

    signed_in(story)


def test_who_was_nobody_when_the_connection_was_made_signs_in_anew_before_a_call_is_refused() -> None:
    """A password that was set since counts for the next call, on whatever connections the client has; a wrong one is
    still refused, after one more try (F90). The node is one that keeps to what it has found out, as older ones do."""

    async def story(world: World) -> None:
        world.listener.gate.check_verdict = lambda identity: None  # type: ignore[method-assign]
        make(world.service.access, TurnOff())
        client = client_of(world, user="tenant", password="to be set")
        await client.call(KeyValue.put, b"ten/1", b"v")
        world.change(SetPassword("tenant", hashed("to be set")))
        world.change(TurnOn())
        await client.call(KeyValue.get, b"ten/1")
        assert world.network.dialled == [ADDRESS, ADDRESS]
        wrong = client_of(world, user="tenant", password="never set")
        make(world.service.access, TurnOff())
        await wrong.call(KeyValue.get, b"ten/1")
        world.change(TurnOn())
        before = world.listener.stats.unauthenticated
        with pytest.raises(Unauthenticated, match="no user of this name with this password"):
            await wrong.call(KeyValue.put, b"ten/1", b"w")
        assert world.listener.stats.unauthenticated == before + 2
        await client.close()
        await wrong.close()

    signed_in(story)


def test_a_call_that_waits_for_a_node_that_is_behind_is_not_refused_for_what_it_did_not_know() -> None:
    """The connection is younger than the call, and its node had not applied yet that the password was set: it has the
    client sign in anew instead, and the call succeeds (F90)."""

    async def story(world: World) -> None:
        world.service.knows_all = False
        client = client_of(world, user="tenant", password="to be set")
        call = asyncio.ensure_future(client.call(KeyValue.put, b"ten/1", b"v"))
        await elapse(0.5)
        world.change(SetPassword("tenant", hashed("to be set")))
        world.service.knows_all = True
        await call
        assert world.network.dialled == [ADDRESS, ADDRESS]
        assert world.listener.stats.unauthenticated == 0
        await client.close()

    signed_in(story)


def test_tokens_sign_in_as_well() -> None:
    """Of clients and operators' clients."""

    async def story(world: World) -> None:
        client = client_of(world, token="the token of tenant")
        await client.call(KeyValue.put, b"ten/1", b"v")
        admin = admin_of(world, token="the token of tenant")
        with pytest.raises(Forbidden, match="admin status"):
            await admin.status()
        world.change(GiveRole("tenant", "operator"))
        await admin.status()
        await client.close()
        await admin.close()

    signed_in(story)


def test_who_is_removed_hears_why() -> None:
    """The next call is refused at once, by a connection of its own; those under way before were answered."""

    async def story(world: World) -> None:
        client = client_of(world, user="tenant", password=password_of("tenant"))
        await client.call(KeyValue.put, b"ten/1", b"v")
        world.service.holding = True
        under_way = asyncio.ensure_future(client.call(KeyValue.put, b"ten/2", b"v"))
        await settle()
        world.change(SetPassword("tenant", hashed("another")))
        await settle()
        world.service.holding = False
        world.service.release()
        await under_way
        with pytest.raises(Unauthenticated, match="no user of this name with this password"):
            await client.call(KeyValue.put, b"ten/1", b"w")
        await client.close()

    signed_in(story)


def test_clients_that_signed_in_before_it_was_turned_on_go_on() -> None:
    """With their session: no call fails, and none is done twice."""

    async def story(world: World) -> None:
        make(world.service.access, TurnOff())
        client = client_of(world, user="tenant", password=password_of("tenant"))
        await client.call(KeyValue.increment, b"ten/n", 1)
        session = client.session
        world.change(TurnOn())
        assert await client.call(KeyValue.increment, b"ten/n", 1) == 2
        assert client.session is session
        await client.close()

    signed_in(story)


def test_what_one_signs_in_by_is_sent_with_each_hello() -> None:
    """And nothing where there is nothing."""

    async def story(world: World) -> None:
        heard: list[bytes] = []
        made = world.listener.connection

        def connection() -> Any:
            protocol = made()
            received = protocol.data_received

            def data_received(data: bytes) -> None:
                heard.append(data)
                received(data)

            protocol.data_received = data_received  # type: ignore[method-assign]
            return protocol

        world.network.listeners[ADDRESS] = connection
        client = client_of(world, user="tenant", password=password_of("tenant"))
        await client.call(KeyValue.get, b"ten/1")
        hello = decode_client_hello(FrameDecoder(1 << 20).feed(heard[0])[0])
        assert hello.sign_in is not None
        assert (hello.sign_in.user, hello.sign_in.password) == ("tenant", password_of("tenant"))
        await client.close()

    signed_in(story)


def test_a_sign_of_life_is_asked_for_by_what_every_user_may_ask() -> None:
    """Not by the status, which only some may see: a probe is no request that has to be refused and counted."""

    async def story(world: World) -> None:
        client = client_of(world, user="tenant", password=password_of("tenant"))
        await client.call(KeyValue.put, b"ten/1", b"v")
        world.service.holding = True
        waiting = asyncio.ensure_future(client.call(KeyValue.put, b"ten/2", b"v"))
        await elapse(1.5)
        world.service.holding = False
        world.service.release()
        await waiting
        assert world.listener.stats.forbidden == 0
        assert world.listener.stats.requests > 3
        await client.close()

    signed_in(story)


def test_a_listener_without_workers_lets_nobody_in_by_a_password() -> None:
    """A client is told to try again, and tries until its deadline; a token needs no worker."""

    async def story(world: World) -> None:
        listener = Listener(world.service, ClientLimits())
        listener.begin()
        world.network.listeners["10.0.0.2:1"] = listener.connection
        options = ClientOptions(user="tenant", password=password_of("tenant"), insecure=True, deadline_s=1.0)
        client = Client(KeyValue, ["10.0.0.2:1"], options=options, dial=world.network.dial)
        with pytest.raises(Unavailable, match="sign in again soon"):
            await client.call(KeyValue.get, b"ten/1")
        await client.close()
        await listener.close()

    signed_in(story)
