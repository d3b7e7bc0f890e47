"""Every state that a small cluster can reach: breadth-first over the real core.

Three nodes, a bounded number of terms and commands, any order of messages, any of them lost (a lost
message is one that is never taken), writes that finish late, and crashes that lose what was not
written. A node's transition depends on its own state and the input alone, since the core is a pure
function: so each one is computed once, and a state of the whole cluster is a tuple of small numbers.
"""

from __future__ import annotations

import pickle
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from raftkv.config import RaftConfig
from raftkv.core import invariants
from raftkv.core.log import LogView
from raftkv.core.messages import AppendEntries, AppendReply, Message, RequestVoteReply
from raftkv.core.raft import Raft
from raftkv.entry import Entry
from raftkv.errors import NotAccepted
from raftkv.model import HardState, Membership

NODES = (1, 2, 3)

State: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], int, int]


def no_chance(n: int) -> int:
    """The draw of a world without chance."""
    return 0


@dataclass
class _Node:
    """A node at rest between two inputs: its core, its log, what is durable, and writes under way."""

    raft: Raft
    entries: list[Entry] = field(default_factory=list)
    durable: list[Entry] = field(default_factory=list)
    hard_state: HardState = field(default_factory=HardState)
    writes: list[tuple[int, HardState | None, int | None, list[Entry], list[Message]]] = field(default_factory=list)


@dataclass(frozen=True)
class View:
    """What the safety properties need to know of a node's state."""

    term: int
    leads: bool
    committed: tuple[int, ...]
    """Chain values of the committed entries."""
    log: tuple[int, ...]


class Transitions:
    """Node states and messages as numbers, and what leads from one to the other."""

    def __init__(self, config: RaftConfig, *, late_writes: bool) -> None:
        self.config = config
        self.late_writes = late_writes
        self.frozen: list[bytes] = []
        self.views: list[View] = []
        self._keys: dict[tuple[object, ...], int] = {}
        self.messages: list[Message] = []
        self._message_ids: dict[bytes, int] = {}
        self._memo: dict[tuple[int, int], tuple[int, tuple[int, ...]] | None] = {}
        self.computed = 0

    def start(self, node_id: int) -> int:
        membership = Membership.of(NODES)
        raft = Raft(node_id=node_id, config=self.config, draw=no_chance, log=LogView(membership=membership))
        return self._freeze(_Node(raft))

    def apply(self, state: int, action: int) -> tuple[int, tuple[int, ...]] | None:
        """Node state and messages sent after `action`: a message's number, or one of the negative actions.

        None when the action is not possible.
        """
        found = self._memo.get((state, action), 0)
        if found == 0:
            found = self._memo[(state, action)] = self._compute(state, action)
        return found  # type: ignore[return-value]

    def _compute(self, state: int, action: int) -> tuple[int, tuple[int, ...]] | None:
        self.computed += 1
        node: _Node = pickle.loads(self.frozen[state])  # noqa: S301 (our own)
        sent: list[Message] = []
        if action == CRASH:
            log = LogView(membership=Membership.of(NODES))
            if node.durable:
                log.extend(node.durable)
            raft = Raft(
                node_id=node.raft.node_id, config=self.config, draw=no_chance, hard_state=node.hard_state, log=log
            )
            node = _Node(raft, list(node.durable), list(node.durable), node.hard_state)
        elif action == PERSIST:
            if not node.writes:
                return None
            self._persist(node, sent)
        elif action == CAMPAIGN:
            if node.raft.is_leader:
                return None
            node.raft.campaign()
        elif action == PROPOSE:
            try:
                node.raft.propose([b"%d" % node.raft.term], 0)
            except NotAccepted:
                return None
        else:
            node.raft.step(self.messages[action])
        self._settle(node, sent)
        return self._freeze(node), tuple(sorted({self._message(message) for message in sent}))

    def _persist(self, node: _Node, sent: list[Message]) -> None:
        number, hard_state, cut, entries, messages = node.writes.pop(0)
        if hard_state is not None:
            node.hard_state = hard_state
        if cut is not None:
            del node.durable[cut - 1 :]
        node.durable += entries
        sent += messages
        node.raft.persisted(number)

    def _settle(self, node: _Node, sent: list[Message]) -> None:
        raft = node.raft
        while (ready := raft.ready()) is not None:
            if ready.truncate_from is not None:
                del node.entries[ready.truncate_from - 1 :]
            node.entries += ready.entries
            if ready.must_persist or ready.durable_messages:
                node.writes.append(
                    (ready.write, ready.hard_state, ready.truncate_from, ready.entries, ready.durable_messages)
                )
            for message in ready.messages:
                if isinstance(message, AppendEntries):
                    message.entries = node.entries[message.prev_index : message.last_index]
                sent.append(message)
            if ready.committed is not None:
                raft.applied(ready.committed[1])
            while node.writes and not self.late_writes:
                self._persist(node, sent)
        invariants.check(raft)

    def _message(self, message: Message) -> int:
        key = msgspec.msgpack.encode(message)
        number = self._message_ids.get(key)
        if number is None:
            number = self._message_ids[key] = len(self.messages)
            self.messages.append(message)
        return number

    def _freeze(self, node: _Node) -> int:
        key = canonical(node)
        number = self._keys.get(key)
        if number is None:
            number = self._keys[key] = len(self.frozen)
            self.frozen.append(pickle.dumps(node, pickle.HIGHEST_PROTOCOL))
            raft = node.raft
            chains = tuple(entry.chain for entry in node.entries)
            self.views.append(View(raft.term, raft.is_leader, chains[: raft.commit_index], chains))
        return number


CRASH, PERSIST, CAMPAIGN, PROPOSE = -1, -2, -3, -4


def canonical(node: _Node) -> tuple[object, ...]:
    """Everything that a node's future depends on, with write numbers counted from the last one done."""
    raft = node.raft
    role = raft.role
    role_key: tuple[object, ...] = (type(role).__name__, raft.leader)
    if hasattr(role, "votes"):
        role_key += (tuple(sorted(role.votes.items())),)
    if hasattr(role, "progress"):
        role_key += tuple(
            (
                peer,
                p.flow.value,
                p.match_index,
                p.next_index,
                p.probe_sent,
                p.inflight_count,
                p.sent_commit,
            )
            for peer, p in role.progress.items()
        )
    return (
        raft.node_id,
        raft.term,
        raft.vote,
        role_key,
        raft.commit_index,
        raft.handed_index,
        raft.durability.index,
        raft.durability.term,
        tuple(entry.chain for entry in node.entries),
        tuple(entry.chain for entry in node.durable),
        node.hard_state.term,
        node.hard_state.vote,
        tuple(
            (
                number - raft.durability.done,
                hard_state is not None and (hard_state.term, hard_state.vote),
                cut,
                tuple(e.chain for e in entries),
                tuple(map(repr, messages)),
            )
            for number, hard_state, cut, entries, messages in node.writes
        ),
    )


@dataclass
class Result:
    """What a search found."""

    states: int = 0
    node_states: int = 0
    transitions: int = 0
    depth: int = 0
    complete: bool = False
    seconds: float = 0.0
    committed_most: int = 0
    leaders: set[tuple[int, int]] = field(default_factory=set)


def check(views: list[View]) -> None:
    """The safety properties of Figure 3, in one state of the cluster."""
    leaders = [view for view in views if view.leads]
    terms = [view.term for view in leaders]
    assert len(set(terms)) == len(terms), f"Election Safety: two leaders in one of the terms {terms}"
    longest = max((view.committed for view in views), key=len)
    for view in views:
        assert longest[: len(view.committed)] == view.committed, "State Machine Safety: committed logs differ"
    newest = max(view.term for view in views)
    for view in leaders:
        if view.term == newest:
            assert view.log[: len(longest)] == longest, "Leader Completeness: a leader lacks what is committed"


class Search:
    """A search through the states of the whole cluster: breadth-first, then walks that go deep.

    A state is (the nodes' states, the messages on their way, commands left, crashes left).
    """

    def __init__(self, *, terms: int = 2, commands: int = 2, crashes: int = 1, late_writes: bool = True) -> None:
        """With `late_writes` a write may be done at any later time; without, at once, which leaves fewer
        orders of things and so lets the same number of states reach much deeper."""
        config = RaftConfig(pre_vote=False, check_quorum=False)
        self.transitions = Transitions(config, late_writes=late_writes)
        self.terms = terms
        begin: State = (tuple(self.transitions.start(node) for node in NODES), (), commands, crashes)
        self.seen = {hash(begin)}
        self.frontier: deque[tuple[State, int]] = deque([(begin, 0)])
        self.result = Result()
        self._checked: set[tuple[int, ...]] = set()

    def breadth_first(self, states_max: int) -> None:
        """Visit the nearest states first, until there are no more or `states_max` were seen."""
        started = time.perf_counter()
        while self.frontier and len(self.seen) < states_max:
            state, depth = self.frontier.popleft()
            self.result.depth = max(self.result.depth, depth)
            for successor in self.successors(state):
                if self._visit(successor):
                    self.frontier.append((successor, depth + 1))
        self._note(started)

    def walk(self, walks: int, chance: random.Random) -> None:
        """Go on from states at the edge by chance until nothing is possible any more, `walks` times."""
        started = time.perf_counter()
        edge = list(self.frontier)
        for _ in range(walks if edge else 0):
            state, depth = chance.choice(edge)
            while successors := list(self.successors(state)):
                state = chance.choice(successors)
                depth += 1
                self._visit(state)
            self.result.depth = max(self.result.depth, depth)
        self._note(started)

    def successors(self, state: State) -> Iterator[State]:
        """Every state that one step leads to."""
        nodes, messages, commands, crashes = state
        views, transitions = self.transitions.views, self.transitions
        steps = [(action, transitions.messages[action].to - 1) for action in messages]
        for at in range(len(NODES)):
            view = views[nodes[at]]
            steps.append((PERSIST, at))
            if view.term < self.terms:
                steps.append((CAMPAIGN, at))
            if commands and view.leads:
                steps.append((PROPOSE, at))
            if crashes:
                steps.append((CRASH, at))
        for action, at in steps:
            outcome = transitions.apply(nodes[at], action)
            if outcome is None:
                continue
            self.result.transitions += 1
            node, sent = outcome
            left = {*messages, *sent}
            if action >= 0 and action not in sent:
                left.discard(action)
            changed = (*nodes[:at], node, *nodes[at + 1 :])
            kept = tuple(sorted(number for number in left if not self._is_void(changed, number)))
            yield changed, kept, commands - (action == PROPOSE), crashes - (action == CRASH)

    def _is_void(self, nodes: tuple[int, ...], number: int) -> bool:
        """A reply of an older term is ignored now and for ever, so it need not be told apart."""
        message = self.transitions.messages[number]
        is_reply = isinstance(message, AppendReply | RequestVoteReply)
        return is_reply and message.term < self.transitions.views[nodes[message.to - 1]].term

    def _visit(self, state: State) -> bool:
        number = hash(state)
        if number in self.seen:
            return False
        self.seen.add(number)
        nodes = state[0]
        if nodes not in self._checked:
            self._checked.add(nodes)
            views = [self.transitions.views[node] for node in nodes]
            check(views)
            self.result.committed_most = max(self.result.committed_most, *(len(view.committed) for view in views))
            self.result.leaders.update((view.term, at) for at, view in enumerate(views, 1) if view.leads)
        return True

    def _note(self, started: float) -> None:
        self.result.states, self.result.node_states = len(self.seen), len(self.transitions.frozen)
        self.result.complete = not self.frontier
        self.result.seconds += time.perf_counter() - started
