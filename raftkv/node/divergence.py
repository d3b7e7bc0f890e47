"""Compares replicas: equal index, equal digest, or somebody stops.

A follower tells the leader its digest about once a heartbeat, and the leader compares it with its own of that index.
Digests are chained: who agrees at an index agrees at every earlier one, and who differs does so for ever. The majority
of the voters decides who is wrong, and the leader may be the one (cockroach#837). What follows from a difference:

- The leader's side has a majority: the one that differs is told, and stops alone.
- Another side has one: the leader stops. Whoever is its successor finds the others that are wrong.
- No side can get one any more, whatever the silent voters hold (`NoMajority`; with two voters this is so at once): the
  leader tells everybody, and every node stops with `NoAgreement`. Nobody can tell which state is right.
- Otherwise it is not decided: a voter that is silent may be on either side. As long as that lasts, the leader asks
  everybody for the digest of one index, and tells clients nothing: it may be the one that is wrong. With three voters
  that is a round trip, or, when the third is down, until that is back: one that is down and one that is wrong are more
  than three nodes bear.

What this can't know: what a leader that is wrong had told its clients before, for about a heartbeat; and of a voter
that got its state as a snapshot from the leader, whether it would have come to the same by itself.
"""

from __future__ import annotations

from raftkv.core.messages import ReadIndex, ReadIndexReply
from raftkv.errors import Diverged, Indeterminate, NoAgreement, Unavailable
from raftkv.logs import EventLog
from raftkv.model import Index, NodeId
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.digests import DigestComparer, Doubt, Finding, NoMajority, Outlier
from raftkv.node.waiting import Commands, Queries
from raftkv.wire import DigestReport, DigestRequest, DivergedNotice, NoAgreementNotice

logger = EventLog(__name__)

TOLD_TIMES = 3
"""How often, a heartbeat apart, the leader says that nobody may go on, before it stops itself: a notice may get lost.
Who gets none of them finds no majority to serve with."""


class Divergence:
    """Reports this replica's digest to the leader; while it leads, judges what others report, and tells clients nothing
    as long as it may be wrong; and stops the node when it differs, or when nobody can tell who does."""

    def __init__(self, body: Body, applier: Applier, commands: Commands, queries: Queries) -> None:
        self._body = body
        self._applier = applier
        self._commands = commands
        self._queries = queries
        self.comparer = DigestComparer(body.node_id, lambda index: applier.runner.digest_at(index))
        self._reported: Index = 0
        self._ticks = 0
        self._doubted_ticks = 0
        self._found: NoMajority | None = None
        """That no state has a majority; then everybody is told, and this node stops."""
        self._tell_times = TOLD_TIMES

    def role_changed(self) -> None:
        """Another term or leader: others report to that."""
        if self._found is not None:
            self._stop_all(self._found)
            return
        self.comparer.clear()
        self._look()

    def forget(self, peer: NodeId) -> None:
        """Its process may have ended, and come back with another state."""
        self.comparer.forget(peer)

    def tick(self) -> None:
        """About once a heartbeat: tell the leader this replica's digest, when it has changed; or, as a leader in doubt,
        ask again."""
        raft = self._body.raft
        if raft.is_leader and self.comparer.asked is None:
            return
        self._ticks += 1
        self._doubted_ticks += 1
        if self._ticks < raft.config.heartbeat_ticks:
            return
        if raft.is_leader:
            self._ticks = 0
            self._go_on()
            return
        applied, leader = self._applier.runner.applied, raft.leader
        if leader is None or applied.index == self._reported:
            return
        self._ticks = 0
        self._reported = applied.index
        self._body.transport.send(leader, DigestReport(applied.index, applied.digest))

    def on_report(self, peer: NodeId, report: DigestReport) -> None:
        """A follower tells its digest: compare, and stop whoever is in the minority."""
        raft = self._body.raft
        if raft.is_leader and self._found is None:
            self._take(self.comparer.report(peer, report.index, report.digest, raft.membership))
            self._look()

    def on_request(self, peer: NodeId, request: DigestRequest) -> None:
        """The leader asks for the digest after one entry; who does not know it is asked again, for a newer one."""
        digest = self._applier.runner.digest_at(request.index)
        if digest is not None:
            self._body.transport.send(peer, DigestReport(request.index, digest))

    def refuses(self, peer: NodeId, read: ReadIndex) -> bool:
        """A follower asks where it may read: refused by a leader in doubt."""
        raft = self._body.raft
        if self._body.doubt is None or not raft.is_leader:
            return False
        refusal = ReadIndexReply(sender=raft.node_id, to=peer, term=raft.term, token=read.token, index=None)
        self._body.transport.send(peer, refusal)
        return True

    def told(self, index: Index) -> None:
        """This replica is in the minority at `index`."""
        node = self._body.node_id
        self._body.fail(
            Diverged(
                f"the state of node {node} differs from the others' at entry {index}: a command that is not "
                "deterministic, or damaged data. Keep a copy of its files, then start it with --rebuild; "
                "if it happens again, look for time, randomness or unordered iteration in the state machine's commands."
            )
        )

    def told_all(self, notice: NoAgreementNotice) -> None:
        """No state has a majority."""
        self._stop_all(NoMajority(notice.index, notice.sides, notice.agreed_index))

    def _take(self, finding: Finding | None) -> None:
        match finding:
            case Outlier(node=node, index=index):
                if node == self._body.node_id:
                    self.told(index)
                else:
                    self._body.transport.send(node, DivergedNotice(index))
                logger.error("replica_diverged", node=node, index=index)
            case NoMajority():
                logger.error("no_agreement", node=self._body.node_id, index=finding.index, sides=finding.sides)
                self._found = finding
                self._tell_all(finding)

    def _look(self) -> None:
        """Begin or end the doubt. While it is young, whoever waits goes on to wait: mostly it is over at once."""
        if self._body.failure is not None:
            return
        raft = self._body.raft
        doubt = self.comparer.doubt(raft.membership) if raft.is_leader else None
        if doubt is None:
            if self._body.doubt is not None and self._found is None:
                self._body.doubt = None
                self._applier.release()
                logger.warning("states_agree", node=raft.node_id)
            return
        begins = self._body.doubt is None
        self._body.doubt = _doubt_text(raft.node_id, doubt)
        if begins:
            self._applier.hold()
            self._ticks = self._doubted_ticks = 0
            logger.error("states_differ", node=raft.node_id, index=doubt.index, differ=doubt.differ)
            self._ask()

    def _go_on(self) -> None:
        if self._found is not None:
            self._tell_all(self._found)
            return
        raft = self._body.raft
        self._take(self.comparer.judge(raft.membership))  # the membership may have changed
        self._look()
        if self.comparer.asked is None or self._body.failure is not None:
            return
        if self._body.doubt is not None and self._doubted_ticks >= raft.config.election_ticks:
            # Who waits is told that it is not known, instead of nothing; and the state may catch up with those that
            # were started since, and know no older digest.
            self._commands.fail_all(Indeterminate(self._body.doubt))
            self._queries.fail_all(Unavailable(self._body.doubt))
            self._applier.release()
        self._ask()

    def _ask(self) -> None:
        raft = self._body.raft
        self.comparer.ask(self._applier.runner.applied.index)
        asked = self.comparer.asked
        for node in self.comparer.silent(raft.membership) if asked is not None else ():
            if asked is not None and node != raft.node_id:
                self._body.transport.send(node, DigestRequest(asked))

    def _tell_all(self, found: NoMajority) -> None:
        raft = self._body.raft
        self._tell_times -= 1
        for member in raft.membership.members:
            if member.node_id != raft.node_id:
                notice = NoAgreementNotice(found.index, found.agreed_index, found.sides)
                self._body.transport.send(member.node_id, notice)
        if self._tell_times <= 0:
            self._stop_all(found)

    def _stop_all(self, found: NoMajority) -> None:
        sides = " and ".join(", ".join(map(str, side)) for side in found.sides)
        self._body.fail(
            NoAgreement(
                f"no state has a majority: at entry {found.index} the states of nodes {sides} differ from each other, "
                f"and nobody can tell which is right, so no node serves (up to entry {found.agreed_index} a majority "
                "agreed). A command is not deterministic, or the nodes run different code. Stop all nodes and keep a "
                "copy of their files; look for time, randomness, unordered iteration or anything kept outside of "
                "tables in the state machine's commands; then start all nodes with the same, mended class and "
                "--rebuild: each makes its state anew, from before the difference, by its log.",
                found.agreed_index,
            )
        )


def _doubt_text(node: NodeId, doubt: Doubt) -> str:
    differ, silent = list(doubt.differ), [each for each in doubt.silent if each not in doubt.differ]
    return (
        f"the state of nodes {differ} differs from that of node {node}, which leads, at entry {doubt.index}, and it is "
        f"not decided which is right, so clients are told nothing: it goes on, or stops, by itself when "
        f"nodes {silent or differ} say what they hold: start those that are down"
    )
