"""Harm to the files of a node: rot, wrong writes, other directories. In a simulated world it meets one node at most."""

from __future__ import annotations

import posixpath
import random
from collections.abc import Awaitable, Callable

import msgspec

from raftkv.disk.simulated import SimDisk
from raftkv.model import NodeId
from raftkv.node import Node
from raftkv.node.peers.met import decode_known
from raftkv.state import MemoryStates
from raftkv.testing.faults import harming
from raftkv.testing.faults.foreign import found_elsewhere
from raftkv.testing.world.cluster import SimCluster, SimNode
from raftkv.testing.world.harm import Harm

PEERS = "/data/peers"

OWNED = ("cluster", "vote", "starts", "peers", "receipts", "log", "log/MANIFEST", "state", "state/OWNER")
"""What may come from elsewhere besides snapshots."""

UNBOUNDED = 1 << 40
"""Bytes: who brings a file makes room for it."""

COPIES_MAX = 4
"""Backups of each node's disk: the first ones, as only the older a copy is the more will it be missed."""


def awake_leader(cluster: SimCluster) -> Node | None:
    """The leader, if its process runs and can take orders; else None."""
    leader = cluster.leader
    return leader if leader is not None and not cluster.nodes[leader.node_id].is_frozen else None


def elsewhere(node_id: NodeId) -> dict[str, bytes]:
    """The files of a node with that id in another cluster."""
    disk = SimDisk()
    found_elsewhere(disk, MemoryStates(disk), "/data", node_id)
    return disk.image()


class Copy(msgspec.Struct, frozen=True):
    """A backup of a node's disk, made when the node had been started `starts` times."""

    starts: int
    disk: SimDisk


class Vandal:
    """Harms the files of one node in each world, because no cluster survives the loss of a majority's files."""

    def __init__(
        self,
        cluster: SimCluster,
        dice: random.Random,
        is_changing: Callable[[], bool],
        begin: Callable[[SimNode], None],
        run_copy: Callable[[SimNode, SimDisk], None],
    ) -> None:
        self._cluster = cluster
        self._dice = dice
        self._is_changing = is_changing
        self._begin = begin
        """Starts a node that is down, beside whatever else happens."""
        self._run_copy = run_copy
        """Starts a second process of a node for a while, on a copy of its disk."""
        self._copies: dict[NodeId, list[Copy]] = {}
        self._due: Harm | None = None
        """What was to be done, and could not be done yet."""

    def doing(self, harm: Harm) -> Callable[[], Awaitable[bool]]:
        """The fault that crashes a node and does this harm to its files before its next start."""

        async def do() -> bool:
            self._due = harm
            return await self.retry()

        return do

    async def retry(self) -> bool:
        """Do the harm that is due, if it can be done now. It needs a leader and a majority, and some kinds need a story
        before them, such as an old backup."""
        if (harm := self._due) is None:
            return False
        voters = self._victims()
        ready = [sim for sim in voters if self._is_ready(sim, harm)]
        if not ready:
            self._age(voters, harm)
            return False
        sim = self._dice.choice(ready)
        if harm is Harm.COPIED:
            self._due, sim.harm = None, harm
            self._run_copy(sim, self._dice.choice(self.old_copies(sim, 1)).copy())
            return True
        sim.crash()
        self.keep_copy(sim)
        if not self._harm(sim, harm):
            return False
        self._due, sim.harm = None, harm
        self._cluster.fired[harm] += 1
        return True

    def _victims(self) -> list[SimNode]:
        """Voters of which one may be harmed: the others are a majority, and no change is under way."""
        cluster, leader = self._cluster, awake_leader(self._cluster)
        if leader is None or self._is_changing() or any(sim.harm is not None for sim in cluster.nodes.values()):
            return []
        membership = leader.raft.membership
        is_changing = membership.outgoing or leader.raft.log.membership_index > leader.raft.commit_index
        if is_changing or len(membership.voters) < 3:
            return []
        return [cluster.nodes[voter] for voter in membership.voters if voter in cluster.nodes]

    def _is_ready(self, sim: SimNode, harm: Harm) -> bool:
        match harm:
            case Harm.OLDER_COPY:
                return bool(self.old_copies(sim, 2))
            case Harm.COPIED:
                return sim.is_up and bool(self.old_copies(sim, 1))
            case Harm.STALE_WRITE:
                return bool(self._copies.get(sim.node_id))
            case Harm.WIPED:
                return not self._is_founder_alone(sim)
            case Harm.LOST_STATE | Harm.HALF_SNAPSHOT:
                return any(path.startswith(harming.SNAPSHOTS) for path in sim.disk.image())
            case Harm.ROT_AT_THE_END:
                return self._is_held_by_others(sim)
            case _:
                return True

    def _is_held_by_others(self, sim: SimNode) -> bool:
        """Whether all of a node's log is durable on a majority of the voters without it, so no copy is missed.

        As their cores know it: what a log had made durable may be about to be replaced by what the core has now.
        """
        if sim.node is None or (leader := awake_leader(self._cluster)) is None:
            return False
        log = sim.node.raft.log
        voters = leader.raft.membership.voters
        holders = [
            other
            for other in self._cluster.running
            if other is not sim.node
            and other.node_id in voters
            and other.raft.durable_index >= log.last_index >= other.raft.log.start.index
            and other.raft.log.chain(log.last_index) == log.last_chain
        ]
        return 2 * len(holders) > len(voters)

    def _is_founder_alone(self, sim: SimNode) -> bool:
        """Whether a wiped node would found its cluster again, because it knows no other node that could refuse it."""
        return [founder.node_id for founder in self._cluster.founders] == [sim.node_id]

    def _age(self, voters: list[SimNode], harm: Harm) -> None:
        """Restart a node, always the same one, until it has a backup that is old enough for this harm."""
        sim = min(voters, key=lambda sim: sim.node_id, default=None)
        if sim is not None and sim.is_up and self._boot_known(sim) >= sim.starts:
            self._cluster.note(f"start node {sim.node_id} anew, before its {harm}")
            sim.crash()
            self.keep_copy(sim)
            self._begin(sim)

    def keep_copy(self, sim: SimNode) -> None:
        """Make a backup of a node that is down, if a later harm might use it."""
        copies = self._copies.setdefault(sim.node_id, [])
        if len(self._cluster.founders) < 3 or sim.harm is not None or len(copies) >= COPIES_MAX:
            return
        if not copies or copies[-1].starts < sim.starts:
            copies.append(Copy(sim.starts, sim.disk.copy()))

    def old_copies(self, sim: SimNode, starts: int) -> list[SimDisk]:
        """Backups that all other nodes know to be old, because they have met the node at least so many starts later.

        A node that has not met the victim since its backup was made couldn't tell.
        """
        if not self._copies.get(sim.node_id):
            return []
        known = self._boot_known(sim)
        return [copy.disk for copy in self._copies[sim.node_id] if known >= copy.starts + starts]

    def _boot_known(self, sim: SimNode) -> int:
        """The last start of a node that all others know, without those that have met no node at all."""
        images = [other.disk.image().get(PEERS) for other in self._cluster.nodes.values() if other is not sim]
        found = [decode_known(data, PEERS).value for data in images if data]
        return min((known[sim.node_id].boot if sim.node_id in known else 0 for known in found), default=0)

    def _harm(self, sim: SimNode, harm: Harm) -> bool:
        match harm:
            case Harm.WIPED:
                sim.disk = SimDisk()
            case Harm.OLDER_COPY:
                sim.disk = self._dice.choice(self.old_copies(sim, 2)).copy()
            case Harm.MISSING:
                return self._lose_file(sim)
            case Harm.ROT:
                return self._rot(sim, harming.any_byte(sim.disk, self._dice))
            case Harm.ROT_AT_THE_END:
                return self._rot(sim, harming.at_the_end(sim.disk, self._dice))
            case Harm.LOST_STATE:
                harming.lose_state(sim.disk)
            case Harm.HALF_SNAPSHOT:
                return self._halve_snapshot(sim)
            case Harm.FOREIGN:
                self._bring_file(sim)
            case _:
                return self._overwrite(sim, harm)
        return True

    def _lose_file(self, sim: SimNode) -> bool:
        paths = [path for path in sim.disk.image() if not path.endswith("LOCK")]
        if not paths:
            return False
        path = self._dice.choice(paths)
        self._cluster.note(f"{path} of node {sim.node_id} is gone")
        sim.disk.lose(path)
        return True

    def _bring_file(self, sim: SimNode) -> None:
        """Bring in another cluster's files. Half of the time it is a snapshot, which replaces nothing of the node's."""
        others = [other.disk.image() for other in self._cluster.nodes.values() if other is not sim]
        source = self._dice.choice([elsewhere(sim.node_id), *others])
        snapshots = sorted({path.rpartition("/")[0] for path in source if path.startswith(harming.SNAPSHOTS)})
        if snapshots and self._dice.random() < 0.5:
            place = self._dice.choice(snapshots)
        else:
            place = self._dice.choice([f"/data/{name}" for name in OWNED])
        found = {path: data for path, data in source.items() if path == place or path.startswith(f"{place}/")}
        self._cluster.note(f"{place} of node {sim.node_id} comes from elsewhere, in {len(found)} files")
        if sim.disk.is_dir(place):
            sim.disk.remove_tree(place)
        capacity, sim.disk.capacity_bytes = sim.disk.capacity_bytes, UNBOUNDED
        for path, data in found.items():
            sim.disk.mkdir(posixpath.dirname(path))
            sim.disk.write_atomic(path, data)
        sim.disk.capacity_bytes = capacity

    def _halve_snapshot(self, sim: SimNode) -> bool:
        """Half of the time the state is gone as well, so that the node itself would use the snapshot."""
        found = {path: data for path, data in sim.disk.image().items() if path.startswith(harming.SNAPSHOTS)}
        path = max(found, key=lambda path: (len(found[path]), path), default=None)
        if path is None:
            return False
        self._cluster.note(f"{path} of node {sim.node_id} has lost its second half")
        sim.disk.cut_short(path, len(found[path]) // 2)
        if self._dice.random() < 0.5:
            harming.lose_state(sim.disk, with_snapshots=False)
        return True

    def _rot(self, sim: SimNode, place: harming.HarmedBytes | None) -> bool:
        if place is None:
            return False
        self._cluster.note(f"rot in {place.path} of node {sim.node_id} at {place.at}")
        sim.disk.flip(place.path, place.at, self._dice.randrange(8))
        return True

    def _overwrite(self, sim: SimNode, harm: Harm) -> bool:
        if harm is Harm.STALE_WRITE:
            older = [copy.disk for copy in self._copies.get(sim.node_id, [])]
            place = harming.stale(sim.disk, older, self._dice)
        else:
            place = harming.misdirected(sim.disk, self._dice)
        if place is None:
            return False
        self._cluster.note(f"{harm} in {place.path} of node {sim.node_id} at {place.at}")
        sim.disk.overwrite(place.path, place.at, place.data)
        return True
