"""What every part of a node stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raftkv.core.raft import Raft
from raftkv.errors import NodeStopped
from raftkv.model import NodeId
from raftkv.node.paths import Options, Paths
from raftkv.node.ports import error_of
from raftkv.node.world import World
from raftkv.transport import Transport


class Body:
    """The core, the settings, the world and the network: a part of a node is handed this, and never the node.

    `wake` sees to it that the engine has a turn, after an input that may have led to something. `fail` stops the node
    because going on could lose data; from then on `failure` says why.
    """

    def __init__(
        self,
        raft: Raft,
        options: Options,
        world: World,
        transport: Transport,
        *,
        wake: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.raft = raft
        self.options = options
        self.node_id: NodeId = options.node_id
        self.config = options.config
        self.paths = Paths(options.data_dir)
        self.world = world
        self.transport = transport
        self.wake = wake
        self.fail = fail
        self.failure: NodeStopped | None = None
        self.is_closing = False
        """Whether the node was asked to stop, or let go of."""

    @property
    def has_ended(self) -> bool:
        """Whether the node takes no part any more, for whatever reason."""
        return self.is_closing or self.failure is not None

    def check_background(self, future: asyncio.Future[Any]) -> None:
        """For work that nobody waits for and that must not fail unnoticed: an error of it stops the node."""
        error = error_of(future)
        if error is not None and not self.is_closing:
            self.fail(error)
