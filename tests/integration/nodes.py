"""What tests on real nodes share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from raftkv.processes.cluster import ProcessCluster
from raftkv.processes.ports import free_ports
from tests.chaos.proxy import LinkProxy
from tests.chaos.stage import ChaosStage


def start(cluster: ProcessCluster, directory: Path, *, seed: int = 1, proxy: LinkProxy | None = None) -> ChaosStage:
    """Start all nodes; the stage that they are on."""
    cluster.start_all()
    return ChaosStage(cluster, random.Random(seed), directory, proxy)


def with_http(cluster: ProcessCluster) -> list[str]:
    """Give each node an HTTP port; returns their addresses."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(len(cluster.nodes))]
    for node, address in zip(cluster.nodes.values(), addresses, strict=True):
        node.arguments += ["--http", address]
    return addresses


def tell(story: Coroutine[Any, Any, None]) -> None:
    """Run a story to its end."""
    asyncio.run(story)
