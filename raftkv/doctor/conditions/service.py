"""Whether the cluster serves: is there a leader, a majority, and one more than that."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import Evidence, starting, typed
from raftkv.doctor.finding import Sign
from raftkv.model import Membership, NodeId

NO_SECOND = (
    "Don't start voters with empty directories: that founds a second cluster beside what the old ones still hold."
)


def _majorities(membership: Membership) -> list[tuple[tuple[NodeId, ...], int]]:
    """Each group of voters that must agree, and how many of it."""
    return [(group, len(group) // 2 + 1) for group in (membership.voters, membership.outgoing) if group]


def _spare(evidence: Evidence) -> int:
    """How many more voters may be lost; negative without a majority."""
    up = evidence.taking_part
    return min(len(up & set(group)) - needed for group, needed in _majorities(evidence.membership))


def _voters_text(evidence: Evidence) -> str:
    up = evidence.taking_part
    voters = evidence.membership.all_voters()
    return f"voters {list(voters)}, of which {[each for each in voters if each in up]} take part"


def _start_down(evidence: Evidence) -> tuple[str, ...]:
    """Bring back those that are down, each on its own machine."""
    down = [each for each in evidence.membership.all_voters() if each not in evidence.taking_part]
    return tuple(command for each in down for command in evidence.reviving(each))


def no_member_answers(evidence: Evidence) -> Iterator[Sign]:
    """Nobody answers whom one was told of (F80)."""
    view = evidence.view
    if view is not None and not view.nodes and not any(each.is_refusal or each.tls for each in view.silent):
        down = "if none runs, look at a node's directory and log on its machine, then start it"
        hung = "or see to the process that holds the directory here (directory-held)"
        yield Sign(
            what="no node answers at any of the given addresses",
            why=tuple(f"{each.address}: {each.reason}" for each in view.silent),
            do="give addresses of members that run (-a, or RAFTKV_ADDRESS; with --tls-* if the cluster has TLS); "
            f"{hung if evidence.hanging else down}",
            commands=(typed("status", "-a", "HOST:7001") if evidence.hanging else typed("doctor", "raftkv-data"),),
            dont=NO_SECOND,
        )


def not_allowed(evidence: Evidence) -> Iterator[Sign]:
    """Nodes answer, but do not say how they are to who asks; so nothing is known of the cluster (F80)."""
    view = evidence.view
    if view is not None and not view.nodes and any(each.is_refusal for each in view.silent):
        yield Sign(
            what="nodes answer, but only to who has signed in and has the right `admin status`: nothing else is known",
            why=tuple(f"{each.address}: {each.reason}" for each in view.silent),
            do="ask again as a user who has it (--user with --password-file, --token-file, or a certificate of theirs)",
            commands=(typed("doctor", *evidence.options, "--user", "USER", "--password-file", "FILE"),),
        )


def two_clusters(evidence: Evidence) -> Iterator[Sign]:
    """Nodes of different clusters are taken for one (F23 F83)."""
    known = {each.cluster_id for each in evidence.heard if each.cluster_id}
    if len(known) > 1:
        yield Sign(
            what=f"{len(known)} clusters answer at the given addresses",
            why=tuple(f"{each.address}: node {each.node_id} of cluster {each.cluster_id}" for each in evidence.heard),
            do="decide which one is meant, and look at each by itself",
            commands=tuple(typed("doctor", "-a", each.address, *evidence.options[2:]) for each in evidence.heard),
            dont="Don't give clients addresses of both: which one they write to would be chance.",
        )


def quorum_lost(evidence: Evidence) -> Iterator[Sign]:
    """Fewer voters than a majority answer and take part (F58 F87)."""
    if evidence.nodes and evidence.membership.voters and _spare(evidence) < 0:
        yield Sign(
            what="a majority of the voters is missing: nothing is committed, and no linearizable read is answered",
            why=(_voters_text(evidence), *_silence(evidence)),
            do="start the voters that are down, with the directories that they had; only when a majority of the disks "
            "is gone for good: stop those that are left, see which of them has most, and let that one go on alone",
            commands=(*_start_down(evidence), typed("recover", "--compare", "DIR", "DIR")),
            dont=NO_SECOND,
            lasting_s=_leaderless_s(evidence),
        )


def _silence(evidence: Evidence) -> tuple[str, ...]:
    return tuple(f"node {node}: {reason}" for node, reason in sorted(evidence.silent.items()))


def _leaderless_s(evidence: Evidence) -> float | None:
    return max(
        (node.lasting_s["leaderless"] for node in evidence.nodes if "leaderless" in node.lasting_s), default=None
    )


def no_leader(evidence: Evidence) -> Iterator[Sign]:
    """A majority is up, and none leads at both looks (F39 F41 F42 F44)."""
    before, view = evidence.before, evidence.view
    if view is None or not view.nodes or view.leader is not None or not evidence.membership.voters:
        return
    if (before is not None and before.leader is not None) or _spare(evidence) < 0:
        return  # an election of a second is no finding, and a lost majority is one of its own
    if evidence.followed is not None:
        yield _unseen_leader(evidence, evidence.followed)
        return
    reach = [
        f"node {node.node_id}: term {node.term}, reaches {[peer.node_id for peer in node.peers if peer.connected]}"
        for node in view.nodes
    ]
    yield Sign(
        what="a majority of the voters is up, and there is no leader",
        why=(_voters_text(evidence), *reach),
        do="see to what keeps them apart: who reaches whom is above, and why not in the status; a node whose state was "
        "lost, or whose disk is nearly full, does not lead either",
        commands=(evidence.asking("status"),),
        dont="Don't restart all of them at once: who holds most of the log must be among those that vote.",
        lasting_s=_leaderless_s(evidence),
    )


def _unseen_leader(evidence: Evidence, leader: NodeId) -> Sign:
    following = [node.node_id for node in evidence.nodes if node.leader == leader]
    return Sign(
        what=f"node {leader} leads, but does not answer here: clients that reach no more than this are not served",
        why=(f"status of nodes {following}: they follow it", *_silence(evidence)),
        do="its log says where it listens for clients (`serving`): see that it can be reached there, and that the "
        "membership has that address",
        commands=(evidence.asking("member", "list"),),
        dont="Don't restart the others: they have a leader.",
    )


def old_leader(evidence: Evidence) -> Iterator[Sign]:
    """A node leads in an older term at both looks (F40 F72)."""
    leader = evidence.leader
    for node in evidence.nodes:
        earlier = evidence.earlier(node.node_id)
        led_then = earlier is not None and earlier.role == "leader"
        if leader is not None and led_then and node.role == "leader" and node.term < leader.term:
            yield Sign(
                what=f"node {node.node_id} takes itself for the leader of term {node.term}, but node "
                f"{leader.node_id} leads in term {leader.term}",
                why=(f"status of node {node.node_id}: role leader, term {node.term}, at both looks",),
                do="nothing is committed there; it steps down by itself when it hears of the newer term: see to the "
                "network between the two",
                commands=(evidence.asking("status"),),
            )


def leader_changes(evidence: Evidence) -> Iterator[Sign]:
    """The term has risen between the two looks (F42 F43 F44)."""
    newest, before = evidence.newest, evidence.before
    if newest is None or before is None or not before.nodes:
        return
    was, now = (max(node.term for node in nodes) for nodes in (before.nodes, evidence.nodes))
    if now > was:
        yield Sign(
            what="there was an election between the two looks",
            why=(f"term {was}, and {now} after {evidence.apart_s:.1f} s",),
            do="one is what a leader costs that has just stopped; if it goes on: see to the network between the nodes, "
            "to slow disks and to processes that starve; what each node takes for a commit and for a method is in its "
            "status",
            commands=(evidence.asking("status", "--json"),),
        )


def quorum_at_risk(evidence: Evidence) -> Iterator[Sign]:
    """Somebody is down, and nobody else may go (F46 F58)."""
    membership, up = evidence.membership, evidence.taking_part
    missing = [each for each in membership.all_voters() if each not in up]
    if evidence.nodes and membership.voters and missing and _spare(evidence) == 0:
        yield Sign(
            what="the voters that are left are just a majority: with one more lost, nothing is served",
            why=(_voters_text(evidence), *_silence(evidence)),
            do="start those that are down (a process that hangs is ended first); one that is gone for good is replaced "
            "by a new node under a new id",
            commands=_start_down(evidence) or evidence.replacing(missing[0]),
            dont="Don't restart, move or upgrade any of the others before that.",
        )


def single_voter(evidence: Evidence) -> Iterator[Sign]:
    """A cluster of one (F58)."""
    if len(voters := evidence.membership.voters) == 1 and not evidence.membership.outgoing:
        new = evidence.new_id()
        yield Sign(
            what=f"node {voters[0]} is the only voter: when its disk is lost, everything is",
            why=(f"membership: {evidence.membership.describe()}",),
            do="add two more nodes, or keep backups",
            commands=(evidence.asking("member", "add", f"{new}=NEWHOST:8001/NEWHOST:7001"),),
        )


def even_voters(evidence: Evidence) -> Iterator[Sign]:
    """One voter more than is of use (F58)."""
    if (count := len(evidence.membership.voters)) and count % 2 == 0 and not evidence.membership.outgoing:
        new = evidence.new_id()
        yield Sign(
            what=f"{count} voters bear no more losses than {count - 1}",
            why=(f"membership: {evidence.membership.describe()}; a majority is {count // 2 + 1}",),
            do="add one, or remove one",
            commands=(evidence.asking("member", "add", f"{new}=NEWHOST:8001/NEWHOST:7001"),),
        )


def change_stuck(evidence: Evidence) -> Iterator[Sign]:
    """The same joint membership at both looks (F50 F55 F56)."""
    newest = evidence.newest
    if newest is None or not newest.membership.is_joint:
        return
    earlier = evidence.earlier(newest.node_id)
    if earlier is not None and earlier.membership.is_joint and earlier.membership_index == newest.membership_index:
        yield Sign(
            what="a change of the membership is half done, and does not go on",
            why=(
                f"membership at entry {newest.membership_index}: {newest.membership.describe()}",
                _voters_text(evidence),
            ),
            do="it needs a majority of the old voters and one of the new: start those that are down; it ends by itself",
            commands=_start_down(evidence) or (evidence.asking("member", "list"),),
            dont="Don't begin another change: it is refused until this one has ended.",
        )


def voter_silent(evidence: Evidence) -> Iterator[Sign]:
    """A voter does not answer, whether the others reach it or not (F38). One whose directory is held is another's, and
    one with which TLS is not agreed on."""
    for node, reason in sorted(evidence.silent.items()):
        if evidence.membership.is_voter(node) and node not in evidence.hanging | evidence.without_tls:
            yield _silent(evidence, node, reason, "voter")


def learner_silent(evidence: Evidence) -> Iterator[Sign]:
    """Likewise a learner, which costs nothing yet (F54)."""
    for node, reason in sorted(evidence.silent.items()):
        if not evidence.membership.is_voter(node) and node not in evidence.hanging | evidence.without_tls:
            yield _silent(evidence, node, reason, "learner")


def _silent(evidence: Evidence, node: NodeId, reason: str, part: str) -> Sign:
    seen = [(other, peer) for other in evidence.nodes for peer in other.peers if peer.node_id == node]
    reached = [other.node_id for other, peer in seen if peer.connected]
    others = f"nodes {reached} reach it" if reached else "none of the others reaches it"
    down = "look at its log and directory on its machine, start it; if its machine is gone for good, replace it"
    up = "it runs: its port for clients may be blocked, or be elsewhere than the membership says; its log says where"
    return Sign(
        what=f"node {node}, a {part}, does not answer at {evidence.address(node)}",
        why=(f"asked there: {reason}", *([others] if seen else [])),
        do=up if reached else down,
        commands=(typed("doctor", "DIR"), *([] if reached else [starting(node, "")])),
        dont="Don't start it with an empty directory under the same id: the others would refuse it.",
        lasting_s=None if reached else max((peer.unreached_s or 0 for _, peer in seen), default=0) or None,
    )


def address_silent(evidence: Evidence) -> Iterator[Sign]:
    """An address that was given, where no member is (F80)."""
    view = evidence.view
    for each in view.silent if view is not None and view.nodes else []:
        if each.node_id is None and not each.is_stranger:
            yield Sign(
                what=f"nobody answers at {each.address}, and no member is known to be there",
                why=(f"asked there: {each.reason}",),
                do="leave it out, and see that clients have the addresses that there are now",
                commands=(evidence.asking("member", "list"),),
            )
