"""Every outcome has its name, and a command is applied once, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import math
import random

import pytest

from raftkv.client import Client, ClientOptions, UnknownMethod
from raftkv.errors import (
    Busy,
    ConfigError,
    DiskLow,
    Indeterminate,
    InvalidArgument,
    Rejected,
    SessionExpired,
    Unavailable,
)
from raftkv.kv import KeyValue
from raftkv.testing.world.loop import elapse
from raftkv.wire import Request, RequestKind, Response, Status
from tests.client.cluster import FakeCluster, FakeNode
from tests.client.worlds import make_client, run_world


def apply_without_answer(node: FakeNode, times: int) -> None:
    """Let `node` apply the next commands, and break the connection in place of the answer."""
    left = times

    def script(request: Request) -> Response | None:
        nonlocal left
        response = node.behave(request)
        if left == 0 or response is None or response.status is not Status.OK:
            return response
        left -= 1
        node.break_connections()
        return None

    node.script = script


def deposed_after_append(node: FakeNode) -> None:
    """Let `node` append the next command and lose its leadership before it is committed: another commits it."""
    cluster = node.cluster

    def script(request: Request) -> Response | None:
        node.behave(request)
        cluster.leader = cluster.addresses[1]
        node.script = node.behave
        return Response(request.id, Status.INDETERMINATE, b"leadership was lost before the command was committed")

    node.script = script


def test_a_lost_reply_is_fetched_under_the_same_number() -> None:
    """F36, F74: the command was applied and its answer lost; the retry gets that answer and changes nothing."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        assert await client.remote.increment(b"n") == 1
        apply_without_answer(cluster.nodes[0], times=3)
        assert await client.remote.increment(b"n") == 2
        cluster.nodes[0].script = cluster.nodes[0].behave
        assert await client.remote.increment(b"n") == 3

    run_world(story)


def test_a_lost_reply_to_the_opening_of_a_session_does_no_harm() -> None:
    """A session that nobody knows of is opened and forgotten; the command is applied once."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        apply_without_answer(cluster.nodes[0], times=1)
        assert await client.remote.increment(b"n") == 1

    run_world(story)


def test_a_command_of_a_deposed_leader_is_applied_once() -> None:
    """The old leader can't tell; the client asks the new one under the same number and the caller sees the result."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        assert await client.remote.increment(b"n") == 1
        deposed_after_append(cluster.nodes[0])
        assert await client.remote.increment(b"n") == 2
        assert client.connected_to == cluster.addresses[1]

    run_world(story)


def test_pipelined_commands_survive_lost_replies() -> None:
    """F74: 500 concurrent increments, and a connection that breaks every 50 answers: the counter is exact."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        dice = random.Random(7)
        broken = 0

        def script(request: Request) -> Response | None:
            nonlocal broken
            response = cluster.nodes[0].behave(request)
            if dice.random() < 0.02:
                broken += 1
                cluster.nodes[0].close_connections()
                return None
            return response

        cluster.nodes[0].script = script
        results = await asyncio.gather(*[client.remote.increment.within(600)(b"n") for _ in range(500)])
        assert sorted(results) == list(range(1, 501))
        assert broken > 5

    run_world(story)


def test_without_a_session_a_lost_reply_is_indeterminate() -> None:
    """F36: at most once; nobody tries again what may have been applied. It is told at once, as waiting won't help."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        apply_without_answer(cluster.nodes[0], times=1)
        with pytest.raises(Indeterminate, match="the answer was lost"):
            await client.remote.increment(b"n")
        assert asyncio.get_running_loop().time() < 1
        assert await client.remote.increment(b"n") == 2

    run_world(story, sessions=False)


def test_without_a_session_what_was_not_accepted_is_still_tried_again() -> None:
    """A redirect is certain: following it can't apply anything twice."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.leader = cluster.addresses[1]
        assert await client.remote.increment(b"n") == 1

    run_world(story, sessions=False)


def test_the_deadline_of_a_sent_command_is_indeterminate() -> None:
    """F36: the caller gave up on a command that some node has: it may have been applied, or will be."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.increment(b"n")
        cluster.nodes[0].script = lambda _: None
        with pytest.raises(Indeterminate, match="no answer within 1 s, and the command may have been applied"):
            await client.remote.increment.within(1)(b"n")
        assert asyncio.get_running_loop().time() == pytest.approx(1)

    run_world(story)


def test_an_answer_that_makes_no_sense_may_be_one_to_a_command_that_was_done() -> None:
    """The node has spoken, and nobody understands it: without a session, nobody knows (F36)."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.nodes[0].script = lambda request: Response(request.id, Status.REJECTED, b"\xff")
        with pytest.raises(Indeterminate):
            await client.remote.increment(b"n")

    run_world(story, sessions=False)


@pytest.mark.parametrize("named", ["", "10.9.9.9:1"])
def test_an_outage_without_a_leader_says_whom_the_nodes_name(named: str) -> None:
    """So that an operator knows where to look."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.leader = named
        with pytest.raises(Unavailable, match=f"which may be {named}" if named else "knows of none"):
            await client.within(1.0).call("get", b"x")

    run_world(story)


def test_the_deadline_of_a_query_is_unavailable() -> None:
    """A query changes nothing, so its outcome is never in doubt."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.nodes[0].script = lambda _: None
        with pytest.raises(Unavailable):
            await client.remote.get.within(1)(b"n")

    run_world(story)


@pytest.mark.parametrize("makes_room", [True, False])
def test_a_refusal_tells_nothing_of_a_command_that_was_sent_before(makes_room: bool) -> None:
    """F13, F36: it was applied and its answer lost; then no voter has room on its disk, and what comes is refused at
    once. The caller gets the answer of the first attempt, or nobody can tell; never that it was certainly not done.

    Seed 2 of the simulated worlds, with disks that are full more often: what had been refused was in the list.
    """

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        node = cluster.nodes[0]
        assert await client.remote.increment(b"n") == 1

        def refuse(request: Request) -> Response:
            return Response(request.id, Status.DISK_LOW, b"nobody has room")

        def apply_and_vanish(request: Request) -> None:
            node.behave(request)
            node.break_connections()
            node.script = refuse

        node.script = apply_and_vanish
        if makes_room:
            asyncio.get_running_loop().call_later(1, setattr, node, "script", node.behave)
            assert await client.remote.increment(b"n") == 2
            return
        with pytest.raises(Indeterminate, match=r"may have been applied.*nobody has room"):
            await client.remote.increment.within(2)(b"n")
        with pytest.raises(DiskLow, match="nobody has room"):
            await client.remote.increment(b"n")

    run_world(story)


def test_a_busy_node_is_asked_again_more_and_more_slowly() -> None:
    """`Busy` is waited out; at the deadline it is what the caller gets, because nothing was done."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        node = cluster.nodes[0]
        await client.remote.increment(b"n")
        seen = len(node.requests)
        node.script = lambda request: Response(request.id, Status.BUSY, b"too much waits")
        with pytest.raises(Busy, match="too much waits"):
            await client.remote.increment.within(2)(b"n")
        assert 8 < len(node.requests) - seen < 30
        asyncio.get_running_loop().call_later(1, setattr, node, "script", node.behave)
        assert await client.remote.increment(b"n") == 2

    run_world(story)


def test_a_rejection_is_the_commands_own_and_final() -> None:
    """F75: what the command raised reaches the caller with type and text, without any retry."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.put(b"a", b"text")
        seen = cluster.requests()
        with pytest.raises(Rejected, match="not a counter") as caught:
            await client.remote.increment(b"a")
        assert caught.value.error_type == "ValueError"
        assert cluster.requests() == seen + 1

    run_world(story)


def test_an_expired_session_is_replaced_when_nothing_can_have_been_applied() -> None:
    """F74: the first attempt was answered "expired", so a new session is as good as the old one."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        assert await client.remote.increment(b"n") == 1
        cluster.log.expire_sessions()
        assert await client.remote.increment(b"n") == 2

    run_world(story)


def test_an_expired_session_is_told_when_the_command_may_have_been_applied() -> None:
    """F74: an answer was lost and then the session too: exactly-once can't be promised, and the caller is told."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        assert await client.remote.increment(b"n") == 1
        node = cluster.nodes[0]

        def script(request: Request) -> Response | None:
            node.behave(request)
            cluster.log.expire_sessions()
            node.script = node.behave
            node.break_connections()
            return None

        node.script = script
        with pytest.raises(SessionExpired):
            await client.remote.increment(b"n")
        assert await client.remote.increment(b"n") == 3

    run_world(story)


def test_wrong_calls_are_errors_before_anything_is_sent() -> None:
    """Unknown methods, wrong arguments and wrong types never reach the network."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        kv = client.remote
        with pytest.raises(UnknownMethod, match="no command or query 'putt'"):
            await kv.putt(b"a", b"1")
        with pytest.raises(UnknownMethod, match=r"write `client = Client\(…\)` .* and `client.watch\(…\)` in it"):
            kv.watch("items")
        for args in [(), (b"a",), (b"a", b"1", b"2"), ("a", b"1"), (b"a", 1), (b"a", None)]:
            with pytest.raises(InvalidArgument, match="put"):
                await kv.put(*args)
        with pytest.raises(InvalidArgument):
            await kv.put(b"a", valu=b"1")
        with pytest.raises(InvalidArgument, match="deadline"):
            await kv.put.within(0)(b"a", b"1")
        with pytest.raises(InvalidArgument, match="bytes"):
            await kv.put(b"a", bytes(10 << 20))
        assert not hasattr(kv, "missing")
        assert not hasattr(kv.put, "stale")
        assert hasattr(kv.get, "stale")
        assert cluster.network.dialled == []

    run_world(story)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan, 1e300])
def test_a_deadline_is_a_time(seconds: float) -> None:
    """A server is told the deadline, so it can't be infinite; the default one neither."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        with pytest.raises(InvalidArgument, match="deadline_s"):
            await client.remote.increment.within(seconds)(b"n")

    run_world(story)
    with pytest.raises(ConfigError, match="deadline_s"):
        Client(KeyValue, ["a:1"], deadline_s=seconds)


@pytest.mark.parametrize("name", ["frame_bytes_max", "write_bytes_max"])
def test_the_least_that_a_frame_may_have(name: str) -> None:
    """What the error names as the least is allowed."""
    ClientOptions(**{name: 1024})
    with pytest.raises(ConfigError, match="at least 1024"):
        ClientOptions(**{name: 1023})


def test_addresses_are_checked() -> None:
    """A wrong address is an error at once, not a connection that never comes."""
    for addresses in ["127.0.0.1:7001", [], ["127.0.0.1"], ["host:0"], [":1"]]:
        with pytest.raises(InvalidArgument, match="address"):
            Client(KeyValue, addresses)


def test_a_cancelled_call_leaves_nothing_behind() -> None:
    """Cancelling is safe at any time: later commands work, and its number is acknowledged as over."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.increment(b"n")
        cluster.nodes[0].script = lambda _: None
        task = asyncio.ensure_future(client.remote.increment(b"n"))
        await elapse(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        cluster.nodes[0].script = cluster.nodes[0].behave
        assert await client.remote.increment(b"n") == 2
        assert client.session is not None
        assert client.session.acked_below == 4

    run_world(story)


def test_a_late_copy_of_an_abandoned_command_is_not_applied() -> None:
    """F74: an old leader appends what its caller has given up, after newer commands: the machine ignores it."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        node = cluster.nodes[0]
        await client.remote.increment(b"n")
        node.script = lambda _: None
        with pytest.raises(Indeterminate):
            await client.remote.increment.within(0.5)(b"n")
        late = [request for request in node.requests if request.kind is RequestKind.COMMAND][-1]
        node.script = node.behave
        assert await client.remote.increment(b"n") == 2
        cluster.log.apply(late.payload)
        assert await client.remote.increment(b"n") == 3

    run_world(story)


def test_calls_beyond_the_bounds_wait_or_are_refused() -> None:
    """At most `in_flight_max` are sent, at most `waiting_max` wait; over that: `Busy` at once."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        node = cluster.nodes[0]
        held: list[Request] = []
        await client.remote.increment(b"n")

        def hold(request: Request) -> Response | None:
            held.append(request)
            return None

        node.script = hold
        calls = [asyncio.ensure_future(client.remote.increment(b"n")) for _ in range(40)]
        await elapse(0.1)
        assert len(held) == 10
        with pytest.raises(Busy):
            await client.remote.increment(b"n")
        node.script = node.behave
        node.break_connections()
        assert sorted(await asyncio.gather(*calls)) == list(range(2, 42))

    run_world(story, in_flight_max=10, waiting_max=40)


def test_closing_ends_what_waits() -> None:
    """A closed client answers every call, and takes no more."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.remote.increment(b"n")
        cluster.nodes[0].script = lambda _: None
        sent = asyncio.ensure_future(client.remote.increment(b"n"))
        query = asyncio.ensure_future(client.remote.get(b"n"))
        await elapse(0.1)
        await client.close()
        with pytest.raises(Indeterminate, match="closed"):
            await sent
        with pytest.raises(Unavailable, match="closed"):
            await query
        with pytest.raises(Unavailable, match="closed"):
            await client.remote.increment(b"n")

    run_world(story)


@pytest.mark.parametrize("ends_session", [True, False])
@pytest.mark.parametrize("sessions", [True, False])
@pytest.mark.parametrize("moves", [True, False])
def test_closing_says_of_each_call_whether_it_may_have_been_done(
    ends_session: bool, sessions: bool, moves: bool
) -> None:
    """F36: the node is well and answers what else it is asked, so that nothing but the closing ends the calls. What was
    sent may have been done, even if it went over a connection that is not the current one any more, or was lost and
    waits to be sent again. What never left was not done; a query changes nothing."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        node = cluster.nodes[0]
        assert await client.remote.increment(b"n") == 1

        def swallow(request: Request) -> Response | None:
            is_close = request.kind is RequestKind.COMMAND and b"close" in request.payload
            return node.behave(request) if request.kind is RequestKind.STATUS or is_close else None

        node.script = swallow
        sent = [asyncio.ensure_future(client.remote.increment(b"n")) for _ in range(3)]
        query = asyncio.ensure_future(client.remote.get(b"n"))
        await elapse(0.1)
        if moves:
            cluster.leader = cluster.addresses[1]
            cluster.nodes[1].script = cluster.nodes[1].behave
            node.script = lambda request: None if request.kind is not RequestKind.QUERY else node.behave(request)
            await client.remote.get(b"n")  # the leader is another one now; the old connection stays
            assert client.connected_to == cluster.addresses[1]
        waiting = [asyncio.ensure_future(client.remote.increment(b"n")) for _ in range(2)] if not moves else []
        await elapse(0.1)
        await client.close(end_session=ends_session)
        for call in sent:
            with pytest.raises(Indeterminate, match="closed, and the command may have been applied"):
                await call
        for call in (query, *waiting):
            with pytest.raises(Unavailable, match="closed"):
                await call

    run_world(story, sessions=sessions, in_flight_max=5 if moves else 4)


def test_closing_says_that_a_command_which_waits_to_be_sent_again_may_have_been_done() -> None:
    """F36: its first attempt was lost with the connection, and now nobody leads."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        assert await client.remote.increment(b"n") == 1
        cluster.nodes[0].script = lambda _: None
        sent = asyncio.ensure_future(client.remote.increment(b"n"))
        await elapse(0.1)
        for node in cluster.nodes:
            node.die()
        await elapse(0.1)
        new = asyncio.ensure_future(client.remote.increment(b"n"))
        await elapse(0.1)
        await client.close()
        with pytest.raises(Indeterminate, match="closed"):
            await sent
        with pytest.raises(Unavailable, match="closed"):
            await new

    run_world(story)


def test_closing_does_not_wait_for_a_session_that_is_being_opened() -> None:
    """Nobody answers: the deadline of whoever wanted it is not waited for."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        cluster.nodes[0].script = lambda request: None if request.id else cluster.nodes[0].behave(request)
        asked = asyncio.ensure_future(client.remote.increment(b"n"))
        await elapse(0.1)
        began = asyncio.get_running_loop().time()
        await client.close()
        assert asyncio.get_running_loop().time() - began < 0.1
        with pytest.raises(Unavailable, match="closed"):
            await asked

    run_world(story)


def test_closing_tells_the_cluster_that_the_session_is_over() -> None:
    """The session's place in the table is free again."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        other = make_client(cluster)
        await other.remote.increment(b"n")
        assert cluster.log.sessions() == 1
        await other.close()
        assert cluster.log.sessions() == 0
        assert cluster.nodes[0].requests[-1].kind is RequestKind.COMMAND

    run_world(story)


def test_a_client_that_never_called_closes_without_a_word() -> None:
    """No connection is made before the first call."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.close()
        await client.close()
        assert cluster.network.dialled == []

    run_world(story)
