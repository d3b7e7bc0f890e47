"""The operator's commands, against one real node and against three."""

from __future__ import annotations

import pytest

from raftkv.processes.cluster import member_argument
from raftkv.processes.ports import free_ports
from tests.cli.commands import invoke, value_of
from tests.forked import ForkedCluster


def test_the_status_of_one_node(run):
    """For people a table, for programs everything that the node says."""
    run("put", "status", "x")
    shown = run("status")
    assert shown.exit_code == 0
    assert "leader" in shown.stdout and "no problems" in shown.stdout
    value = value_of(run("status", "--json"))
    assert value["leader"] == 1 and not value["silent"] and not value["problems"]
    (node,) = value["nodes"]
    assert node["applied_index"] == node["commit_index"] > 0


def test_nobody_answers():
    """Exit code 3, and whom it asked."""
    (port,) = free_ports(1)
    result = invoke("status", "-a", f"127.0.0.1:{port}", "--timeout", "0.3")
    assert result.exit_code == 3
    assert f"127.0.0.1:{port}" in result.stderr


def test_the_members_are_listed(run, one_node):
    """With their addresses, and who leads."""
    text = run("member", "list").stdout
    assert one_node.member.peer_address in text and "voter, leader" in text
    assert value_of(run("member", "list", "--json"))["voters"] == [1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("transfer",), 3, "no other voter"),
        (("member", "remove", "9"), 2, "node 9 is no member"),
        (("member", "promote", "9"), 2, "node 9 is no learner"),
        (("member", "add", "1=127.0.0.1:1/127.0.0.1:2"), 2, "node 1 is a member already"),
        (("member", "add", "four"), 2, "must be ID=PEER_HOST:PORT/CLIENT_HOST:PORT"),
        (("member", "remove", "0"), 2, "0 is not in the range"),
    ],
)
def test_what_is_not_possible_is_refused_with_the_reason(run, arguments, code, said):
    """The text says why, the code says who must act."""
    result = run(*arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_snapshot_is_taken_listed_and_verified(run, one_node):
    """By a running node, and on its disk while it runs."""
    run("put", "snapshot", "x")
    (taken,) = value_of(run("snapshot", "take", "--json"))
    assert taken["node_id"] == 1 and taken["index"] > 0
    assert value_of(run("snapshot", "take", "--all", "--json"))[0]["index"] >= taken["index"]
    listed = value_of(invoke("snapshot", "list", one_node.data_dir, "--json"))
    assert taken["index"] in [found["index"] for found in listed]
    verified = value_of(invoke("snapshot", "verify", one_node.data_dir, "--deep", "--json"))
    assert verified["sound"] and len(verified["snapshots"]) == len(listed)


def test_three_nodes_are_seen_by_asking_one_of_them(tmp_path):
    """Who leads, who is silent and why; leadership goes where it is told to, also when its holder is asked to stop."""
    with ForkedCluster(tmp_path, 3) as cluster:
        cluster.start_all()
        environment = {"RAFTKV_ADDRESS": cluster.addresses[0]}
        assert invoke("put", "a", "1", env=environment).exit_code == 0
        value = value_of(invoke("status", "--json", env=environment))
        assert [node["node_id"] for node in value["nodes"]] == [1, 2, 3]

        to = next(node for node in (2, 3) if node != value["leader"])
        assert value_of(invoke("transfer", str(to), "--json", env=environment)) == {"leader": to}
        assert cluster.nodes[to].terminate() == 0
        assert "leadership_handed_over" in cluster.nodes[to].log_path.read_text()

        assert invoke("put", "a", "2", env=environment).exit_code == 0
        value = value_of(invoke("status", "--json", env=environment))
        assert value["leader"] in {1, 2, 3} - {to}
        assert [silent["node_id"] for silent in value["silent"]] == [to]
        assert f"node {to} ({cluster.nodes[to].member.client_address}) does not answer" in value["problems"][0]
        shown = invoke("status", env=environment)
        assert "silent" in shown.stdout and shown.exit_code == 1


def test_a_node_joins_and_leaves(tmp_path):
    """Added, promoted by the same command when it has caught up, removed for good (its id does not come back)."""
    with ForkedCluster(tmp_path, 1) as cluster:
        cluster.start_all()
        environment = {"RAFTKV_ADDRESS": cluster.addresses[0]}
        second = cluster.add(2)
        second.start()
        words = ("member", "add", member_argument(second.member), "--promote")
        added = invoke(*words, "--json", env=environment)
        assert "gets its vote when it has caught up" in added.stderr, added.stderr
        assert (value_of(added)["voters"], value_of(added)["learners"]) == ([1, 2], [])
        assert second.member.client_address in invoke("member", "list", env=environment).stdout
        assert invoke("put", "a", "1", env=environment).exit_code == 0
        assert value_of(invoke("member", "remove", "2", "--json", env=environment))["removed"] == [2]
        assert second.process.wait(20) == 6, "it heard of it, and has ended"
        assert "node 2 was removed from the cluster" in second.log_path.read_text().splitlines()[-1]
        back = invoke("member", "add", member_argument(second.member), env=environment)
        assert back.exit_code in (2, 3)
        assert "removed before" in back.stderr
