"""Commands and queries that are refused at the edge, and those that any node answers."""

from __future__ import annotations

import pytest

from raftkv.errors import (
    InvalidArgument,
    NotAccepted,
    Unavailable,
)
from raftkv.kv import KeyValue
from raftkv.testing import elapse, scenario
from tests.node.steps import fill, follower_of


@scenario(KeyValue, seed=1)
async def test_a_follower_answers_queries_by_asking_the_leader(cluster):
    """A linearizable read on a follower waits until it has applied what the leader had committed."""
    client = cluster.client()
    await fill(client, 20)
    method, got = KeyValue.methods["get"], []
    follower = follower_of(cluster).node
    payload = method.query_payload(method.encode_args((b"key-00019",), {}))
    follower.requests.query(payload, False, lambda index, result: got.append(method.decode_result(result)))
    await cluster.until(lambda: got, 5, "an answer")
    assert got[0].value == b"x" * 64
    await client.close()


@scenario(KeyValue, seed=1)
async def test_commands_are_checked_before_they_get_into_the_log(cluster):
    """F33: too large, unknown or unreadable: refused at the edge, and the log is as before."""
    leader = cluster.leader
    last = leader.raft.log.last_index
    for payload in (b"", b"\xc1", bytes(leader.body.config.command_bytes_max + 1)):
        with pytest.raises(InvalidArgument):
            leader.requests.submit(payload, lambda index, outcome: None)
    assert leader.raft.log.last_index == last
    with pytest.raises(NotAccepted):
        follower_of(cluster).node.requests.submit(b"", lambda index, outcome: None)


@scenario(KeyValue, seed=1)
async def test_a_query_that_nobody_can_read_stops_nobody(cluster):
    """F75: text that is none and arrays without end, asked of the leader and of a follower, fresh and stale."""
    answers = []
    asked = 0
    for node in (cluster.leader, follower_of(cluster).node):
        for payload in (b"\xc1", b"\x92\xa1\xff\x90", b"\x92\xa3get" + b"\x91" * 60_000):
            for stale in (False, True):
                node.requests.query(payload, stale, lambda index, result: answers.append(result))
                asked += 1
    await elapse(1)
    assert len(answers) == asked
    assert all(isinstance(answer, InvalidArgument) for answer in answers)
    client = cluster.client()
    await fill(client, 3)
    await client.close()


@scenario(KeyValue, seed=1)
async def test_requests_after_the_end_are_refused(cluster):
    """A node that was stopped answers nobody, and says why."""
    sim = follower_of(cluster)
    node = sim.node
    await sim.stop()
    with pytest.raises(Unavailable):
        await node.waiters.until(lambda: False, 0.1, "nothing")
