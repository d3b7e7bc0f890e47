"""What a node does while its disk is nearly full: it lets others lead, and refuses writes only when nobody else can."""

from __future__ import annotations

from raftkv.core.raft import Raft
from raftkv.core.roles import Leader
from raftkv.disk import DiskSpace
from raftkv.errors import Busy, ChangeRefused, DiskLow
from raftkv.logs import EventLog
from raftkv.node.engine import Engine
from raftkv.node.watchdog import DiskWatch

logger = EventLog(__name__)

TRIES_MAX = 3
"""After so many failed hand-overs clients are told that writes are refused. The node goes on trying."""


class DiskRoom:
    """Tells core and engine whether the disk has room, and if not, hands leadership to a voter that has some.

    While a hand-over may help, writes get `Busy`, and clients try again. When no voter has room, writes get `DiskLow`,
    which clients pass on to their callers.
    """

    def __init__(self, raft: Raft, engine: Engine, watch: DiskWatch) -> None:
        self._raft = raft
        self._engine = engine
        self.watch = watch
        self._term = -1
        self._tries = 0
        self._retry_tick = 0
        self.handed_over = 0
        """How often this node began to hand leadership over because its disk was nearly full."""

    @property
    def writes_refused(self) -> str | None:
        """Why this leader refuses writes, with what to do; None when it accepts them or does not lead."""
        refusal = self._engine.refuse_writes
        return str(refusal) if refusal is not None and self._raft.is_leader else None

    def saw(self, space: DiskSpace) -> None:
        """Take note of the free space, and act on it."""
        was_low = self.watch.low is not None
        self.watch.saw(space)
        low = self.watch.low
        self._raft.has_room = low is None
        before = type(self._engine.refuse_writes)
        self._engine.refuse_writes = refusal = self._refusal(low) if low is not None else None
        if (low is not None) != was_low:
            logger.warning(
                "disk_space",
                node=self._raft.node_id,
                free_bytes=space.free_bytes,
                reserve_bytes=self.watch.reserve_bytes,
                has_room=was_low,
            )
        if isinstance(refusal, DiskLow) and before is not DiskLow and self._raft.is_leader:
            logger.error("writes_refused", node=self._raft.node_id, reason=str(refusal))

    def _refusal(self, low: DiskLow) -> Busy:
        raft, role = self._raft, self._raft.role
        if not isinstance(role, Leader):
            return Busy(f"node {raft.node_id}: {low}")  # used only if this node becomes leader before the next look
        if raft.term != self._term:
            self._term, self._tries, self._retry_tick = raft.term, 0, 0
        heir = raft.heir()
        others = [voter for voter in raft.membership.voters if voter != raft.node_id]
        if heir is None:
            if others and role.tick < raft.config.election_ticks:
                return Busy(f"node {raft.node_id}: {low}; it does not know yet whether another voter has room")
            return DiskLow(f"node {raft.node_id}: {low}; no voter that could take over has room")
        if role.transfer is None and role.tick >= self._retry_tick:
            self._hand_over(role, heir)
        if self._tries > TRIES_MAX:
            return DiskLow(f"node {raft.node_id}: {low}; node {heir} has room, but has not taken over")
        return Busy(f"node {raft.node_id}: {low}; leadership goes to node {heir}, which has room")

    def _hand_over(self, role: Leader, heir: int) -> None:
        raft = self._raft
        try:
            raft.transfer_leadership(heir)
        except ChangeRefused as exc:
            logger.warning("leadership_not_handed_over", node=raft.node_id, to=heir, reason=str(exc))
            return
        # A transfer that fails takes an election time-out. Reads and heartbeats go on meanwhile.
        self._tries += 1
        self._retry_tick = role.tick + 3 * raft.config.election_ticks
        self.handed_over += 1
        self._engine.wake()
        logger.warning("disk_full_hand_over", node=raft.node_id, to=heir, free_bytes=self.watch.space.free_bytes)
