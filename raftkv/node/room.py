"""What a node does while its disk is nearly full: it lets others lead, and refuses writes only when nobody else can."""

from __future__ import annotations

from raftkv.core.raft import Raft
from raftkv.core.roles import Leader
from raftkv.disk import DiskSpace
from raftkv.errors import Busy, ChangeRefused, DiskLow
from raftkv.logs import EventLog
from raftkv.node.engine import Engine
from raftkv.node.watchdog import DiskWatch

logger = EventLog("raftkv")

TRIES_MAX = 3
"""Hand-overs that did not come about until clients are told that writes are refused; they are tried all the same."""


class DiskRoom:
    """Tells core and engine whether there is room, and hands leadership to a voter that has some.

    While a hand-over may help, writes are put off (`Busy`, which clients try again); when there is no voter with
    room, they are refused (`DiskLow`, which callers get at once).
    """

    def __init__(self, raft: Raft, engine: Engine, watch: DiskWatch) -> None:
        self._raft = raft
        self._engine = engine
        self.watch = watch
        self._term = -1
        self._tries = 0
        self._retry_tick = 0
        self.handed_over = 0
        """How often this node began to hand leadership over for want of room."""

    @property
    def writes_refused(self) -> str | None:
        """Why this leader refuses writes, in words; None when it does not, or others lead."""
        refusal = self._engine.refuse_writes
        return str(refusal) if refusal is not None and self._raft.is_leader else None

    def saw(self, space: DiskSpace) -> None:
        """Note how much space there is, and act on it."""
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
            return Busy(f"node {raft.node_id}: {low}")  # said only should it become leader before the next look
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
        # A transfer that does not come about lasts an election time-out; reads and heartbeats get on meanwhile.
        self._tries += 1
        self._retry_tick = role.tick + 3 * raft.config.election_ticks
        self.handed_over += 1
        self._engine.wake()
        logger.warning("disk_full_hand_over", node=raft.node_id, to=heir, free_bytes=self.watch.space.free_bytes)
