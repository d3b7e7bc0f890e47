"""What a node knows: its term and vote, its log and how far it is durable, committed and applied, and its role.

The rules (`transitions`, `reads`, `replication`, `election`, …) take a `RaftState`, ask it, and change it; `Raft` adds
the inputs. Here are only the questions that the state answers by itself, and the changes that need no rule.
"""

from __future__ import annotations

from collections.abc import Callable

from raftkv.config import RaftConfig
from raftkv.core.durability import Durability
from raftkv.core.log import LogView
from raftkv.core.logclock import ClockDoubt
from raftkv.core.messages import Message
from raftkv.core.pending import Pending
from raftkv.core.roles import Campaigner, Follower, Joined, Leader, Learner, Role
from raftkv.errors import NotLeader, SafetyViolation
from raftkv.model import HardState, Index, Membership, NodeId, SnapshotMeta, Term


class RaftState:
    """The state of one node's Raft (Figure 2), and what waits to be handed out of it.

    Invariants (checked by `core.invariants` in every simulated step):
    - `log.start.index` ≤ `snapshot.index` ≤ `applied_index` ≤ `commit_index` ≤ `log.last_index`
      (a node whose state was lost has `applied_index` < `log.start.index` until a snapshot is installed);
    - `term` and `commit_index` never go back; `vote` changes only with the term, or from nobody;
    - at most one leader in a term; what is committed is never removed.
    """

    def __init__(
        self,
        *,
        node_id: NodeId,
        config: RaftConfig,
        draw: Callable[[int], int],
        hard_state: HardState = HardState(),
        log: LogView,
        applied_index: Index = 0,
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        """Start from what is durable.

        `draw(n)` gives a number from 0 to n - 1. `log` is all that is on disk; `snapshot` the newest local
        snapshot; `applied_index` what the state has applied. All that was applied was committed.
        """
        self.node_id = node_id
        self.config = config
        self._draw = draw
        self.term: Term = hard_state.term
        self.vote: NodeId | None = hard_state.vote
        self.log = log
        self.snapshot = snapshot
        self.applied_index = applied_index
        self.handed_index = applied_index
        """The last committed entry that was handed out to be applied."""
        self.commit_index: Index = max(applied_index, log.start.index)
        self.installing: SnapshotMeta | None = None
        """A snapshot that was handed out to be installed."""
        self.has_room = True
        """False while this node's disk is nearly full: then others lead if they can."""
        self.opening = b""
        """The payload of this node's first entry as a leader: it may found what the whole state is to begin with."""
        self.durability = Durability(log.last_index, hard_state.term)
        self.pending = Pending(log.last_index)
        # A restarted node has forgotten what it promised a leader, so with leases it acts as if it had promised.
        self.promise_ticks = config.election_ticks if config.lease_reads else 0
        """For so many ticks this node votes for nobody, whatever it knows of a leader."""
        self.now_ms = 0
        """What the wall clock showed when it was last told; 0 before that."""
        self.monotonic_ms = 0
        """What the monotonic clock showed at that moment."""
        self.clock_doubts = 0
        """How often this node began to doubt its own clock while it led …"""
        self.last_clock_doubt: ClockDoubt | None = None
        """… and why, the last time."""
        if applied_index > log.last_index:
            raise SafetyViolation(f"node {node_id}: the state is at {applied_index}, its log ends at {log.last_index}")
        self.role: Role = self.passive_role(None)

    @property
    def leader(self) -> NodeId | None:
        """The leader of this term as far as this node knows."""
        role = self.role
        if isinstance(role, Leader):
            return self.node_id
        return None if isinstance(role, Campaigner) else role.leader

    @property
    def is_leader(self) -> bool:
        return isinstance(self.role, Leader)

    @property
    def durable_index(self) -> Index:
        return self.durability.index

    @property
    def wants_snapshot(self) -> bool:
        """The state was lost and the log does not reach back far enough to rebuild it."""
        return self.applied_index < self.log.start.index

    @property
    def membership(self) -> Membership:
        return self.log.membership

    @property
    def committed_membership(self) -> tuple[Index, Membership]:
        """The newest membership that is known to be committed, and an index since which it is in force.

        A node that installs a snapshot may know of a commit before the beginning of its log.
        """
        return self.log.dated_membership(max(self.commit_index, self.log.start.index))

    def require_leader(self) -> Leader:
        """This node's leader role; `NotLeader` when it has none."""
        role = self.role
        if not isinstance(role, Leader):
            raise NotLeader(self.leader)
        return role

    def describe(self) -> str:
        """`n1@2 leader last=7@2 commit=6 applied=6 {2: 6→8}`, for logs, scripts and failures alike."""
        role = self.role
        words = [f"n{self.node_id}@{self.term}", type(role).__name__.lower()]
        if not isinstance(role, Leader) and self.leader is not None:
            words.append(f"of n{self.leader}")
        if self.vote is not None:
            words.append(f"vote={self.vote}")
        words.append(f"last={self.log.last_id}")
        if self.durable_index != self.log.last_index:
            words.append(f"durable={self.durable_index}")
        words += [f"commit={self.commit_index}", f"applied={self.applied_index}"]
        if self.log.start.index:
            words.append(f"start={self.log.start.index}")
        if isinstance(role, Leader):
            words.append("{" + ", ".join(f"{peer}: {progress!r}" for peer, progress in role.progress.items()) + "}")
            if role.transfer is not None:
                words.append(f"transfer→{role.transfer.target}")
        return " ".join(words)

    def is_needed_as_voter(self) -> bool:
        """Whether this node is a voter, or was one until a change that may not be committed yet.

        A node that its newest membership leaves out may be the only one whose log is long enough to be
        elected, so it campaigns until that membership is committed (thesis §4.2.2).
        """
        return any(m.is_voter(self.node_id) for m in self.log.memberships_since(self.commit_index))

    def remember(self, term: Term, vote: NodeId | None) -> None:
        """Set this node's term and vote; the next `Ready` has them written."""
        self.term = term
        self.vote = vote
        self.pending.hard_state = HardState(term, vote)

    def grant_vote(self, candidate: NodeId) -> None:
        """Vote for `candidate` in this term: once (§5.2)."""
        assert self.vote is None, f"n{self.node_id} has voted for {self.vote} in term {self.term}"
        self.remember(self.term, candidate)

    def reply(self, message: Message) -> None:
        """Send an answer that depends on nothing but the term: at once when the term is durable, else once it is."""
        durable = self.durability.term >= self.term
        (self.pending.messages if durable else self.pending.durable_messages).append(message)

    def passive_role(self, leader: NodeId | None) -> Joined | Learner | Follower:
        """The role of a node that does not campaign now, which depends on the membership."""
        if self.is_needed_as_voter():
            return Follower(leader=leader, timeout=self.draw_timeout())
        if self.node_id in self.membership.learners:
            return Learner(leader=leader)
        return Joined(leader=leader)

    def _rank(self) -> int:
        """This node's place among the voters: added to draws, so that two nodes don't draw the same again and again."""
        voters = self.membership.all_voters()
        return voters.index(self.node_id) if self.node_id in voters else 0

    def draw_timeout(self) -> int:
        """From [T, 2T), so that elections seldom collide (§5.2)."""
        ticks = self.config.election_ticks
        return ticks + self._draw(ticks) + self._rank()

    def draw_pre_vote_timeout(self) -> int:
        """Pre-votes disturb nobody, so they may be repeated well before an election time-out is over."""
        heartbeat = self.config.heartbeat_ticks
        return heartbeat + self._draw(2 * heartbeat) + self._rank()

    def draw_turn(self) -> int:
        """When all followers notice at once that the leader is gone, they ask for votes in turn, in order not to split
        them. Ticks until it is this node's turn."""
        ticks = self.config.peer_lost_ticks
        return self._rank() * ticks + self._draw(ticks)
