"""The leader's view of one follower: what it holds, what is on its way, and what to send next."""

from __future__ import annotations

from collections import deque
from enum import Enum

from raftkv.model import Index, SnapshotMeta


class Flow(Enum):
    """How entries go to a follower."""

    PROBE = "probe"
    """Where the logs part is not known: one append at a time, until one fits (§5.3)."""
    REPLICATE = "replicate"
    """They fit: appends go one behind the other without waiting (thesis §10.2.1)."""
    SNAPSHOT = "snapshot"
    """The follower needs entries that were compacted: nothing but heartbeats until the snapshot is there (§7)."""


class Progress:
    """One follower as its leader sees it.

    Invariants:
    - `match_index` < `next_index`, and it never goes back while the leader leads;
    - appends on their way are bounded in number and bytes (`is_full`);
    - in PROBE at most one append with entries is on its way between two heartbeats.
    """

    __slots__ = (
        "_inflight",
        "_inflight_bytes_max",
        "_inflight_max",
        "acked_round",
        "clock_offset_ms",
        "clock_told_ms",
        "contact_tick",
        "flow",
        "has_room",
        "inflight_bytes",
        "match_index",
        "next_index",
        "probe_sent",
        "sending",
        "sent_commit",
        "sent_round",
        "snapshot_failures",
        "snapshot_tick",
        "wanted_index",
    )

    def __init__(self, next_index: Index, contact_tick: int, inflight_max: int, inflight_bytes_max: int) -> None:
        self.flow = Flow.PROBE
        self.match_index: Index = 0
        self.next_index = next_index
        self.probe_sent = False
        self.contact_tick = contact_tick
        """When the follower was last heard; a new leader gives everyone the benefit of one time-out."""
        self.has_room = True
        """Whether its disk had room when it was last heard."""
        self.clock_offset_ms: int | None = None
        """What its wall clock shows, less what this node's monotonic clock shows; None before it has told …"""
        self.clock_told_ms = 0
        """… and when it was told, by that monotonic clock."""
        self.acked_round = 0
        self.sent_round = 0
        self.sent_commit: Index = 0
        self.sending: SnapshotMeta | None = None
        """The snapshot that is being sent, if one is."""
        self.wanted_index: Index | None = None
        """The follower asked for a snapshot at or behind this index, although its log needs none."""
        self.snapshot_tick = 0
        """Before this tick no snapshot is sent: the last transfer has only just ended."""
        self.snapshot_failures = 0
        """Transfers in a row that failed."""
        self._inflight: deque[tuple[Index, int]] = deque()
        self.inflight_bytes = 0
        self._inflight_max = inflight_max
        self._inflight_bytes_max = inflight_bytes_max

    def become_probe(self, next_index: Index) -> None:
        """Start looking for where the logs part, with `next_index` as the guess."""
        self.flow = Flow.PROBE
        self.next_index = max(next_index, self.match_index + 1)
        self.probe_sent = False
        self.sending = None
        self._clear_inflight()

    def become_replicate(self) -> None:
        """An append fitted: send on without waiting."""
        self.flow = Flow.REPLICATE
        self.probe_sent = False
        self.next_index = max(self.next_index, self.match_index + 1)
        self._clear_inflight()

    def become_snapshot(self, snapshot: SnapshotMeta) -> None:
        """Send `snapshot`, and entries only after it."""
        assert snapshot.index > self.match_index, f"snapshot {snapshot.index} is behind match {self.match_index}"
        self.flow = Flow.SNAPSHOT
        self.next_index = snapshot.index + 1
        self.sending = snapshot
        self.probe_sent = False
        self._clear_inflight()

    @property
    def inflight_count(self) -> int:
        return len(self._inflight)

    @property
    def is_full(self) -> bool:
        return len(self._inflight) >= self._inflight_max or self.inflight_bytes >= self._inflight_bytes_max

    @property
    def may_send_entries(self) -> bool:
        if self.flow is Flow.REPLICATE:
            return not self.is_full
        return self.flow is Flow.PROBE and not self.probe_sent

    def sent(self, last_index: Index, size_bytes: int) -> None:
        """Entries up to `last_index` are on their way."""
        if self.flow is Flow.REPLICATE:
            self.next_index = last_index + 1
            self._inflight.append((last_index, size_bytes))
            self.inflight_bytes += size_bytes
        else:
            self.probe_sent = True

    def matched(self, index: Index) -> bool:
        """The follower holds everything up to `index` durably; returns whether that is news."""
        if index <= self.match_index:
            return False
        self.match_index = index
        if self.next_index <= index:
            self.next_index = index + 1
        inflight = self._inflight
        while inflight and inflight[0][0] <= index:
            self.inflight_bytes -= inflight.popleft()[1]
        return True

    def _clear_inflight(self) -> None:
        self._inflight.clear()
        self.inflight_bytes = 0

    def __repr__(self) -> str:
        mark = {Flow.PROBE: "?", Flow.REPLICATE: "", Flow.SNAPSHOT: "!"}[self.flow]
        return f"{self.match_index}→{self.next_index}{mark}"
