"""`raftkv serve` founds nothing by mistake, and listens where the membership says."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from raftkv.processes.cluster import member_argument
from raftkv.processes.ports import free_ports
from tests.cli.commands import invoke, value_of
from tests.cli.test_serve import get, put, serve
from tests.forked import ForkedCluster


@pytest.fixture
def node(tmp_path):
    """A node that is not started yet, with the arguments of its founding."""
    with ForkedCluster(tmp_path, 1) as cluster:
        yield cluster.nodes[1]


@pytest.mark.parametrize("setting", ["listen", "peer-listen", "http"])
@pytest.mark.parametrize("joins", [False, True])
def test_nothing_is_founded_before_every_port_listens(tmp_path, setting, joins):
    """Founder or joiner: a port that is taken ends the first start with its name, and no file was written (F83)."""
    ports = dict(zip(("listen", "peer-listen", "http"), free_ports(3), strict=True))
    with closing(socket.create_server(("127.0.0.1", ports[setting]))):
        arguments = [part for name, port in ports.items() for part in (f"--{name}", f"127.0.0.1:{port}")]
        result = serve("--data-dir", str(tmp_path / "data"), *arguments, *(["--join"] if joins else []))
    assert result.returncode == 2
    assert f"{setting.replace('-', '_')} = '127.0.0.1:{ports[setting]}' (from --{setting})" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_lone_founder_writes_the_ports_that_were_chosen(tmp_path, node):
    """Port 0 takes a free one, and the membership has that one."""
    node.arguments = ["--data-dir", node.data_dir, "--listen", node.member.client_address]
    node.arguments += ["--peer-listen", "127.0.0.1:0"]
    node.start()
    put(node, "a", "1")
    (member,) = value_of(invoke("member", "list", "--json", "-a", node.member.client_address))["members"]
    assert member["client_address"] == node.member.client_address
    assert int(member["peer_address"].rpartition(":")[2]) > 0


def test_without_an_address_it_listens_where_the_membership_says(node):
    """Started again with its directory alone, it is where the others look for it."""
    node.start()
    put(node, "a", "1")
    assert node.terminate() == 0
    node.arguments = ["--data-dir", node.data_dir]
    node.start()
    assert get(node, "a") == "1\n"
    (found,) = value_of(invoke("status", "--json", "-a", node.member.client_address))["nodes"]
    assert not found["misplaced"]


def test_a_node_says_that_it_listens_elsewhere(node):
    """In the log, as a problem of the status, with the command that corrects it."""
    node.start()
    put(node, "a", "1")
    assert node.terminate() == 0
    peer, client = (f"127.0.0.1:{port}" for port in free_ports(2))
    node.arguments = ["--data-dir", node.data_dir, "--listen", client, "--peer-listen", peer]
    node.start()
    assert invoke("get", "a", "-a", client, "--timeout", "30").stdout == "1\n"
    problem = value_of(invoke("status", "--json", "-a", client))["nodes"][0]["misplaced"]
    assert f"listens for clients at {client}, but the membership sends them to {node.member.client_address}" in problem
    assert "raftkv member update 1=PEER/CLIENT" in invoke("status", "-a", client).stdout.replace("\n", " ")
    assert "misplaced" in node.log_path.read_text()
    wrong = invoke("member", "update", f"1={client}/{peer}", "-a", client)
    assert wrong.exit_code == 2 and "are the two swapped? Then write" in wrong.stderr
    assert invoke("member", "update", f"1={peer}/{client}", "-a", client).exit_code == 0
    assert node.terminate() == 0
    node.arguments = ["--data-dir", node.data_dir]
    node.start()
    (found,) = value_of(invoke("status", "--json", "-a", client, "--timeout", "30"))["nodes"]
    assert not found["misplaced"] and found["membership"]["members"][0]["peer_address"] == peer


def test_a_directory_of_a_cluster_of_another_name_is_refused(node):
    """--cluster-name is compared, not ignored; none at all takes the directory's."""
    node.arguments += ["--cluster-name", "prod"]
    node.start()
    put(node, "a", "1")
    assert node.terminate() == 0
    base = ["--data-dir", node.data_dir]
    other = serve(*base, "--cluster-name", "test")
    assert other.returncode == 5
    assert "belongs to the cluster prod, which is not called 'test'" in other.stderr
    node.arguments = [*base, "--member", member_argument(node.member)]
    node.start()
    assert get(node, "a") == "1\n"


def test_addresses_are_rewritten_where_no_node_runs(node):
    """`member rewrite` says in the directory where the node is; it listens there, and its log has it from then on."""
    node.start()
    put(node, "a", "1")
    peer, client = (f"127.0.0.1:{port}" for port in free_ports(2))
    order = ["member", "rewrite", node.data_dir, f"1={peer}/{client}"]
    nowhere = invoke("member", "rewrite", f"{node.data_dir}-none", order[-1])
    assert nowhere.exit_code == 2 and "is no data directory of a node" in nowhere.stderr
    running = invoke(*order)
    assert running.exit_code == 5 and "another process uses this data directory" in running.stderr
    assert node.terminate() == 0
    stranger = invoke("member", "rewrite", node.data_dir, f"2={peer}/{client}")
    assert stranger.exit_code == 2 and "nodes [2] are no members" in stranger.stderr
    assert client in invoke(*order).stdout
    node.arguments = ["--data-dir", node.data_dir]
    node.start()
    assert invoke("get", "a", "-a", client, "--timeout", "30").stdout == "1\n"
    (found,) = value_of(invoke("status", "--json", "-a", client, "--timeout", "30"))["nodes"]
    assert not found["misplaced"]
