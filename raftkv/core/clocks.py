"""Log time: what a leader stamps its entries with, so that one wrong clock does not become everybody's time.

Time in the log never goes back (but at a reset, see below) and never runs ahead of what the voters' clocks say by
more than `clock_ahead_ms_max`. Each voter's answers say what its wall clock shows, votes too, so that a leader knows
it from its first entry on. Clocks are kept as *offsets*: what they show less what this node's monotonic clock shows.

- Where a majority of the voters' clocks agree (every value that their median could have lies within the bound), the
  median is the time. A leader whose own clock is within the bound of it stamps by its own clock, else by the median.
- Where no majority agrees (one voter, two that differ, too few that answer), a leader goes on from what it stamped by
  when a majority last agreed, or else from the earliest that the median may be when it begins to lead. From there it
  counts by its monotonic clock, and follows its own wall clock by no more than `SLEW`, the most by which a clock that
  is kept right is steered. It stamps by its own clock while that is within the bound of this line, else by the line.
- Log time that is ahead of all this stands still: an entry's time is never less than that of the entry before it.
- A reset is an entry of its own kind whose time may be less: an operator has said that the clocks are right now.

A clock that is behind is treated like one that is ahead: a leader whose clock is years behind would stop log time
for as long as it leads.
"""

from __future__ import annotations

from raftkv.core.logclock import ClockDoubt, LogClock
from raftkv.core.raftstate import RaftState
from raftkv.core.roles import Leader
from raftkv.model import NodeId

SLEW = 0.001
"""Twice what `adjtime` and NTP steer a clock by at most."""

TOLD_MS_MAX = 5_000
"""How long a voter's clock counts after the voter last told it: clocks drift, and may have been set meanwhile."""

JUDGED_MS_MAX = 1_000
"""A view that is older is of no use: the process was stopped, and what it had heard before is out of date."""


def judge(raft: RaftState, role: Leader) -> None:
    """Compare the clocks, and decide what the leader stamps by until the next time."""
    if not raft.now_ms:
        return  # nobody has told the time yet
    now = raft.monotonic_ms
    own, bound = raft.now_ms - now, raft.config.clock_ahead_ms_max
    median = _median(raft, role)
    before = role.clock
    if median is not None and median[1] - median[0] <= bound:
        earliest, latest = median
        clock = LogClock(earliest, latest - bound, earliest + bound, now, True, now)
    else:
        if before is not None:
            most = max(0, now - before.judged_ms) * SLEW
            base = before.base_ms + min(max(own - before.base_ms, -most), most)
        else:
            base = own if median is None else median[0]
        clock = LogClock(base, base - bound, base + bound, now, False, now)
    if before is not None and before.has_majority == clock.has_majority:
        clock.since_ms = before.since_ms
    if not clock.low_ms <= own <= clock.high_ms:
        clock.doubt = ClockDoubt(round(own - clock.base_ms), clock.has_majority)
        if before is None or before.doubt is None:
            raft.clock_doubts += 1
            raft.last_clock_doubt = clock.doubt
    role.clock = clock


def _median(raft: RaftState, role: Leader) -> tuple[int, int] | None:
    """The earliest and the latest offset that the median of all voters' clocks may have, given those that are known.

    They are the same when all are known and their number is odd. None when no majority is known, or when there is
    no other voter to compare with.
    """
    voters = raft.membership.all_voters()
    if voters == (raft.node_id,):
        return None
    known = sorted(offset for voter in voters if (offset := offset_of(raft, role, voter)) is not None)
    count, missing = len(voters), len(voters) - len(known)
    if len(known) <= count // 2:
        return None
    # Each missing clock, whatever it shows, moves the median by at most one place.
    return known[(count - 1) // 2 - missing], known[count // 2]


def offset_of(raft: RaftState, role: Leader, node: NodeId) -> int | None:
    """What the clock of `node` shows, in milliseconds ahead of this node's monotonic clock; None when not known."""
    if node == raft.node_id:
        return raft.now_ms - raft.monotonic_ms
    progress = role.progress.get(node)
    if progress is None or raft.monotonic_ms - progress.clock_told_ms > TOLD_MS_MAX:
        return None
    return progress.clock_offset_ms


def stamp(raft: RaftState, role: Leader) -> int:
    """The time for an entry that is made now; it may be less than that of the entry before."""
    clock = role.clock
    if clock is not None:
        if raft.monotonic_ms - clock.judged_ms > JUDGED_MS_MAX:
            judge(raft, role)
        elif clock.doubt is None and not clock.low_ms <= raft.now_ms - raft.monotonic_ms <= clock.high_ms:
            judge(raft, role)  # else a jump between two heartbeats would go unnoticed
    return present_ms(raft, role)


def present_ms(raft: RaftState, role: Leader) -> int:
    """The time by the leader's view as it is, however old."""
    clock = role.clock
    if clock is None or clock.low_ms <= raft.now_ms - raft.monotonic_ms <= clock.high_ms:
        return max(0, raft.now_ms)
    return max(0, int(clock.base_ms) + raft.monotonic_ms)


def declare(raft: RaftState, role: Leader) -> None:
    """An operator says that the clocks are right: where no majority agrees, this leader's own counts from now on."""
    if role.clock is not None and not role.clock.has_majority:
        now, bound = raft.monotonic_ms, raft.config.clock_ahead_ms_max
        own = raft.now_ms - now
        role.clock = LogClock(own, own - bound, own + bound, now, False, now)
