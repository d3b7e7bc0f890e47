"""A cluster as its nodes tell of it: their statuses, who is silent, and what is wrong in their own words."""

from __future__ import annotations

import itertools

import msgspec

from raftkv.model import NodeId
from raftkv.node.status import NodeStatus


class Silent(msgspec.Struct, frozen=True):
    """A node, or an address, that does not answer."""

    address: str
    reason: str
    node_id: NodeId | None = None
    is_refusal: bool = False
    """Whether a node does answer there, and does not tell who asks: nobody has signed in, or has no right to know."""
    is_stranger: bool = False
    """Whether a node of another cluster answers there, of which nothing is said here."""

    @property
    def tls(self) -> str:
        """Why TLS is not agreed on with whoever answers there, in the words of `raftkv.transport.tls`; empty when it is
        not that."""
        return self.reason.partition("TLS: ")[2].removesuffix(")")


def stranger(address: str, node: NodeStatus) -> Silent:
    """What a node of another cluster is in this one's view: their ids and entries have nothing to do with each other,
    so beside this one's nodes it would be taken for one that has parted from them."""
    reason = f"node {node.node_id} of another cluster ({node.cluster_id}) answers there"
    return Silent(address, reason, is_stranger=True)


class ClusterView(msgspec.Struct, frozen=True):
    """The statuses of all nodes of one cluster by their ids, and the nodes that don't answer."""

    nodes: list[NodeStatus]
    silent: list[Silent]

    @property
    def leader(self) -> NodeStatus | None:
        """The leader of the newest term. Others may still take themselves for leaders, of older terms."""
        leaders = [node for node in self.nodes if node.role == "leader"]
        return max(leaders, key=lambda node: node.term, default=None)

    @property
    def exit_code(self) -> int:
        """For scripts: 3 without a leader, 1 when a voter is silent or has stopped, or none is served, else 0."""
        if self.leader is None:
            return 3
        voters = self.newest.membership.all_voters()
        silent = any(each.node_id is None or each.node_id in voters for each in self.silent)
        return int(silent or any(node.stopped is not None or node.doubt is not None for node in self.nodes))

    @property
    def newest(self) -> NodeStatus:
        """The status of the node with most of the log, which has the newest membership."""
        return max(self.nodes, key=lambda node: (node.commit_index, node.term))

    def problems(self) -> list[str]:
        """What an operator should look at; empty when all is well."""
        found = [f"{_name(silent)} does not answer: {silent.reason}" for silent in self.silent]
        # That nobody reaches a node which does not answer us either is the same news again.
        known = tuple(f"node {silent.node_id} can't be reached" for silent in self.silent)
        for node in self.nodes:
            found += [problem for problem in node.problems() if not problem.startswith(known)]
        return list(dict.fromkeys(found)) + [
            f"nodes {other.node_id} and {node.node_id} differ at entry {node.applied_index}: "
            "keep their files, and see the log of the leader for who is in the minority"
            for node, other in self.diverged()
        ]

    def diverged(self) -> list[tuple[NodeStatus, NodeStatus]]:
        """Pairs of nodes with different states after the same entry."""
        return [
            (node, other)
            for node, other in itertools.combinations(self.nodes, 2)
            if node.applied_index == other.applied_index and node.digest != other.digest
        ]


def _name(silent: Silent) -> str:
    return silent.address if silent.node_id is None else f"node {silent.node_id} ({silent.address})"
