"""What a program is told of its node's role: by callbacks, and as a stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from raftkv import InvalidArgument, Role, Server
from raftkv.kv import KeyValue
from raftkv.server.roles import Roles
from tests.logged import capture_logs

LEADS, FOLLOWS = Role(True, 3, 1), Role(False, 4, 2)


def test_a_server_tells_of_its_role_from_its_start_to_its_end(tmp_path: Any) -> None:
    """A callback that was given before the start, one that comes later, and a stream that ends with the server."""

    async def main() -> None:
        early: list[Role] = []
        late: list[Role] = []
        server = Server(KeyValue, data_dir=tmp_path / "n1")
        server.on_leader(early.append)
        seen = asyncio.ensure_future(_all(server))
        async with server:
            async with asyncio.timeout(20):
                async for role in server.roles():
                    if role.is_leader:
                        break
            server.on_leader(late.append)
            stopped = server.on_leader(lambda role: early.clear())
            stopped.stop()
            await asyncio.sleep(0)
        assert [role.is_leader for role in early] == [role.is_leader for role in late] == [True, False]
        assert early[0] == late[0] == Role(True, early[0].term, 1)
        stream = await asyncio.wait_for(seen, 10)
        assert LEADS.is_leader in [role.is_leader for role in stream] and not stream[-1].is_leader

    asyncio.run(main())


async def _all(server: Server[Any]) -> list[Role]:
    return [role async for role in server.roles()]


def test_whoever_is_slow_hears_of_the_last_role_only() -> None:
    """Nothing is kept for it, and nothing waits for it."""

    async def main() -> None:
        roles = Roles()
        roles.told(FOLLOWS)
        stream = roles.stream()
        assert await anext(stream) == FOLLOWS
        for term in range(5, 50):
            roles.told(Role(term % 2 == 0, term, 1))
        assert await anext(stream) == Role(False, 49, 1)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        roles.told(LEADS)
        assert await waiting == LEADS
        roles.end()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    asyncio.run(main())


def test_each_callback_hears_of_every_beginning_and_end() -> None:
    """Also when leadership of one term is followed by that of another; one that raises harms nobody and is logged."""

    async def main() -> None:
        roles = Roles()
        heard: list[Role] = []

        def fails(role: Role) -> None:
            raise KeyError("oops")

        roles.call(fails)
        roles.call(heard.append)
        for role in (FOLLOWS, LEADS, LEADS, Role(True, 5, 1), FOLLOWS):
            roles.told(role)
        await asyncio.sleep(0)
        assert [(role.is_leader, role.term) for role in heard] == [
            (True, 3),
            (False, 3),
            (True, 3),
            (False, 5),
            (True, 5),
            (False, 4),
        ]

    with capture_logs() as lines:
        asyncio.run(main())
    raised = [line for line in lines if line["event"] == "leader_callback_raised"]
    assert len(raised) == 6
    assert "fails" in raised[0]["callback"] and raised[0]["error"] == "KeyError: 'oops'"


def test_a_coroutine_function_is_refused() -> None:
    """Nobody would await it."""

    async def callback(role: Role) -> None:
        raise AssertionError

    with pytest.raises(InvalidArgument, match="is a coroutine function"):
        Roles().call(callback)
