"""What happens to the files of one node, at most, of a simulated world: rot, wrong writes, other directories."""

from __future__ import annotations

import posixpath
import random
from collections.abc import Awaitable, Callable

import msgspec

from raftkv.disk.simulated import SECTOR_BYTES, SimDisk
from raftkv.model import NodeId
from raftkv.node import Node
from raftkv.testing.cluster import Harm, SimCluster, SimNode
from raftkv.wire import Acquaintance

PEERS = "/data/peers"


def awake_leader(cluster: SimCluster) -> Node | None:
    """Who leads, and can take orders."""
    leader = cluster.leader
    return leader if leader is not None and not cluster.nodes[leader.node_id].is_frozen else None


class Vandal:
    """Harms one node's files in each world: no cluster survives the loss of a majority's."""

    def __init__(self, cluster: SimCluster, dice: random.Random, is_changing: Callable[[], bool]) -> None:
        self._cluster = cluster
        self._dice = dice
        self._is_changing = is_changing
        self._copies: dict[NodeId, tuple[int, SimDisk]] = {}
        """Backups of disks, each from before the start of that number."""

    def doing(self, harm: Harm) -> Callable[[], Awaitable[bool]]:
        """The fault: crash a node, and do this to its files before it is started again."""

        async def do() -> bool:
            sim = self._victim()
            if sim is None or (harm is Harm.OLDER_COPY and not self._has_old_copy(sim)):
                return False
            if harm is Harm.WIPED and self._is_founder_alone(sim):
                return False
            sim.crash()
            match harm:
                case Harm.WIPED:
                    sim.disk = SimDisk()
                case Harm.OLDER_COPY:
                    sim.disk = self._copies[sim.node_id][1]
                case _:
                    if not self._damage(sim, harm):
                        return False
            sim.harm = harm
            return True

        return do

    def _victim(self) -> SimNode | None:
        """A voter whose files may be harmed: the first, when the others are a majority and nothing is changing."""
        cluster, leader = self._cluster, awake_leader(self._cluster)
        if leader is None or self._is_changing() or any(sim.harm is not None for sim in cluster.nodes.values()):
            return None
        membership = leader.raft.membership
        is_changing = membership.outgoing or leader.raft.log.membership_index > leader.raft.commit_index
        if is_changing or len(membership.voters) < 3:
            return None
        voters = [voter for voter in membership.voters if voter in cluster.nodes]
        return cluster.nodes[self._dice.choice(voters)] if voters else None

    def _is_founder_alone(self, sim: SimNode) -> bool:
        """Whether a node that starts with nothing has nobody to ask whether it is new: it founds its cluster again."""
        return self._cluster.founders == (sim.member,)

    def keep_copy(self, sim: SimNode) -> None:
        """Make a backup of a node that is down, if there is none and one might be used."""
        if len(self._cluster.founders) >= 3 and sim.node_id not in self._copies and sim.harm is None:
            self._copies[sim.node_id] = (sim.starts, sim.disk.copy())

    def _has_old_copy(self, sim: SimNode) -> bool:
        """Whether there is one, and all others have met the node after more starts than the copy will have had.

        Who has never met a node since its backup was made can't know that it is one.
        """
        if sim.node_id not in self._copies:
            return False
        starts, _ = self._copies[sim.node_id]
        others = [other for other in self._cluster.nodes.values() if other is not sim]
        return all(self._boot_known(other, sim.node_id) > starts + 1 for other in others)

    @staticmethod
    def _boot_known(by: SimNode, node_id: NodeId) -> int:
        if not by.disk.exists(PEERS):
            return 0
        known = msgspec.msgpack.decode(by.disk.read_bytes(PEERS)[8:], type=dict[NodeId, Acquaintance])
        return known[node_id].boot if node_id in known else 0

    def _damage(self, sim: SimNode, harm: Harm) -> bool:
        """Rot, or a sector that is another one. Not in the last segment: damage in a log's last batch looks like a
        write that the crash has torn, and only the other nodes could tell the difference."""
        files = {path: data for path, data in sim.disk.image().items() if data and not path.endswith("LOCK")}
        segments = sorted(path for path in files if posixpath.dirname(path).endswith("/log") and path.endswith(".log"))
        paths = [path for path in files if path not in segments[-1:]]
        if not paths:
            return False
        path = self._dice.choice(paths)
        data = files[path]
        at = self._dice.randrange(len(data))
        self._cluster.note(f"{harm} in {path} of node {sim.node_id} at {at}")
        if harm is Harm.ROT:
            sim.disk.flip(path, at, self._dice.randrange(8))
            return True
        sector = at // SECTOR_BYTES * SECTOR_BYTES
        other = files[self._dice.choice(list(files))]
        begin = self._dice.randrange(len(other)) // SECTOR_BYTES * SECTOR_BYTES
        piece = other[begin : begin + SECTOR_BYTES][: len(data) - sector]
        sim.disk.overwrite(path, sector, piece)
        return piece != data[sector : sector + len(piece)]
