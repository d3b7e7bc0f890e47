"""What a check of a simulated cluster is, and which nodes it may look at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raftkv.node import Node
    from raftkv.testing.world.cluster import SimCluster, SimNode


class Check:
    """One invariant. It may remember what it saw earlier; `look` raises `AssertionError` if it does not hold.

    A `Watch` calls it only when the values that `watching._sample` takes of a node have changed. A check that needs
    other values must add them there.
    """

    def look(self, cluster: SimCluster) -> None:
        """Check the whole cluster; by default this checks each node that works."""
        for node in working(cluster):
            self.look_at(node)

    def look_at(self, node: Node) -> None:
        """Check one node."""

    @property
    def name(self) -> str:
        return type(self).__name__


def is_working(sim: SimNode) -> bool:
    """Whether the node is up, has recovered, has not stopped, and has the files with which the others know it."""
    node = sim.node
    if node is None or node.failure is not None or node.is_closing:
        return False
    return sim.harm is None or not sim.is_impostor


def working(cluster: SimCluster) -> Iterator[Node]:
    """The nodes for which `is_working` is true."""
    for sim in cluster.nodes.values():
        if sim.node is not None and is_working(sim):
            yield sim.node
