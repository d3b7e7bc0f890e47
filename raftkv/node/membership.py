"""Notices when the membership, or whether it is committed, is another than a moment ago."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.core.raft import Raft
from raftkv.logs import EventLog
from raftkv.model import Index

logger = EventLog(__name__)


class MembershipWatch:
    """Tells the parts that use the membership when it changes, and again when the change is committed."""

    def __init__(self, raft: Raft, changed: Callable[[], None]) -> None:
        self._raft = raft
        self._changed = changed
        self._seen: tuple[Index, bool] | None = None

    def look(self) -> None:
        """Called at every tick, and at the start."""
        raft, before = self._raft, self._seen
        self._seen = (raft.log.membership_index, raft.commit_index >= raft.log.membership_index)
        if self._seen == before:
            return
        self._changed()
        if before is None or before[0] != self._seen[0]:
            logger.info("membership", node=raft.node_id, membership=raft.membership.describe())
