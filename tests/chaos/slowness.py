"""How much slower this machine is now than one of one's own, by which whoever judges times is more patient."""

from __future__ import annotations

import os
from pathlib import Path

LOADAVG = Path("/proc/loadavg")

CROWDED = 4.0
"""Threads for each core that run or want to: what the scenes of one run come to. Others are there beyond that."""

SLOWNESS_MAX = 6.0
"""Whoever waits longer than that does not wait for the machine."""


def load() -> float:
    """Threads for each core, over the last minute."""
    return os.getloadavg()[0] / len(os.sched_getaffinity(0))


def running() -> float:
    """Threads for each core that run or want to just now, without whoever asks. The load of the last minute follows
    that slowly: what begins at once is not in it for a while."""
    wanting = int(LOADAVG.read_text().split()[3].partition("/")[0])
    return (wanting - 1) / len(os.sched_getaffinity(0))


def slowness() -> float:
    """1 on a machine of one's own, and 2 where everything has to share its cores with as much again."""
    return min(SLOWNESS_MAX, max(1.0, load() / CROWDED))
