"""What is left on the disks of nodes whose cluster has lost its majority, and which of them has most. Only reads."""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Sequence

import msgspec

from raftkv.disk import Disk
from raftkv.entry import Entry
from raftkv.errors import Corruption, FormatError, InvalidArgument, NodeStopped, WrongDataDir
from raftkv.log import Identity, VoteFile
from raftkv.log.reader import read_log
from raftkv.model import EntryKind, Index, Member, Membership, NodeId, Term, decode_membership
from raftkv.node.directory import unfinished_text
from raftkv.node.identity import Lineage, load_founding
from raftkv.node.paths import Paths
from raftkv.node.peers.met import load_known
from raftkv.snapshot import Receipts
from raftkv.snapshot.manifest import read_manifest
from raftkv.snapshot.verify import SNAPSHOT_NAME


class Survivor(msgspec.Struct, kw_only=True):
    """What a node's directory has, as far as it can be read."""

    path: str
    node_id: NodeId
    cluster_id: str
    cluster_name: str
    machine: str
    lineage: Lineage | None
    term: Term = 0
    """The newest one that it knew; 0 where its vote file can't be read."""
    first_index: Index = 1
    last_index: Index = 0
    last_term: Term = 0
    last_time_ms: int = 0
    """The leader's time of the last entry."""
    committed_index: Index = 0
    """Up to here everything is certainly committed, and this node has it: of its newest snapshot. There may be more."""
    membership: Membership = Membership()
    """The newest one that it has, committed or not."""
    met: dict[NodeId, int] = {}
    """The nodes that it has met, with the number of the start that each had then."""
    torn_at: int | None = None
    """Where the last file of its log has a write that a crash has torn, which nobody was told of."""
    problems: list[str] = []
    """What is damaged or missing."""

    @property
    def rank(self) -> tuple[Term, Index]:
        """Of two sound logs, the one with the higher last term has all that was acknowledged in either; with equal
        terms, the longer one (§5.4.1)."""
        return self.last_term, self.last_index

    @property
    def is_member(self) -> bool:
        return self.membership.member(self.node_id) is not None

    @property
    def others(self) -> tuple[Member, ...]:
        """The other members, who might be alive."""
        return tuple(each for each in self.membership.members if each.node_id != self.node_id)


def has_all(membership: Membership, nodes: Sequence[NodeId]) -> bool:
    """Whether nothing can have been acknowledged without one of `nodes`: the others are no majority.

    Of a joint membership, in neither group: the others may not have had it yet, and go by the outgoing voters alone; or
    may have left it, and go by the new ones alone.
    """
    groups = [group for group in (membership.voters, membership.outgoing) if group]
    return bool(groups) and all(
        len([voter for voter in group if voter not in nodes]) <= len(group) // 2 for group in groups
    )


def is_majority(membership: Membership, nodes: Sequence[NodeId]) -> bool:
    """Whether `nodes` can go on as they are, without any others."""
    groups = [group for group in (membership.voters, membership.outgoing) if group]
    return bool(groups) and all(len([voter for voter in group if voter in nodes]) > len(group) // 2 for group in groups)


def look_at(disk: Disk, data_dir: str) -> Survivor:
    """Read what is in the data directory of a node that does not run. Damage is reported, not raised.

    Raises `InvalidArgument` when it is no data directory, `Corruption`, `FormatError` when it does not even say whose.
    """
    paths = Paths(data_dir.rstrip("/") or "/")
    if disk.exists(paths.recovering):
        raise WrongDataDir(unfinished_text(paths.root))
    found = load_founding(disk, paths.founding) if disk.is_dir(paths.root) else None
    if found is None:
        raise InvalidArgument(f"{paths.root} is no data directory of a node: {paths.founding} is missing")
    founding, owner = found.value, found.owner
    survivor = Survivor(
        path=paths.root,
        node_id=owner.node_id,
        cluster_id=founding.cluster_id,
        cluster_name=founding.name,
        machine=founding.machine,
        lineage=founding.lineage,
        membership=founding.membership,
    )
    for read in (_read_snapshots, _read_entries, _read_vote, _read_peers):
        try:
            read(disk, paths, owner, survivor)
        except NodeStopped as exc:
            survivor.problems.append(str(exc))
    if survivor.first_index > survivor.committed_index + 1:
        survivor.problems.append(f"its log begins at {survivor.first_index}, and no snapshot here reaches that")
    return survivor


def _read_snapshots(disk: Disk, paths: Paths, owner: Identity, survivor: Survivor) -> None:
    receipts = Receipts.open(disk, paths.receipts, owner)
    names = (
        [name for name in disk.listdir(paths.snapshots) if SNAPSHOT_NAME.fullmatch(name)]
        if disk.is_dir(paths.snapshots)
        else []
    )
    for name in names:
        try:
            sealed = read_manifest(disk, posixpath.join(paths.snapshots, name))
        except (Corruption, FormatError) as exc:
            survivor.problems.append(str(exc))
            continue
        snapshot = sealed.manifest.snapshot
        if receipts.has(sealed.digest) and snapshot.index >= survivor.committed_index:
            survivor.committed_index, survivor.membership = snapshot.index, snapshot.membership
            survivor.last_index, survivor.last_term = snapshot.index, snapshot.term
            survivor.last_time_ms = snapshot.time_ms


def _read_entries(disk: Disk, paths: Paths, owner: Identity, survivor: Survivor) -> None:
    log = _Ends()
    seen = read_log(disk, paths.log, log.take)
    survivor.problems += seen.problems
    survivor.first_index = seen.first_index
    survivor.torn_at = seen.torn_at
    if log.last_index >= survivor.last_index and log.terms:
        survivor.last_index, survivor.last_term = log.last_index, log.terms[-1]
        survivor.last_time_ms = log.times[-1]
    if log.memberships and log.memberships[-1][0] > survivor.committed_index:
        survivor.membership = log.memberships[-1][1]


class _Ends:
    """The terms, times and memberships of what is read of a log, of which later parts may cut off the end."""

    def __init__(self) -> None:
        self.before: Index | None = None
        self.terms = array("Q")
        self.times = array("Q")
        self.memberships: list[tuple[Index, Membership]] = []

    @property
    def last_index(self) -> Index:
        return (self.before or 0) + len(self.terms)

    def take(self, after: Index, entries: list[Entry]) -> None:
        """Entries behind `after`, in place of what was taken from there on."""
        if self.before is None or not self.before <= after <= self.last_index:
            self.before, self.terms, self.times, self.memberships = after, array("Q"), array("Q"), []
        del self.terms[after - self.before :]
        del self.times[after - self.before :]
        self.memberships = [each for each in self.memberships if each[0] <= after]
        self.terms.extend([entry.term for entry in entries])
        self.times.extend([entry.time_ms for entry in entries])
        self.memberships += [
            (entry.index, decode_membership(entry.payload)) for entry in entries if entry.kind == EntryKind.MEMBERSHIP
        ]


def _read_vote(disk: Disk, paths: Paths, owner: Identity, survivor: Survivor) -> None:
    seen = VoteFile.look(disk, paths.vote)
    if seen is None:
        survivor.problems.append(f"{paths.vote} is missing")
        return
    if not seen.identity.is_same(owner):
        raise WrongDataDir(f"{paths.vote} belongs to {seen.identity.describe()}, not to {owner.describe()}")
    survivor.term = seen.hard_state.term
    if survivor.last_index < seen.durable_index:
        survivor.problems.append(f"its log ends at {survivor.last_index}, but {seen.durable_index} had been durable")
    if survivor.last_term > seen.hard_state.term:
        survivor.problems.append(f"{paths.vote} is older than the log, which has an entry of term {survivor.last_term}")


def _read_peers(disk: Disk, paths: Paths, owner: Identity, survivor: Survivor) -> None:
    survivor.met = {node: each.boot for node, each in sorted(load_known(disk, paths.peers, owner).items())}


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Which of several survivors to go on with."""

    survivors: list[Survivor]
    """Best first; damaged ones come last."""
    best: Survivor | None
    """None when all are damaged."""
    is_majority: bool
    """Whether the sound ones are a majority: then there is nothing to recover."""
    has_all: bool
    """Whether the best one certainly has everything that was ever acknowledged."""


def compare(survivors: Sequence[Survivor]) -> Comparison:
    """Compare nodes of one cluster. Raises `InvalidArgument` when they are of several, or one is given twice."""
    clusters = sorted({each.cluster_id for each in survivors})
    if len(clusters) > 1:
        raise InvalidArgument(f"these are directories of {len(clusters)} clusters ({', '.join(clusters)}): compare one")
    if len({each.node_id for each in survivors}) < len(survivors):
        raise InvalidArgument("two directories are of the same node: a copy knows no more than the original")
    ranked = sorted(survivors, key=lambda each: (not each.problems and each.is_member, each.rank), reverse=True)
    sound = [each for each in ranked if not each.problems and each.is_member]
    best = sound[0] if sound else None
    nodes = [each.node_id for each in sound]
    return Comparison(
        survivors=ranked,
        best=best,
        is_majority=best is not None and is_majority(best.membership, nodes),
        has_all=best is not None and has_all(best.membership, nodes),
    )
