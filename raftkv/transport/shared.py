"""What all connections of one node share, whichever side dialled."""

from __future__ import annotations

from raftkv.model import NodeId
from raftkv.transport.demands import Demands
from raftkv.transport.interface import PeerTraffic, TransportHandler, TransportStats
from raftkv.transport.limits import TransportLimits
from raftkv.transport.presence import Presence
from raftkv.transport.proof import Nonce
from raftkv.transport.streams import Streams


class Shared:
    """Made when the transport starts, as it needs the handler. Only the transport changes `beat`."""

    __slots__ = ("beat", "demands", "handler", "limits", "nonce", "presence", "stats", "streams", "traffic")

    def __init__(
        self,
        streams: Streams,
        limits: TransportLimits,
        stats: TransportStats,
        handler: TransportHandler,
        demands: Demands,
        nonce: Nonce,
    ) -> None:
        self.streams = streams
        self.limits = limits
        self.stats = stats
        self.handler = handler
        self.demands = demands
        self.nonce = nonce
        self.presence = Presence(handler)
        self.traffic: dict[NodeId, PeerTraffic] = {}
        """Of the peers to which there are links."""
        self.beat = 0
        """The clock by which silence is measured: how often connections were checked. A node that was stopped or busy
        for seconds did not listen meanwhile, and must not blame its peers for that."""
