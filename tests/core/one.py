"""One core by hand: messages in, Ready out, for tests that quote the paper."""

from __future__ import annotations

from raftkv.config import RaftConfig
from raftkv.core.log import LogView
from raftkv.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    ReadIndex,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.core.raft import Raft
from raftkv.entry import make_entry
from raftkv.model import EntryKind, HardState, Membership, SnapshotMeta

SETTINGS = {"election_ticks": 10, "heartbeat_ticks": 2, "transfer_ticks": 10, "peer_lost_ticks": 2}


def entries_of(terms, start=1, prev_chain=0, kind=EntryKind.COMMAND):
    """Entries with these terms, from index `start` on."""
    entries = []
    for at, term in enumerate(terms):
        entry = make_entry(start + at, term, 0, kind, f"{start + at}@{term}".encode(), prev_chain)
        entries.append(entry)
        prev_chain = entry.chain
    return entries


class One:
    """A core with its log, whose writes are done when the test says so (`take`) or not (`take(persist=False)`)."""

    def __init__(
        self, terms=(), *, node_id=1, voters=(1, 2, 3), learners=(), term=None, vote=None, draw=lambda n: 0, **settings
    ):
        self.log = entries_of(terms)
        view = LogView(membership=Membership.of(tuple(voters), tuple(learners)))
        if self.log:
            view.extend(self.log)
        term = max([*terms, 0]) if term is None else term
        self.raft = Raft(
            node_id=node_id,
            config=RaftConfig(**{**SETTINGS, **settings}),
            draw=draw,
            hard_state=HardState(term, vote),
            log=view,
        )
        self.sent = []
        self.committed = []
        self.reads = {}
        self.dropped = []
        self.hard_states = []
        self.snapshot = None
        self.appended = []
        self.truncated = None
        self.waiting = []

    def take(self, persist=True):
        """Handle every Ready; returns what was sent."""
        self.sent = []
        while (ready := self.raft.ready()) is not None:
            if ready.hard_state is not None:
                self.hard_states.append(ready.hard_state)
            if ready.truncate_from is not None:
                self.truncated = ready.truncate_from
                self.log = [entry for entry in self.log if entry.index < ready.truncate_from]
            self.log = self.log + ready.entries
            self.appended += ready.entries
            for message in ready.messages:
                self._send(message)
            if ready.must_persist or ready.durable_messages:
                self.waiting.append(ready)
            if ready.committed is not None:
                first, last = ready.committed
                self.committed += [entry.index for entry in self.log if first <= entry.index <= last]
                self.raft.applied(last)
            self.reads.update(ready.reads)
            self.dropped += ready.reads_dropped
            self.snapshot = ready.snapshot or self.snapshot
            if persist:
                self._persist()
        if persist:
            self._persist()
        return self.sent

    def persist(self):
        """The disk is done with everything; returns what may be sent now."""
        self.sent = []
        self._persist()
        return [*self.sent, *self.take()]

    def _persist(self):
        waiting, self.waiting = self.waiting, []
        for ready in waiting:
            for message in ready.durable_messages:
                self._send(message)
            self.raft.persisted(ready.write)

    def _send(self, message):
        if isinstance(message, AppendEntries):
            message.entries = [e for e in self.log if message.prev_index < e.index <= message.last_index]
        self.sent.append(message)

    def step(self, message, persist=True):
        """Give it a message; returns what it sends."""
        self.raft.step(message)
        return self.take(persist)

    def tick(self, count=1):
        """Let time pass; returns what it sends in all."""
        sent = []
        for _ in range(count):
            self.raft.tick(0)
            sent += self.take()
        return sent

    @property
    def role(self):
        return type(self.raft.role).__name__

    @property
    def terms(self):
        return [entry.term for entry in self.log]

    def hear(self, leader=2, term=None, prev=None, terms=(), commit=0, round=0, persist=True, chain=None, start=None):
        """An AppendEntries of `leader`: entries of `terms` behind (index, term) `prev` (default: behind the log)."""
        term = self.raft.term if term is None else term
        index, prev_term = prev if prev is not None else (self.raft.log.last_index, self.raft.log.last_term)
        own = self.raft.log
        if chain is None:
            known = own.start.index <= index <= own.last_index and own.term(index) == prev_term
            chain = own.chain(index) if known else 12345
        entries = entries_of(terms, index + 1, chain)
        last = index + len(entries)
        message = AppendEntries(leader, self.raft.node_id, term, index, prev_term, chain, last, commit, round, entries)
        return self.step(message, persist)

    def asked(self, candidate=2, term=None, last=None, pre_vote=False, transfer=False, persist=True):
        """A RequestVote of `candidate` whose log ends with (index, term) `last` (default: like ours)."""
        term = self.raft.term + 1 if term is None else term
        index, last_term = last if last is not None else (self.raft.log.last_index, self.raft.log.last_term)
        message = RequestVote(candidate, self.raft.node_id, term, index, last_term, pre_vote, transfer)
        return self.step(message, persist)

    def voted(self, *voters, granted=True, pre_vote=False, term=None):
        """Answers to a RequestVote."""
        sent = []
        for voter in voters:
            at = term if term is not None else self.raft.term + (1 if pre_vote else 0)
            sent += self.step(RequestVoteReply(voter, self.raft.node_id, at, granted, pre_vote))
        return sent

    def holds(self, follower, match, round=0, term=None, **more):
        """A follower's AppendReply."""
        term = self.raft.term if term is None else term
        return self.step(AppendReply(follower, self.raft.node_id, term, round, match, **more))

    def lead(self):
        """Win an election, with all nodes voting for it."""
        others = [voter for voter in self.raft.membership.all_voters() if voter != self.raft.node_id]
        self.raft.campaign()
        self.take()
        if self.role == "PreCandidate":
            self.voted(*others, pre_vote=True)
        if self.role == "Candidate":
            self.voted(*others)
        assert self.role == "Leader", self.raft.describe()
        return self

    def settle(self, *followers):
        """Lead with an established term: `followers` hold everything, and it is committed."""
        for follower in followers:
            self.holds(follower, self.raft.log.last_index)
        return self

    def propose(self, *commands, now_ms=0):
        self.raft.propose([command.encode() for command in commands], now_ms)
        return self.take()

    def forward(self, follower, token):
        return self.step(ReadIndex(follower, self.raft.node_id, self.raft.term, token))

    def offered(self, leader, meta, term=None):
        return self.step(InstallSnapshot(leader, self.raft.node_id, self.raft.term if term is None else term, meta))

    def told_to_lead(self, leader, term=None):
        return self.step(TimeoutNow(leader, self.raft.node_id, self.raft.term if term is None else term))


def meta(index, term, chain=999, voters=(1, 2, 3), learners=()):
    """A snapshot's description."""
    return SnapshotMeta(index, term, chain, 0, Membership.of(tuple(voters), tuple(learners)))


def kinds(messages):
    """The kinds of messages, for short assertions."""
    return [type(message).__name__ for message in messages]


def of(kind, messages):
    """Those of one kind."""
    return [message for message in messages if isinstance(message, kind)]
