"""The operator's client: what is changed twice does harm, what is only asked does not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from raftkv.access import TurnOff
from raftkv.client import Admin, ClientOptions
from raftkv.errors import Indeterminate, InvalidArgument, Unavailable
from raftkv.model import Member
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.wire import Request, RequestKind, Response, Status, encode_response
from tests.client.cluster import FakeCluster


def tell(story: Callable[[FakeCluster, Admin], Awaitable[None]]) -> None:
    """Tell `story` with an operator who knows one node; nothing may fail behind his back."""
    loop = SimLoop()

    async def main() -> None:
        cluster = FakeCluster()
        admin = Admin(
            cluster.addresses[:1], options=ClientOptions(), dial=cluster.network.dial, chance=random.Random(1)
        )
        await story(cluster, admin)
        await admin.close()

    loop.run(main())
    assert loop.failures == []


def answer_after(cluster: FakeCluster, lost: int, result: Any) -> list[RequestKind]:
    """Let the node answer, but lose the first answers with their connections. Gives what it was asked."""
    node, asked = cluster.nodes[0], list[RequestKind]()

    def script(request: Request) -> Response | None:
        if not request.id:
            return node.behave(request)
        asked.append(request.kind)
        if len(asked) <= lost:
            node.break_connections()
            return None
        return Response(request.id, Status.OK, msgspec.msgpack.encode(result))

    node.script = script
    return asked


CHANGES: dict[str, Callable[[Admin], Awaitable[object]]] = {
    "add": lambda admin: admin.add_learner(Member(4, "10.0.0.4:2", "10.0.0.4:1")),
    "promote": lambda admin: admin.promote(4),
    "remove": lambda admin: admin.remove(4),
    "transfer": lambda admin: admin.transfer_leadership(2),
    "upgrade": lambda admin: admin.upgrade(),
    "reset the clock": lambda admin: admin.reset_clock(),
    "change users": lambda admin: admin.change_access(TurnOff()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_whose_answer_is_lost_is_not_made_twice(change: str) -> None:
    """The operator is told that it may have been done, and looks before trying again."""

    async def story(cluster: FakeCluster, admin: Admin) -> None:
        asked = answer_after(cluster, 1, 2)
        with pytest.raises(Indeterminate):
            await CHANGES[change](admin)
        assert len(asked) == 1

    tell(story)


def test_a_question_whose_answer_is_lost_is_asked_again() -> None:
    """It changes nothing that matters."""

    async def story(cluster: FakeCluster, admin: Admin) -> None:
        asked = answer_after(cluster, 2, {"node_id": 1})
        assert await admin.status() == {"node_id": 1}
        assert asked == [RequestKind.STATUS] * 3
        answer_after(cluster, 1, 17)
        assert await admin.take_snapshot() == 17

    tell(story)


def test_a_deadline_is_checked_before_anything_is_sent() -> None:
    """As every client does."""

    async def story(cluster: FakeCluster, admin: Admin) -> None:
        for wrong in (0.0, -1.0, float("nan"), float("inf")):
            with pytest.raises(InvalidArgument, match="deadline_s"):
                await admin.status(deadline_s=wrong)
        assert cluster.network.dialled == []

    tell(story)


def test_what_takes_long_is_waited_for() -> None:
    """A membership change or a snapshot may take minutes, on a connection that is silent meanwhile."""

    async def story(cluster: FakeCluster, admin: Admin) -> None:
        node = cluster.nodes[0]
        held: list[Request] = []
        node.script = lambda request: held.append(request) if request.id else node.behave(request)  # type: ignore[func-returns-value]
        asked = asyncio.ensure_future(admin.take_snapshot())
        await elapse(100)
        answer = Response(held[0].id, Status.OK, msgspec.msgpack.encode(9))
        node.connections[0].transport.write(encode_response(answer))
        assert await asked == 9
        assert len(held) == 1

    tell(story)


def test_the_end_of_the_block_closes_it() -> None:
    """With its connections; it does not begin anew."""

    async def story(cluster: FakeCluster, admin: Admin) -> None:
        answer_after(cluster, 0, {"node_id": 1})
        async with admin:
            await admin.status()
        with pytest.raises(Unavailable, match="closed"):
            await admin.status()
        await elapse(1)
        assert all(connection.transport.is_closing() for connection in cluster.nodes[0].connections)

    tell(story)
