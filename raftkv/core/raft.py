"""From inputs to `Ready`: each input is a method, and leaves decisions to the rules.

What a node knows is in `raftstate`; the rules are listed, from the top down, in the docstring of this package.
"""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.core import (
    appends,
    changes,
    clocks,
    election,
    handover,
    reads,
    replication,
    snapshots,
    tail,
    transitions,
)
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
from raftkv.core.progress import Flow
from raftkv.core.quorum import reached_by_quorum
from raftkv.core.raftstate import RaftState
from raftkv.core.ready import Ready
from raftkv.core.roles import Campaigner, Candidate, Follower, Impatient, Leader
from raftkv.errors import Busy, ChangeRefused, InvalidArgument, PeerError, unreachable
from raftkv.model import EntryKind, Index, Membership, NodeId, SnapshotMeta

PATIENCE_TIMEOUTS = 2
"""In election time-outs: by then the others' own time-outs are over, and also a first election that failed."""

FORGOTTEN_TIMEOUTS = 2
"""After so many election time-outs of silence a node that may not campaign knows of no leader: others campaign then."""


class Raft(RaftState):
    """Raft as a function of its inputs: call a method, then take `ready()`, and do what it says.

    Nothing here reads a clock, a disk, a socket or dice: time is `tick`, chance is `draw`.
    """

    def __repr__(self) -> str:
        return f"<Raft {self.describe()}>"

    def observe(self, now_ms: int, monotonic_ms: int | None = None) -> None:
        """Tell what the wall clock shows now, and a monotonic clock (with any zero). Call it before each input that
        comes after a while, so that both are of one moment. Without `monotonic_ms` that clock stands still."""
        self.now_ms = now_ms
        if monotonic_ms is not None:
            self.monotonic_ms = monotonic_ms

    def tick(self, now_ms: int | None = None, monotonic_ms: int | None = None) -> None:
        """One unit of time has passed; the arguments are those of `observe`."""
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
            role = self.role
        if isinstance(role, Campaigner | Leader):
            return
        forgotten = role.elapsed >= FORGOTTEN_TIMEOUTS * self.config.election_ticks
        if forgotten and not election.may_campaign(self):
            role.leader = None  # who does not campaign would believe in it for ever
        if role.reads:
            reads.expire(self, role.reads)

    def _patience(self, role: Impatient) -> int:
        """How many ticks beyond its time-out a voter without room leaves the election to the others.

        Long enough that any of them can win, even on its second try; not for ever, because when all others have no
        room either, or are too far behind, somebody must lead.
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
                transitions.become_follower(self, self.term, None)
                return
            clocks.judge(self, role)
            appends.broadcast(self, role)
            return
        for peer, progress in role.progress.items():
            # The next append tells a follower of a commit; when there is none, it hears within a tick.
            if progress.flow is Flow.REPLICATE and progress.sent_commit < self.commit_index:
                appends.send_heartbeat(self, role, peer, progress)

    def _hears_quorum(self, role: Leader) -> bool:
        """Whether a quorum was heard within an election time-out: else another leader may exist (thesis §6.2)."""

        def contact(node: NodeId) -> int:
            return role.tick if node == self.node_id else role.progress[node].contact_tick

        return role.tick - reached_by_quorum(self.membership, contact) < self.config.election_ticks

    def peer_lost(self, peer: NodeId, *, campaigns: bool = True) -> None:
        """The connection to `peer` broke: a hint that its process died, not a proof.

        A follower of `peer` campaigns soon. With `campaigns` false it waits out its time-out, but may vote for others.
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
                # Ask for pre-votes soon instead of after the whole time-out; nodes that still hear the leader refuse.
                role.timeout = min(role.timeout, role.elapsed + 1 + self.draw_turn())

    def campaign(self) -> None:
        """Start an election now, as a time-out would. Nothing happens on a node that may not lead."""
        election.campaign(self)

    def heir(self) -> NodeId | None:
        """The voter to which this leader should hand over while its own disk is nearly full; None when there is none.

        That voter has answered in this term and within an election time-out, has room, and is nearly caught up.
        """
        return handover.heir(self)

    def step_down(self) -> None:
        """Give up leadership of one's own accord (the disk hangs), and ask the best follower to take over."""
        if isinstance(self.role, Leader):
            handover.hand_over(self, self.role)

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
                transitions.become_follower(self, message.term, message.sender)
            case _ if not self._knows(message.sender):
                return False  # a node that was removed must not depose anybody
            case _:
                transitions.become_follower(self, message.term, None)
        return True

    def _knows(self, node: NodeId) -> bool:
        role = self.role
        return node in self.membership.all_nodes() or (isinstance(role, Leader) and node in role.progress)

    def _answer_lower_term(self, message: Message) -> None:
        """A node that asks with an old term is told of the newer one, and so steps down (§5.1)."""
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

    def propose(self, payloads: Sequence[bytes], now_ms: int, monotonic_ms: int | None = None) -> tuple[Index, Index]:
        """Append commands; returns the first and the last index that they got. The clocks are as in `observe`.

        An entry is committed when the log's entry at that index is still of this term once `Ready.committed`
        reaches it. Raises `NotLeader`, `Busy` (too much is uncommitted, or leadership is being transferred)
        or `InvalidArgument` (one is too large); then none was appended.
        """
        self._require_proposer()
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
        return tail.append_payloads(self, EntryKind.COMMAND, payloads)

    def _require_proposer(self) -> Leader:
        """This leader's role, unless it is handing over: an entry made meanwhile would be one more to wait for."""
        role = self.require_leader()
        if role.transfer is not None:
            raise Busy(f"leadership is being transferred to node {role.transfer.target}")
        return role

    def reset_clock(self) -> Index:
        """Let log time begin anew at what the clocks say now, even if it is ahead of them; returns the entry's index.

        Where no majority of the clocks agrees, this leader's own is taken as right. Raises `NotLeader`, `Busy`.
        """
        role = self._require_proposer()
        clocks.judge(self, role)
        clocks.declare(self, role)
        role.told_ms = 0
        return tail.append_at(self, EntryKind.CLOCK, [b""], clocks.stamp(self, role))[0]

    def propose_upgrade(self, payload: bytes) -> Index:
        """Append an `EntryKind.UPGRADE` with this payload; returns its index. Raises `NotLeader`, `Busy`."""
        self._require_proposer()
        return tail.append_payloads(self, EntryKind.UPGRADE, [payload])[0]

    def entry_time_ms(self) -> int:
        """The time of an entry that this leader would append now. Raises `NotLeader`."""
        return tail.entry_time_ms(self)

    def present_ms(self) -> int:
        """The same, to be told to queries: no entry that this leader appends from now on has an earlier one."""
        time_ms = tail.entry_time_ms(self)
        self.require_leader().told_ms = time_ms
        return time_ms

    def propose_due(self, payload: bytes) -> Index:
        """Append an `EntryKind.DUE` with this payload; returns its index. Raises `NotLeader`, `Busy`."""
        self._require_proposer()
        return tail.append_payloads(self, EntryKind.DUE, [payload])[0]

    def read(self, token: int) -> None:
        """Ask for a linearizable read: `Ready.reads` names `token` and the index that it must wait for.

        A node must not use a token twice, not even after a restart: a late answer would be taken for the new one.
        Raises `NotLeader` when no leader is known, `Busy` when too many wait.
        """
        reads.read(self, token)

    def change_membership(self, target: Membership, unmet: Sequence[NodeId] = ()) -> Index:
        """Change to the voters, learners and addresses of `target` (its `outgoing` and `removed` are ignored).

        A node that it leaves out never comes back, but for learners that never answered and that nobody has met
        (`unmet`).

        Raises `NotLeader`, `ChangeRefused`, `NotCaughtUp` or `InvalidArgument`. The change is done when
        `membership` is no longer joint and `log.membership_index` is committed.
        """
        return changes.change(self, target, unmet)

    def check_membership(self, target: Membership) -> None:
        """Raise what `change_membership` would raise for `target` without looking at its voters. Changes nothing."""
        changes.check(self, target)

    def transfer_leadership(self, to: NodeId) -> None:
        """Ask `to` to lead (thesis §3.10), for at most `transfer_ticks`. Raises `NotLeader`, `ChangeRefused`."""
        handover.start_transfer(self, to)

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

    @property
    def needed_behind(self) -> Index | None:
        """Behind which index followers that are there still need entries; None when this node does not lead."""
        return snapshots.needed_behind(self)

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

    def ready(self) -> Ready | None:
        """What to do now; None when there is nothing."""
        role = self.role
        if isinstance(role, Leader) and (role.appended or role.reads_waiting):
            appends.flush(self, role)
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
        """Whether there may be something to do now; when false, `ready` gives None."""
        role = self.role
        return (
            not self.pending.is_empty()
            or self.handed_index < self.commit_index
            or (isinstance(role, Leader) and (role.appended or bool(role.reads_waiting)))
        )
