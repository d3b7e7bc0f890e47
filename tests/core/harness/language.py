"""The language of scenarios: one command a line, read aloud; each answers with what it led to.

Setting up: `config NAME=VALUE …` (for nodes started from here on), `cluster 3 [learners 1]`, or, to lay things out
before the start, `founders 3 [learners 1]`, `log 2 1 1 2` (terms), `term 2 5 [vote 1]`, `boot`; `node 4` (a new one).
Driving: `tick 1 [5]`, `elapse 5`, `clock 7000`, `campaign 1`, `elect 1`, `propose 1 x y`, `read 1 r1`,
`change 1 voters 1 2 learners 3@host:1`, `transfer 1 2`, `peer-lost 2 1`, `step-down 1`.
Network: `deliver [1->2] [3|#2]`, `settle` (deliver all, quietly), `drop 1->2 [all|#2]`, `duplicate 1->2 [#2]`,
`hold 1->2`, `release 1->2`, `cut 1->2`, `partition 1 | 2 3`, `isolate 1`, `heal`, `forge …` (see `forgery`).
Disks: `slow 1`, `fast 1`, `persist 1 [2]`, `crash 1 [keep 2] [part 1] [applied 3]`, `restart 1`, `lose-state 1`.
Snapshots: `snapshot 1`, `compact 1 [5]`, `slow-install 2`, `install 2 [fails]`, `sent 1 2 [fails]`.
Looking: `status [1]`, `messages`, `show 1`. Demanding: `expect …` (see `expectations`),
`refused ERROR: COMMAND`, `violation ERROR: COMMAND`, `nothing: COMMAND`. `draws 3 1 4`: what chance gives, then 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

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
from raftkv.model import EntryKind, HardState, Member, Membership, decode_membership
from tests.core.harness.expectations import Expectations
from tests.core.harness.forgery import forged
from tests.core.harness.storage import Node
from tests.core.harness.world import CoreWorld, Link

DEFAULTS = {"election_ticks": 10, "heartbeat_ticks": 2, "transfer_ticks": 10, "peer_lost_ticks": 1}
DELIVERIES_MAX = 20_000


class ScriptError(Exception):
    """A line that the language does not know."""


class Script:
    """A world and the words that drive it."""

    def __init__(self) -> None:
        self._draws: Iterator[int] = iter(())
        self.world = CoreWorld(msgspec.convert(DEFAULTS, RaftConfig), lambda n: next(self._draws, 0))
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

    def do_config(self, *words: str) -> None:
        values: dict[str, int | float | bool] = {**DEFAULTS}
        for word in words:
            name, _, text = word.partition("=")
            values[name] = text == "yes" if text in ("yes", "no") else float(text) if "." in text else int(text)
        self.world.config = msgspec.convert(values, RaftConfig)

    def do_draws(self, *numbers: str) -> None:
        self._draws = iter([int(number) for number in numbers])

    def do_cluster(self, voters: str, _learners: str = "learners", learners: str = "0") -> None:
        """Nodes 1 to VOTERS found a cluster, the next ones as its learners; they are started."""
        self.world.found(int(voters), int(learners))
        self.do_boot()

    def do_founders(self, voters: str, _learners: str = "learners", learners: str = "0") -> None:
        """Like `cluster`, but not started: logs and terms can be laid out first."""
        self.world.found(int(voters), int(learners))

    def do_boot(self) -> None:
        for node_id, node in sorted(self.world.nodes.items()):
            if not node.is_up:
                self.world.boot(node_id)

    def do_node(self, node_id: str) -> None:
        """A brand-new node that knows of no membership."""
        self.world.join(int(node_id))

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

    def do_tick(self, node_id: str, count: str = "1") -> None:
        self.world.tick(int(node_id), int(count))

    def do_elapse(self, count: str) -> None:
        """Time passes for everybody, and messages arrive at once."""
        for _ in range(int(count)):
            self.world.set_clock(self.world.clock_ms + 1)
            for node_id, node in sorted(self.world.nodes.items()):
                if node.is_up:
                    self.world.tick(node_id)
            self._deliver_all()

    def do_clock(self, ms: str) -> None:
        self.world.set_clock(int(ms))

    def do_campaign(self, node_id: str) -> None:
        self.world.campaign(int(node_id))

    def do_elect(self, node_id: str) -> None:
        """Let followers forget their leader, then campaign and deliver everything, quietly."""
        for other, node in sorted(self.world.nodes.items()):
            if node.is_up and other != int(node_id) and not node.core.is_leader and node.core.leader is not None:
                self.world.peer_lost(other, node.core.leader)
        self.world.campaign(int(node_id))
        self._deliver_all()
        node = self.world.nodes[int(node_id)]
        assert node.core.is_leader, f"node {node_id} was not elected: {node.core.describe()}"

    def do_propose(self, node_id: str, *commands: str) -> None:
        self.world.propose(int(node_id), commands)

    def do_read(self, node_id: str, name: str) -> None:
        self.world.read(int(node_id), name)

    def do_change(self, node_id: str, *words: str) -> None:
        self.world.change(int(node_id), _membership(words))

    def do_transfer(self, node_id: str, to: str) -> None:
        self.world.transfer(int(node_id), int(to))

    def do_peer_lost(self, node_id: str, peer: str) -> None:
        self.world.peer_lost(int(node_id), int(peer))

    def do_step_down(self, node_id: str) -> None:
        self.world.step_down(int(node_id))

    def do_deliver(self, *words: str) -> list[str]:
        """Everything until all is quiet, or one link's first messages, or one message by its place."""
        if not words:
            return self._deliver_all()
        link = _link(words[0])
        if len(words) > 1 and words[1].startswith("#"):
            return [self._deliver_one(link, int(words[1][1:]) - 1)]
        count = int(words[1]) if len(words) > 1 else len(self.world.queue(link))
        return [self._deliver_one(link) for _ in range(count)]

    def do_settle(self) -> None:
        """Deliver everything until all is quiet, without a word."""
        self._deliver_all()

    def _deliver_all(self) -> list[str]:
        output: list[str] = []
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
        self.world.hold(map(_link, links))

    def do_release(self, *links: str) -> None:
        self.world.release(map(_link, links))

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
        self.world.heal()

    def do_forge(self, kind: str, link: str, *fields: str) -> list[str]:
        """A message that no core has sent goes on a link."""
        sender, to = _link(link)
        message = forged(kind, sender, to, dict(field.split("=") for field in fields))
        self.world.forge(message)
        return ["forged " + describe(message)]

    def do_slow(self, node_id: str) -> None:
        self.world.set_slow(int(node_id), True)

    def do_fast(self, node_id: str) -> None:
        self.world.set_slow(int(node_id), False)

    def do_persist(self, node_id: str, count: str = "") -> None:
        self.world.persist(int(node_id), int(count) if count else None)

    def do_crash(self, node_id: str, *words: str) -> None:
        options = {words[at]: int(words[at + 1]) for at in range(0, len(words), 2)}
        self.world.crash(int(node_id), options.get("keep", 0), options.get("part"), options.get("applied"))

    def do_restart(self, *node_ids: str) -> None:
        for node_id in node_ids:
            self.world.boot(int(node_id))

    def do_lose_state(self, node_id: str) -> None:
        self.world.lose_state(int(node_id))

    def do_snapshot(self, node_id: str) -> list[str]:
        meta = self.world.snapshot(int(node_id))
        return [f"snapshot at {meta.id}, {meta.membership.describe()}"]

    def do_compact(self, node_id: str, index: str = "") -> None:
        node = self.world.nodes[int(node_id)]
        newest = node.snapshot.index if node.snapshot is not None else 0
        self.world.compact(int(node_id), int(index) if index else newest)

    def do_slow_install(self, node_id: str) -> None:
        self.world.set_slow_install(int(node_id))

    def do_install(self, node_id: str, fails: str = "") -> None:
        self.world.install(int(node_id), ok=fails != "fails")

    def do_sent(self, node_id: str, to: str, fails: str = "") -> None:
        self.world.sent(int(node_id), int(to), fails != "fails")

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


def _membership(words: tuple[str, ...]) -> Membership:
    """`voters 1 2 3@host:7003 learners 4`."""
    groups: dict[str, list[int]] = {"voters": [], "learners": []}
    members = []
    group = groups["voters"]
    for word in words:
        if word in groups:
            group = groups[word]
            continue
        node_id, _, address = word.partition("@")
        group.append(int(node_id))
        members.append(Member(int(node_id), address))
    voters, learners = tuple(sorted(groups["voters"])), tuple(sorted(groups["learners"]))
    return Membership(voters=voters, learners=learners, members=tuple(sorted(members)))


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
            there = "has nothing there" if message.conflict_term is None else f"has term {message.conflict_term} there"
            return f"{head}rejects prev={message.prev_index}, {there}, try {message.conflict_index}{at}"
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
            return f"{head}read at {message.index if message.index is not None else 'no index'}{at}"
