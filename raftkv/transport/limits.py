"""What one connection between nodes may take, in bytes and in seconds."""

from __future__ import annotations

import math

import msgspec

from raftkv.config import KIB, Config

HELLO_BYTES_MAX = 256 * KIB
"""A hello has a few hundred bytes, and the schema of the node's state machine, which has `SCHEMA_BYTES_MAX` at most."""


class TransportLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of a transport, with reasons for those that are no settings of a node."""

    frame_bytes_max: int
    queue_bytes_max: int
    """Room for two of the largest frames: one that leaves and one that waits keep a connection busy."""
    hello_bytes_max: int = HELLO_BYTES_MAX
    """A frame in the handshake."""
    strangers_max: int = 256
    """Incoming connections at once that are in their handshake or from no peer; a cluster has a handful."""
    handshake_s: float = 5.0
    ping_s: float
    """How often every connection is pinged and checked."""
    silence_s: float
    """A connection on which nothing arrived for this long is dead; a dial may take as long."""

    @property
    def handshake_beats(self) -> int:
        """`handshake_s` in pings."""
        return math.ceil(self.handshake_s / self.ping_s)

    @property
    def silence_beats(self) -> int:
        """`silence_s` in pings; at least two, as the answer to the first takes time."""
        return max(2, math.ceil(self.silence_s / self.ping_s))

    @classmethod
    def of(cls, config: Config) -> TransportLimits:
        """The limits that follow from a node's settings."""
        return cls(
            frame_bytes_max=config.peer_frame_bytes_max,
            queue_bytes_max=2 * config.peer_frame_bytes_max,
            ping_s=config.heartbeat_ms * 4 / 1000,
            silence_s=config.election_timeout_ms * 4 / 1000,
        )
