"""`raftkv upgrade`, and what status, log and `serve` say of an application's versions."""

from __future__ import annotations

import pytest

from raftkv import BlockingClient, NotActive
from raftkv.cli.versions import version_lines
from raftkv.node.status import NodeStatus, PeerStatus, UpgradeStatus
from raftkv.processes.cluster import NodeProcess
from raftkv.processes.ports import free_ports
from tests.cli.commands import invoke, value_of, when_led
from tests.cli.test_view import status_of
from tests.forked import ForkedCluster
from tests.shop import First, Order, Second, TaggedOrder
from tests.waiting import until


def runs(kind: str) -> list[str]:
    """The arguments by which a node runs a class of the shop."""
    return ["--machine", f"tests.shop:{kind}"]


def test_nodes_are_upgraded_one_by_one_and_an_operator_says_when(tmp_path):
    """Refused as long as one is behind, which is named; then active, with its upgrade, for clients that are there."""
    with ForkedCluster(tmp_path, 3, arguments=[*runs("First"), "--set", "auto_upgrade=false"]) as cluster:
        cluster.start_all()
        environment = {"RAFTKV_ADDRESS": ",".join(cluster.addresses)}
        with BlockingClient(First, cluster.addresses) as old, BlockingClient(Second, cluster.addresses) as new:
            for number in range(3):
                assert old.order(number, Order("apple")) == Order("apple")
            all_well = "version 1 of Shop is active\nno problems"
            until(lambda: all_well in invoke("status", env=environment).stdout, "all know the leader")
            for node_id in (2, 3):
                leave_and_return(cluster.nodes[node_id], "Second", environment)
            assert value_of(invoke("transfer", "2", "--json", env=environment)) == {"leader": 2}

            with pytest.raises(
                NotActive, match=r"nothing was done; version 2 is not active yet: node 1 runs version 1"
            ):
                new.tag(1, "red")
            shown = invoke("status", env=environment)
            assert "version 1 of Shop is active; nodes 2, 3 run versions 1 to 2; node 1 runs version 1" in shown.stdout
            assert "! version 2 of the application is not active yet: node 1 runs version 1" in shown.stdout
            assert shown.exit_code == 0, "a rolling upgrade is no fault"
            refused = invoke("upgrade", env=environment)
            assert refused.exit_code == 3 and "version 2 can't be made active: node 1 runs version 1" in refused.stderr
            assert invoke("upgrade", "--to", "1", env=environment).stdout == "version 1 is active\n"
            unknown = invoke("upgrade", "--to", "3", env=environment)
            assert unknown.exit_code == 2 and "runs versions 1 to 2: install version 3" in unknown.stderr

            leave_and_return(cluster.nodes[1], "Second", environment)
            waits = (
                "version 2 of the application is not active yet: all nodes run it, and raftkv upgrade makes it active"
            )
            assert value_of(invoke("status", "--json", env=environment))["problems"] == [waits]
            assert invoke("upgrade", env=environment).stdout == "version 2 is active\n"
            assert value_of(invoke("upgrade", "--to", "2", "--json", env=environment)) == {"active": 2}
            assert new.tag(1, "red") == ["old", "red"] and new.find(0) == TaggedOrder("apple", 1, ["old"])
            assert old.find(1) == Order("apple")
        back = invoke("upgrade", "--to", "1", env=environment)
        assert back.exit_code == 2 and "no way back to 1" in back.stderr
        leader = value_of(invoke("status", "--json", env=environment))["leader"]
        assert cluster.nodes[leader].terminate() == 0
        told = invoke("log", "inspect", cluster.nodes[leader].data_dir, "-n", "99", env={"COLUMNS": "200"}).stdout
        for words in ("begins with version 1", "version 2 of the application becomes", "piece 1 of the", "piece 2 of"):
            assert told.count(words) == 1, told


def leave_and_return(node: NodeProcess, kind: str, environment: dict[str, str]) -> None:
    """Restart a node with another class; it is back when all nodes reach each other and a leader knows what it runs."""
    assert node.terminate() == 0
    node.start(*runs(kind))

    def is_back() -> bool:
        value = value_of(invoke("status", "--json", env=environment))
        nodes = value["nodes"]
        agree = value["leader"] is not None and all(each["leader"] == value["leader"] for each in nodes)
        return len(nodes) == 3 and agree and all(peer["connected"] for each in nodes for peer in each["peers"])

    until(is_back, f"node {node.node_id} is back")


def test_an_upgrade_that_raises_is_told_and_tried_again_with_a_mended_class(tmp_path):
    """Nothing has changed; the error is in the status, its exit code is 3, and the mended class does it."""
    with ForkedCluster(tmp_path, 1, arguments=runs("First")) as cluster:
        cluster.start_all()
        (node,), address = cluster.nodes.values(), ("-a", cluster.addresses[0])
        with BlockingClient(First, cluster.addresses) as shop:
            shop.order(1, Order("apple"))
        assert node.terminate() == 0
        node.start(*runs("Failing"))
        text = "its next piece raised what undid that piece: mark: ValueError: nobody knows how: start all nodes with a"
        until(lambda: text in shown(address), "the upgrade has failed")
        again = invoke("upgrade", *address)
        assert again.exit_code == 3 and "mark: ValueError: nobody knows how" in again.stderr
        assert node.terminate() == 0
        node.start(*runs("Second"))
        when_led(node)
        assert invoke("upgrade", *address).stdout == "version 2 is active\n"
        assert "version 2 of Shop is active; node 1 runs versions 1 to 2" in shown(address)


def shown(address: tuple[str, str]) -> str:
    """What `raftkv status` prints."""
    return invoke("status", *address).stdout


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("First", "WrongVersion", "version 2 of Shop is active, and this class runs version 1: install a version of"),
        ("Renamed", "SchemaChanged", "and this class (of version 2) declares it otherwise: "),
        ("Later", "WrongVersion", "this class runs versions 3 to 4"),
    ],
)
def test_a_class_that_cannot_run_what_is_active_is_not_started(upgraded, kind, error, said):
    """One line with what to do, and exit code 5; the right class starts after that with all data."""
    upgraded.start(*runs(kind))
    assert upgraded.process.wait(20) == 5
    last = upgraded.log_path.read_text().splitlines()[-1]
    assert error in last and said in last


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory):
    """A node that was founded by version 2, and is stopped."""
    with ForkedCluster(tmp_path_factory.mktemp("upgraded"), 1, arguments=runs("Second")) as cluster:
        node = cluster.nodes[1]
        node.start()
        with BlockingClient(Second, cluster.addresses) as shop:
            shop.order(1, TaggedOrder("apple", 1, ["red"]))
        assert node.terminate() == 0
        yield node
        node.start()
        with BlockingClient(Second, cluster.addresses) as shop:
            assert shop.find(1) == TaggedOrder("apple", 1, ["red"])


def test_nobody_answers():
    """Exit code 3."""
    (port,) = free_ports(1)
    assert invoke("upgrade", "-a", f"127.0.0.1:{port}", "--timeout", "0.3").exit_code == 3


def node_of(node_id: int, versions: UpgradeStatus | None) -> NodeStatus:
    """A node's status with these versions."""
    return status_of(node_id, versions=versions)


def test_versions_in_words():
    """One line when all is alike; who runs what; who does not answer, as others heard it; and an upgrade's progress."""
    assert version_lines([node_of(1, None)]) == [], "an older raftkv"
    assert version_lines([node_of(1, UpgradeStatus(0, 1, 2))]) == [
        "no version of KeyValue is active yet: the first leader says which"
    ]
    assert version_lines([node_of(each, UpgradeStatus(1, 1, 1)) for each in (1, 2)]) == [
        "version 1 of KeyValue is active"
    ]
    heard = node_of(1, UpgradeStatus(2, 1, 2, ("fill", "-old"), 7))
    heard.peers = [PeerStatus(node_id=3, connected=False, oldest_version=1, newest_version=1)]
    assert version_lines([heard, node_of(2, UpgradeStatus(1, 1, 2))]) == [
        "version 2 of KeyValue is active; nodes 1, 2 run versions 1 to 2; node 3 runs version 1",
        "the upgrade to version 2 goes on while commands are served: 7 pieces done, to do: fill, drop the rows of old",
    ]
