"""Shows how far a node is on its way to having everything, while a command waits."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from raftkv.cli.common import Target
from raftkv.cli.following import followed
from raftkv.cli.progress import Bar, Pace, Stand
from raftkv.doctor import ClusterView
from raftkv.model import NodeId
from raftkv.node.status import PeerStatus

LOOK_S = 0.3


class CatchingUp:
    """How far a node is, view by view of its cluster."""

    def __init__(self, node_id: NodeId) -> None:
        self._node_id = node_id
        self._pace = Pace()
        self._behind_at_first: int | None = None

    def stand(self, view: ClusterView) -> Stand | None:
        """How far it is; None when nobody knows, as of a node that is not reached."""
        peer = seen_by_leader(view, self._node_id)
        if peer is None or view.leader is None or not peer.connected:
            return None
        if (sent := peer.snapshot) is not None:
            self._behind_at_first = None
            return Stand(f"snapshot {sent.index} to node {self._node_id}", sent.sent_bytes, sent.total_bytes, True)
        behind = max(0, view.leader.commit_index - (peer.match_index or 0))
        self._behind_at_first = max(behind, self._behind_at_first or 0)
        return Stand(f"log to node {self._node_id}", self._behind_at_first - behind, self._behind_at_first)

    def describe(self, view: ClusterView, now: float) -> tuple[str, Stand | None]:
        """A line for people, and the same as numbers."""
        stand = self.stand(view)
        if stand is None:
            return f"waiting until node {self._node_id} is reached", None
        return self._pace.describe(stand, now), stand


def transfer_shown(target: Target, node_id: NodeId) -> AbstractAsyncContextManager[None]:
    """Show on a terminal how far `node_id` is, as the leader sees it."""
    catching_up = CatchingUp(node_id)

    def show(shown: Bar, view: ClusterView) -> None:
        line, stand = catching_up.describe(view, asyncio.get_running_loop().time())
        shown.say(line, *((stand.done, stand.total) if stand is not None else ()))

    return followed(target, f"node {node_id}", show, LOOK_S)


def seen_by_leader(view: ClusterView, node_id: NodeId) -> PeerStatus | None:
    """The node `node_id` as the leader sees it; None without a leader, or if the leader does not name it."""
    peers = view.leader.peers if view.leader is not None else []
    return next((peer for peer in peers if peer.node_id == node_id), None)
