"""`raftkv clock`: what the clocks show, and log time's reset (F82)."""

from __future__ import annotations

import time

from raftkv.cli.clock import _side, _time_text
from raftkv.processes.ports import free_ports
from tests.cli.commands import invoke, value_of
from tests.forked import ForkedCluster


def test_the_clocks_of_three_nodes_and_a_reset(tmp_path):
    """The leader knows how far each is off; a reset says what log time is now, and may be repeated."""
    with ForkedCluster(tmp_path, 3) as cluster:
        cluster.start_all()
        environment = {"RAFTKV_ADDRESS": cluster.addresses[1]}
        assert invoke("put", "a", "1", env=environment).exit_code == 0
        shown = invoke("clock", "status", env=environment)
        assert shown.exit_code == 0
        assert "leader" in shown.stdout and "log time 2" in shown.stdout
        deadline = time.monotonic() + 30
        while True:  # who did not vote tells its clock with its first answer
            value = value_of(invoke("clock", "status", "--json", env=environment))
            if all(node["offset_ms"] is not None for node in value["nodes"]) or time.monotonic() > deadline:
                break
        assert [node["node_id"] for node in value["nodes"]] == [1, 2, 3]
        assert all(abs(node["offset_ms"]) < 5_000 for node in value["nodes"])
        assert value["clock"]["doubt"] is None and not value["problems"] and value["clock"]["has_majority"]
        for _ in range(2):
            done = value_of(invoke("clock", "reset", "--json", env=environment))
            assert abs(done["log_time_ms"] / 1000 - time.time()) < 60
        text = invoke("clock", "reset", env=environment).stdout
        assert text.startswith("log time is 2") and "no step back" in text
        (leader,) = [node for node in cluster.nodes.values() if node.node_id == value["leader"]]
        assert leader.terminate() == 0
        shown = invoke("log", "inspect", leader.data_dir, env={"COLUMNS": "200"})
        assert shown.stdout.count("log time begins anew here") == 3


def test_nobody_compares_clocks_without_a_leader():
    """Exit code 3, as ever when nobody answers."""
    (port,) = free_ports(1)
    for command in ("status", "reset"):
        assert invoke("clock", command, "-a", f"127.0.0.1:{port}", "--timeout", "0.3").exit_code == 3


def test_offsets_and_times_in_words():
    """Also what is not known, and a time that no calendar has."""
    assert _side(None) == "not known"
    assert [_side(ms) for ms in (-1_500, 0, 7_200_000)] == ["1.5 s behind", "0.0 s ahead", "2.0 h ahead"]
    assert _time_text(0).startswith("1970-01-01T00:00:00.000")
    assert _time_text(2**62) == f"{2**62} ms since the epoch"
