"""What an operator is told about wrong clocks, and the reset of log time."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.config import Config
from raftkv.core import clocks
from raftkv.core.logclock import ClockDoubt
from raftkv.core.raft import Raft
from raftkv.core.roles import Leader
from raftkv.errors import ChangeRefused, Unavailable
from raftkv.logs import EventLog
from raftkv.model import NodeId
from raftkv.node.status import ClockReset, ClockStatus, seconds_text
from raftkv.node.waiters import Until

logger = EventLog(__name__)

SAID_AGAIN_S = 10.0
"""At least this long between two warnings, for a clock that is doubted and trusted in turn."""

TOLD_WITHIN_S = 2.0
"""How long a reset waits for the followers to report their clocks; under a new leader they may not have yet."""


class ClockWatch:
    """Logs once when a leader's clock or log time is found wrong, and once when the clock is trusted again."""

    def __init__(self, raft: Raft, config: Config, now_ms: Callable[[], int], monotonic_ms: Callable[[], int]) -> None:
        self._raft = raft
        self._bound_ms = config.raft().clock_ahead_ms_max
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms
        self._doubts_said = 0
        self._said_at = -SAID_AGAIN_S
        self._is_doubted = False
        self._is_ahead = False

    def look(self, now_s: float) -> None:
        """Log what has changed since the last look; `now_s` is the loop's time."""
        raft, role = self._raft, self._raft.role
        clock = role.clock if isinstance(role, Leader) else None
        has_news = raft.clock_doubts > self._doubts_said
        if has_news and raft.last_clock_doubt is not None and now_s - self._said_at >= SAID_AGAIN_S:
            self._doubts_said, self._said_at, self._is_doubted = raft.clock_doubts, now_s, True
            logger.warning(
                "clock_doubted",
                node=raft.node_id,
                doubt=_doubt_text(raft.last_clock_doubt),
                ahead_s=raft.last_clock_doubt.ahead_ms / 1000,
                times=raft.clock_doubts,
            )
        if self._is_doubted and (clock is None or clock.doubt is None):
            self._is_doubted = False
            logger.info("clock_trusted", node=raft.node_id, leads=clock is not None)
        is_ahead = isinstance(role, Leader) and self._ahead_ms(role) > self._bound_ms
        if is_ahead and not self._is_ahead and isinstance(role, Leader):
            logger.warning("log_time_ahead", node=raft.node_id, ahead_s=self._ahead_ms(role) / 1000)
        self._is_ahead = is_ahead

    @property
    def doubt(self) -> ClockDoubt | None:
        """Why this leader does not stamp entries by its own clock; None when it does, and where others lead."""
        role = self._raft.role
        return role.clock.doubt if isinstance(role, Leader) and role.clock is not None else None

    def present_ms(self) -> int:
        """The time for queries that are answered now, as the leader's clock has it; 0 when another node leads."""
        if not self._raft.is_leader:
            return 0
        self._raft.observe(self._now_ms(), self._monotonic_ms())
        return self._raft.present_ms()

    def _ahead_ms(self, role: Leader) -> int:
        """How far log time is ahead of the time that the clocks give for a new entry."""
        return max(0, self._raft.log.last_time_ms - clocks.present_ms(self._raft, role))

    def status(self) -> ClockStatus:
        """Most fields are known to the leader only, and left at their defaults elsewhere."""
        raft, role, wall_ms = self._raft, self._raft.role, self._now_ms()
        status = ClockStatus(
            wall_ms=wall_ms,
            log_time_ms=raft.log.last_time_ms,
            bound_ms=self._bound_ms,
            doubts=raft.clock_doubts,
        )
        if isinstance(role, Leader) and role.clock is not None:
            status.offset_ms = round(wall_ms - self._monotonic_ms() - role.clock.base_ms)
            status.ahead_ms = self._ahead_ms(role)
            status.has_majority = role.clock.has_majority
            status.doubt = _doubt_text(role.clock.doubt) if role.clock.doubt is not None else None
        return status

    def offset_ms(self, node: NodeId) -> int | None:
        """How far a peer's clock is ahead of the time by which this leader stamps entries; None when not known."""
        role = self._raft.role
        if not isinstance(role, Leader) or role.clock is None:
            return None
        offset = clocks.offset_of(self._raft, role, node)
        return None if offset is None else round(offset - role.clock.base_ms)

    async def reset(self, wake: Callable[[], None], until: Until, deadline_s: float) -> ClockReset:
        """Restart log time from the clocks; returns when the entry is applied here. Raises as `Orders.reset_clock`."""
        raft = self._raft
        raft.require_leader()
        try:
            await until(lambda: not raft.is_leader or not self._untold(), min(deadline_s, TOLD_WITHIN_S), "clocks")
        except Unavailable:
            raise ChangeRefused(
                f"nodes {self._untold()} follow, but do not tell their clocks: they run an older version, which can't "
                "read such an entry. Start them with this version first"
            ) from None
        raft.observe(self._now_ms(), self._monotonic_ms())
        before_ms = raft.log.last_time_ms
        index, term = raft.reset_clock(), raft.term
        time_ms = raft.log.last_time_ms
        wake()
        await until(lambda: raft.applied_index >= index or raft.term != term, deadline_s, "the reset is not committed")
        if raft.term != term:
            raise Unavailable("leadership was lost during the reset; it may have happened, and may be asked for again")
        logger.warning("clock_reset", node=raft.node_id, index=index, before_ms=before_ms, log_time_ms=time_ms)
        return ClockReset(index=index, before_ms=before_ms, log_time_ms=time_ms)

    def _untold(self) -> list[NodeId]:
        """Nodes that have been heard from lately, but have not reported their clock."""
        role = self._raft.role
        if not isinstance(role, Leader):
            return []
        recent = role.tick - self._raft.config.election_ticks
        return [
            node
            for node, progress in role.progress.items()
            if progress.contact_tick >= max(recent, 1) and progress.clock_offset_ms is None
        ]


def _doubt_text(doubt: ClockDoubt) -> str:
    side = f"{seconds_text(abs(doubt.ahead_ms))} {'ahead of' if doubt.ahead_ms > 0 else 'behind'}"
    if doubt.has_majority:
        return f"its clock is {side} what the voters' clocks say, so entries are stamped by theirs: set it right"
    return (
        f"its clock is {side} the progress of its monotonic clock, and no majority of clocks agrees on another time, "
        "so entries are stamped by that progress: set the clocks right, then run `raftkv clock reset`"
    )
