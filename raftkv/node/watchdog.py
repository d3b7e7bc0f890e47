"""Watches the disk: when it hangs, the node gives up leadership; when it is nearly full, the node takes no writes."""

from __future__ import annotations

from raftkv.config import Config
from raftkv.disk import DiskSpace
from raftkv.errors import DiskLow

LOOK_S_MAX = 1.0
"""The most that counts between two looks, which come four times a second: a longer gap was a pause of the process."""


class DiskWatch:
    """Decides when the disk is too slow or too full to go on as before. It does no input or output itself.

    A leader whose disk hangs keeps its followers quiet with heartbeats while nothing commits. That is worse than a dead
    leader (etcd#13527, hashicorp/raft#503). So it gives up leadership, and if the disk goes on hanging, the node stops.
    """

    def __init__(self, config: Config) -> None:
        self._handover_s = config.disk_stall_handover_timeouts * config.election_timeout_ms / 1000
        self._stop_s = config.disk_stall_stop_s
        self._fraction_min = config.disk_free_fraction_min
        self._bytes_min = config.disk_free_bytes_min
        self.space = DiskSpace(free_bytes=0, total_bytes=0)
        self.reserve_bytes = 0
        """With fewer free bytes than this there is no room."""
        self.low: DiskLow | None = None
        """The text on it, while there is too little space; None when there is enough again."""
        self._looked_at = 0.0
        self._started_at: float | None = None
        self._writing_s = 0.0

    def writing_s(self, started_at: float | None, now: float) -> float:
        """For how many seconds this process has waited for the write that began at `started_at`; 0 without a write.

        Time in which the process or its machine was stopped does not count: it says nothing about the disk (F16, F72).
        """
        passed = min(now - self._looked_at, LOOK_S_MAX)
        self._looked_at = now
        if started_at is None or started_at != self._started_at:
            self._started_at, self._writing_s = started_at, 0.0
        if started_at is not None:
            self._writing_s = min(self._writing_s + passed, now - started_at)
        return self._writing_s

    @property
    def last_writing_s(self) -> float:
        """What `writing_s` gave at last."""
        return self._writing_s

    def is_stalled(self, writing_s: float) -> bool:
        """Whether a write that has taken this long so far should cost leadership."""
        return writing_s >= self._handover_s

    def is_dead(self, writing_s: float) -> bool:
        """Whether the node should stop."""
        return writing_s >= self._stop_s

    def saw(self, space: DiskSpace) -> None:
        """Take note of the free space."""
        self.space = space
        self.reserve_bytes = reserve = min(self._bytes_min, int(self._fraction_min * space.total_bytes))
        if space.free_bytes < reserve:
            self.low = DiskLow(
                f"only {bytes_text(space.free_bytes)} of disk are free, {bytes_text(reserve)} are kept in reserve: "
                "free some space; writes are accepted again by themselves"
            )
        else:
            self.low = None


def bytes_text(count: int) -> str:
    """A number of bytes for people, such as `1.5 GiB`."""
    for suffix, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {suffix}"
    return f"{count} B"
