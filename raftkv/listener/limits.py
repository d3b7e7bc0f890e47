"""What one client, and all clients together, may take of a server."""

from __future__ import annotations

import msgspec

from raftkv.config import MIB, Config
from raftkv.durations import Durations

ANSWER_BYTES_LARGE = 64 * 1024
"""Answers of one turn of the loop from which on their memory is counted at once, not when they leave."""


class ClientLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the listener, with the reasons for what isn't a setting of the node."""

    connections_max: int = 10_000
    requests_max: int = 10_000
    """Requests of one connection that wait for an answer; over it the connection isn't read."""
    parked_max: int = 10_000
    """Requests of one connection that wait until something changes. They do not count as waiting, or a client with
    many of them could ask for nothing else."""
    crowd_requests: int = 25_000
    """Over so many requests that wait, of all connections together, none gets more than an equal share: who asks
    again as soon as it is refused must not keep out who asks now and then. Half of what the node takes."""
    frame_bytes_max: int = 9 * MIB
    write_pause_bytes: int = MIB
    """Unread answers at which a connection isn't read any more, so that it can't ask for more …"""
    write_bytes_max: int = 64 * MIB
    """… and at which it is closed: what it had asked for before may still be this large."""
    held_bytes_max: int = 256 * MIB
    """Beginnings of frames, parked requests and unread answers of all connections together: each alone may be large, a
    thousand of them may not. Over it those that hold most are closed; four times what the log takes uncommitted."""
    hello_timeout_s: float = 5.0
    """A connection that has not said who it is by then is closed."""
    silent_s: float = 1.0
    """One that has said nothing for so long gives place when there is none left: honest ones need some ms."""
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
    """What a listener has seen; all but the first four only go up."""

    connections: int = 0
    requests_waiting: int = 0
    requests_parked: int = 0
    """Those that wait until something changes; they are not among the former."""
    held_bytes: int = 0
    """Beginnings of frames, parked requests and unread answers, of all connections; what was read since may count."""
    connections_refused: int = 0
    """Over `connections_max`: those that came, or that had to give place: nobody had signed in, or nothing was said."""
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
    sign_ins: int = 0
    """Clients that have shown rightly who they are, by a password or token."""
    sign_ins_failed: int = 0
    sign_ins_delayed: int = 0
    """Those that were not tried, as too many before them were wrong."""
    unauthenticated: int = 0
    """Requests that were refused as nobody had signed in."""
    forbidden: int = 0
    """Requests that were refused as their user had no right to them."""
    commands: Durations = msgspec.field(default_factory=Durations)
    queries: Durations = msgspec.field(default_factory=Durations)
    """How long those took that were answered with what became of them, from their arrival until the answer."""
    outcomes: dict[tuple[str, str], int] = {}
    """All other ends, by the kind of request and how it ended: an error's name, or what became of a command."""

    def ended(self, kind: str, how: str) -> None:
        """A request was not answered with its result."""
        self.outcomes[kind, how] = self.outcomes.get((kind, how), 0) + 1
