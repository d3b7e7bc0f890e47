"""One real node for the commands that only need some cluster to talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result

from raftkv.processes.cluster import NodeProcess
from tests.cli.commands import invoke, when_led
from tests.forked import ForkedCluster


@pytest.fixture(scope="session")
def one_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A cluster of one, in a process of its own, for all tests; each uses keys of its own."""
    with ForkedCluster(tmp_path_factory.mktemp("one"), 1) as cluster:
        cluster.start_all()
        when_led(cluster.nodes[1])
        yield cluster.nodes[1]


@pytest.fixture
def run(one_node: NodeProcess) -> Callable[..., Result]:
    """Run a command against the node."""

    def run_here(*arguments: str, **settings: Any) -> Result:
        return invoke(*arguments, env={"RAFTKV_ADDRESS": one_node.member.client_address}, **settings)

    return run_here
