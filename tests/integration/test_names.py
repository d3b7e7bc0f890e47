"""Real nodes whose members go by names that are slow, or unknown."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from raftkv.processes.cluster import ProcessCluster, member_argument
from tests.cli.commands import invoke

DEADLINE_S = 20.0


def named(cluster: ProcessCluster, ends: dict[int, str]) -> None:
    """Have these members go by names with these ends among nodes."""
    for node in cluster.nodes.values():
        node.module = "tests.integration.slow_names"
        for node_id, end in ends.items():
            old = member_argument(cluster.nodes[node_id].member)
            host, _, port = cluster.nodes[node_id].member.peer_address.rpartition(":")
            new = old.replace(f"{host}:{port}/", f"n{node_id}{end}:{port}/")
            node.arguments = [new if argument == old else argument for argument in node.arguments]


def status(address: str) -> dict[str, Any]:
    """What one node says of itself."""
    answer = json.loads(invoke("status", "-a", address, "--json").stdout)
    return next(node for node in answer["nodes"])


def test_names_that_are_slow_lead_to_a_cluster_and_never_hold_up_its_end(tmp_path: Path) -> None:
    """One lookup takes longer than a dial may, one a minute to fail (F81): there is a leader, and SIGTERM is quick."""
    with ProcessCluster(tmp_path, 3) as cluster:
        named(cluster, {2: ".slow", 3: ".never"})
        one, two = cluster.nodes[1], cluster.nodes[2]
        one.start()
        two.start()
        deadline = ("--timeout", f"{DEADLINE_S:g}")
        assert invoke("put", "a", "1", "-a", one.member.client_address, *deadline).exit_code == 0
        until = time.monotonic() + DEADLINE_S
        while True:
            peers = {peer["node_id"]: peer for peer in status(one.member.client_address)["peers"]}
            if peers[2]["connected"] and peers[3]["unreached_reason"] == "lookup":
                break
            assert time.monotonic() < until
        assert "being looked up" in peers[3]["unreached"]
        assert one.terminate(10.0) == two.terminate(10.0) == 0
        for node in (one, two):
            text = node.log_path.read_text()
            assert "never retrieved" not in text
            assert "Traceback" not in text
        assert "peer_unreachable" in one.log_path.read_text()
