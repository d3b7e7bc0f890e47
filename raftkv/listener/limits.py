"""What one client, and all clients together, may take of a server."""

from __future__ import annotations

import msgspec

from raftkv.config import MIB, Config


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the listener, with the reasons for what isn't a setting of the node."""

    connections_max: int = 10_000
    requests_max: int = 10_000
    """Requests of one connection that wait for an answer; over it the connection isn't read."""
    crowd_requests: int = 25_000
    """Over so many requests that wait, of all connections together, none gets more than an equal share: who asks
    again as soon as it is refused must not keep out who asks now and then. Half of what the node takes."""
    frame_bytes_max: int = 9 * MIB
    write_pause_bytes: int = MIB
    """Unread answers at which a connection isn't read any more, so that it can't ask for more …"""
    write_bytes_max: int = 64 * MIB
    """… and at which it is closed: what it had asked for before may still be this large."""
    held_bytes_max: int = 256 * MIB
    """Beginnings of frames and unread answers of all connections together: each alone may be large, a thousand
    of them may not. Over it those that hold most are closed; four times what the log takes uncommitted."""
    hello_timeout_s: float = 5.0
    """A connection that has not said who it is by then is closed."""
    frame_timeout_s: float = 30.0
    """A frame that takes longer than this to arrive is an attack or a broken network."""
    sweep_s: float = 1.0
    """How often connections are looked at for the two above."""

    @classmethod
    def of(cls, config: Config) -> ClientLimits:
        """The limits that a node's settings give."""
        return cls(
            connections_max=config.connections_max,
            requests_max=config.connection_requests_max,
            crowd_requests=config.waiting_requests_max // 2,
            frame_bytes_max=config.client_frame_bytes_max,
        )


class ServerStats(msgspec.Struct):
    """What a listener has seen; all but the first three only go up."""

    connections: int = 0
    requests_waiting: int = 0
    held_bytes: int = 0
    """Beginnings of frames and unread answers, of all connections; what clients have read since may still count."""
    connections_refused: int = 0
    """Over `connections_max`."""
    handshakes_refused: int = 0
    """Another cluster or version, or no TLS where it is spoken."""
    closed_garbage: int = 0
    """Frames that were too long, damaged or made no sense."""
    closed_slow: int = 0
    """Handshakes or frames that took too long to arrive."""
    closed_unread: int = 0
    """Clients that didn't read their answers."""
    closed_memory: int = 0
    """Connections that held most when all together held too much."""
    paused: int = 0
    """Times a connection was not read for a while because it had reached a bound."""
    requests: int = 0
    answered: int = 0
    refused: int = 0
    """Requests that were not accepted."""
