"""Chance at the helm of a `CoreWorld`: everything that networks, disks, processes and operators do to a cluster.

Whatever happens is chosen by one function, `choose(n)` (a number below n), so the same choices make
the same run; a run that fails prints itself as a script in the language of scenarios.
"""

from __future__ import annotations

from collections.abc import Callable

from raftkv.config import RaftConfig
from raftkv.core.messages import InstallSnapshot
from raftkv.core.roles import Leader
from raftkv.errors import InvalidArgument, NotAccepted
from raftkv.model import Membership
from tests.core.harness.storage import Node
from tests.core.harness.world import CoreWorld

TICKS_TO_CONVERGE = 300
"""Thirty election time-outs of ten ticks: what a healed cluster may take, also to finish a change and a snapshot."""

NODES_MAX = 8


class Simulation:
    """One world and the chances in it. `run` is the whole story: trouble, then peace, then demands.

    Swarm testing: each run draws which kinds of trouble it has and how often, since a run that has
    some of everything seldom gets deep into anything.
    """

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose
        self.size = (3, 3, 5, 1, 2, 4, 3, 7)[choose(8)]
        self.config = RaftConfig(
            election_ticks=10,
            heartbeat_ticks=2,
            peer_lost_ticks=2,
            transfer_ticks=10,
            batch_bytes_max=(2**20, 120, 1)[choose(3)],
            inflight_messages_max=(128, 2)[choose(2)],
            promotion_lag_max=(50, 2)[choose(2)],
            pre_vote=choose(8) != 1,
            check_quorum=choose(12) != 1,
        )
        self.world = CoreWorld(self.config, choose)
        self.world.found(self.size)
        for node_id in list(self.world.nodes):
            self.world.boot(node_id)
        self.next_id = self.size + 1
        self.reads = 0
        self.commands = 0
        self.percent = {
            "drop": (0, 5, 25)[choose(3)],
            "duplicate": (0, 5, 25)[choose(3)],
            "reorder": (0, 10, 50)[choose(3)],
            "linger": (0, 30, 80)[choose(3)],
            "trouble": (3, 10, 0)[choose(3)],
            "operate": (10, 30, 0)[choose(3)],
            "idle": (0, 30, 60)[choose(3)],
        }

    def _chance(self, kind: str) -> bool:
        return self.choose(100) < self.percent[kind]

    def _pick(self, nodes: list[Node]) -> Node:
        return nodes[self.choose(len(nodes))]

    def run(self, steps: int) -> None:
        """Trouble for `steps` steps, then peace; raises AssertionError with the script when anything is wrong."""
        try:
            for _ in range(steps):
                self.step()
            self.heal()
            if self.config.pre_vote and self.config.check_quorum:
                # Without these two a node that was removed may disturb the others for ever (thesis §4.2.3).
                self.converge()
        except Exception as exc:
            exc.add_note("as a script:\n" + self.world.to_script())
            raise

    def step(self) -> None:
        """Some messages, some time, and now and then something else."""
        for _ in range(1 + self.choose(4)):
            self._deliver()
        ups = [node for node in self.world.nodes.values() if node.is_up]
        if ups and not self._chance("idle"):
            self.world.tick(self._pick(ups).node_id)
        if ups and self.choose(3) == 0:
            self._request(self._pick(ups))
        for node in ups:
            if node.is_up and node.slow and node.writes and self.choose(4) == 0:
                self.world.persist(node.node_id, 1 + self.choose(len(node.writes)))
            if node.is_up and node.installing is not None and not node.writes and self.choose(4) == 0:
                self.world.install(node.node_id, ok=self.choose(5) != 0)
        if ups and self._chance("operate"):
            self._operate(self._pick(ups))
        if self._chance("trouble"):
            self._trouble()

    def _deliver(self) -> None:
        links = [link for link in sorted(self.world.links) if self.world.queue(link)]
        if not links:
            return
        link = links[self.choose(len(links))]
        queue = self.world.queue(link)
        if len(queue) > 1 and self._chance("linger") and self.choose(4):
            return  # so that queues fill up, and old messages meet new terms
        at = self.choose(len(queue)) if self._chance("reorder") else 0
        if self._chance("drop"):
            self.world.drop(link, at)
        else:
            self.world.deliver(link, at, keep=self._chance("duplicate"))

    def _attempt(self, action: Callable[[], object], kind: str) -> bool:
        """Something that may be refused; then the script says so."""
        try:
            action()
        except (NotAccepted, InvalidArgument) as exc:
            history = self.world.history
            history[-1] = f"refused {type(exc).__name__}: {history[-1]}"
            return False
        self.world.count(kind)
        return True

    def _request(self, node: Node) -> None:
        world, node_id = self.world, node.node_id
        leaders = [other for other in world.nodes.values() if other.is_up and other.core.is_leader]
        if leaders and self.choose(4):
            node_id = self._pick(leaders).node_id
        if self.choose(3):
            commands = [f"c{self.commands + at}" for at in range(1 + self.choose(3))]
            self.commands += len(commands)
            self._attempt(lambda: world.propose(node_id, commands), "propose")
        else:
            self.reads += 1
            self._attempt(lambda: world.read(node.node_id, f"r{self.reads}"), "ask")

    def _operate(self, node: Node) -> None:
        """What operators and the node's own housekeeping do."""
        world, node_id, raft = self.world, node.node_id, node.core
        what = self.choose(6)
        if what == 0 and raft.applied_index > max(raft.log.start.index, raft.snapshot.index if raft.snapshot else 0):
            if raft.installing is None and not raft.wants_snapshot:
                world.snapshot(node_id)
        elif what == 1 and raft.snapshot is not None and not node.writes and raft.installing is None:
            low, high = raft.log.start.index, min(raft.snapshot.index, raft.applied_index)
            if low < high and not raft.wants_snapshot:
                world.compact(node_id, low + 1 + self.choose(high - low))
        elif what == 2:
            self._attempt(lambda: world.transfer(node_id, 1 + self.choose(self.next_id - 1)), "transfer")
        elif what == 3:
            self._change(node)
        elif what == 4:
            self.world.campaign(node_id)
        elif self.choose(4) == 0:
            self.world.step_down(node_id)

    def _change(self, node: Node) -> None:
        """Add, promote, demote, remove, several at once or one by one."""
        membership = node.core.membership
        voters, learners = set(membership.voters), set(membership.learners)
        new = None
        for _ in range(1 + self.choose(2)):
            what = self.choose(4)
            if what == 0 and new is None and self.next_id <= NODES_MAX:
                new = self.next_id
                learners.add(new)
            elif what == 1 and learners - {new}:
                promoted = sorted(learners - {new})[0]
                learners.discard(promoted)
                voters.add(promoted)
            elif what == 2 and len(voters) > 1:
                voters.discard(sorted(voters)[self.choose(len(voters))])
            elif what == 3 and len(voters) > 1:
                demoted = sorted(voters)[self.choose(len(voters))]
                voters.discard(demoted)
                learners.add(demoted)
        target = Membership.of(tuple(voters), tuple(learners))
        if self._attempt(lambda: self.world.change(node.node_id, target), "change") and new is not None:
            self.next_id += 1
            self.world.join(new)

    def _trouble(self) -> None:
        """What goes wrong by itself."""
        world = self.world
        nodes = list(world.nodes.values())
        node, other = self._pick(nodes), self._pick(nodes)
        what = self.choose(8)
        if what == 0:
            world.heal()
        elif what in (1, 2):
            self._crash_or_restart(node)
        elif what == 3:
            world.cut([(node.node_id, other.node_id)])
        elif what == 4:
            world.cut([link for o in nodes for link in ((node.node_id, o.node_id), (o.node_id, node.node_id))])
        elif what == 5 and node.is_up:
            world.set_slow(node.node_id, not node.slow)
        elif what == 6 and node.is_up:
            world.peer_lost(node.node_id, other.node_id)
        elif what == 7 and self.choose(4) == 0:
            for each in nodes:
                if each.is_up:
                    self._crash(each)
            for each in nodes:
                world.boot(each.node_id)

    def _crash_or_restart(self, node: Node) -> None:
        if not node.is_up:
            if node.snapshot is not None and node.start.index and self.choose(6) == 0:
                self.world.lose_state(node.node_id)
                self.world.count("lose-state")
            self.world.boot(node.node_id)
        else:
            self._crash(node)

    def _crash(self, node: Node) -> None:
        keep = self.choose(len(node.writes) + 1)
        part = None
        if keep < len(node.writes) and node.writes[keep].entries and self.choose(2):
            part = self.choose(len(node.writes[keep].entries) + 1)
        self.world.crash(node.node_id, keep, part)

    def heal(self) -> None:
        """Undo every trouble."""
        self.world.heal()
        for node in self.world.nodes.values():
            if not node.is_up:
                self.world.boot(node.node_id)
            if node.slow:
                self.world.set_slow(node.node_id, False)
            if node.installing is not None and not node.writes:
                self.world.install(node.node_id)
            node.slow_install = False

    def converge(self) -> None:
        """A healed cluster elects, commits, finishes its change and brings everybody up to date, within a bound."""
        world = self.world
        newest: Node | None = None
        for tick in range(TICKS_TO_CONVERGE):
            for node_id in list(world.nodes):
                world.tick(node_id)
            self._deliver_everything()
            self._report_lost_snapshots()
            leaders = [node for node in world.nodes.values() if node.core.is_leader]
            newest = max(leaders, key=lambda node: node.core.term, default=None)
            if newest is None:
                continue
            if newest.core.snapshot_wanted:
                world.snapshot(newest.node_id)
            if self._is_settled(newest):
                return
            if tick % 20 == 0:
                self._attempt(lambda n=newest: world.propose(n.node_id, ["after"]), "propose")  # type: ignore[misc]
        if any(node.core.wants_snapshot for node in world.nodes.values()) and newest is None:
            # Who lost its state can't lead, and where it alone has the longest log nobody else can (it holds
            # entries that may be committed): that is for an operator.
            world.count("stuck without state")
            return
        raise AssertionError(
            f"no progress within {TICKS_TO_CONVERGE} ticks of peace: "
            + "; ".join(node.core.describe() for node in world.nodes.values())
        )

    def _report_lost_snapshots(self) -> None:
        """Whoever sends a snapshot notices when it does not arrive; what was dropped on the way did not."""
        for node in list(self.world.nodes.values()):
            role = node.core.role
            if isinstance(role, Leader):
                for peer in [peer for peer, progress in role.progress.items() if progress.sending is not None]:
                    if not any(isinstance(m, InstallSnapshot) for m in self.world.queue((node.node_id, peer))):
                        self.world.sent(node.node_id, peer, False)

    def _deliver_everything(self) -> None:
        for _ in range(20_000):
            links = self.world.deliverable()
            if not links:
                return
            for link in links:
                if self.world.queue(link):
                    self.world.deliver(link)
        raise AssertionError("the network does not become quiet")

    def _is_settled(self, leader: Node) -> bool:
        raft = leader.core
        membership = raft.membership
        members = [self.world.nodes[node_id].core for node_id in membership.all_nodes()]
        return (
            raft.log.term(raft.commit_index) == raft.term
            and raft.commit_index == raft.log.last_index
            and not membership.is_joint
            and all(core.applied_index == raft.commit_index for core in members)
        )
