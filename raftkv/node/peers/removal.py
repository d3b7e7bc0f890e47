"""How a node learns that it was removed: from its own log, or from other nodes.

A removed node that went on would answer stale reads for ever, and would look to an operator like a node that waits for
a leader. Usually it learns of its removal from the leader's last heartbeat, which commits the entry in its own log. A
node that was down or cut off at that time is refused by all others, and told why (`Removal`). A removed node never
comes back, so what a node with old news says is still true. But a node that was wiped, restored, or mistaken for
another could be wrong. So this node believes it only when

- the teller is of this cluster, and has the same data directory as when this node last met it, if it has;
- the entry that it names is not committed here: by what is committed here this node is a member, and an earlier entry
  can't say otherwise;
- and the teller leads a term that is not older than this node's, or a majority of the voters that this node knows
  have told it the same (all other voters, where a majority would need this node's own vote).

If no node is left in the cluster that this node knows, nobody can tell it; then it goes on without a leader.
"""

from __future__ import annotations

import asyncio

from raftkv.core.raft import Raft
from raftkv.errors import NodeRemoved
from raftkv.logs import EventLog
from raftkv.model import Index, NodeId
from raftkv.node.body import Body
from raftkv.wire import Removal

logger = EventLog(__name__)

GRACE = 2
"""How long a removed node goes on, in election time-outs: others hear of the commit, and clients get answers."""


def removed_since(raft: Raft, node_id: NodeId) -> Index | None:
    """The index of the committed membership that names `node_id` as removed; None when no such one is committed."""
    index, membership = raft.committed_membership
    return index if node_id in membership.removed else None


class Hearsay:
    """What other nodes have told this node about its own removal; the last word of each counts.

    Invariant: whatever is in `_told` came from this cluster, from the data directory that the teller was met with, and
    named an entry that was not committed here at the time.
    """

    def __init__(self) -> None:
        self._told: dict[NodeId, Removal] = {}

    def is_proven(
        self, raft: Raft, peer: NodeId, removal: Removal, *, cluster_id: str, incarnation: str | None
    ) -> bool:
        """Take in what `peer` tells, and say whether the removal is proven by now.

        `incarnation` is the data directory with which this node has met `peer`; None when it has not.
        """
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
    """The error with which a removed node stops."""
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
        """Called when the membership changes or is committed: begin the end if this node is removed in it."""
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
