"""What takes long on a node's loop is named: in its log now and then, in its status and metrics always."""

from __future__ import annotations

import pytest

from raftkv.kv import KeyValue
from raftkv.machine import times
from raftkv.node.nowandthen import REST_S
from raftkv.server.metrics import NodeCollector, metrics_of
from raftkv.testing import scenario
from raftkv.testing.world.loop import elapse
from tests.logged import capture_logs


@pytest.fixture
def everything_is_slow(monkeypatch):
    """In virtual time, methods take none."""
    for bound in ("FAST_S", "SLOW_S"):
        monkeypatch.setattr(times, bound, -1.0)


@pytest.mark.usefixtures("everything_is_slow")
@scenario(KeyValue, seed=1)
async def test_a_slow_method_is_named_with_its_line_now_and_then(cluster):
    """By each node, as each runs every command; what was not said is counted in the next line."""
    client = cluster.client()
    with capture_logs() as log:
        for _ in range(5):
            await client.remote.put(b"a", b"1")
        await cluster.until_equal()
    lines = [line for line in log if line["event"] == "method_slow" and line["method"] == "put"]
    assert sorted((line["node"], line["times"]) for line in lines) == [(1, 1), (2, 1), (3, 1)]
    assert all("machine.py:" in line["line"] and line["log_level"] == "warning" for line in lines)
    await elapse(REST_S + 1)
    with capture_logs() as log:
        await client.remote.put(b"a", b"2")
        await cluster.until_equal()
    assert [line["times"] for line in log if line["event"] == "method_slow" and line["method"] == "put"] == [5, 5, 5]
    await client.close()


@scenario(KeyValue, seed=1)
async def test_metrics_count_what_methods_take(cluster):
    """A histogram by method, and how many were slow, with the line; there is no series for what has not run."""
    client = cluster.client()
    for _ in range(3):
        await client.remote.put(b"a", b"1")
    await client.remote.get(b"a")
    await client.close()
    node = cluster.leader
    found = {metric.name: metric for metric in NodeCollector(node.status).collect()}
    counts = {
        sample.labels["method"]: sample.value
        for sample in found["raftkv_method_seconds"].samples
        if sample.name == "raftkv_method_seconds_count"
    }
    assert counts == {"put": 3, "get": 1}
    assert {sample.labels["method"] for sample in found["raftkv_method_slow"].samples} == {"put", "get"}
    text = metrics_of(node.status)().decode()
    assert 'raftkv_method_seconds_bucket{kind="command",le="0.0001",method="put"} 3.0' in text
