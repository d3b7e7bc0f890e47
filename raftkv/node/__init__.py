"""A node: the loop that runs the core on disk, state and network, and the requests that a node answers."""

from raftkv.node.leadership import Role
from raftkv.node.node import Node, start_node
from raftkv.node.paths import Options, Paths
from raftkv.node.recovery import Hosting, Recovered, recover
from raftkv.node.status import NodeStatus, PeerStatus
from raftkv.node.workers import ThreadWorker, Worker
from raftkv.node.world import OpenFiles, World

__all__ = [
    "Hosting",
    "Node",
    "NodeStatus",
    "OpenFiles",
    "Options",
    "Paths",
    "PeerStatus",
    "Recovered",
    "Role",
    "ThreadWorker",
    "Worker",
    "World",
    "recover",
    "start_node",
]
