"""A host's periodic work: to measure how fresh reads are, to promote new nodes, to make images and snapshots."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from raftkv.errors import RaftKVError
from raftkv.logs import TextLog
from raftkv.machine import encode_query
from raftkv.model import Index
from raftkv.node import Node
from raftkv.state import Store
from raftkv.syncobj.objects import Objects

logger = TextLog("raftkv.syncobj")

BARRIER = encode_query("barrier", msgspec.msgpack.encode(()))
COMPACT_S = 5.0
"""Between two snapshots at least, however many calls there were: they sync files, and calls wait for the disk."""
AGAIN_S = 1.0
"""After a snapshot that failed."""
PROMOTION_S = 5.0
"""How long one node is waited for before the next one has its turn."""


class Duties:
    """Does what is due at each beat of the host, on the loop's thread.

    Invariants: one promotion and one snapshot are under way at most; `confirmed_at` never goes back.
    """

    def __init__(
        self,
        conf: Any,
        objects: Objects,
        begin: Callable[[Coroutine[Any, Any, Any]], None],
        confirm_s: float,
    ) -> None:
        self._conf = conf
        self._objects = objects
        self._begin = begin
        self._confirm_s = confirm_s
        self._ask_at = 0.0
        self._turn = 0
        self._compacted_at = time.monotonic()
        self._promoting = self._compacting = False
        self._node: Node | None = None
        self.confirmed_at = float("-inf")
        """When the question was asked whose answer this node has applied."""
        self.force_compaction = False

    def beat(self, node: Node) -> None:
        """Begin the work that is due."""
        self._node = node
        self._confirm(node)
        self._maybe_promote(node)
        self._maybe_compact(node)

    def _confirm(self, node: Node) -> None:
        """Ask what is committed. Once that is applied, all that was acknowledged before the question is here."""
        now = time.monotonic()
        if now < self._ask_at:
            return
        # If no answer comes, the next question must not wait for long.
        self._ask_at = now + 10 * self._confirm_s

        def answered(index: Index, result: bytes | RaftKVError) -> None:
            self._ask_at = time.monotonic() + self._confirm_s
            if not isinstance(result, RaftKVError):
                self.confirmed_at = max(self.confirmed_at, now)

        with contextlib.suppress(RaftKVError):
            node.requests.query(BARRIER, False, answered)

    def _maybe_promote(self, node: Node) -> None:
        """As the leader, promote new nodes when they have caught up, one after the other."""
        membership = node.raft.membership
        if not node.raft.is_leader or not membership.learners or membership.is_joint or self._promoting:
            return
        self._promoting = True
        self._turn += 1
        self._begin(self._promote(node, membership.learners[self._turn % len(membership.learners)]))

    async def _promote(self, node: Node, learner: int) -> None:
        try:
            await node.orders.promote(learner, PROMOTION_S)
        except RaftKVError as exc:
            logger.info("node %d has no vote yet: %s", learner, exc)
        finally:
            self._promoting = False

    def _maybe_compact(self, node: Node) -> None:
        conf, objects = self._conf, self._objects
        passed = time.monotonic() - self._compacted_at
        late = passed > conf.logCompactionMinTime and objects.calls_count > 0
        many = passed > COMPACT_S and objects.calls_count > conf.logCompactionMinEntries
        due = (late or many) and objects.image_pays
        if self._compacting or not (due or self.force_compaction):
            return
        self._compacting = True
        self._begin(self._compact(node))

    async def _compact(self, node: Node) -> None:
        try:
            await node.orders.take_snapshot()
            self.force_compaction = False
            self._compacted_at = time.monotonic()
        except RaftKVError as exc:
            logger.warning("no snapshot was taken: %s", exc)
            await asyncio.sleep(AGAIN_S)
        finally:
            self._compacting = False

    async def make_image(self, store: Store) -> None:
        """Make an image if it pays. No call is applied meanwhile; the loop's other work goes on."""
        objects, node = self._objects, self._node
        if node is None or not (self.force_compaction or (objects.calls_count > 0 and objects.image_pays)):
            return
        try:
            await node.body.world.background_worker.run(objects.write_image, store)
        except RaftKVError:
            raise
        except Exception:  # without an image, the snapshot has the calls since the last one
            logger.exception("no image of the objects could be made; all calls are kept instead")
