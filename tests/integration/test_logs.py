"""Real nodes whose log nobody takes: they go on, say so elsewhere, and end when they are asked to (F78)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import signal
from pathlib import Path

from raftkv.processes.cluster import NodeProcess
from tests.chaos.sinks import BadSink, LogUnread, open_sink, with_sink, without_descriptor
from tests.chaos.stage import ChaosStage
from tests.cli.commands import invoke
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

END_S = 15
"""How long a process may take to end: some seconds to hand over and flush the log, the rest for a busy machine."""


def put(node: NodeProcess, key: str) -> None:
    """A write is acknowledged."""
    assert invoke("put", key, "1", "-a", node.own.client_address, "--timeout", "30").exit_code == 0


def test_a_cluster_whose_logs_nobody_takes_goes_on(tmp_path: Path) -> None:
    """F78: stuck, dead and full at once. A killed follower is linked again, clients are served, SIGTERM ends each in
    time, and status says that nothing can be said."""

    async def story(stage: ChaosStage) -> None:
        fault = LogUnread(random.Random(1))
        await stage.leader()
        await fault.inject(stage)
        for node in stage.cluster.nodes.values():
            await asyncio.to_thread(put, node, f"k{node.node_id}")
        await stage.until_equal()
        statuses = await stage.statuses()
        assert [status for status in statuses if any("can't say what happens" in text for text in status.problems())]
        for node in stage.cluster.nodes.values():
            assert node.terminate(END_S) == 0

    with ForkedCluster(tmp_path, 3) as cluster:
        for node, what in zip(cluster.nodes.values(), BadSink, strict=True):
            node.wrapper = with_sink(what)
        tell(story(start(cluster, tmp_path)))


def test_a_node_whose_disk_fails_ends_though_nobody_takes_its_log(tmp_path: Path) -> None:
    """What it has to say is no reason to stay: it ends by itself with the code for doubt; three lone nodes, each with
    another sink."""
    with contextlib.ExitStack() as stack:
        nodes = []
        for what in BadSink:
            cluster = stack.enter_context(ForkedCluster(tmp_path / what, 1))
            nodes.append(cluster.nodes[1])
            nodes[-1].wrapper = with_sink(what)
            nodes[-1].environment["RAFTKV_FAILPOINT"] = "log.batch.before_sync:raise"
            nodes[-1].start()
        for node in nodes:
            assert node.process is not None
            assert node.process.wait(END_S) == 5


def test_a_second_signal_ends_a_node_at_once(tmp_path: Path) -> None:
    """Also one that waits for its log to be read, or is just about to."""
    with ForkedCluster(tmp_path, 1) as cluster:
        node = cluster.nodes[1]
        node.wrapper = with_sink(BadSink.STUCK)
        node.start()
        put(node, "k")
        node.signal(signal.SIGTERM)
        node.signal(signal.SIGTERM)
        assert node.process is not None
        assert node.process.wait(END_S) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)


def test_a_node_says_what_it_could_not_say_once_somebody_reads(tmp_path: Path) -> None:
    """The newest lines are kept for whoever reads the pipe next, and status has no problem any more."""

    async def story(stage: ChaosStage) -> None:
        node = cluster.nodes[1]
        await asyncio.to_thread(put, node, "k")

        async def is_lost() -> bool | None:
            status = await stage.status(1)
            return (status is not None and status.log_problem is not None) or None

        await stage.until(is_lost, "the log failing")
        reader = open_sink(node)
        try:
            said = b""
            while b"serving" not in said:
                assert select.select([reader], [], [], 30)[0], said
                said += os.read(reader, 1 << 16)

            async def is_well() -> bool | None:
                status = await stage.status(1)
                return (status is not None and status.log_problem is None) or None

            await stage.until(is_well, "the log working")
        finally:
            os.close(reader)

    with ForkedCluster(tmp_path, 1) as cluster:
        cluster.nodes[1].wrapper = with_sink(BadSink.DEAD)
        tell(story(start(cluster, tmp_path)))


def test_a_descriptor_that_is_closed_is_opened_on_null(tmp_path: Path) -> None:
    """Each of the three, on a node each: no data file gets its number, and the node ends as always."""
    with ForkedCluster(tmp_path, 3) as cluster:
        for number, node in enumerate(cluster.nodes.values()):
            node.wrapper = without_descriptor(number)
        cluster.start_all()
        for number, node in enumerate(cluster.nodes.values()):
            put(node, f"k{number}")
            assert node.process is not None
            assert os.readlink(f"/proc/{node.process.pid}/fd/{number}") == os.devnull
        for node in cluster.nodes.values():
            assert node.terminate(END_S) == 0
