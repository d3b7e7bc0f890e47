"""Makes the state durable now and then, so that a node has little to replay after a crash."""

from __future__ import annotations

import asyncio

from raftkv.model import Index
from raftkv.node.applier import Applier
from raftkv.node.body import Body


class Flushing:
    """Flushes the state's store in the background; one flush at a time, and none while the state is replaced."""

    def __init__(self, body: Body, applier: Applier) -> None:
        self._body = body
        self._applier = applier
        self._flushed: Index = applier.runner.applied.index
        self._generation = applier.runner.access.generation
        """Which state of users and roles is durable, or about to be."""
        self._under_way = False

    def flushed(self, index: Index) -> None:
        """The state was flushed up to `index` by another part."""
        self._flushed = max(self._flushed, index)

    def replaced(self, index: Index) -> None:
        """The state was replaced by one that is durable up to `index`."""
        self._flushed = index
        self._generation = self._applier.runner.access.generation

    def maybe_flush(self) -> None:
        """Begin a flush if enough was applied since the last one, or users and roles have changed: a node that starts
        must not let in for a while whom it had refused already."""
        body, runner = self._body, self._applier.runner
        store, index, generation = runner.store, runner.store.applied.index, runner.access.generation
        if (
            self._under_way
            or body.raft.installing is not None
            or (index - self._flushed < body.config.state_flush_entries and generation == self._generation)
        ):
            return
        self._under_way = True
        self._flushed, self._generation = index, generation

        def done(future: asyncio.Future[None]) -> None:
            self._under_way = False
            body.check_background(future)

        # The store is still open when the flush runs: it is replaced on the same worker, which comes later.
        body.world.background_worker.run(store.flush).add_done_callback(done)
