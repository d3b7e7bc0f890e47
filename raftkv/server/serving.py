"""A node that takes part and serves clients: what all have in common, on sockets, behind one door, or simulated."""

from __future__ import annotations

from raftkv.errors import RaftKVError
from raftkv.listener import ClientLimits, Entrance, Listener
from raftkv.logs import EventLog
from raftkv.node import Node
from raftkv.server.signs import Signs

logger = EventLog(__name__)

HANDOVER_S = 3.0
"""How long the end of a leader may be held up by handing leadership over."""


class Serving:
    """A node and its listener; whoever accepts connections without an entrance gets their protocols of `listener`."""

    def __init__(self, node: Node, listener: Listener) -> None:
        self.node = node
        self.listener = listener

    async def hand_over(self) -> None:
        """A leader that leaves names its heir, so that nobody waits for an election; `HANDOVER_S` at most."""
        node = self.node
        if node.failure is not None or not node.raft.is_leader or len(node.raft.membership.voters) < 2:
            return
        try:
            heir = await node.orders.transfer_leadership(None, HANDOVER_S)
            logger.info("leadership_handed_over", node=node.node_id, leader=heir)
        except RaftKVError as exc:
            # The others will elect one; what was acknowledged is durable either way.
            logger.warning("leadership_not_handed_over", node=node.node_id, reason=str(exc))

    async def stop(self) -> None:
        """Take no more requests, answer those that are due, and close everything."""
        await self.listener.close()
        await self.node.stop()


async def serve(node: Node, limits: ClientLimits, entrance: Entrance | None = None) -> Serving:
    """Start the node, which must know where it listens, and then serve its clients. Raises what `Node.start` raises."""
    await node.start()
    workers = [worker.run for worker in node.body.world.sign_in_workers]
    listener = Listener(node, limits, entrance, workers=workers)
    listener.begin()
    node.report.sign_ins = Signs(listener)
    return Serving(node, listener)
