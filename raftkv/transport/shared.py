"""What all connections of one node know, whichever side dialled."""

from __future__ import annotations

from raftkv.transport.limits import TransportLimits
from raftkv.transport.port import TransportHandler, TransportStats
from raftkv.transport.presence import Presence
from raftkv.transport.streams import Streams


class Shared:
    """Made when the transport starts, as there is nobody to tell before. The transport alone moves `beat`."""

    __slots__ = ("beat", "handler", "limits", "presence", "stats", "streams")

    def __init__(
        self, streams: Streams, limits: TransportLimits, stats: TransportStats, handler: TransportHandler
    ) -> None:
        self.streams = streams
        self.limits = limits
        self.stats = stats
        self.handler = handler
        self.presence = Presence(handler)
        self.beat = 0
        """Time as silence is measured: how often connections were looked at. A node that was stopped or busy
        for seconds did not listen meanwhile, and must not blame its peers for it."""
