"""Every setting: its default, why it is that, and what it may be.

Settings are frozen and checked when they are made; a wrong one raises `ConfigError` naming the
setting, its value and what is allowed. Units are in the names. `RaftConfig` is what the core knows
(time in ticks); `Config` is what a person sets (time in milliseconds and seconds).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import msgspec

from raftkv.errors import ConfigError, InvalidArgument
from raftkv.spelling import meant

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


def _check(settings: msgspec.Struct, names: str, low: float, high: float = math.inf, *, whole: bool = True) -> None:
    """Each of `names` must be a (whole) number in that range; never infinite, as the core calculates with it."""
    for name in names.split():
        found = getattr(settings, name)
        fits = isinstance(found, int if whole else (int, float)) and not isinstance(found, bool)
        if not fits or not math.isfinite(found) or not low <= found <= high:
            kind = "a whole number" if whole else "a number"
            limit = f"from {low:g} to {high:g}" if high != math.inf else f"at least {low:g}"
            raise ConfigError(f"{name} = {found!r}: must be {kind} {limit}")


def _check_flags(settings: msgspec.Struct, names: str) -> None:
    """Each of `names` must be a bool: any text, "no" among them, would count as true."""
    for name in names.split():
        if not isinstance(found := getattr(settings, name), bool):
            raise ConfigError(f"{name} = {found!r}: must be True or False")


class RaftConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the consensus core. One tick is whatever time passes between two `tick()`s."""

    election_ticks: int = 34
    """Silence after which a follower campaigns is drawn from [election_ticks, 2 × election_ticks)."""
    heartbeat_ticks: int = 5
    peer_lost_ticks: int = 2
    """Followers that lose their leader's connection campaign one after the other, about this many ticks apart."""
    pre_vote: bool = True
    check_quorum: bool = True
    lease_reads: bool = False
    """Answer reads without a round while a lease holds. Needs `clock_drift_max` to be true of all nodes."""
    clock_drift_max: float = 0.1
    """How much faster or slower one node's ticks may be than another's, as a fraction."""
    inflight_messages_max: int = 128
    inflight_bytes_max: int = 16 * MIB
    batch_bytes_max: int = MIB
    """Bytes of records in one append message (a single larger entry still goes, alone)."""
    entry_bytes_max: int = 8 * MIB
    uncommitted_bytes_max: int = 64 * MIB
    pending_reads_max: int = 100_000
    transfer_ticks: int = 34
    """A leadership transfer that takes longer is given up, and writes resume (thesis §3.10)."""
    promotion_lag_max: int = 1_000
    """A learner may become a voter when it is at most this many entries behind the commit index."""
    clock_ahead_ms_max: int = 10_000
    """How far a leader's clock may be from the other voters' before it stamps entries by theirs."""

    def __post_init__(self) -> None:
        _check_flags(self, "pre_vote check_quorum lease_reads")
        _check(self, "heartbeat_ticks peer_lost_ticks transfer_ticks", 1)
        _check(self, "election_ticks", 5 * self.heartbeat_ticks)
        _check(self, "clock_drift_max", 0, 0.9, whole=False)
        _check(self, "inflight_messages_max inflight_bytes_max batch_bytes_max", 1)
        _check(self, "entry_bytes_max uncommitted_bytes_max pending_reads_max", 1)
        _check(self, "promotion_lag_max", 0)
        _check(self, "clock_ahead_ms_max", 1)
        if self.lease_reads and not self.check_quorum:
            raise ConfigError("lease_reads = True: needs check_quorum, or nobody promises the lease")


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings of a node, with the reasons for their defaults."""

    reclaim_bytes_min: ClassVar[int] = 16 * MIB
    """Less than this is not worth a snapshot when much was deleted, and a log's tail of so much may stay. No setting:
    it is what is small on any disk, and only simulated ones are smaller."""
    # Time:
    tick_ms: int = 15
    """The core's clock; fine enough that a lost connection is acted on within some tens of ms."""
    heartbeat_ms: int = 75
    election_timeout_ms: int = 510
    """A missed heartbeat or a long pause of the interpreter must not matter; pre-vote makes a false
    alarm harmless. Refused below five heartbeats."""
    lease_reads: bool = False
    clock_drift_max: float = 0.1
    clock_ahead_max_s: float = 10.0
    """How far a leader's clock may be from the other voters' before it stamps entries by theirs: far above how much
    well-kept clocks differ and how long messages take, and far below any lease or session that matters."""
    # Replication:
    inflight_messages_max: int = 128
    inflight_bytes_max: int = 16 * MIB
    batch_bytes_max: int = MIB
    uncommitted_bytes_max: int = 64 * MIB
    command_bytes_max: int = 8 * MIB
    promotion_lag_max: int = 1_000
    # Requests:
    waiting_requests_max: int = 50_000
    """Requests of clients that wait for an answer on this node; over it: `Busy`."""
    connection_requests_max: int = 10_000
    connections_max: int = 10_000
    client_frame_bytes_max: int = 9 * MIB
    peer_frame_bytes_max: int = 18 * MIB
    apply_lag_entries_max: int = 50_000
    """Committed entries that wait to be applied; over it the leader refuses writes with `Busy`."""
    apply_batch_entries_max: int = 512
    """Entries applied in one go; between two of them the event loop serves everybody else."""
    query_slice_reads: int = 128
    """Keys that a query may read on the event loop, which takes about 0.3 ms; one that reads more goes on beside it."""
    query_reads_max: int = 1_000_000
    """Keys that a query may read in all; over it the query ends with what it has, or with `TooMuchWork`."""
    query_seconds_max: float = 1.5
    """The same limit for a query's time, waiting included: clients give a node up that owes answers for two seconds."""
    query_scans_waiting_max: int = 64
    """Queries that wait to go on beside the loop; over it: `Busy`."""
    polls_max: int = 20_000
    """Requests that wait here until something changes, as those of `Client.wait_until`; over it: `Busy`."""
    views_max: int = 4
    """States that are held for clients who read page by page at one index; over it: `Busy`."""
    view_idle_s: float = 30.0
    """After this long without a read a view is closed, because everything that it shows must be kept on disk."""
    view_changes_max: int = 100_000
    """Keys that may be written while a view is held: each is remembered in about 100 bytes, and slows the view down."""
    # Log:
    segment_bytes: int = 64 * MIB
    log_cache_bytes: int = 32 * MIB
    """Newest entries kept in memory for followers that keep up; older ones are read from disk."""
    # Snapshots:
    snapshot_log_bytes: int = 64 * MIB
    snapshot_entries: int = 50_000
    snapshot_interval_s: float = 30.0
    """Snapshots are at least this far apart, drawn from [1, 1.5) × this, so that nodes don't take
    them together."""
    snapshots_kept: int = 2
    keep_entries: int = 10_000
    """Entries kept behind the snapshot for slow followers …"""
    keep_bytes: int = 64 * MIB
    """… but not more than this. Of what a follower needs that is there, more is kept, up to a snapshot's own bytes."""
    chunk_bytes: int = 256 * KIB
    """A chunk is one turn of the loop at both ends and one write on the follower: others wait no longer than that."""
    snapshot_rate_bytes_s: int = 32 * MIB
    """Each transfer's limit, so that writers hardly notice it even where nodes share cores and a disk; 0 for none."""
    snapshot_transfers_max: int = 2
    snapshot_stall_s: float = 10.0
    """A transfer without *progress* for this long is given up; there is no limit on the total."""
    state_flush_entries: int = 20_000
    """Applied entries after which the state is flushed, so that a killed node has little to replay …"""
    early_campaign_lag_max: int = 2_000
    """… and when a leader dies, a node with more than this left to apply lets others campaign first, as it could not
    answer soon."""
    # Disk:
    disk_free_fraction_min: float = 0.05
    disk_free_bytes_min: int = GIB
    """Writes are refused below the *smaller* of the two, and allowed again by themselves."""
    disk_stall_handover_timeouts: float = 2.0
    """A leader whose disk hangs for this many election time-outs gives up leadership."""
    disk_stall_stop_s: float = 30.0
    scrub_rate_bytes_s: int = 2 * MIB
    """How fast snapshots and log are read again in the background, to find damage before they are needed: slowly, so
    that writers do not notice. 10 GiB take an hour and a half. 0: never."""
    scrub_interval_s: float = 21_600.0
    """The pause between two such passes."""
    rebuild_damaged_state: bool = False
    """Rebuild a damaged state from a snapshot of a peer without being told to."""
    # Versions of the application:
    auto_upgrade: bool = True
    """Make a newer version active as soon as every member can run it; if not, an operator does (`raftkv upgrade`)."""
    # Sessions:
    sessions_max: int = 4_096
    session_ttl_s: float = 3_600.0
    """In log time, so that all nodes expire the same sessions at the same entry."""

    def __post_init__(self) -> None:
        _check_flags(self, "lease_reads rebuild_damaged_state auto_upgrade")
        _check(self, "tick_ms", 1, 1000)
        _check(self, "heartbeat_ms", self.tick_ms)
        _check(self, "election_timeout_ms", 5 * self.heartbeat_ms)
        _check(self, "clock_drift_max disk_free_fraction_min", 0, 0.9, whole=False)
        _check(self, "inflight_messages_max waiting_requests_max connection_requests_max connections_max polls_max", 1)
        _check(self, "apply_lag_entries_max apply_batch_entries_max sessions_max", 1)
        _check(self, "snapshot_entries state_flush_entries snapshots_kept snapshot_transfers_max", 1)
        _check(self, "early_campaign_lag_max query_scans_waiting_max views_max view_changes_max", 0)
        _check(self, "query_slice_reads query_reads_max", 1)
        _check(self, "query_seconds_max view_idle_s", 0.001, whole=False)
        _check(self, "promotion_lag_max keep_entries keep_bytes snapshot_rate_bytes_s disk_free_bytes_min", 0)
        for names in (
            "inflight_bytes_max batch_bytes_max uncommitted_bytes_max command_bytes_max",
            "client_frame_bytes_max peer_frame_bytes_max chunk_bytes",
            "segment_bytes log_cache_bytes snapshot_log_bytes",
        ):
            _check(self, names, KIB, 2**31 - 1)
        _check(self, "scrub_rate_bytes_s", 0)
        _check(self, "snapshot_interval_s", 0, whole=False)
        periods = "scrub_interval_s snapshot_stall_s disk_stall_handover_timeouts disk_stall_stop_s session_ttl_s"
        _check(self, periods, 0.001, whole=False)
        _check(self, "clock_ahead_max_s", 1, 86_400, whole=False)
        if self.command_bytes_max + 64 * KIB > self.client_frame_bytes_max:
            raise ConfigError(
                f"client_frame_bytes_max = {self.client_frame_bytes_max}: must be at least 64 KiB above "
                f"command_bytes_max = {self.command_bytes_max}, or the largest command could not arrive"
            )
        if max(self.batch_bytes_max, self.command_bytes_max, self.chunk_bytes) + 64 * KIB > self.peer_frame_bytes_max:
            raise ConfigError(
                f"peer_frame_bytes_max = {self.peer_frame_bytes_max}: must be at least 64 KiB above "
                "batch_bytes_max, command_bytes_max and chunk_bytes"
            )

    def raft(self) -> RaftConfig:
        """The same settings as the core sees them: time in ticks, rounded up."""

        def ticks(ms: float) -> int:
            return max(1, math.ceil(ms / self.tick_ms))

        heartbeat = ticks(self.heartbeat_ms)
        election = max(ticks(self.election_timeout_ms), 5 * heartbeat)
        return RaftConfig(
            election_ticks=election,
            heartbeat_ticks=heartbeat,
            peer_lost_ticks=ticks(30),
            lease_reads=self.lease_reads,
            clock_drift_max=self.clock_drift_max,
            inflight_messages_max=self.inflight_messages_max,
            inflight_bytes_max=self.inflight_bytes_max,
            batch_bytes_max=self.batch_bytes_max,
            entry_bytes_max=self.command_bytes_max + 4 * KIB,
            uncommitted_bytes_max=self.uncommitted_bytes_max,
            transfer_ticks=election,
            promotion_lag_max=self.promotion_lag_max,
            clock_ahead_ms_max=int(self.clock_ahead_max_s * 1000),
        )


LIVE = (
    "snapshot_log_bytes",
    "snapshot_entries",
    "snapshot_interval_s",
    "snapshots_kept",
    "keep_entries",
    "keep_bytes",
    "snapshot_rate_bytes_s",
    "snapshot_transfers_max",
    "snapshot_stall_s",
    "state_flush_entries",
    "polls_max",
    "auto_upgrade",
)
"""The settings that may change while a node runs: each is looked at when it counts, and nodes need not agree on it."""


def with_live(config: Config, values: Mapping[str, object]) -> Config:
    """`config` with other values of settings in `LIVE`. Raises `InvalidArgument` that says what is allowed."""
    kinds = {field.name: field.type for field in msgspec.structs.fields(Config)}
    for name, value in values.items():
        if name not in kinds:
            there = f"those that may change are {', '.join(LIVE)}"
            raise InvalidArgument(f"{name}: no such setting; {there}{meant(name, kinds)}")
        if name not in LIVE:
            raise InvalidArgument(f"{name} can't change while a node runs: give it to raftkv serve, and start it again")
        if kinds[name] is bool and not isinstance(value, bool):
            raise InvalidArgument(f"{name} = {value!r}: must be true or false")
    try:
        return Config(**{**msgspec.structs.asdict(config), **values})
    except ConfigError as exc:
        raise InvalidArgument(str(exc)) from None
