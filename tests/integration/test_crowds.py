"""More clients, more requests and more open files than a node can do with: bounded, named, and others served."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
from pathlib import Path

import pytest

from raftkv.client import Admin, Client
from raftkv.kv import KeyValue
from raftkv.processes.cluster import NodeProcess
from raftkv.transport.tcp import split_address
from raftkv.wire import PROTOCOL_VERSION, ClientHello, Request, RequestKind, encode_client_hello, encode_request
from tests.chaos.clients import MACHINE, recorded
from tests.chaos.generators import Crowd
from tests.chaos.probe import Usage, events, usage
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

MIB = 1024 * 1024

MANY = 2_000

needs_files = pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2 * MANY,
    reason=f"the hard limit of open files is below {2 * MANY}",
)


async def settles(stage: ChaosStage, node: NodeProcess, before: Usage, spare: int = 40) -> None:
    """Wait until the node has about as many files open as before."""

    async def look() -> bool | None:
        return usage(node).descriptors < before.descriptors + spare or None

    await stage.until(look, f"node {node.node_id} closing what vanished")


@needs_files
def test_two_thousand_clients_come_work_and_vanish(tmp_path: Path) -> None:
    """All on the leader, each with requests outstanding when SIGKILL ends them: recorded clients are served before,
    during and after; nothing is left of the crowd but the files' numbers."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 3, arguments=MACHINE) as cluster:
            stage = start(cluster, tmp_path)
            leader = await stage.leader()
            before = usage(leader)
            async with recorded(cluster.addresses) as clients:
                await clients.more(20)
                crowd = await Crowd.start([leader.own.client_address], connections=MANY, outstanding=2, rest_s=1.0)
                try:
                    standing = await asyncio.wait_for(crowd.standing(), DEADLINE_S)
                    assert (standing.connected, standing.closed) == (MANY, 0)
                    assert usage(leader).descriptors > MANY
                    await clients.more(50)
                    async with asyncio.timeout(DEADLINE_S):
                        while standing.answers.get("OK", 0) < 2 * MANY:
                            standing = await crowd.standing()
                    assert standing.connected == MANY
                finally:
                    await crowd.vanish()
                await settles(stage, leader, before)
                await clients.more(20)
            assert usage(leader).rss_bytes < before.rss_bytes + 96 * MIB
            assert (await stage.leader()).node_id == leader.node_id, "the crowd cost the leader its place"

    tell(story())


def test_a_full_backlog_is_refused_by_name_and_others_are_served(tmp_path: Path) -> None:
    """Ten times as many requests as the node takes, asked again as soon as they are refused: `BUSY`, bounded memory,
    and clients who ask for little are served all the time (F34)."""

    async def story() -> None:
        arguments = [*MACHINE, "--set", "waiting_requests_max=400"]
        with ForkedCluster(tmp_path, 3, arguments=arguments) as cluster:
            stage = start(cluster, tmp_path)
            leader = await stage.leader()
            before = usage(leader)
            async with recorded(cluster.addresses) as clients:
                await clients.more(20)
                crowd = await Crowd.start([leader.own.client_address], connections=40, outstanding=100, rest_s=0.1)
                try:
                    await clients.more(60)
                    async with asyncio.timeout(DEADLINE_S):
                        standing = await crowd.standing()
                        while min(standing.answers.get(status, 0) for status in ("BUSY", "OK")) < 300:
                            standing = await crowd.standing()
                finally:
                    await crowd.vanish()
                assert set(standing.answers) <= {"BUSY", "OK", "NOT_LEADER"}
                await clients.more(20)
            assert usage(leader).rss_bytes < before.rss_bytes + 96 * MIB

    tell(story())


def test_a_node_without_files_left_serves_who_is_connected_and_says_so(tmp_path: Path) -> None:
    """EMFILE: the limit falls to what is open; who is in works on, who comes is closed, the log says why, and when
    there is room again the next is let in."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 1, arguments=MACHINE) as cluster:
            stage = start(cluster, tmp_path)
            node = await stage.leader()
            assert node.process is not None
            async with recorded(cluster.addresses, clients=3) as clients:
                await clients.more(20)
                limits = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
                full = usage(node).descriptors + 1
                resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (full, limits[1]))

                async def said() -> bool | None:
                    return bool(events(node)["files_run_out"]) or None

                first = await greeted(node)
                await stage.until(said, "the log saying that files run out")
                assert not await is_greeted(node)
                await clients.more(20)
                resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, limits)
                assert await is_greeted(node)
                await clients.more(20)
                first.close()
            assert node.is_running

    tell(story())


def test_clients_who_begin_and_do_not_read_hold_no_more_than_they_may(tmp_path: Path) -> None:
    """Sixty with 8 MiB of a frame that never ends, and forty who leave answers of a megabyte unread, which together
    were 2.7 GiB: the largest go, and others are served (slow loris, F34)."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 1, arguments=MACHINE) as cluster:
            stage = start(cluster, tmp_path)
            node = await stage.leader()
            before = usage(node).rss_bytes
            half = struct.pack("<IQ", 9 * MIB, 1) + bytes(8 * MIB)
            method = KeyValue.methods["get"]
            payload = method.query_payload(method.encode_args((b"large",), {}))
            asked = [encode_request(Request(number, RequestKind.QUERY, payload, True, 10_000)) for number in range(56)]
            async with recorded(cluster.addresses, clients=3) as clients:
                async with Client(KeyValue, [node.own.client_address]) as client:
                    await client.put(b"large", bytes(MIB - 100))
                with contextlib.ExitStack() as held:
                    for said in [half] * 60 + [b"".join(asked)] * 40:
                        one = held.enter_context(await greeted(node))
                        with contextlib.suppress(ConnectionError):
                            await asyncio.get_running_loop().sock_sendall(one, said)
                    await clients.more(20)
                    assert usage(node).rss_bytes < before + 512 * MIB
                await clients.more(20)
            assert 0 < events(node)["client_refused"] < 40

    tell(story())


@needs_files
def test_a_low_limit_of_files_leaves_room_for_the_nodes_own(tmp_path: Path) -> None:
    """A node that may open 160 files takes 80 clients, refuses the others with a line in the log, and can still open
    what its log and a snapshot need (EMFILE)."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 1, arguments=[*MACHINE, "--set", "segment_bytes=4KiB"]) as cluster:
            node = cluster.nodes[1]
            node.wrapper = ["/bin/sh", "-c", 'ulimit -n 160 && exec "$0" "$@"']
            await start(cluster, tmp_path).leader()
            async with recorded(cluster.addresses, clients=3) as clients, Admin([node.own.client_address]) as admin:
                first = await admin.take_snapshot()
                crowd = await Crowd.start([node.own.client_address], connections=400, rest_s=0.5)
                try:
                    standing = await asyncio.wait_for(crowd.standing(), DEADLINE_S)
                    assert 60 <= standing.connected <= 80 and standing.connected + standing.closed == 400
                    await clients.more(20)
                    assert await admin.take_snapshot() > first
                    assert usage(node).descriptors < 150
                finally:
                    await crowd.vanish()
                await clients.more(20)
            said = events(node)
            assert said["connections_limited"] == 1 and 0 < said["client_refused"] < 20 and not said["files_run_out"]

    tell(story())


async def greeted(node: NodeProcess) -> socket.socket:
    """A connection on which the node has said hello; raises `ConnectionError` when it doesn't."""
    loop = asyncio.get_running_loop()
    one = socket.socket()
    one.setblocking(False)
    try:
        async with asyncio.timeout(DEADLINE_S):
            await loop.sock_connect(one, split_address(node.own.client_address))
            await loop.sock_sendall(one, encode_client_hello(ClientHello(PROTOCOL_VERSION)))
            if not await loop.sock_recv(one, 4096):
                raise ConnectionResetError("closed without a word")
    except BaseException:
        one.close()
        raise
    return one


async def is_greeted(node: NodeProcess) -> bool:
    """Whether the node takes one more connection."""
    try:
        (await greeted(node)).close()
    except ConnectionError:
        return False
    return True
