"""The fixtures of real nodes, used as a stranger would; what else they do stands in the README, which is tested too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raftkv import InvalidArgument, NotAccepted
from raftkv.testing import NotImportable
from raftkv.testing.real.cluster import RealClusters
from raftkv.testing.real.servers import ServersFixture
from tests.testing.machines import Inventory

ROOT = Path(__file__).parents[2]

APPLICATION = '''
"""An inventory, whose test fails with nodes that run."""
from raftkv import StateMachine, Table, command

class Inventory(StateMachine):
    stock = Table(str, int)

    @command
    def receive(self, sku: str, quantity: int) -> int:
        self.stock[sku] = self.stock.get(sku, 0) + quantity
        return self.stock[sku]

def test_inventory(raftkv_cluster):
    cluster = raftkv_cluster(Inventory, size=1, auto_upgrade=False)
    with cluster.client() as inventory:
        assert inventory.receive("apple", 3) == 3
    cluster.kill(1)
    assert not cluster.nodes
'''


def test_a_test_that_fails_shows_the_logs_of_its_nodes(tmp_path):
    """The class is one of the test's own module; the settings reach the nodes; no process is left."""
    (tmp_path / "test_application.py").write_text(APPLICATION)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "raftkv.testing.plugin", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "raftkv: the nodes' logs" in done.stdout, done.stdout + done.stderr
    assert "node 1 (does not run):" in done.stdout
    assert "serving" in done.stdout
    assert "1 failed" in done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three real nodes, which all tests here share."""
    clusters = RealClusters(tmp_path_factory.mktemp("cluster"))
    try:
        yield clusters(Inventory)
    finally:
        clusters.close()


def test_a_leader_that_is_cut_off_is_replaced(cluster):
    """Nobody hears it any more, clients neither; healed, it follows. A paused one does nothing, and goes on."""
    with cluster.client(deadline_s=20) as inventory:
        inventory.receive("apple", 1)
        leader = cluster.leader()
        cluster.cut(leader)
        total = inventory.receive("apple", 2)
        after = cluster.leader()
        assert (total, leader == after) == (3, False)
        cluster.heal()
        cluster.pause(after)
        assert cluster.status(after) is None
        assert inventory.receive("apple", 3) == 6
        assert cluster.leader() != after
        cluster.resume(after)
        assert inventory.on_hand("apple") == 6


def test_two_nodes_that_are_cut_from_each_other_both_hear_the_third(cluster):
    """So one of them leads or follows by the third; when all are killed and started again, all is still there."""
    one, two = cluster.nodes[:2]
    cluster.cut(one, two)
    with cluster.client(deadline_s=20) as inventory:
        before = inventory.on_hand("pear")
        inventory.receive("pear", 1)
        cluster.heal()
        cluster.restart(*cluster.nodes)
        assert cluster.leader() in cluster.nodes
        assert inventory.on_hand("pear") == before + 1
    assert "serving" in cluster.log(one)
    with pytest.raises(InvalidArgument, match="there is no node 9: there are 1, 2, 3"):
        cluster.kill(9)


def test_a_class_that_no_process_can_import_is_refused(tmp_path):
    """With where to move it."""

    class Local(Inventory):
        """Made here."""

    with pytest.raises(NotImportable, match="move it to the top of its module"):
        RealClusters(tmp_path)(Local)


def test_servers_in_this_process_stop_and_start(tmp_path):
    """Their class may be made here; two of three are a majority."""

    class Local(Inventory):
        """Made here."""

    fixture = ServersFixture(tmp_path)
    servers = fixture(Local, 3)
    try:
        with servers.client(deadline_s=20) as inventory:
            assert inventory.receive("apple", 1) == 1
            servers.stop(1)
            assert inventory.receive("apple", 1) == 2
            with pytest.raises(InvalidArgument, match="node 1 does not run; there are 2, 3"):
                servers.status(1)
            servers.start(1)
            servers.stop(2)
            assert inventory.receive("apple", 1) == 3
            assert servers.status(1).node_id == 1
            servers.stop(1, 3)
        with servers.client(deadline_s=0.2) as inventory, pytest.raises(NotAccepted):
            inventory.receive("apple", 1)
    finally:
        fixture.close()


def test_each_real_cluster_is_ended_even_if_another_can_not_be(tmp_path):
    """No process outlives the test because of an error in ending one of another cluster."""
    ended = []

    class Stuck:
        def close(self):
            ended.append(self)
            raise OSError("no")

    clusters = RealClusters(tmp_path)
    clusters._made += [Stuck(), Stuck()]
    with pytest.raises(OSError, match="no"):
        clusters.close()
    assert len(ended) == 2
