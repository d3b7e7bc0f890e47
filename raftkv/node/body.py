"""What every part of a node is handed: the core, the settings, the world and the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raftkv.config import Config
from raftkv.core.raft import Raft
from raftkv.errors import NodeStopped, Unavailable
from raftkv.model import NodeId
from raftkv.node.live import LiveSettings
from raftkv.node.paths import Options, Paths
from raftkv.node.workers import error_of
from raftkv.node.world import World
from raftkv.transport import Transport


class Body:
    """What the parts of a node share. A part is handed this, never the node.

    `wake` gives the engine a turn, after an input to which the core may react. `fail` stops the node because going on
    could lose data; from then on `failure` says why.
    """

    def __init__(
        self,
        raft: Raft,
        options: Options,
        live: LiveSettings,
        world: World,
        transport: Transport,
        *,
        wake: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self.raft = raft
        self.options = options
        self.node_id: NodeId = options.node_id
        self.live = live
        self.paths = Paths(options.data_dir)
        self.world = world
        self.transport = transport
        self.wake = wake
        self.fail = fail
        self.failure: NodeStopped | None = None
        self.doubt: str | None = None
        """Why this leader tells clients nothing: others' states differ from its own, and it may be the one that is
        wrong. None while all is well, and where others lead."""
        self.is_closing = False
        """Whether the node was asked to stop, or let go of."""

    @property
    def config(self) -> Config:
        """All settings as they are now; whoever copies one has it from the start."""
        return self.live.config

    @property
    def has_ended(self) -> bool:
        """Whether the node has stopped taking part: it failed, or was asked to stop."""
        return self.is_closing or self.failure is not None

    def refusal(self) -> Unavailable:
        """Why clients are told nothing, where it has failed or is in doubt."""
        if self.failure is None and self.doubt is not None:
            return Unavailable(self.doubt)
        return Unavailable(f"node {self.node_id} has stopped: {self.failure}")

    def check_answers(self) -> None:
        """Raises `Unavailable` where clients are told nothing."""
        if self.failure is not None or self.doubt is not None:
            raise self.refusal()

    def address_of(self, peer: NodeId) -> str:
        """Where the link to `peer` goes, for log lines; "unknown" without a link."""
        link = self.transport.links().get(peer)
        return link.address if link is not None else "unknown"

    def check_background(self, future: asyncio.Future[Any]) -> None:
        """A callback for work that nobody awaits and that must not fail unnoticed: its error stops the node."""
        error = error_of(future)
        if error is not None and not self.is_closing:
            self.fail(error)
