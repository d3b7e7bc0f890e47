"""A node: the loop that runs the core on disk, state and network, and the requests that a node answers."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.node.leadership import Role
    from raftkv.node.node import Node, start_node
    from raftkv.node.paths import Options, Paths
    from raftkv.node.recovery import Hosting, Recovered, recover
    from raftkv.node.status import NodeStatus, PeerStatus
    from raftkv.node.workers import ThreadWorker, Worker
    from raftkv.node.world import OpenFiles, World
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.node.leadership": "Role",
            "raftkv.node.node": "Node start_node",
            "raftkv.node.paths": "Options Paths",
            "raftkv.node.recovery": "Hosting Recovered recover",
            "raftkv.node.status": "NodeStatus PeerStatus",
            "raftkv.node.workers": "ThreadWorker Worker",
            "raftkv.node.world": "OpenFiles World",
        },
    )

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
