"""What a request demands, where the application's class is wrong about it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from raftkv.access import Touch
from raftkv.history import Cursor
from raftkv.kv import KeyValue
from raftkv.listener import demands
from raftkv.wire import RequestKind, Status, Watching
from tests.listener.payloads import command, query
from tests.listener.test_gate import World, answer, run
from tests.logged import capture_logs


class Faulty(KeyValue):
    """Says what it touches of keys that have a slash."""

    @classmethod
    def touches(cls, name: str, args: tuple[Any, ...]) -> tuple[Touch, ...] | None:
        """Raises for other keys."""
        args[0].index(b"/")
        return super().touches(name, args)


@pytest.mark.parametrize("who", ["tenant", "app"])
def test_a_class_that_can_not_say_what_a_call_touches_costs_nobody_the_connection(who: str) -> None:
    """Rights by keys do not count for that call, those by name do; what comes next on the connection is answered, and
    no request counts as one that waits. The log says so once, and not which key it was."""
    watching = msgspec.msgpack.encode(Watching("records", Cursor(0, 0), b"secret", b"secret0"))

    async def story(world: World) -> None:
        world.service.machine = Faulty
        client = await world.connect(who)
        wanted = Status.OK if who == "app" else Status.FORBIDDEN
        for _ in range(3):
            assert (await answer(client, RequestKind.COMMAND, command("put", b"secret", b"v"))).status is wanted
            assert (await answer(client, RequestKind.QUERY, query("get", b"secret"))).status is wanted
            assert (await answer(client, RequestKind.WATCH, watching)).status is Status.FORBIDDEN
        assert (await answer(client, RequestKind.COMMAND, command("put", b"ten/1", b"v"))).status is Status.OK

    demands._tell_once.cache_clear()
    with capture_logs() as lines:
        run(story)
    told = [line for line in lines if line["event"] == "touches_raised"]
    assert sorted(line["call"] for line in told) == ["get", "put", "watch.records"]
    assert not any("secret" in str(line) for line in told)
