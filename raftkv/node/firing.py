"""Counts the scheduled commands that this node has run, and says when one is dropped."""

from __future__ import annotations

from raftkv.logs import EventLog
from raftkv.machine import Fired, OutcomeKind
from raftkv.model import NodeId

logger = EventLog(__name__)


class Firings:
    """Every node counts, as each applies every entry; replayed entries are counted again."""

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self.fired = 0
        """How many were run since the start."""
        self.failed = 0
        """How many of them raised, so that they had no effect."""
        self.dropped = 0
        """How many the active version lacked."""

    def met(self, fired: Fired) -> None:
        """A scheduled command was run, or dropped."""
        self.fired += fired.is_known
        self.failed += fired.is_known and fired.outcome.kind is not OutcomeKind.APPLIED
        if not fired.is_known:
            self.dropped += 1
            logger.warning("timer_dropped", node=self._node_id, command=fired.name, timer=fired.timer_id)
