"""A node: the loop that runs the core on disk, state and network, and what may be asked of it."""

from raftkv.node.node import Node
from raftkv.node.paths import Options
from raftkv.node.ports import ThreadWorker, Worker
from raftkv.node.status import NodeStatus, PeerStatus, SnapshotProgress
from raftkv.node.world import World

__all__ = ["Node", "NodeStatus", "Options", "PeerStatus", "SnapshotProgress", "ThreadWorker", "Worker", "World"]
