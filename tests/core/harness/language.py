"""The language of scenarios: one command a line, read aloud; each answers with what it led to.

Setting up: `config NAME=VALUE …`, `cluster 3 [learners 1]`, `node 4`, `log 2 1 1 2` (terms), `term 2 5 [vote 1]`,
`boot`. Driving: `tick 1 [5]`, `elapse 5`, `campaign 1`, `elect 1`, `propose 1 x y`, `read 1 r1`,
`change 1 voters 1 2 learners 3`, `transfer 1 2`, `peer-lost 2 1`, `step-down 1`.
Network: `deliver [1->2] [3|#2]`, `drop 1->2 [all|#2]`, `duplicate 1->2 [#2]`, `hold 1->2`, `release 1->2`,
`cut 1->2`, `partition 1 | 2 3`, `isolate 1`, `heal`.
Disks: `slow 1`, `fast 1`, `persist 1 [2]`, `crash 1 [keep 2] [applied 3]`, `restart 1`, `lose-state 1`.
Snapshots: `snapshot 1`, `compact 1 [5]`, `slow-install 2`, `install 2 [fails]`, `sent 1 2 fails`.
Looking: `status [1]`, `messages`, `show 1`. Demanding: `expect …` (see `expectations`),
`refused ERROR: COMMAND`, `violation ERROR: COMMAND`, `nothing: COMMAND`.
"""

from __future__ import annotations

import re
from collections.abc import Callable



from raftkv.config import RaftConfig
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
from raftkv.entry import Entry, make_entry
from raftkv.errors import NodeStopped, RaftKVError
from raftkv.model import EntryKind, HardState, Membership, decode_membership
from tests.core.harness.expectations import Expectations
from tests.core.harness.storage import Node
from tests.core.harness.world import CoreWorld, Link

DEFAULTS = {"election_ticks": 10, "heartbeat_ticks": 2, "transfer_ticks": 10, "peer_lost_ticks": 1}
DELIVERIES_MAX = 20_000


class ScriptError(Exception):
    """A line that the language does not know."""


class Script:
    """A world and the words that drive it."""

    def __init__(self, draw: Callable[[int], int] = lambda n: 0) -> None:
        self.world = CoreWorld(RaftConfig(**DEFAULTS), draw)
        self.expectations = Expectations(self.world)

    def execute(self, line: str) -> list[str]:
        """Carry out one line; returns what it prints. Raises AssertionError when an expectation does not hold."""
        line = line.split("#", 1)[0].strip() if not re.search(r"#\d", line) else line.strip()
        for word, handler in (
            ("refused", self._refused),
            ("violation", self._violation),
            ("nothing", self._nothing),
        ):
            if line.startswith(word):
                return handler(line[len(word) :].strip())
        name, _, rest = line.partition(" ")
        if name == "expect":
            self.expectations.check(rest)
            return []
        method = getattr(self, "do_" + name.replace("-", "_"), None)
        if method is None:
            raise ScriptError(f"unknown command: {line}")
        output: list[str] | None = method(*rest.split())
        return output or []

    # ------------------------------------------------------------------------------ demands on commands

    def _refused(self, rest: str) -> list[str]:
        name, _, command = rest.partition(":")
        try:
            self.execute(command.strip())
        except RaftKVError as exc:
            assert type(exc).__name__ == name.strip(), f"{command}: {type(exc).__name__} instead of {name}: {exc}"
            return [f"{name.strip()}: {exc}"]
        raise AssertionError(f"{command.strip()} was not refused")

    def _violation(self, rest: str) -> list[str]:
        name, _, command = rest.partition(":")
        try:
            self.execute(command.strip())
        except (NodeStopped, AssertionError) as exc:
            assert type(exc).__name__ == name.strip(), f"{command}: {type(exc).__name__} instead of {name}: {exc}"
            return [f"{name.strip()}: {str(exc).splitlines()[0]}"]
        raise AssertionError(f"{command.strip()} did not violate anything")

    def _nothing(self, rest: str) -> list[str]:
        """The command must not send or change anything that can be seen."""
        before = (self.do_status(), self.do_messages())
        output = self.execute(rest.removeprefix(":").strip())
        after = (self.do_status(), self.do_messages())
        assert before == after, f"{rest} changed {before} to {after}"
        return output

    # ------------------------------------------------------------------------------ setting up

    def do_config(self, *words: str) -> None:
        values: dict[str, int | bool | float] = {**DEFAULTS}
        for word in words:
            name, _, text = word.partition("=")
            values[name] = {"yes": True, "no": False}.get(text) if text in ("yes", "no") else float(text)  # type: ignore[assignment]
            if text not in ("yes", "no") and "." not in text:
                values[name] = int(text)
        self.world.config = RaftConfig(**values)  # type: ignore[arg-type]

    def do_cluster(self, size: str, learners_word: str = "learners", learners: str = "0") -> list[str]:
        """Nodes 1 to SIZE found a cluster as voters, the next ones as learners; they are started."""
        voters = tuple(range(1, int(size) + 1))
        more = tuple(range(int(size) + 1, int(size) + int(learners) + 1))
        membership = Membership.of(voters, more)
        for node_id in (*voters, *more):
            self.world.add(node_id, membership)
        return self.do_boot()

    def do_founders(self, size: str) -> None:
        """Like `cluster`, but not started: logs and terms can be laid out first."""
        for node_id in range(1, int(size) + 1):
            self.world.add(node_id, Membership.of(tuple(range(1, int(size) + 1))))

    def do_boot(self) -> list[str]:
        for node_id, node in sorted(self.world.nodes.items()):
            if not node.is_up:
                self.world.boot(node_id)
        return []

    def do_node(self, node_id: str) -> None:
        """A brand-new node that knows of no membership."""
        self.world.add(int(node_id))
        self.world.boot(int(node_id))

    def do_log(self, node_id: str, *terms: str) -> None:
        """Lay out a log on disk: one entry a term, as in Figure 7."""
        node = self.world.nodes[int(node_id)]
        chain = node.start.chain
        node.durable = []
        for index, term in enumerate(map(int, terms), 1):
            entry = make_entry(index, term, 0, EntryKind.COMMAND, f"{index}@{term}".encode(), chain)
            node.durable.append(entry)
            chain = entry.chain
        last = int(terms[-1]) if terms else 0
        node.hard_state = HardState(max(last, node.hard_state.term), node.hard_state.vote)
        self.world.checks.appended(node.durable)

    def do_term(self, node_id: str, term: str, vote_word: str = "vote", vote: str = "nobody") -> None:
        self.world.set_hard_state(int(node_id), HardState(int(term), None if vote == "nobody" else int(vote)))

    # ------------------------------------------------------------------------------ time and requests

    def do_tick(self, node_id: str, count: str = "1") -> None:
        self.world.tick(int(node_id), int(count))

    def do_elapse(self, count: str) -> None:
        """Time passes for everybody, and messages arrive at once."""
        for _ in range(int(count)):
            self.world.clock_ms += 1
            for node_id, node in sorted(self.world.nodes.items()):
                if node.is_up:
                    self.world.tick(node_id)
            self._deliver_all()

    def do_campaign(self, node_id: str) -> None:
        self.world.run(int(node_id), lambda raft: raft.campaign())

    def do_elect(self, node_id: str) -> list[str]:
        """Let followers forget their leader, then campaign and deliver everything, quietly."""
        for other, node in sorted(self.world.nodes.items()):
            if node.is_up and other != int(node_id) and not node.core.is_leader and node.core.leader is not None:
                leader = node.core.leader
                self.world.run(other, lambda raft, leader=leader: raft.peer_lost(leader))  # type: ignore[misc]
        self.do_campaign(node_id)
        self._deliver_all()
        node = self.world.nodes[int(node_id)]
        assert node.core.is_leader, f"node {node_id} was not elected: {node.core.describe()}"
        return [node.core.describe()]

    def do_propose(self, node_id: str, *commands: str) -> None:
        payloads = [command.encode() for command in commands]
        self.world.run(int(node_id), lambda raft: raft.propose(payloads, self.world.clock_ms))

    def do_clock(self, ms: str) -> None:
        self.world.clock_ms = int(ms)

    def do_read(self, node_id: str, name: str) -> None:
        self.world.read(int(node_id), name)

    def do_change(self, node_id: str, *words: str) -> None:
        groups: dict[str, list[int]] = {"voters": [], "learners": []}
        group = "voters"
        for word in words:
            if word in groups:
                group = word
            else:
                groups[group].append(int(word))
        target = Membership.of(tuple(groups["voters"]), tuple(groups["learners"]))
        self.world.run(int(node_id), lambda raft: raft.change_membership(target))

    def do_transfer(self, node_id: str, to: str) -> None:
        self.world.run(int(node_id), lambda raft: raft.transfer_leadership(int(to)))

    def do_peer_lost(self, node_id: str, peer: str) -> None:
        self.world.run(int(node_id), lambda raft: raft.peer_lost(int(peer)))

    def do_step_down(self, node_id: str) -> None:
        self.world.run(int(node_id), lambda raft: raft.step_down())

    # ------------------------------------------------------------------------------ network

    def do_deliver(self, *words: str) -> list[str]:
        """Everything until all is quiet, or one link's first messages, or one message by its place."""
        if not words:
            return self._deliver_all()
        link = _link(words[0])
        if len(words) > 1 and words[1].startswith("#"):
            return [self._deliver_one(link, int(words[1][1:]) - 1)]
        count = int(words[1]) if len(words) > 1 else len(self.world.queue(link))
        return [self._deliver_one(link) for _ in range(count)]

    def _deliver_all(self) -> list[str]:
        output = []
        for _ in range(DELIVERIES_MAX):
            links = self.world.deliverable()
            if not links:
                return output
            output.append(self._deliver_one(links[0]))
            if len(links) > 1:  # take turns, so that one busy link does not starve the others
                output += [self._deliver_one(link) for link in links[1:] if self.world.queue(link)]
        raise AssertionError(f"the network is not quiet after {DELIVERIES_MAX} messages")

    def _deliver_one(self, link: Link, at: int = 0) -> str:
        text = describe(self.world.queue(link)[at])
        self.world.deliver(link, at)
        return text

    def do_drop(self, link: str, which: str = "#1") -> list[str]:
        where = _link(link)
        if which == "all":
            return ["lost " + describe(self.world.drop(where)) for _ in range(len(self.world.queue(where)))]
        return ["lost " + describe(self.world.drop(where, int(which[1:]) - 1))]

    def do_duplicate(self, link: str, which: str = "#1") -> list[str]:
        """Deliver a message that stays on the link and will come again."""
        return [describe(self.world.deliver(_link(link), int(which[1:]) - 1, keep=True))]

    def do_hold(self, *links: str) -> None:
        self.world.held |= {_link(link) for link in links}

    def do_release(self, *links: str) -> None:
        self.world.held -= {_link(link) for link in links}

    def do_cut(self, *links: str) -> None:
        self.world.cut([_link(link) for link in links])

    def do_partition(self, *words: str) -> None:
        groups = [[int(word) for word in group.split()] for group in " ".join(words).split("|")]
        sides = {node: at for at, group in enumerate(groups) for node in group}
        pairs = [(a, b) for a in sides for b in sides if sides[a] != sides[b]]
        self.world.cut(pairs)

    def do_isolate(self, node_id: str) -> None:
        node, others = int(node_id), [other for other in self.world.nodes if other != int(node_id)]
        self.world.cut([link for other in others for link in ((node, other), (other, node))])

    def do_heal(self) -> None:
        self.world.cuts.clear()
        self.world.held.clear()

    # ------------------------------------------------------------------------------ disks and snapshots

    def do_slow(self, node_id: str) -> None:
        self.world.nodes[int(node_id)].slow = True

    def do_fast(self, node_id: str) -> None:
        self.world.nodes[int(node_id)].slow = False
        self.world.persist(int(node_id))

    def do_persist(self, node_id: str, count: str = "") -> None:
        self.world.persist(int(node_id), int(count) if count else None)

    def do_crash(self, node_id: str, *words: str) -> None:
        options = {words[at]: int(words[at + 1]) for at in range(0, len(words), 2)}
        self.world.crash(int(node_id), options.get("keep", 0), options.get("applied"))

    def do_restart(self, *node_ids: str) -> None:
        for node_id in node_ids:
            self.world.boot(int(node_id))

    def do_lose_state(self, node_id: str) -> None:
        self.world.nodes[int(node_id)].lose_state()

    def do_snapshot(self, node_id: str) -> list[str]:
        meta = self.world.snapshot(int(node_id))
        return [f"snapshot at {meta.id}, {meta.membership.describe()}"]

    def do_compact(self, node_id: str, index: str = "") -> None:
        node = self.world.nodes[int(node_id)]
        newest = node.snapshot.index if node.snapshot is not None else 0
        self.world.compact(int(node_id), int(index) if index else newest)

    def do_slow_install(self, node_id: str) -> None:
        self.world.nodes[int(node_id)].slow_install = True

    def do_install(self, node_id: str, fails: str = "") -> None:
        self.world.install(int(node_id), ok=fails != "fails")

    def do_sent(self, node_id: str, to: str, fails: str = "") -> None:
        self.world.run(int(node_id), lambda raft: raft.snapshot_sent(int(to), fails != "fails"))

    # ------------------------------------------------------------------------------ looking

    def do_status(self, node_id: str = "") -> list[str]:
        nodes = sorted(self.world.nodes.items())
        return [_describe_node(node) for at, node in nodes if not node_id or at == int(node_id)]

    def do_messages(self) -> list[str]:
        return [describe(message) for _, queue in sorted(self.world.links.items()) for message in queue]

    def do_show(self, node_id: str) -> list[str]:
        node = self.world.nodes[int(node_id)]
        entries = node.entries if node.is_up else node.durable
        start = f"start {node.start.index}@{node.start.term}: " if node.start.index else ""
        return [start + (" ".join(map(describe_entry, entries)) or "(empty)")]


def _link(text: str) -> Link:
    sender, arrow, to = text.partition("->")
    if not arrow:
        raise ScriptError(f"{text!r} is no link, such as 1->2")
    return int(sender), int(to)


def _describe_node(node: Node) -> str:
    if not node.is_up:
        hard = node.hard_state
        return f"n{node.node_id} down term={hard.term} vote={hard.vote} last={node.start.index + len(node.durable)}"
    return node.core.describe() + (f" writes={len(node.writes)}" if node.writes else "")


def describe_entry(entry: Entry) -> str:
    """`3@1:x`, a no-op as `3@1:-`, a membership in brackets."""
    if entry.kind == EntryKind.NOOP:
        return f"{entry.id}:-"
    if entry.kind == EntryKind.MEMBERSHIP:
        return f"{entry.id}:[{decode_membership(entry.payload).describe()}]"
    return f"{entry.id}:{entry.payload.decode()}"


def describe(message: Message) -> str:
    """A message as one line."""
    head = f"{message.sender}->{message.to} "
    at = f" @{message.term}"
    match message:
        case RequestVote():
            kind = "pre-vote?" if message.pre_vote else "vote?"
            extra = " transfer" if message.transfer else ""
            return f"{head}{kind} last={message.last_index}@{message.last_term}{extra}{at}"
        case RequestVoteReply():
            kind = "pre-vote" if message.pre_vote else "vote"
            return f"{head}{kind} {'granted' if message.granted else 'refused'}{at}"
        case AppendEntries():
            what = " ".join(map(describe_entry, message.entries)) or "heartbeat"
            return (
                f"{head}append {what} prev={message.prev_index}@{message.prev_term} commit={message.commit_index}{at}"
            )
        case AppendReply(rejected=True):
            return f"{head}rejects prev={message.prev_index} conflict={message.conflict_index}@{message.conflict_term}{at}"
        case AppendReply():
            wants = f" wants-snapshot>={message.conflict_index}" if message.wants_snapshot else ""
            return f"{head}holds {message.match_index}{wants}{at}"
        case InstallSnapshot():
            return f"{head}snapshot {message.snapshot.id}{at}"
        case TimeoutNow():
            return f"{head}timeout-now{at}"
        case ReadIndex():
            return f"{head}read?{at}"
        case ReadIndexReply():
            return f"{head}read at {message.index}{at}"


def to_lines(commands: list[str]) -> str:
    """Commands as a script file's text, ready to be saved under tests/core/scripts."""
    return "\n".join(commands) + "\n"


