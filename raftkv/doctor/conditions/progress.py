"""Whether every node keeps up: lag, what is applied, snapshots taken and sent, learners, replicas that differ."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import Evidence, rebuild
from raftkv.doctor.finding import Sign
from raftkv.node.status import NodeStatus, seconds_text
from raftkv.snapshot import TransferProgress

BEHIND = 1_000
"""Entries: a node that has fewer to catch up may lead or vote as well as any other (`promotion_lag_max`)."""

UNAPPLIED = 10_000
"""Committed entries that wait to be applied: a fifth of what makes a leader refuse writes (`apply_lag_entries_max`)."""

OVERDUE_S = 600.0
"""Snapshots are taken within a minute after they are due; ten are more than a busy disk explains."""


def _lag(evidence: Evidence, node: NodeStatus) -> tuple[int, int] | None:
    """How many committed entries the node lacks, a second ago and now; None when nobody can tell."""
    leader, earlier = evidence.leader, evidence.earlier(node.node_id)
    if leader is None or earlier is None or node.node_id == leader.node_id:
        return None
    led = evidence.earlier(leader.node_id)
    if led is None or node.stopped is not None:
        return None
    return led.commit_index - earlier.commit_index, leader.commit_index - node.commit_index


def _is_receiving(evidence: Evidence, node: NodeStatus) -> bool:
    leader = evidence.leader
    sent = leader is not None and any(each.node_id == node.node_id and each.snapshot for each in leader.peers)
    return node.installing is not None or sent


def _lag_text(evidence: Evidence, node: NodeStatus, lag: tuple[int, int]) -> tuple[str, ...]:
    leader = evidence.leader
    assert leader is not None, "who lags, lags behind a leader"
    return (
        f"status of node {node.node_id}: commit {node.commit_index}; of node {leader.node_id}, which leads: "
        f"{leader.commit_index}",
        f"it lacked {lag[0]} entries, and {lag[1]} after {evidence.apart_s:.1f} s",
    )


def node_stuck(evidence: Evidence) -> Iterator[Sign]:
    """It has got nothing between the two looks, and lacks something (F34)."""
    for node in evidence.nodes:
        lag, earlier = _lag(evidence, node), evidence.earlier(node.node_id)
        if lag is None or earlier is None or _is_receiving(evidence, node):
            continue
        if min(lag) > 0 and node.commit_index == earlier.commit_index:
            yield Sign(
                what=f"node {node.node_id} does not catch up at all",
                why=_lag_text(evidence, node, lag),
                do="see whether the leader reaches it, and to its disk; if it goes on, start it again",
                commands=(evidence.asking("status"),),
                dont="Don't remove it before another node has taken its place.",
            )


def node_behind(evidence: Evidence) -> Iterator[Sign]:
    """It gets less than is written (F34)."""
    for node in evidence.nodes:
        lag, earlier = _lag(evidence, node), evidence.earlier(node.node_id)
        if lag is None or earlier is None or _is_receiving(evidence, node) or lag[1] < BEHIND:
            continue
        if node.commit_index > earlier.commit_index and lag[1] >= lag[0]:
            yield Sign(
                what=f"node {node.node_id} is behind, and the distance does not shrink",
                why=_lag_text(evidence, node, lag),
                do="its disk or its network is slower than what the leader takes in: compare its disk times with the "
                "others', or write less",
                commands=(evidence.asking("status", "--json"),),
            )


def catching_up(evidence: Evidence) -> Iterator[Sign]:
    """It gets more than is written (F34)."""
    for node in evidence.nodes:
        lag = _lag(evidence, node)
        if lag is not None and BEHIND <= lag[1] < lag[0]:
            yield Sign(
                what=f"node {node.node_id} is behind, and catches up",
                why=_lag_text(evidence, node, lag),
                do="wait",
                commands=(evidence.asking("status", "--watch"),),
            )


def apply_behind(evidence: Evidence) -> Iterator[Sign]:
    """It has the entries, and does not come to apply them (F79)."""
    for node in evidence.nodes:
        earlier = evidence.earlier(node.node_id)
        waiting = node.commit_index - node.applied_index
        if earlier is None or _is_receiving(evidence, node):
            continue
        if min(waiting, earlier.commit_index - earlier.applied_index) >= UNAPPLIED:
            yield Sign(
                what=f"node {node.node_id} does not get its commands applied",
                why=(f"status of node {node.node_id}: commit {node.commit_index}, applied {node.applied_index}",),
                do="see which commands take long (`methods` in its status), and make them faster, or write less",
                commands=(evidence.asking("status", "--json"),),
            )


def _transfer_text(progress: TransferProgress) -> str:
    percent = 100 * progress.sent_bytes // max(1, progress.total_bytes)
    return f"snapshot at entry {progress.index}: {progress.sent_bytes} of {progress.total_bytes} bytes ({percent} %)"


def _transfers(evidence: Evidence) -> Iterator[tuple[NodeStatus, int, TransferProgress, bool]]:
    """Who sends a snapshot to whom, how far, and whether it has come no further since the first look."""
    for node in evidence.nodes:
        earlier = evidence.earlier(node.node_id)
        for peer in node.peers:
            if peer.snapshot is not None:
                was = [each.snapshot for each in earlier.peers if each.node_id == peer.node_id] if earlier else []
                yield node, peer.node_id, peer.snapshot, was == [peer.snapshot]


def snapshot_sent(evidence: Evidence) -> Iterator[Sign]:
    """A transfer goes on (F67)."""
    for node, to, progress, stands in _transfers(evidence):
        if not stands:
            yield Sign(
                what=f"node {to} is getting a snapshot",
                why=(f"status of node {node.node_id}: {_transfer_text(progress)}",),
                do="wait; it goes on behind the snapshot by the log",
                commands=(evidence.asking("status", "--watch"),),
                dont="Don't restart either of the two: it would take longer.",
            )


def snapshot_stalled(evidence: Evidence) -> Iterator[Sign]:
    """A transfer has brought nothing between the two looks (F66)."""
    for node, to, progress, stands in _transfers(evidence):
        if stands:
            yield Sign(
                what=f"a snapshot on its way to node {to} comes no further",
                why=(f"status of node {node.node_id}, at both looks: {_transfer_text(progress)}",),
                do="see to the network between the two and to the disk of the one that receives; without progress for "
                "ten seconds it is given up, and begun anew",
                commands=(evidence.asking("status", "--watch"),),
            )


def snapshot_failing(evidence: Evidence) -> Iterator[Sign]:
    """The last one that was due was not taken (F14 F59 F61 F68)."""
    for node in evidence.nodes:
        if node.snapshot_problem is not None:
            yield Sign(
                what=f"node {node.node_id} can't take snapshots, so its log grows",
                why=(f"status of node {node.node_id}: {node.snapshot_problem}",),
                do="see to what the text says; then it takes one by itself, or at once when it is told to",
                commands=(evidence.asking("snapshot", "take", "--all"),),
                dont="Don't remove segments of its log: without a snapshot they are the only copy of what is in them.",
                lasting_s=node.lasting_s.get("snapshot_problem"),
            )


def snapshot_overdue(evidence: Evidence) -> Iterator[Sign]:
    """One is due for long, and nothing has failed (F35)."""
    for node in evidence.nodes:
        due_s = node.lasting_s.get("snapshot_due", 0.0)
        if due_s > OVERDUE_S and node.snapshot_problem is None:
            yield Sign(
                what=f"node {node.node_id} has taken no snapshot for long, though one is due",
                why=(
                    f"status of node {node.node_id}: due for {seconds_text(int(1000 * due_s))}, applied "
                    f"{node.applied_index}, newest snapshot {node.snapshot_index or 'none'}",
                ),
                do="let it take one now, and see what it says",
                commands=(evidence.asking("snapshot", "take", "--all"),),
                lasting_s=due_s,
            )


def learner_waits(evidence: Evidence) -> Iterator[Sign]:
    """Nobody has promoted it (F54)."""
    leader = evidence.leader
    if leader is None:
        return
    for peer in leader.peers:
        if peer.node_id not in leader.membership.learners or peer.match_index is None or not peer.connected:
            continue
        if (lag := leader.commit_index - peer.match_index) < BEHIND:
            yield Sign(
                what=f"node {peer.node_id} has caught up, and has no vote",
                why=(f"status of node {leader.node_id}, which leads: it lacks {lag} entries",),
                do="give it a vote, if it is meant to have one",
                commands=(evidence.asking("member", "promote", peer.node_id),),
            )


def replicas_differ(evidence: Evidence) -> Iterator[Sign]:
    """By what they say of the same entry (F76)."""
    view = evidence.view
    for node, other in view.diverged() if view is not None else []:
        yield Sign(
            what=f"nodes {other.node_id} and {node.node_id} have different states after entry {node.applied_index}",
            why=tuple(f"status of node {each.node_id}: digest {each.digest}" for each in (node, other)),
            do="keep a copy of their files; the one in the minority stops by itself, and its log says so: then start "
            "that one with --rebuild",
            commands=(rebuild(node.node_id, node.data_dir),),
            dont="Don't rebuild one of them before it is known which is wrong.",
        )


def replicas_doubted(evidence: Evidence) -> Iterator[Sign]:
    """By what the leader has heard from them (F76 F86)."""
    for node in evidence.nodes:
        if node.doubt is not None:
            down = sorted(evidence.silent)
            yield Sign(
                what=f"node {node.node_id} leads and serves nothing, because replicas differ and nobody can decide "
                "who is wrong",
                why=(f"status of node {node.node_id}: {node.doubt}",),
                do=f"start nodes {down}: they decide it" if down else "wait for a moment; those that answer decide it",
                commands=(evidence.asking("status"),),
                dont="Don't rebuild any of them, and don't restart the leader.",
                lasting_s=node.lasting_s.get("doubt"),
            )
