"""`raftkv upgrade check`: what would be refused, in which words, and what happens in which order."""

from __future__ import annotations

import msgspec
import pytest

from raftkv import BlockingClient, StateMachine, command
from raftkv.cli.upgradecheck import check_upgrade
from raftkv.doctor import ClusterView, Silent
from raftkv.machine import encode_schema
from raftkv.model import Member, Membership
from raftkv.node.formats import FORMATS, OLDEST_READ, PROTOCOL
from raftkv.node.live import Setting
from raftkv.node.status import UpgradeStatus
from raftkv.processes.ports import free_ports
from raftkv.version import __version__
from tests.cli.commands import invoke, value_of
from tests.cli.test_view import status_of
from tests.forked import ForkedCluster
from tests.shop import First, Later, Order, Renamed, Second

FIRST = encode_schema(First.schema())
SECOND = encode_schema(Second.schema())


class Other(StateMachine):
    """Another machine."""

    @command
    def nothing(self) -> None:
        """Do nothing."""


def cluster(*commits: int, machine=First, active=1, **more) -> ClusterView:
    """Nodes 1, 2, … that have come so far, all of them running `machine`; node 1 leads."""
    nodes = []
    for node_id, commit in enumerate(commits, 1):
        versions = UpgradeStatus(active, machine.oldest_version, machine.version)
        found = status_of(node_id, commit, versions=versions, formats=FORMATS, **more)
        nodes.append(msgspec.structs.replace(found, machine=machine.fingerprint(), version=__version__))
    return ClusterView(nodes, [])


def test_a_class_that_has_grown_is_fit_and_the_order_is_said():
    """Who is furthest behind first, the leader last and after a transfer; then the version, by itself, and its
    upgrades, of which there is no way back."""
    found = check_upgrade(cluster(9, 9, 7), Second, FIRST)
    assert found.is_fit and found.refused == [] and found.notes == []
    assert [text.partition(":")[0] for text in found.order] == ["node 3", "node 2", "raftkv transfer", "node 1"]
    assert found.then[0] == "version 2 becomes active by itself, as soon as the leader knows that all run it"
    assert found.then[1] == "new with it: count_sent, sent, tag"
    assert found.then[2].startswith("mark runs (") and found.then[2].endswith("), piece by piece, while commands go on")
    assert found.then[3] == "there is no way back to version 1"
    assert [(run.name, run.to, run.in_pieces) for run in found.runs] == [("mark", 2, True)]


def test_an_operator_who_said_so_has_to_make_the_version_active():
    """As a single node says that its auto_upgrade is off."""
    view = cluster(9, 9, 9)
    view.nodes[1].settings = [Setting("auto_upgrade", False, "--set", False, True)]
    assert check_upgrade(view, Second, FIRST).then[0] == "raftkv upgrade makes version 2 active (auto_upgrade is off)"


@pytest.mark.parametrize(
    ("machine", "running", "active", "declared", "said"),
    [
        (First, Second, 2, SECOND, "WrongVersion: version 2 of Shop is active, and this class runs version 1: install"),
        (
            Renamed,
            Second,
            2,
            SECOND,
            "SchemaChanged: version 2 of Shop is active, and this class (of version 2)",
        ),
        (Later, Second, 2, SECOND, "WrongVersion: version 2 of Shop is active, and this class runs versions 3 to 4"),
        (Other, First, 1, None, "HandshakeRefused: the nodes run the state machine Shop, and this class is Other"),
    ],
)
def test_what_a_start_would_refuse_is_refused_before_it(machine, running, active, declared, said):
    """In the same words; no order is given then."""
    found = check_upgrade(cluster(9, 9, 9, machine=running, active=active), machine, declared)
    assert not found.is_fit and (found.order, found.then) == ([], [])
    assert found.refused[0].startswith(said), found.refused


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (PROTOCOL, "HandshakeRefused: node 2 has version 1 of the protocol"),
        ("state", "FormatError: node 2 has version 1 of the format of the state"),
    ],
)
def test_a_raftkv_of_other_formats_is_refused(name, said):
    """The one that looks stands for the one that is to be installed."""
    view = cluster(9, 9, 9)
    view.nodes[1].formats = {**FORMATS, name: 1}
    assert FORMATS[name] != 1
    (text,) = check_upgrade(view, Second, FIRST).refused
    assert text.startswith(said)


@pytest.mark.parametrize(("theirs", "fits"), [(1, False), (2, True), (3, True), (4, False)])
def test_what_is_read_of_an_older_format_is_not_refused(theirs, fits, monkeypatch):
    """From the oldest version that is read to the one that is written, and no later one; but there is no way back."""
    monkeypatch.setitem(FORMATS, "log", 3)
    monkeypatch.setitem(OLDEST_READ, "log", 2)
    view = cluster(9, 9, 9)
    view.nodes[1].formats = {**FORMATS, "log": theirs}
    found = check_upgrade(view, Second, FIRST)
    assert found.is_fit == fits
    said = f"FormatError: node 2 has version {theirs} of the format of the log, and raftkv {__version__} reads"
    assert fits or found.refused[0].startswith(f"{said} versions 2 to 3")
    assert any("files get version 3 of the format of the log" in text for text in found.then) == (theirs == 2)


def test_an_older_raftkv_tells_no_formats_and_that_is_noted():
    """It stops nothing; where others reach it, it has not been asked yet what protects it."""
    view = cluster(9, 9, 9)
    view.nodes[2].formats = {}
    found = check_upgrade(view, Second, FIRST)
    assert found.is_fit and [note.partition(" (")[0] for note in found.notes] == ["node 3"]
    assert "starts only with TLS or a cluster secret, or where --insecure" in found.notes[0]
    near = Member(3, "localhost:8001", "127.0.0.1:7001")
    membership = view.nodes[2].membership
    members = tuple(near if each.node_id == 3 else each for each in membership.members)
    view.nodes[2].membership = msgspec.structs.replace(membership, members=members)
    assert check_upgrade(view, Second, FIRST).notes[0].endswith("it is an older one")


def test_no_node_is_taken_away_from_a_majority_that_needs_it():
    """Of three, with one down; two need no note of that kind, as nothing is served meanwhile in any case."""
    view = cluster(9, 9)
    down = ClusterView(view.nodes, [Silent("10.0.0.3:7001", "refused", 3)])
    (text,) = check_upgrade(down, Second, FIRST).refused
    assert text.startswith("node 3 is down, and with one more there would be no majority (2 of 3 voters)")
    two = msgspec.structs.replace(view.nodes[0].membership, voters=(1, 2))
    for node in view.nodes:
        node.membership = Membership(two.voters, members=two.members[:2])
    found = check_upgrade(view, Second, FIRST)
    assert found.is_fit and "nothing is served while one of them is started anew" in found.notes[0]
    for node in view.nodes:
        node.role = "follower"
    assert check_upgrade(view, Second, FIRST).refused[0].startswith("there is no leader")


def test_a_cluster_that_runs_the_class_already_has_nothing_to_do():
    """And one that is halfway has the other half; a failed upgrade and a class of before are named."""
    assert check_upgrade(cluster(9, 9, 9, machine=Second, active=2), Second, SECOND).order == []
    halfway = cluster(9, 9, 9)
    halfway.nodes[2].machine = Second.fingerprint()
    halfway.nodes[2].versions = UpgradeStatus(1, 1, 2)
    found = check_upgrade(halfway, Second, FIRST)
    assert [text.partition(":")[0] for text in found.order] == ["node 2", "raftkv transfer", "node 1"]
    back = check_upgrade(halfway, First, FIRST)
    assert back.is_fit and "node 3 runs versions 1 to 2: with this class it would be a step back" in back.notes
    halfway.nodes[0].versions = UpgradeStatus(
        1, 1, 1, (), 0, "the upgrade to version 2 was undone by what it raised: x"
    )
    assert "the upgrade to version 2 was undone" in check_upgrade(halfway, Second, FIRST).notes[0]


def test_a_running_cluster_is_compared(tmp_path):
    """Over its client port, as text and JSON, with exit code 0 or 1; a class that can't be loaded is 2, no node 3."""
    with ForkedCluster(tmp_path, 1, arguments=["--machine", "tests.shop:First"]) as nodes:
        nodes.start_all()
        address = ("-a", nodes.addresses[0])
        with BlockingClient(First, nodes.addresses) as shop:
            shop.order(1, Order("apple"))
        good = invoke("upgrade", "check", "tests.shop:Second", *address)
        assert good.exit_code == 0, good.output
        for text in (
            "version 1 is active",
            "node 1 (leader): version 1",
            "protocol 2",
            "1. node 1: likewise",
            "mark runs",
        ):
            assert text in good.stdout, good.stdout
        bad = invoke("upgrade", "check", "tests.shop:Later", "--json", *address)
        assert bad.exit_code == 1
        value = value_of(bad)
        assert (value["active"], value["oldest"], value["newest"]) == (1, 3, 4)
        assert value["nodes"][0]["formats"] == FORMATS
        assert "WrongVersion: version 1 of Shop is active, and this class runs versions 3 to 4" in value["refused"][0]
        assert invoke("upgrade", "check", "tests.shop:Nothing", *address).exit_code == 2
    (port,) = free_ports(1)
    gone = invoke("upgrade", "check", "tests.shop:Second", "-a", f"127.0.0.1:{port}", "--timeout", "0.3")
    assert gone.exit_code == 3
