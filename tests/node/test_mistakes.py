"""Commands and queries with mistakes in them: every node says which, and where, and not too often (F75)."""

from __future__ import annotations

import pytest

from raftkv.errors import Rejected
from raftkv.machine import StateMachine, Value, command, query
from raftkv.node.nowandthen import REST_S
from raftkv.server.metrics import NodeCollector
from raftkv.testing import SimCluster
from raftkv.testing.world.loop import SimLoop, elapse
from tests.logged import capture_logs


class Careless(StateMachine):
    """Divides."""

    total = Value(int, 1)

    @command
    def divide(self, by: int) -> int:
        """Refuses some, and forgets one."""
        if by < 0:
            raise ValueError("by must not be negative")
        self.total = self.total // by
        return self.total

    @command
    def expand(self) -> int:
        """Has no end."""
        return self.expand()

    @query
    def share(self, of: int) -> int:
        """Forgets the same."""
        return self.total // of


def said(log, method):
    """What the nodes said of a method."""
    return [line for line in log if line["event"] == "method_raised" and line["method"] == method]


def test_a_mistake_is_said_with_its_place_on_every_node():
    """Once a minute for each method, however often it is met; what is raised on purpose is not said."""

    async def story():
        cluster = SimCluster(Careless, 3, seed=1)
        await cluster.start()
        client = cluster.client(sessions=True)
        with capture_logs() as log:
            for _ in range(5):
                for by in (0, -1):
                    with pytest.raises(Rejected) as found:
                        await client.remote.divide(by)
                    assert bool(getattr(found.value, "__notes__", [])) == (by == 0)
            await cluster.until_equal()
        lines = said(log, "divide")
        assert sorted(line["node"] for line in lines) == [1, 2, 3]
        for line in lines:
            assert (line["error"], line["times"], line["log_level"]) == ("ZeroDivisionError", 1, "error")
            assert "test_mistakes.py:" in line["line"]
            assert "self.total = self.total // by" in line["traceback"]
        await elapse(REST_S + 1)
        with capture_logs() as log:
            with pytest.raises(Rejected):
                await client.remote.divide(0)
            await cluster.until_equal()
        assert [line["times"] for line in said(log, "divide")] == [5, 5, 5]
        for node in cluster.running:
            assert node.status().mistakes == {"divide": 6}
        await client.close()
        await cluster.stop()

    SimLoop().run(story())


def test_queries_too_and_metrics_count_by_method():
    """A traceback without end is cut."""

    async def story():
        cluster = SimCluster(Careless, 1, seed=1)
        await cluster.start()
        client = cluster.client(sessions=True)
        with capture_logs() as log:
            for call, args in ((client.remote.share, (0,)), (client.remote.expand, ()), (client.remote.share, (0,))):
                with pytest.raises(Rejected):
                    await call(*args)
        assert len(said(log, "share")) == len(said(log, "expand")) == 1
        assert len(said(log, "expand")[0]["traceback"]) < 4_096
        (node,) = cluster.running
        metrics = {metric.name: metric for metric in NodeCollector(node.status).collect()}
        found = metrics["raftkv_method_mistakes"].samples
        assert {sample.labels["method"]: sample.value for sample in found} == {"share": 2, "expand": 1}
        await client.close()
        await cluster.stop()

    SimLoop().run(story())


def test_a_start_that_replays_them_says_each_once():
    """However many are in the log."""

    async def story():
        cluster = SimCluster(Careless, 1, seed=1)
        await cluster.start()
        client = cluster.client(sessions=True)
        for _ in range(50):
            with pytest.raises(Rejected):
                await client.remote.divide(0)
        cluster.nodes[1].crash()
        with capture_logs() as log:
            await cluster.nodes[1].start()
            await cluster.until_equal()
        assert len(said(log, "divide")) <= 1
        await client.close()
        await cluster.stop()

    SimLoop().run(story())
