"""Whether this node's clock and the others' are right, as an operator is told; and log time's reset."""

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

logger = EventLog("raftkv")

SAID_AGAIN_S = 10.0
"""A clock that is doubted, trusted and doubted again is told of no more often than this."""

TOLD_WITHIN_S = 2.0
"""How long a reset waits for a follower of a new leader to tell its clock."""


class ClockWatch:
    """Looks at a leader's log time and says once what is wrong with it, and once that it is right again."""

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
        """See what is new; `now_s` is the loop's time."""
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

    def _ahead_ms(self, role: Leader) -> int:
        """How far log time is ahead of what an entry would be stamped with now."""
        return max(0, self._raft.log.last_time_ms - clocks.present_ms(self._raft, role))

    def status(self) -> ClockStatus:
        """What an operator is told."""
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
        """How far the clock of a peer is ahead of what this leader goes by; None when that isn't known."""
        role = self._raft.role
        if not isinstance(role, Leader) or role.clock is None:
            return None
        offset = clocks.offset_of(self._raft, role, node)
        return None if offset is None else round(offset - role.clock.base_ms)

    async def reset(self, wake: Callable[[], None], until: Until, deadline_s: float) -> ClockReset:
        """Let log time begin anew; returns when that is applied here. Raises as `Orders.reset_clock`."""
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
        """Who follows and has not told its clock."""
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
