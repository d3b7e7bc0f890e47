"""Settings: their defaults fit together, and each wrong one is named with what is allowed."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.config import GIB, KIB, MIB, Config, RaftConfig
from raftkv.errors import ConfigError, InvalidArgument

FLAGS = {"pre_vote", "check_quorum", "lease_reads", "rebuild_damaged_state", "auto_upgrade"}

COUNTS = (
    "query_slice_reads",
    "query_reads_max",
    "inflight_messages_max",
    "waiting_requests_max",
    "connection_requests_max",
    "connections_max",
    "polls_max",
    "apply_lag_entries_max",
    "apply_batch_entries_max",
    "snapshot_entries",
    "state_flush_entries",
    "snapshots_kept",
    "snapshot_transfers_max",
    "sessions_max",
)
SIZES = (
    "inflight_bytes_max",
    "batch_bytes_max",
    "uncommitted_bytes_max",
    "command_bytes_max",
    "client_frame_bytes_max",
    "peer_frame_bytes_max",
    "segment_bytes",
    "log_cache_bytes",
    "snapshot_log_bytes",
    "chunk_bytes",
)
NONE_ALLOWED = (
    "query_scans_waiting_max",
    "views_max",
    "view_changes_max",
    "snapshot_rate_bytes_s",
    "scrub_rate_bytes_s",
    "snapshot_interval_s",
    "keep_entries",
    "keep_bytes",
    "disk_free_bytes_min",
    "early_campaign_lag_max",
    "promotion_lag_max",
)
PERIODS = (
    "query_seconds_max",
    "view_idle_s",
    "scrub_interval_s",
    "snapshot_stall_s",
    "disk_stall_handover_timeouts",
    "disk_stall_stop_s",
    "session_ttl_s",
)

NODE: dict[str, tuple[float, float]] = {
    "tick_ms": (1, 1000),
    "heartbeat_ms": (15, math.inf),  # one tick
    "election_timeout_ms": (375, math.inf),  # five heartbeats
    "clock_drift_max": (0, 0.9),
    "clock_ahead_max_s": (1, 86_400),
    "disk_free_fraction_min": (0, 0.9),
    **dict.fromkeys(COUNTS, (1, math.inf)),
    **dict.fromkeys(SIZES, (1024, 2**31 - 1)),
    **dict.fromkeys(NONE_ALLOWED, (0, math.inf)),
    **dict.fromkeys(PERIODS, (0.001, math.inf)),
}
"""Every number a person can set, with the range that it is allowed while the others have their defaults."""

CORE: dict[str, tuple[float, float]] = {
    "heartbeat_ticks": (1, math.inf),
    "election_ticks": (25, math.inf),  # five heartbeats
    "peer_lost_ticks": (1, math.inf),
    "clock_drift_max": (0, 0.9),
    "inflight_messages_max": (1, math.inf),
    "inflight_bytes_max": (1, math.inf),
    "batch_bytes_max": (1, math.inf),
    "entry_bytes_max": (1, math.inf),
    "uncommitted_bytes_max": (1, math.inf),
    "pending_reads_max": (1, math.inf),
    "transfer_ticks": (1, math.inf),
    "promotion_lag_max": (0, math.inf),
    "clock_ahead_ms_max": (1, math.inf),
}
"""The same for the core's settings."""

RANGES = [
    pytest.param(settings, name, low, high, id=f"{settings.__name__}.{name}")
    for settings, ranges in ((Config, NODE), (RaftConfig, CORE))
    for name, (low, high) in ranges.items()
]


FRACTIONAL = {"clock_drift_max", "clock_ahead_max_s", "disk_free_fraction_min", "snapshot_interval_s", *PERIODS}
"""Settings that need not be whole."""


def allowed(name: str, low: float, high: float) -> str:
    """How the range of a setting is put into words."""
    kind = "a number" if name in FRACTIONAL else "a whole number"
    return f"{kind} at least {low:g}" if high == math.inf else f"{kind} from {low:g} to {high:g}"


def test_every_setting_is_covered_here() -> None:
    """A new setting without a range, or a range without a setting, is noticed."""
    assert set(Config.__struct_fields__) - FLAGS == set(NODE)
    assert set(RaftConfig.__struct_fields__) - FLAGS == set(CORE)


@pytest.mark.parametrize(("settings", "name", "low", "high"), RANGES)
def test_a_setting_out_of_range_is_named_with_its_value_and_its_limits(
    settings: type, name: str, low: float, high: float
) -> None:
    """Just below the least, just above the most, and far from both: the text says all three things."""
    below = [low - 1, -1, -math.inf] if low else [-1, -0.001, -math.inf]
    above = [math.inf] if high == math.inf else [high + 1, high * 2, math.inf]
    for value in [*below, *above]:
        with pytest.raises(ConfigError) as caught:
            settings(**{name: value})
        assert str(caught.value) == f"{name} = {value!r}: must be {allowed(name, low, high)}"


@pytest.mark.parametrize(("settings", "name", "low", "high"), RANGES)
@pytest.mark.parametrize("value", ["7", None, True, [1], math.nan], ids=repr)
def test_a_setting_of_another_type_is_named_too(settings: type, name: str, low: float, high: float, value: Any) -> None:
    """Text from a file, a flag for a number, a number that is none: refused like one out of range."""
    with pytest.raises(ConfigError) as caught:
        settings(**{name: value})
    assert str(caught.value) == f"{name} = {value!r}: must be {allowed(name, low, high)}"


@pytest.mark.parametrize(("settings", "name", "low", "high"), RANGES)
def test_the_limits_themselves_are_allowed(settings: type, name: str, low: float, high: float) -> None:
    """The least and the most are part of the range, as the text says ("from … to …")."""
    # What limits a setting from the other side is moved out of its way.
    room = {"tick_ms": {"heartbeat_ms": 1000, "election_timeout_ms": 5000}}.get(name, {})
    room |= {"heartbeat_ms": {"election_timeout_ms": 10_000}}.get(name, {})
    for value in {low, high} - {math.inf}:
        try:
            made = settings(**{**room, name: value})
        except ConfigError as exc:
            # The sizes of frames and of what goes into them limit each other; nothing else may object.
            assert "must be at least 64 KiB above" in str(exc), exc
        else:
            assert getattr(made, name) == value


@pytest.mark.parametrize("name", sorted({*NODE} - FRACTIONAL))
def test_a_count_must_be_whole(name: str) -> None:
    """Half a byte or half a tick would surface much later, far from the setting."""
    with pytest.raises(ConfigError, match=rf"^{name} = 5000\.5: must be a whole number"):
        Config(**{name: 5000.5})


@pytest.mark.parametrize(
    ("settings", "name"),
    [(Config, "lease_reads"), (Config, "rebuild_damaged_state"), (Config, "auto_upgrade")]
    + [(RaftConfig, name) for name in ("pre_vote", "check_quorum", "lease_reads")],
)
@pytest.mark.parametrize("value", ["no", 0, None], ids=repr)
def test_a_flag_is_true_or_false_and_nothing_else(settings: type, name: str, value: Any) -> None:
    """The text "no" is true to Python; for leases that would be a stale read (F73)."""
    with pytest.raises(ConfigError) as caught:
        settings(**{name: value})
    assert str(caught.value) == f"{name} = {value!r}: must be True or False"


@pytest.mark.parametrize("settings", [Config, RaftConfig])
def test_an_unknown_setting_is_refused(settings: type) -> None:
    """A typing error must not quietly leave the default in force."""
    with pytest.raises(TypeError, match="snapshot_entires"):
        settings(snapshot_entires=5)


def test_an_unknown_setting_in_a_file_is_refused() -> None:
    """The same for what was decoded from a file, and for a value of a wrong type."""
    with pytest.raises(msgspec.ValidationError, match="snapshot_entires"):
        msgspec.convert({"snapshot_entires": 5}, Config)
    with pytest.raises(msgspec.ValidationError, match=r"snapshot_entries"):
        msgspec.convert({"snapshot_entries": "many"}, Config)
    assert msgspec.convert({"snapshot_entries": 5}, Config) == Config(snapshot_entries=5)


def test_settings_cannot_be_changed_once_checked() -> None:
    """A change would go round the checks; a changed copy is checked again."""
    with pytest.raises(AttributeError):
        Config().tick_ms = 0
    with pytest.raises(ConfigError, match="tick_ms"):
        msgspec.structs.replace(Config(), tick_ms=0)


def test_config_with_room_for_nothing_is_refused() -> None:
    """A config is checked when it is made, before any node is."""
    with pytest.raises(InvalidArgument):
        Config(segment_bytes=1)


def test_a_config_error_is_a_mistake_of_the_caller() -> None:
    """Nothing has happened yet, and Python's own word for it is ValueError."""
    assert issubclass(ConfigError, InvalidArgument) and issubclass(ConfigError, ValueError)


def test_time_outs_leave_room_for_heartbeats() -> None:
    """Five heartbeats must fit into an election time-out, one tick into a heartbeat."""
    assert Config(heartbeat_ms=100, election_timeout_ms=500).heartbeat_ms == 100
    with pytest.raises(ConfigError, match=r"^election_timeout_ms = 499: must be a whole number at least 500$"):
        Config(heartbeat_ms=100, election_timeout_ms=499)
    with pytest.raises(ConfigError, match=r"^heartbeat_ms = 49: must be a whole number at least 50$"):
        Config(tick_ms=50, heartbeat_ms=49)
    with pytest.raises(ConfigError, match=r"^election_ticks = 49: must be a whole number at least 50$"):
        RaftConfig(heartbeat_ticks=10, election_ticks=49)


def test_the_largest_command_fits_into_a_clients_frame() -> None:
    """With room for what stands around it; else a command that is allowed could not arrive (F33)."""
    least = 8 * MIB + 64 * KIB
    assert Config(client_frame_bytes_max=least).client_frame_bytes_max == least
    with pytest.raises(ConfigError) as caught:
        Config(client_frame_bytes_max=least - 1)
    assert str(caught.value) == (
        f"client_frame_bytes_max = {least - 1}: must be at least 64 KiB above "
        f"command_bytes_max = {8 * MIB}, or the largest command could not arrive"
    )


@pytest.mark.parametrize("inner", ["batch_bytes_max", "command_bytes_max", "chunk_bytes"])
def test_whatever_goes_to_a_peer_fits_into_a_frame(inner: str) -> None:
    """A batch, the largest command and a snapshot's chunk; else replication would stop for ever (F32)."""
    room = {"client_frame_bytes_max": GIB}
    least = 20 * MIB + 64 * KIB
    assert Config(**room, **{inner: 20 * MIB}, peer_frame_bytes_max=least).peer_frame_bytes_max == least
    with pytest.raises(ConfigError, match=rf"^peer_frame_bytes_max = {least - 1}: must be at least 64 KiB above"):
        Config(**room, **{inner: 20 * MIB}, peer_frame_bytes_max=least - 1)


def test_leases_need_a_leader_that_steps_down() -> None:
    """Without check_quorum nobody keeps the promise on which a lease rests (F73)."""
    with pytest.raises(ConfigError, match=r"^lease_reads = True: needs check_quorum"):
        RaftConfig(lease_reads=True, check_quorum=False)
    assert RaftConfig(lease_reads=True).check_quorum


def test_the_defaults_in_ticks_are_the_cores_own_defaults() -> None:
    """A node with its defaults runs the core with its defaults; but an entry holds a command and its envelope."""
    assert Config().raft() == msgspec.structs.replace(RaftConfig(), entry_bytes_max=8 * MIB + 4 * KIB)


@pytest.mark.parametrize(
    ("tick", "heartbeat", "election", "expected"),
    [
        (15, 75, 510, (5, 34)),
        (10, 75, 510, (8, 51)),  # 7.5 heartbeats are 8
        (10, 71, 511, (8, 52)),
        (50, 51, 255, (2, 10)),  # 5.1 election ticks are 6, but five heartbeats are 10
        (1000, 1000, 5000, (1, 5)),
        (1, 1, 5, (1, 5)),
    ],
)
def test_times_are_rounded_up_to_ticks(tick: int, heartbeat: int, election: int, expected: tuple[int, int]) -> None:
    """Never down: a shorter time-out than asked for would be a false alarm."""
    core = Config(tick_ms=tick, heartbeat_ms=heartbeat, election_timeout_ms=election).raft()
    assert (core.heartbeat_ticks, core.election_ticks) == expected
    assert core.transfer_ticks == core.election_ticks


@given(st.integers(1, 1000), st.integers(0, 5000), st.integers(0, 50_000))
def test_whatever_a_person_may_set_the_core_accepts(tick: int, more_heartbeat: int, more_election: int) -> None:
    """Rounding never breaks the core's own rules, never shortens a time, nor lengthens a heartbeat by a tick."""
    heartbeat = tick + more_heartbeat
    election = 5 * heartbeat + more_election
    core = Config(tick_ms=tick, heartbeat_ms=heartbeat, election_timeout_ms=election).raft()
    assert heartbeat <= core.heartbeat_ticks * tick < heartbeat + tick
    assert election <= core.election_ticks * tick < election + 5 * tick
    assert core.election_ticks >= 5 * core.heartbeat_ticks
    assert core.peer_lost_ticks == max(1, math.ceil(30 / tick))


def test_what_the_core_shares_with_the_node_is_handed_on() -> None:
    """Each shared setting, set to something that is no default, arrives."""
    shared = {
        "lease_reads": True,
        "clock_drift_max": 0.2,
        "inflight_messages_max": 7,
        "inflight_bytes_max": 70_000,
        "batch_bytes_max": 60_000,
        "uncommitted_bytes_max": 50_000,
        "promotion_lag_max": 0,
    }
    core = Config(**shared, command_bytes_max=40_000).raft()
    assert {name: getattr(core, name) for name in shared} == shared
    assert core.entry_bytes_max == 40_000 + 4 * KIB
