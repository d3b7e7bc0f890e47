"""How a node knows that it was removed: from its own log, or because others that must know have told it.

A removed node that goes on would answer stale reads for ever, and whoever looks at it alone would take it for one that
waits for a leader. It mostly learns of its end from the leader's last heartbeat: then the entry is committed in its own
log. One that was down or cut off then is refused by everybody, and told why (`Removal`). Who is removed never comes
back, so an old teller can't be wrong about it, but one that has been wiped, restored or mistaken for another could be.
So it is believed only when

- the teller is of this cluster, and comes with the data directory that this node has met it with, if it has met it;
- the entry is one that this node has not: what is committed here says that it is a member, and an entry below that
  can't say otherwise;
- and the teller leads a term that is not older than this node's, or so many have told it that they are a majority of
  the voters that this node knows (all others, where this node's own vote would be needed for a majority).

A cluster of which nobody is left that this node knows can't tell it; then it goes on without a leader.
"""

from __future__ import annotations

import asyncio

from raftkv.core.raft import Raft
from raftkv.errors import NodeRemoved
from raftkv.logs import EventLog
from raftkv.model import Index, NodeId
from raftkv.node.body import Body
from raftkv.wire import Removal

logger = EventLog("raftkv")

GRACE = 2
"""Election time-outs that a removed node goes on for, so that others hear of the commit, and clients get answers."""


def removed_since(raft: Raft, node_id: NodeId) -> Index | None:
    """The index of a committed entry since which `node_id` is no member any more; None when that is not certain."""
    index, membership = raft.log.dated_membership(max(raft.commit_index, raft.log.start.index))
    return index if node_id in membership.removed else None


class Hearsay:
    """What others have told this node of its removal; one word from each.

    Invariant: everything in `_told` was of this cluster, from the directory that the teller is known by, and about an
    entry that was not committed here then.
    """

    def __init__(self) -> None:
        self._told: dict[NodeId, Removal] = {}

    def is_proven(
        self, raft: Raft, peer: NodeId, removal: Removal, *, cluster_id: str, incarnation: str | None
    ) -> bool:
        """Take in what `peer`, whom this node has met with the directory `incarnation`, tells."""
        if removal.cluster_id != cluster_id or removal.teller != peer:
            return False
        if incarnation not in (None, removal.incarnation) or removal.index <= raft.commit_index:
            return False
        self._told[peer] = removal
        if removal.leads and removal.term >= raft.term:
            return True
        voters = raft.membership.all_voters()
        others = [voter for voter in voters if voter != raft.node_id]
        tellers = [voter for voter in others if voter in self._told]
        return bool(tellers) and len(tellers) >= min(len(voters) // 2 + 1, len(others))


def removed(node_id: NodeId, index: Index) -> NodeRemoved:
    """The end of a node that was removed."""
    return NodeRemoved(
        f"node {node_id} was removed from the cluster (entry {index}), and has ended: the others have everything that "
        "it held. Don't start it again; to use its machine, empty the data directory and add a node under an id that "
        "was never used"
    )


class Ending:
    """The last moments of a node that was removed: it goes on until the others have had time to hear of it."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._at: float | None = None

    @property
    def is_near(self) -> bool:
        """Whether the node knows that it was removed."""
        return self._at is not None

    def look_at_membership(self) -> None:
        """Another membership is in force, or is committed: begin to end if it is one without this node."""
        raft = self._body.raft
        if self._at is None and (since := removed_since(raft, raft.node_id)) is not None:
            grace_s = GRACE * self._body.config.election_timeout_ms / 1000
            self._at = asyncio.get_running_loop().time() + grace_s
            logger.warning("removed", node=raft.node_id, index=since)

    def maybe_end(self, now: float) -> None:
        """Stop the node when it is time, and not while it still leads. `now` is the loop's time, in seconds."""
        raft = self._body.raft
        if self._at is not None and now >= self._at and not raft.is_leader:
            since = removed_since(raft, raft.node_id)
            assert since is not None, "who is removed never comes back"
            self._body.fail(removed(raft.node_id, since))
