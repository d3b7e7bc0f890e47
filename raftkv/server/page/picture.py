"""One picture of the cluster, as the page is told it: plain values, made of two looks at the nodes and the doctor's
findings."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from raftkv.doctor import Evidence, diagnose
from raftkv.model import NodeId
from raftkv.node.status import NodeStatus, PeerStatus
from raftkv.snapshot import TransferProgress

FINDINGS_MAX = 100
"""More than anybody reads; the worst come first."""


def picture_of(evidence: Evidence, own: NodeId | None, now: datetime) -> dict[str, Any]:
    """The picture that node `own` gives at `now`; `evidence.view` has at least one node."""
    assert evidence.view is not None
    newest, leader, membership = evidence.view.newest, evidence.leader, evidence.membership
    findings = diagnose(evidence, now)
    return {
        "at": now.timestamp(),
        "own": own,
        "cluster": newest.cluster_id,
        "leader": leader.node_id if leader is not None else None,
        "term": max(node.term for node in evidence.nodes),
        "commit": newest.commit_index,
        "commits_s": _commits_s(evidence),
        "sessions": newest.sessions,
        "members": len(membership.members),
        "voters": list(membership.voters),
        "machine": newest.machine,
        "active_version": newest.versions.active if newest.versions is not None else None,
        "nodes": [_node(evidence, node) for node in evidence.nodes],
        "silent": [
            {"node": each.node_id, "address": each.address, "reason": each.reason} for each in evidence.view.silent
        ],
        "transfers": list(_transfers(evidence.nodes)),
        "findings": findings[:FINDINGS_MAX],
        "findings_left_out": max(0, len(findings) - FINDINGS_MAX),
    }


def _commits_s(evidence: Evidence) -> float | None:
    """Entries that were committed in a second; None at the first look."""
    before = evidence.before
    if before is None or not before.nodes or evidence.newest is None:
        return None
    done = evidence.newest.commit_index - before.newest.commit_index
    return max(0, done) / max(evidence.apart_s, 0.001)


def _node(evidence: Evidence, node: NodeStatus) -> dict[str, Any]:
    role = "learner" if node.node_id in evidence.membership.learners and node.role == "follower" else node.role
    batches, seconds = node.write_batches, node.write_seconds
    if (earlier := evidence.earlier(node.node_id)) is not None and earlier.write_batches < batches:
        batches, seconds = batches - earlier.write_batches, seconds - earlier.write_seconds
    seen = next((peer for peer in _peers(evidence) if peer.node_id == node.node_id), None)
    behind = None
    if seen is not None and seen.match_index is not None and evidence.leader is not None:
        behind = max(0, evidence.leader.last_index - seen.match_index)
    return {
        "node": node.node_id,
        "role": role,
        "term": node.term,
        "commit": node.commit_index,
        "applied": node.applied_index,
        "lag": 0 if node is evidence.leader else behind,
        "unapplied": max(0, node.commit_index - node.applied_index),
        "log_bytes": node.log_bytes,
        "state_bytes": node.state_bytes,
        "disk_free_bytes": node.disk_free_bytes,
        "disk_total_bytes": node.disk_total_bytes,
        "disk_low": node.disk_low,
        "write_ms": 1000 * seconds / batches if batches else None,
        "rtt_ms": seen.rtt_ms if seen is not None else None,
        "snapshot": node.snapshot_index,
        "waiting": node.waiting_requests,
        "version": node.version,
        "versions": [node.versions.oldest, node.versions.newest] if node.versions is not None else None,
        "unreached": [peer.node_id for peer in node.peers if not peer.connected],
        "uptime_s": node.uptime_s,
    }


def _peers(evidence: Evidence) -> list[PeerStatus]:
    return list(evidence.leader.peers) if evidence.leader is not None else []


def _transfers(nodes: Iterable[NodeStatus]) -> Iterable[dict[str, Any]]:
    """Each snapshot that goes from one node to another, as the sender tells it if it does."""
    told: set[NodeId] = set()
    nodes = list(nodes)
    for node in nodes:
        for peer in node.peers:
            if peer.snapshot is not None:
                told.add(peer.node_id)
                yield _transfer(node.node_id, peer.node_id, peer.snapshot)
    for node in nodes:
        if node.installing is not None and node.node_id not in told:
            yield _transfer(None, node.node_id, node.installing)


def _transfer(source: NodeId | None, target: NodeId, progress: TransferProgress) -> dict[str, Any]:
    return {
        "from": source,
        "to": target,
        "index": progress.index,
        "sent_bytes": progress.sent_bytes,
        "total_bytes": progress.total_bytes,
    }
