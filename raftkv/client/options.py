"""The settings of a client, with the reasons for their defaults."""

from __future__ import annotations

import msgspec

from raftkv.config import MIB
from raftkv.errors import ConfigError

SECONDS_MAX = 366 * 86_400.0
"""A year: longer times are typing errors, and an infinite one can't be sent."""


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How long a client tries, how fast, and how much it holds."""

    deadline_s: float = 10.0
    """For a call that names no deadline. Several elections fit into it, so callers don't notice a failover."""
    sessions: bool = True
    """Commands are applied exactly once. Without, a command whose answer is lost ends with `Indeterminate` at once."""
    connect_timeout_s: float = 1.0
    """For connecting and the handshake; a host that is gone must not use up the whole deadline. One that is reached and
    then too slow is waited for longer the next times. A name's look-up is not part of it: that goes on while others are
    tried."""
    head_start_s: float = 0.25
    """When an address has not answered after so long, the next one is tried beside it; as RFC 8305 has it."""
    refresh_s: float = 30.0
    """A client that has heard nothing from a leader for so long asks for the members, so that it knows live nodes when
    it is used again. Without an answer it asks less and less often, at last once in ten minutes."""
    silence_s: float = 2.0
    """When calls wait on a connection and no answer has come for so long, the connection is given up, even if its node
    is alive. Longer than an election, so that a healthy leader is hardly ever given up."""
    probe_s: float = 0.4
    """When calls wait on a connection and nothing has come for so long, the node is asked for a sign of life …"""
    probe_answer_s: float = 0.4
    """… and without one for so long, the connection is given up: the host may be dead, cut off or paused. A node that
    is slow, or has a slow disk, answers at once. Both together are about as long as an election takes."""
    backoff_min_s: float = 0.01
    backoff_max_s: float = 0.1
    """Between two tries to find the leader; less than an election takes, so that a new one is found soon."""
    busy_backoff_max_s: float = 0.3
    """Between two tries at a busy leader: longer, so that it can catch up."""
    in_flight_max: int = 2_048
    """Requests outstanding on one connection; below what a server takes (`connection_requests_max`)."""
    waiting_max: int = 50_000
    """Calls that are not answered yet, whether sent or not; more get `Busy`."""
    frame_bytes_max: int = 9 * MIB
    """The largest frame, as the servers' `client_frame_bytes_max`."""
    write_bytes_max: int = 4 * MIB
    """Bytes that wait to be sent on a connection; above that, calls wait in the client."""

    def __post_init__(self) -> None:
        for name in (
            "deadline_s",
            "connect_timeout_s",
            "head_start_s",
            "refresh_s",
            "silence_s",
            "probe_s",
            "probe_answer_s",
            "backoff_min_s",
        ):
            if not 0 < getattr(self, name) <= SECONDS_MAX:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be above 0 and at most {SECONDS_MAX:g}")
        for name in ("backoff_max_s", "busy_backoff_max_s"):
            if not self.backoff_min_s <= getattr(self, name) <= SECONDS_MAX:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be from backoff_min_s to {SECONDS_MAX:g}")
        for name in ("in_flight_max", "waiting_max"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be at least 1")
        for name in ("frame_bytes_max", "write_bytes_max"):
            if getattr(self, name) < 1024:
                raise ConfigError(f"{name} = {getattr(self, name)!r}: must be at least 1024")
