"""Reports each loss of a peer once, although a process that dies breaks two connections."""

from __future__ import annotations

from raftkv.model import NodeId
from raftkv.transport.interface import TransportHandler


class Presence:
    """Turns broken connections into `on_lost`.

    A break is reported unless the peer was reported already and has not been heard since. So the second connection of
    a dead process adds nothing. One that breaks later, after a sign of life, is a loss of its own, which may tell a
    follower of its leader's death.
    """

    def __init__(self, handler: TransportHandler) -> None:
        self._handler = handler
        self._lost: set[NodeId] = set()

    def heard(self, peer: NodeId) -> None:
        """Something has arrived from `peer`."""
        self._lost.discard(peer)

    def broke(self, peer: NodeId, reason: str) -> None:
        """A connection with `peer`, to or from it, is gone."""
        if peer not in self._lost:
            self._lost.add(peer)
            self._handler.on_lost(peer, reason)
