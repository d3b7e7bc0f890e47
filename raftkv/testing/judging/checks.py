"""The invariants of a simulated cluster, which hold at every moment. Each is a class, named as in the paper if it is
there."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raftkv.core import invariants
from raftkv.core.roles import Candidate, Leader
from raftkv.errors import DiskError, NodeRemoved, NodeStopped
from raftkv.model import EntryId, Index, Membership, NodeId, Term
from raftkv.testing.judging.check import Check, working
from raftkv.testing.judging.states import (
    DigestsAgree,
    DurableIsDurable,
    SessionsAgree,
    SnapshotsHoldWhatTheySay,
    TablesAreInStep,
    TheCoreKnowsTheDisk,
    TheLogIsCoveredBySnapshots,
    TheStateSaysWhatIsApplied,
    VersionsAgree,
)
from raftkv.testing.world.harm import Harm

if TYPE_CHECKING:
    from raftkv.core.raft import Raft
    from raftkv.node import Node
    from raftkv.testing.world.cluster import SimCluster


class CoreInvariants(Check):
    """Every invariant of the core's own: `compacted ≤ snapshot ≤ applied ≤ commit ≤ last` and the like.

    Also that nothing goes back that may only go forward, from one look to the next.
    """

    def __init__(self) -> None:
        self._samples: dict[NodeId, tuple[Raft, invariants.Sample]] = {}

    def look_at(self, node: Node) -> None:
        raft = node.raft
        invariants.check(raft)
        before = self._samples.get(node.node_id)
        is_same = before is not None and before[0] is raft
        now = invariants.check_step(before[1], raft) if before and is_same else invariants.Sample.of(raft)
        self._samples[node.node_id] = raft, now


class CoreInvariantsAfterEachInput(Check):
    """The core's invariants hold after each message, write and order, not only when somebody looks.

    Ticks are left out: most change nothing, and they are half of what a core is told.
    """

    INPUTS = (
        *("step", "persisted", "applied", "propose", "campaign", "step_down", "peer_lost", "change_membership"),
        *("transfer_leadership", "snapshot_taken", "compact", "snapshot_installed", "snapshot_failed", "snapshot_sent"),
    )

    def __init__(self) -> None:
        self._broken: list[str] = []

    def attach(self, cluster: SimCluster) -> None:
        """Check the core of every node that starts from now on."""
        cluster.on_started.append(self._follow)

    def _follow(self, node: Node) -> None:
        for name in self.INPUTS:
            setattr(node.raft, name, self._checked(node, name, getattr(node.raft, name)))

    def _checked(self, node: Node, name: str, take: Callable[..., Any]) -> Callable[..., Any]:
        raft, check = node.raft, invariants.check

        def take_and_check(*arguments: Any, **options: Any) -> Any:
            result = take(*arguments, **options)
            try:
                check(raft)
            except AssertionError as exc:
                self._broken.append(
                    f"node {node.node_id}, {name}: {exc}"
                )  # else the node would take it for its own error, and stop
            return result

        return take_and_check

    def look(self, cluster: SimCluster) -> None:
        assert not self._broken, self._broken[0]


class ElectionSafety(Check):
    """At most one leader a term (§5.2)."""

    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}

    def look_at(self, node: Node) -> None:
        if node.raft.is_leader:
            other = self._leaders.setdefault(node.raft.term, node.node_id)
            assert other == node.node_id, f"nodes {other} and {node.node_id} both lead in term {node.raft.term}"


class TermNeverGoesBack(Check):
    """Neither while a node runs nor over its crashes: a term that was acted on is on disk (§5.2)."""

    def __init__(self) -> None:
        self._durable: dict[NodeId, Term] = {}

    def look_at(self, node: Node) -> None:
        term, durable = node.raft.term, node.opened.vote.hard_state.term
        before = self._durable.get(node.node_id, 0)
        assert durable >= before, f"node {node.node_id}: the term on disk went back from {before} to {durable}"
        assert term >= durable, f"node {node.node_id} is in term {term}, its disk in {durable}"
        self._durable[node.node_id] = durable


class VoteNeverChanges(Check):
    """One vote a term, and a restart does not take it back (§5.2)."""

    def __init__(self) -> None:
        self._votes: dict[tuple[NodeId, Term], NodeId] = {}

    def look_at(self, node: Node) -> None:
        state = node.opened.vote.hard_state
        if state.vote is not None:
            before = self._votes.setdefault((node.node_id, state.term), state.vote)
            assert before == state.vote, f"node {node.node_id} voted for {before} and {state.vote} in {state.term}"


class CommittedIsForever(Check):
    """An entry that was committed somewhere is what every node commits at that index (State Machine Safety, §5.4.3)."""

    def __init__(self) -> None:
        self.chains: dict[Index, int] = {}
        self.last: Index = 0
        self.last_term: Term = 0

    def look_at(self, node: Node) -> None:
        log, commit = node.raft.log, node.raft.commit_index
        # A chain value binds everything before it, so two logs that agree at an index agree up to it.
        if commit >= max(log.start.index, 1):
            chain = self.chains.setdefault(commit, log.chain(commit))
            assert chain == log.chain(commit), f"node {node.node_id} committed something else at {commit}, or before"
        if commit > self.last:
            for index in range(max(log.start.index, 1, self.last + 1), commit):
                self.chains.setdefault(index, log.chain(index))
            self.last, self.last_term = commit, log.term(commit)


class LogMatching(Check):
    """Entries of equal index and term are equal, with all before them (§5.3): equal chains say so."""

    def __init__(self) -> None:
        self._chains: dict[EntryId, int] = {}

    def look_at(self, node: Node) -> None:
        last = node.raft.log.last_id
        chain = self._chains.setdefault(last, node.raft.log.last_chain)
        assert chain == node.raft.log.last_chain, f"node {node.node_id} has another entry {last}"


class LeaderCompleteness(Check):
    """Whoever leads has everything that was committed in earlier terms (§5.4)."""

    def __init__(self, committed: CommittedIsForever) -> None:
        self._committed = committed

    def look_at(self, node: Node) -> None:
        raft, last = node.raft, self._committed.last
        if raft.is_leader and raft.term > self._committed.last_term:
            assert raft.log.last_index >= last, f"leader {node.node_id} lacks the committed entry {last}"
            if last >= max(raft.log.start.index, 1):
                assert raft.log.chain(last) == self._committed.chains[last], f"leader {node.node_id} differs at {last}"


class CommitIsDurableOnAMajority(Check):
    """What a leader counts as committed is on the disks of a majority of each voting half (§5.3)."""

    def __init__(self) -> None:
        self._durable: dict[NodeId, Index] = {}

    def look(self, cluster: SimCluster) -> None:
        self._durable = {node_id: sim.held_index for node_id, sim in cluster.nodes.items()}
        for node in working(cluster):
            if not node.raft.is_leader:
                continue
            # It was committed by a majority of what was the newest membership then: that at the index, or a later one.
            commit = node.raft.commit_index
            memberships = node.raft.log.memberships_since(commit)
            assert any(self._is_held(commit, membership) for membership in memberships), (
                f"leader {node.node_id} committed {commit}, but durable are only {self._durable} "
                f"({'; '.join(each.describe() for each in memberships)})"
            )

    def _is_held(self, index: Index, membership: Membership) -> bool:
        halves = [half for half in (membership.voters, membership.outgoing) if half]
        return all(2 * sum(self._durable.get(voter, 0) >= index for voter in half) > len(half) for half in halves)


class AppliedIsCommitted(Check):
    """Nothing is applied that is not committed."""

    def look_at(self, node: Node) -> None:
        if node.raft.installing is None:
            assert node.applier.applied_index <= node.raft.commit_index, (
                f"node {node.node_id} applied {node.applier.applied_index} of {node.raft.commit_index} committed"
            )


class AppliedNeverGoesBack(Check):
    """While a process runs, its state only goes forward, also by an installed snapshot (F62)."""

    def __init__(self) -> None:
        self._applied: dict[tuple[NodeId, int], Index] = {}

    def look_at(self, node: Node) -> None:
        place = (node.node_id, node.opened.vote.boot)
        before, now = self._applied.get(place, 0), node.applier.applied_index
        assert now >= before, f"node {node.node_id} went back from {before} to {now} applied entries"
        self._applied[place] = now


class SnapshotsAreTheState(Check):
    """A snapshot is the state at exactly its index: its digest and chain are those that replicas had there (F61)."""

    def __init__(self, digests: DigestsAgree, committed: CommittedIsForever) -> None:
        self._digests, self._committed = digests, committed

    def look_at(self, node: Node) -> None:
        for snapshot in node.opened.snapshots.list():
            digest = self._digests.digests.setdefault(snapshot.index, snapshot.digest)
            assert digest == snapshot.digest, f"node {node.node_id}: the snapshot at {snapshot.id} is another state"
            chain = self._committed.chains.setdefault(snapshot.index, snapshot.chain)
            assert chain == snapshot.chain, f"node {node.node_id}: the snapshot at {snapshot.id} is of another log"


class MembershipsAgree(Check):
    """At the same committed index all nodes have the same membership (§6)."""

    def __init__(self) -> None:
        self._memberships: dict[Index, object] = {}

    def look_at(self, node: Node) -> None:
        log, commit = node.raft.log, node.raft.commit_index
        if commit >= max(log.start.index, 1):
            membership = log.membership_at(commit)
            if not membership.voters:
                return  # it joined, and has not come to the first entry that says who the members are
            other = self._memberships.setdefault(commit, membership)
            assert other == membership, f"node {node.node_id} has another membership at {commit}"


class QueuesAreBounded(Check):
    """A node never keeps more than its settings allow (F34)."""

    def look_at(self, node: Node) -> None:
        config = node.body.config
        assert node.engine.waiting <= 2 * config.waiting_requests_max
        for member in node.raft.membership.members:
            queued = node.transport.queued_bytes(member.node_id)
            assert queued <= 2 * config.peer_frame_bytes_max + 4096, f"{queued} bytes wait for node {member.node_id}"


class FollowersAreNotAheadOfTheirMatch(Check):
    """A leader's idea of what a follower holds is never more than the follower has durably (§5.3).

    Except for what has rotted as if a crash had torn it: a majority of the others holds that.
    """

    def look(self, cluster: SimCluster) -> None:
        nodes = {node.node_id: node for node in working(cluster)}
        for node in nodes.values():
            role = node.raft.role
            if not isinstance(role, Leader):
                continue
            for peer, progress in role.progress.items():
                other = nodes.get(peer)
                if other is None or cluster.nodes[peer].harm is Harm.ROT_AT_THE_END:
                    continue
                if other.raft.term != node.raft.term or other.raft.installing is not None:
                    continue
                held = other.opened.log.durable_index
                assert progress.match_index <= held, (
                    f"node {peer} holds {held}, its leader counts {progress.match_index}"
                )


class NobodyStopsWithoutAReason(Check):
    """A node stops by itself only if the world has harmed its files or disk, or if it was really removed."""

    def __init__(self, *allowed: type[BaseException]) -> None:
        self._allowed: tuple[type[BaseException], ...] = (DiskError, *allowed)
        self._removed: set[NodeId] = set()
        """By entries that were committed somewhere."""

    def look(self, cluster: SimCluster) -> None:
        for each in working(cluster):
            self._removed |= set(each.raft.committed_membership[1].removed)
        for sim in cluster.nodes.values():
            node = sim.node
            if node is not None and isinstance(node.failure, NodeRemoved):
                raft = node.raft
                known = self._removed | set(raft.committed_membership[1].removed)
                assert sim.node_id in known, f"node {sim.node_id} was not removed, and ended: {node.failure}"
            elif node is not None and node.failure is not None:
                is_harmed = sim.harm not in (None, Harm.COPIED)
                allowed = (*self._allowed, NodeStopped) if is_harmed else self._allowed
                assert isinstance(node.failure, allowed), f"node {sim.node_id} stopped: {node.failure!r}"


class ImpostorsHaveNoSay(Check):
    """A node that comes back with other files than those with which the others know it never leads or campaigns (F20).

    Without pre-vote it does campaign, because it asks no other node before; but its requests are refused.
    """

    def look(self, cluster: SimCluster) -> None:
        impostors = [sim for sim in cluster.nodes.values() if sim.is_impostor]
        for sim in [*impostors, *cluster.copies]:
            if sim.node is not None:
                role, pre_vote = sim.node.raft.role, sim.node.raft.config.pre_vote
                assert not isinstance(role, Leader | Candidate if pre_vote else Leader), (
                    f"node {sim.node_id}, with its {sim.harm or Harm.COPIED}, is {role}"
                )


class StrangersAndMistakesAreRefused(Check):
    """Strangers are never let in, and wrong orders are never carried out (F23, F47, F49, F57)."""

    def look(self, cluster: SimCluster) -> None:
        assert not cluster.wrongs, cluster.wrongs[0]


class NothingFailsUnseen(Check):
    """No task or callback has raised an error that was never read."""

    def look(self, cluster: SimCluster) -> None:
        failures = getattr(cluster.loop, "failures", [])
        assert not failures, f"{failures[0].get('message')}: {failures[0].get('exception')!r}"


def all_checks() -> list[Check]:
    """A new instance of every check."""
    committed, digests = CommittedIsForever(), DigestsAgree()
    return [
        CoreInvariants(),
        ElectionSafety(),
        TermNeverGoesBack(),
        VoteNeverChanges(),
        committed,
        LogMatching(),
        LeaderCompleteness(committed),
        CommitIsDurableOnAMajority(),
        AppliedIsCommitted(),
        AppliedNeverGoesBack(),
        digests,
        VersionsAgree(),
        SnapshotsAreTheState(digests, committed),
        SnapshotsHoldWhatTheySay(),
        TheLogIsCoveredBySnapshots(),
        TheCoreKnowsTheDisk(),
        DurableIsDurable(),
        TheStateSaysWhatIsApplied(),
        SessionsAgree(),
        TablesAreInStep(),
        MembershipsAgree(),
        QueuesAreBounded(),
        FollowersAreNotAheadOfTheirMatch(),
        NobodyStopsWithoutAReason(),
        ImpostorsHaveNoSay(),
        StrangersAndMistakesAreRefused(),
        NothingFailsUnseen(),
    ]
