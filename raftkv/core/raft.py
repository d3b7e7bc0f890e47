"""One node's Raft: its state, its transitions, and the way from inputs to `Ready`.

What the RPCs do is in `election`, `replication`, `reads`, `changes` and `snapshots`; what they share,
and every change of role, is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftkv.config import RaftConfig
from raftkv.core import changes, clocks, election, reads, replication, snapshots
from raftkv.core.durability import Durability
from raftkv.core.log import LogView
from raftkv.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Message,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.core.pending import Pending
from raftkv.core.progress import Flow, Progress
from raftkv.core.quorum import is_quorum, reached_by_quorum
from raftkv.core.ready import Ready
from raftkv.core.roles import Campaigner, Candidate, Follower, Impatient, Joined, Leader, Learner, PreCandidate, Role
from raftkv.entry import Entry, make_entries
from raftkv.errors import Busy, ChangeRefused, InvalidArgument, NotLeader, PeerError, SafetyViolation, unreachable
from raftkv.model import EntryKind, HardState, Index, Membership, NodeId, SnapshotMeta, Term

PATIENCE_TIMEOUTS = 2
"""Election time-outs; the others' own time-outs are over by then, and a first election that failed, too."""


class Raft:
    """Raft as a function of its inputs: call a method, then take `ready()`, and do what it says.

    Invariants (checked by `core.invariants` in every simulated step):
    - `log.start.index` ≤ `snapshot.index` ≤ `applied_index` ≤ `commit_index` ≤ `log.last_index`
      (a node whose state was lost has `applied_index` < `log.start.index` until a snapshot is installed);
    - `term` and `commit_index` never go back; `vote` changes only with the term, or from nobody;
    - at most one leader in a term; what is committed is never removed.

    Nothing here reads a clock, a disk, a socket or dice: time is `tick`, chance is `draw`.
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
        """Whether this node's disk is not nearly full: else others shall lead, if they can."""
        self.durability = Durability(log.last_index, hard_state.term)
        self.pending = Pending(log.last_index)
        # A promise given to a leader before a restart is not remembered, so with leases it is kept blindly.
        self.promise_ticks = config.election_ticks if config.lease_reads else 0
        """For so long nobody gets this node's vote, whatever it knows of a leader."""
        self.now_ms = 0
        """The wall clock, as it was told last; 0 before that."""
        self.monotonic_ms = 0
        """A clock that nobody sets, as it was told with it."""
        self.clock_doubts = 0
        """How often this node began to doubt its own clock while it led …"""
        self.last_clock_doubt: clocks.ClockDoubt | None = None
        """… and why, the last time."""
        if applied_index > log.last_index:
            raise SafetyViolation(f"node {node_id}: the state is at {applied_index}, its log ends at {log.last_index}")
        self.role: Role = self._passive_role(None)

    # ------------------------------------------------------------------------------ what is known

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

    def __repr__(self) -> str:
        return f"<Raft {self.describe()}>"

    # ------------------------------------------------------------------------------ inputs: time and chance

    def observe(self, now_ms: int, monotonic_ms: int | None = None) -> None:
        """What the wall clock shows now, and a clock that only goes on (any zero); to be told before each input that
        comes after a while, so that the two are of one moment. Without the second it stands still."""
        self.now_ms = now_ms
        if monotonic_ms is not None:
            self.monotonic_ms = monotonic_ms

    def tick(self, now_ms: int | None = None, monotonic_ms: int | None = None) -> None:
        """One unit of time has passed; the clocks are those of `observe`."""
        if now_ms is not None:
            self.observe(now_ms, monotonic_ms)
        if self.promise_ticks > 0:
            self.promise_ticks -= 1
        role = self.role
        if isinstance(role, Leader):
            self._tick_leader(role)
            return
        role.elapsed += 1
        if isinstance(role, Impatient) and role.elapsed >= role.timeout + self._patience(role):
            self.campaign()
        elif not isinstance(role, Campaigner) and role.reads:
            reads.expire(self, role.reads)

    def _patience(self, role: Impatient) -> int:
        """For how much longer than its time-out a voter without room leaves the election to the others.

        Long enough that any of them can win, had it two tries; not for ever, for when they all are without room, or
        too far behind, somebody has to lead.
        """
        if self.has_room or not isinstance(role, Follower):
            return 0
        return PATIENCE_TIMEOUTS * self.config.election_ticks

    def _tick_leader(self, role: Leader) -> None:
        role.tick += 1
        if role.transfer is not None:
            role.transfer.elapsed += 1
            if role.transfer.elapsed >= self.config.transfer_ticks:
                role.transfer = None  # it failed or is unknown; either way writes go on (thesis §3.10)
        if role.tick % self.config.heartbeat_ticks == 0:
            if self.config.check_quorum and not self._hears_quorum(role):
                self.become_follower(self.term, None)
                return
            clocks.judge(self, role)
            self._broadcast_heartbeat(role)
            return
        for peer, progress in role.progress.items():
            # A follower learns of a commit with the next append; when there is none, within a tick.
            if progress.flow is Flow.REPLICATE and progress.sent_commit < self.commit_index:
                replication.send_heartbeat(self, role, peer, progress)

    def _hears_quorum(self, role: Leader) -> bool:
        """Whether a quorum was heard within an election time-out: else another leader may exist (thesis §6.2)."""

        def contact(node: NodeId) -> int:
            return role.tick if node == self.node_id else role.progress[node].contact_tick

        return role.tick - reached_by_quorum(self.membership, contact) < self.config.election_ticks

    def _broadcast_heartbeat(self, role: Leader) -> None:
        role.round += 1
        if self.config.lease_reads:
            role.round_ticks.append((role.round, role.tick))
        for peer, progress in role.progress.items():
            progress.probe_sent = False
            snapshots.offer_wanted(self, role, peer, progress)
            replication.send_entries(self, role, peer, progress)
            if progress.sent_round < role.round:
                replication.send_heartbeat(self, role, peer, progress)
        if self.config.lease_reads:
            reads.confirm(self, role)  # nobody's answer does, when this node is the only voter
        if role.transfer is not None:
            election.continue_transfer(self)

    def peer_lost(self, peer: NodeId, *, campaigns: bool = True) -> None:
        """The connection to `peer` broke: a hint that its process died, not a proof.

        Unless it `campaigns`, a follower of it waits out its time-out, but has a vote for others at once.
        """
        role = self.role
        if isinstance(role, Leader):
            progress = role.progress.get(peer)
            if progress is not None and progress.flow is Flow.REPLICATE:
                progress.become_probe(progress.match_index + 1)
                progress.probe_sent = True
        elif not isinstance(role, Campaigner) and role.leader == peer and not self.config.lease_reads:
            role.leader_lost = True
            if campaigns and self.has_room and isinstance(role, Follower):
                # A pre-vote soon instead of after the whole time-out; those who still hear the leader refuse it. All
                # followers notice at the same moment, so each has its turn, or they would split the vote.
                turn = self.config.peer_lost_ticks
                role.timeout = min(role.timeout, role.elapsed + 1 + self._rank() * turn + self._draw(turn))

    def campaign(self) -> None:
        """Start an election now, as a time-out would. Nothing happens on a node that may not lead."""
        election.campaign(self)

    def heir(self) -> NodeId | None:
        """The voter to which this leader should leave its place while its own disk is nearly full; None: there is none.

        It has answered in this term and within an election time-out, has room, and little to catch up with.
        """
        return election.heir(self)

    def step_down(self) -> None:
        """Give up leadership by oneself (a disk that hangs), and ask the best follower to take over."""
        if isinstance(self.role, Leader):
            changes.hand_over(self, self.role)

    # ------------------------------------------------------------------------------ inputs: messages

    def step(self, message: Message) -> None:
        """Take in one message. Raises `PeerError` for one that no correct peer sends."""
        if message.to != self.node_id:
            raise PeerError(f"a message for node {message.to} came to node {self.node_id}")
        if message.term > self.term:
            if not self._take_higher_term(message):
                return
        elif message.term < self.term:
            self._answer_lower_term(message)
            return
        match message:
            case AppendEntries():
                replication.on_append_entries(self, message)
            case AppendReply():
                replication.on_append_reply(self, message)
            case RequestVote():
                election.on_request_vote(self, message)
            case RequestVoteReply():
                election.on_request_vote_reply(self, message)
            case InstallSnapshot():
                snapshots.on_install_snapshot(self, message)
            case TimeoutNow():
                election.on_timeout_now(self, message)
            case ReadIndex():
                reads.on_read_index(self, message)
            case ReadIndexReply():
                reads.on_read_index_reply(self, message)
            case _:
                raise unreachable(message)

    def _take_higher_term(self, message: Message) -> bool:
        """A newer term is taken over at once (§5.1), with the exceptions that keep it from being abused."""
        match message:
            case RequestVote():
                return True  # whether this term counts is decided with the vote
            case RequestVoteReply(pre_vote=True, granted=True):
                return True  # it repeats the term that a pre-candidate asked for
            case AppendEntries() | InstallSnapshot():
                self.become_follower(message.term, message.sender)
            case _ if not self._knows(message.sender):
                return False  # a node that was removed must not depose anybody
            case _:
                self.become_follower(message.term, None)
        return True

    def _knows(self, node: NodeId) -> bool:
        role = self.role
        return node in self.membership.all_nodes() or (isinstance(role, Leader) and node in role.progress)

    def _answer_lower_term(self, message: Message) -> None:
        """Who asks with an old term is told of the newer one, and so steps down (§5.1)."""
        if isinstance(message, AppendEntries | InstallSnapshot):
            self.reply(
                AppendReply(
                    sender=self.node_id, to=message.sender, term=self.term, round=0, match_index=0, rejected=True
                )
            )
        elif isinstance(message, RequestVote):
            self.reply(
                RequestVoteReply(
                    sender=self.node_id, to=message.sender, term=self.term, granted=False, pre_vote=message.pre_vote
                )
            )

    # ------------------------------------------------------------------------------ inputs: requests

    def propose(self, payloads: Sequence[bytes], now_ms: int, monotonic_ms: int | None = None) -> tuple[Index, Index]:
        """Append commands (the clocks are those of `observe`); returns the first and the last index that they got.

        An entry is committed when the log's entry at that index is still of this term once `Ready.committed`
        reaches it. Raises `NotLeader`, `Busy` (too much is uncommitted, or leadership is being transferred)
        or `InvalidArgument` (one is too large); then none was appended.
        """
        role = self.require_leader()
        if role.transfer is not None:
            raise Busy(f"leadership is being transferred to node {role.transfer.target}")
        size = 0
        for payload in payloads:
            size += len(payload)
            if len(payload) > self.config.entry_bytes_max:
                raise InvalidArgument(
                    f"a command of {len(payload)} bytes: at most {self.config.entry_bytes_max} are allowed"
                )
        uncommitted = self.log.bytes_between(self.commit_index, self.log.last_index)
        if uncommitted and uncommitted + size > self.config.uncommitted_bytes_max:
            raise Busy(f"{uncommitted} bytes wait to be committed, at most {self.config.uncommitted_bytes_max} may")
        self.observe(now_ms, monotonic_ms)
        return self.append_payloads(EntryKind.COMMAND, payloads)

    def reset_clock(self) -> Index:
        """Let log time begin anew at what the clocks say now, even if it is ahead of them; returns the entry's index.

        Where no majority of the clocks agrees this leader's own is taken for right. Raises `NotLeader`, `Busy`.
        """
        role = self.require_leader()
        if (transfer := role.transfer) is not None:
            raise Busy(f"leadership is being transferred to node {transfer.target}")
        clocks.judge(self, role)
        clocks.declare(self, role)
        return self._append(EntryKind.CLOCK, [b""], clocks.stamp(self, role))[0]

    def read(self, token: int) -> None:
        """Ask for a linearizable read: `Ready.reads` names `token` and the index that it must wait for.

        A node must not use a token twice, not even after a restart: a late answer would be taken for the new one.
        Raises `NotLeader` when no leader is known, `Busy` when too many wait.
        """
        reads.read(self, token)

    def change_membership(self, target: Membership, unmet: Sequence[NodeId] = ()) -> Index:
        """Change to the voters, learners and addresses of `target` (its `outgoing` and `removed` are ignored).

        Whom it leaves out never comes back, but for learners that never answered and that nobody has met (`unmet`).

        Raises `NotLeader`, `ChangeRefused`, `NotCaughtUp` or `InvalidArgument`. The change is done when
        `membership` is no longer joint and `log.membership_index` is committed.
        """
        return changes.change(self, target, unmet)

    def check_membership(self, target: Membership) -> None:
        """Raise at once what can be said of a change to `target` before anybody is asked; nothing is changed."""
        changes.check(self, target)

    def transfer_leadership(self, to: NodeId) -> None:
        """Ask `to` to lead (thesis §3.10); given up after `transfer_ticks`. Raises `NotLeader`, `ChangeRefused`."""
        election.start_transfer(self, to)

    # ------------------------------------------------------------------------------ inputs: what was done

    def persisted(self, write: int) -> None:
        """Everything of write number `write` (`Ready.write`) and of all before it is durable."""
        if not self.durability.persisted(write):
            return
        role = self.role
        if isinstance(role, Leader):
            # The leader counts itself only here: its own entry may be the last one to become durable.
            replication.maybe_commit(self, role)
        elif isinstance(role, Candidate) and self.durability.term == self.term:
            role.votes[self.node_id] = True
            election.count_votes(self)

    def applied(self, index: Index) -> None:
        """The state has applied everything up to `index`."""
        assert self.applied_index <= index <= self.handed_index, (
            f"applied {index} is not in [{self.applied_index}, {self.handed_index}]"
        )
        self.applied_index = index

    def snapshot_taken(self, snapshot: SnapshotMeta) -> None:
        """`snapshot` is durable on this node's disk and verified."""
        assert snapshot.index <= self.applied_index, f"snapshot {snapshot.index} is ahead of {self.applied_index}"
        if self.snapshot is None or snapshot.index > self.snapshot.index:
            self.snapshot = snapshot

    def compact(self, index: Index) -> None:
        """Forget the log up to and with `index`. Raises `ChangeRefused` unless a durable snapshot covers it."""
        if not snapshots.compactable(self, index):
            raise ChangeRefused(f"the log can't be cut behind {index}: no durable snapshot covers it")
        if index > self.log.start.index:
            self.log.compact(index)

    def snapshot_installed(self) -> None:
        """The snapshot of `Ready.snapshot` is durable, and is the state and the log's start now."""
        snapshots.installed(self)

    def snapshot_failed(self) -> None:
        """The snapshot of `Ready.snapshot` could not be installed; the log and state are as before."""
        self.installing = None

    def snapshot_sent(self, peer: NodeId, ok: bool) -> None:
        """The transfer that an `InstallSnapshot` in `Ready.messages` began has ended."""
        snapshots.on_sent(self, peer, ok)

    @property
    def snapshot_wanted(self) -> bool:
        """A follower needs a newer snapshot than there is: take one."""
        role = self.role
        if not isinstance(role, Leader):
            return False
        newest = self.snapshot.index if self.snapshot is not None else -1
        return any(p.wanted_index is not None and p.wanted_index > newest for p in role.progress.values())

    # ------------------------------------------------------------------------------ output

    def ready(self) -> Ready | None:
        """What is to be done now, or None when there is nothing."""
        role = self.role
        if isinstance(role, Leader) and (role.appended or role.reads_waiting):
            self._flush(role)
        committed = None
        if self.commit_index > self.handed_index and not self.wants_snapshot and self.installing is None:
            last = min(self.commit_index, self.durability.index)
            if last > self.handed_index:
                committed = (self.handed_index + 1, last)
                self.handed_index = last
        if committed is None and self.pending.is_empty():
            return None
        return self.pending.take(self.durability, self.term, self.log.last_index, committed)

    @property
    def has_output(self) -> bool:
        """Whether there may be something to be done now; when not, `ready` is None."""
        role = self.role
        return (
            not self.pending.is_empty()
            or self.handed_index < self.commit_index
            or (isinstance(role, Leader) and (role.appended or bool(role.reads_waiting)))
        )

    def _flush(self, role: Leader) -> None:
        """Turn what was appended and asked into messages: once for all proposals since the last Ready."""
        round_begun = reads.start(self, role)
        if role.appended:
            role.appended = False
            for peer, progress in role.progress.items():
                replication.send_entries(self, role, peer, progress)
        if round_begun:
            for peer, progress in role.progress.items():
                if progress.sent_round < role.round:
                    replication.send_heartbeat(self, role, peer, progress)
            reads.confirm(self, role)

    # ------------------------------------------------------------------------------ shared by the RPCs

    def reply(self, message: Message) -> None:
        """Send an answer that speaks of nothing but the term: at once, if that can't be forgotten any more."""
        durable = self.durability.term >= self.term
        (self.pending.messages if durable else self.pending.durable_messages).append(message)

    def send_heartbeat(self, peer: NodeId) -> None:
        role = self.require_leader()
        replication.send_heartbeat(self, role, peer, role.progress[peer])

    def grant_vote(self, candidate: NodeId) -> None:
        """Vote for `candidate` in this term: once (§5.2)."""
        assert self.vote is None, f"n{self.node_id} has voted for {self.vote} in term {self.term}"
        self.vote = candidate
        self.pending.hard_state = HardState(self.term, self.vote)

    def append_payloads(self, kind: EntryKind, payloads: Sequence[bytes]) -> tuple[Index, Index]:
        """Append the leader's own entries; their time never goes back along the log, whatever the clocks say."""
        return self._append(kind, payloads, max(clocks.stamp(self, self.require_leader()), self.log.last_time_ms))

    def _append(self, kind: EntryKind, payloads: Sequence[bytes], time_ms: int) -> tuple[Index, Index]:
        log = self.log
        first = log.last_index + 1
        self.append_entries(make_entries(first, self.term, time_ms, kind, payloads, log.last_chain))
        self.require_leader().appended = True
        return first, log.last_index

    def append_entries(self, entries: Sequence[Entry]) -> None:
        """Append entries to the log and to the next write."""
        membership_changed = self.log.extend(entries)
        self.pending.append(entries)
        if membership_changed:
            self.membership_changed()

    def truncate_from(self, index: Index) -> None:
        """Remove entries that conflict with the leader's (§5.3); what is committed never does."""
        if index <= self.commit_index:
            raise SafetyViolation(
                f"node {self.node_id}: the leader of term {self.term} conflicts with entry "
                f"{index}@{self.log.term(index)}, which is committed (up to {self.commit_index})"
            )
        rolled_back = self.log.truncate_from(index)
        self.durability.truncated_from(index)
        self.pending.truncate(index)
        if rolled_back:
            self.membership_changed()

    def commit_to(self, index: Index) -> None:
        """Everything up to `index` is committed; nothing happens when that is known."""
        if index <= self.commit_index:
            return
        assert index <= self.log.last_index, f"commit {index} is past the log's end {self.log.last_index}"
        before, self.commit_index = self.commit_index, index
        role = self.role
        if isinstance(role, Leader):
            changes.on_commit(self, role)
        elif self.log.has_membership_between(before, index):
            self.membership_changed()  # whoever it leaves out need not campaign any more

    def membership_changed(self) -> None:
        """The newest membership in the log is another one now; it is in force at once (§6)."""
        role = self.role
        if isinstance(role, Leader):
            for node in self.membership.all_nodes():
                if node != self.node_id and node not in role.progress:
                    role.progress[node] = self._new_progress(role.tick)
            role.progress = dict(sorted(role.progress.items()))
        elif not isinstance(role, Campaigner):
            fitting = self._passive_role(role.leader)
            if type(fitting) is not type(role):
                fitting.elapsed, fitting.leader_lost, fitting.reads = role.elapsed, role.leader_lost, role.reads
                self.role = fitting

    # ------------------------------------------------------------------------------ transitions

    def _passive_role(self, leader: NodeId | None) -> Joined | Learner | Follower:
        """The role of one who does not campaign now: what it is, the membership says."""
        if self.is_needed_as_voter():
            return Follower(leader=leader, timeout=self._draw_timeout())
        if self.node_id in self.membership.learners:
            return Learner(leader=leader)
        return Joined(leader=leader)

    def is_needed_as_voter(self) -> bool:
        """Whether this node is a voter, or was one until a change that may not be committed yet.

        A node that its newest membership leaves out may be the only one whose log is long enough to be
        elected, so it campaigns until that membership is committed (thesis §4.2.2).
        """
        return any(m.is_voter(self.node_id) for m in self.log.memberships_since(self.commit_index))

    def _rank(self) -> int:
        """This node's place among the voters: it keeps equal draws from meeting for ever."""
        voters = self.membership.all_voters()
        return voters.index(self.node_id) if self.node_id in voters else 0

    def _draw_timeout(self) -> int:
        """From [T, 2T), so that elections seldom collide (§5.2)."""
        ticks = self.config.election_ticks
        return ticks + self._draw(ticks) + self._rank()

    def draw_pre_vote_timeout(self) -> int:
        """Pre-votes disturb nobody, so they may be repeated well before an election time-out is over."""
        heartbeat = self.config.heartbeat_ticks
        return heartbeat + self._draw(2 * heartbeat) + self._rank()

    def _new_progress(self, tick: int) -> Progress:
        config = self.config
        return Progress(self.log.last_index + 1, tick, config.inflight_messages_max, config.inflight_bytes_max)

    def follow(self, leader: NodeId) -> None:
        """A message of this term's leader has come: it is alive, and nobody else is leader in this term."""
        role = self.role
        if isinstance(role, Follower) and role.leader == leader and not role.leader_lost:
            role.elapsed = 0
            return
        if isinstance(role, Leader) or (not isinstance(role, Campaigner) and role.leader not in (None, leader)):
            raise SafetyViolation(f"node {self.node_id}: {self.leader} and {leader} both lead in term {self.term}")
        if isinstance(role, Campaigner):
            self.become_follower(self.term, leader)
            return
        if isinstance(role, Follower) and (role.leader is None or role.leader_lost):
            role.timeout = self._draw_timeout()  # what was left of a shorter one was for a time without a leader
        role.leader = leader
        role.leader_lost = False
        role.elapsed = 0

    def become_follower(self, term: Term, leader: NodeId | None) -> None:
        """Follow `leader`, or wait for one, in `term` (§5.1); as a learner or guest where the membership says so."""
        assert term >= self.term, f"term {term} is behind {self.term}"
        reads.drop_all(self)
        if isinstance(self.role, Leader):
            self.pending.forget_appends()
        self._keep_promise()
        if term > self.term:
            self.term = term
            self.vote = None  # a vote belongs to its term, and is never cleared within it
            self.pending.hard_state = HardState(self.term, self.vote)
        before, self.role = self.role, self._passive_role(leader)
        if leader is None and isinstance(before, Follower) and isinstance(self.role, Follower):
            # A newer term alone does not restart the clock (§5.2): else candidates that can't win, but keep
            # raising the term, would keep the one that could from ever standing.
            self.role.elapsed, self.role.timeout = before.elapsed, before.timeout

    def _keep_promise(self) -> None:
        """With leases, an old leader reads alone for as long as this node has promised not to vote: the promise was
        given when the leader was heard, and no newer term, whoever tells of it, takes it back (thesis §6.4.1)."""
        role = self.role
        if not self.config.lease_reads or isinstance(role, Leader | PreCandidate | Candidate) or role.leader is None:
            return
        self.promise_ticks = max(self.promise_ticks, self.config.election_ticks - role.elapsed)

    def become_pre_candidate(self) -> None:
        """Ask, before disturbing anyone, whether an election could be won (thesis §9.6). Term and vote stay."""
        assert not isinstance(self.role, Leader), "a leader does not campaign"
        assert self.is_needed_as_voter(), f"n{self.node_id} has no vote"
        reads.drop_all(self)
        self.role = PreCandidate(timeout=self.draw_pre_vote_timeout(), votes={self.node_id: True})

    def become_candidate(self, *, transfer: bool) -> None:
        """Raise the term and vote for oneself; that vote counts when it is durable (§5.2)."""
        assert not isinstance(self.role, Leader), "a leader does not campaign"
        assert self.is_needed_as_voter(), f"n{self.node_id} has no vote"
        reads.drop_all(self)
        self.term += 1
        self.vote = self.node_id
        self.pending.hard_state = HardState(self.term, self.vote)
        self.role = Candidate(timeout=self._draw_timeout(), transfer=transfer)

    def become_leader(self) -> None:
        """Lead this term, beginning with a no-op, so that what older terms left can be committed (§8)."""
        role = self.role
        assert isinstance(role, Candidate), f"a {type(role).__name__} cannot become leader"
        assert self.vote == self.node_id, f"n{self.node_id} has voted for {self.vote}"
        assert is_quorum(self.membership, [voter for voter, yes in role.votes.items() if yes]), f"{role.votes}"
        peers = [node for node in self.membership.all_nodes() if node != self.node_id]
        leader = self.role = Leader(
            term_start=self.log.last_index + 1,
            progress={peer: self._new_progress(0) for peer in peers},
        )
        for peer, offset_ms in role.clocks.items():
            if peer in leader.progress:
                leader.progress[peer].clock_offset_ms = offset_ms
                leader.progress[peer].clock_told_ms = self.monotonic_ms
        # Before the first entry: a new leader may be the one whose clock is wrong.
        clocks.judge(self, leader)
        self.append_payloads(EntryKind.NOOP, [b""])
