"""How worlds differ in their settings, and the nodes of one world from each other."""

from __future__ import annotations

import random
from typing import ClassVar

import msgspec

from raftkv.config import KIB, MIB, Config, RaftConfig

CLOCK_RATE, WITHOUT_PRE_VOTE, SMALL_BATCHES, LEASES = "clock rate", "no pre-vote", "small batches", "leases"
CLOCK_DRIFT = "clock drift"

VARIETIES = (CLOCK_RATE, CLOCK_DRIFT, WITHOUT_PRE_VOTE, SMALL_BATCHES, LEASES)
"""As kinds of faults: each counts when a node is started with it."""

RATES = (0.5, 0.7, 1.0, 1.4, 2.0)
"""How fast clocks go in worlds without leases."""

DRIFTS = (0.96, 1.0, 1.04)
"""How fast they go with leases: within what `clock_drift_max` promises of any two."""

DRIFT_PPM = 100, 1000
"""By how much oscillators that are as they should be are off, in millionths, one way or the other. Ticks are whole
milliseconds and don't show it; all that is measured in milliseconds does."""

COMMAND_BYTES_MAX = 2 * KIB
"""In worlds with small batches, so that clients meet the limit."""


SHORT_LOGS = {
    "snapshot_entries": 30,
    "snapshot_interval_s": 0.5,
    "keep_entries": 0,
    "chunk_bytes": KIB,
    "segment_bytes": 2 * KIB,
}
"""In some worlds, so that followers that were away for a moment need a snapshot, and it takes its time; and so that a
node that has lost its state can't apply its log anew from the first entry."""


class SimConfig(Config, frozen=True, kw_only=True):
    """Settings of a node, with some settings of the core that operators can't change."""

    reclaim_bytes_min: ClassVar[int] = 2 * KIB
    pre_vote: bool = True
    records_bytes_max: int = MIB
    """As `batch_bytes_max`, and it may be smaller than a record."""

    def raft(self) -> RaftConfig:
        """The core's settings, as `Config.raft` gives them, with the additional ones."""
        return msgspec.structs.replace(super().raft(), pre_vote=self.pre_vote, batch_bytes_max=self.records_bytes_max)


class Habits(msgspec.Struct, frozen=True):
    """What differs between two starts of a node."""

    config: Config
    rate: float = 1.0
    """Seconds of its clock in a second."""
    kinds: tuple[str, ...] = ()


class Variety:
    """Draws the settings of one world from its seed."""

    def __init__(self, config: Config, dice: random.Random) -> None:
        self._dice = dice
        self._has_leases = dice.random() < 0.25
        self._rates = DRIFTS if self._has_leases else RATES
        self._has_rates = dice.random() < 0.4
        self._has_drifts = dice.random() < 0.5
        self._without_pre_vote = dice.choice([0.0, 0.0, 0.0, 0.5])
        self._records_bytes_max = dice.choice([1, 300, 4 * KIB, MIB, MIB])
        self.command_bytes_max = COMMAND_BYTES_MAX if self._records_bytes_max < MIB else config.command_bytes_max
        self._config = SimConfig(
            **{
                **msgspec.structs.asdict(config),
                "lease_reads": self._has_leases,
                "auto_upgrade": dice.random() < 0.75,
                "records_bytes_max": self._records_bytes_max,
                "command_bytes_max": self.command_bytes_max,
                "inflight_messages_max": dice.choice([1, 3, config.inflight_messages_max]),
                **dice.choice([{}, SHORT_LOGS]),
            }
        )

    def habits(self) -> Habits:
        """Draw the habits of a node that starts."""
        rate = self._dice.choice(self._rates) if self._has_rates else 1.0
        ppm = self._dice.choice([-1, 1]) * self._dice.randint(*DRIFT_PPM) if self._has_drifts else 0
        pre_vote = self._dice.random() >= self._without_pre_vote
        config, tick_ms = self._config, round(self._config.tick_ms / rate)
        # For code that counts ticks, a fast clock is one with short ticks.
        factor = tick_ms / config.tick_ms
        habits = msgspec.structs.replace(
            config,
            pre_vote=pre_vote,
            tick_ms=tick_ms,
            heartbeat_ms=round(config.heartbeat_ms * factor),
            election_timeout_ms=round(config.election_timeout_ms * factor),
        )
        met = {
            CLOCK_RATE: rate != 1.0,
            CLOCK_DRIFT: ppm != 0,
            WITHOUT_PRE_VOTE: not pre_vote,
            SMALL_BATCHES: self._records_bytes_max < MIB,
            LEASES: self._has_leases,
        }
        return Habits(habits, (1 + ppm / 1_000_000) / factor, tuple(kind for kind, is_met in met.items() if is_met))
