"""The cluster and member that a data directory belongs to, and the file `cluster`, which says so."""

from __future__ import annotations

import msgspec
import xxhash

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import ConfigError, Corruption
from raftkv.log import Identity, Owned, VoteFile, load_owned, save_owned
from raftkv.model import Index, Member, Membership, Term

_MAGIC = b"RKVclus\n"

DEFAULT_NAME = "raftkv"
"""What a cluster is called for which nobody has said a name."""

RESTORED = "restored"
RECOVERED = "recovered"

failpoints.declare(
    __name__,
    {
        "cluster.before_save": "a new directory does not say yet to which cluster it belongs",
    },
)


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster goes on from that did not begin empty: an entry of another cluster."""

    kind: str
    """`RESTORED` or `RECOVERED`."""
    cluster_id: str
    """The other cluster."""
    cluster_name: str
    index: Index
    term: Term
    mark: str
    """A restored cluster's backup, by its digest: founders that were restored from another one are strangers. For a
    recovered one a random word: whoever recovers two nodes of one cluster gets two clusters."""

    def describe(self) -> str:
        """For people: where it comes from."""
        text = f"the cluster {self.cluster_name or self.cluster_id} at entry {self.index}@{self.term}"
        return f"restored from a backup of {text}" if self.kind == RESTORED else f"recovered from {text}"


class Founding(msgspec.Struct, frozen=True):
    """How the cluster began. Each founder's data directory has it; in a node that joined later it is empty."""

    cluster_id: str
    membership: Membership
    name: str = ""
    """What the cluster is called; empty where that is not known, as one who joins may not have been told."""

    machine: str = ""
    """The state machine whose data these are; empty where nobody has said it."""

    lineage: Lineage | None = None
    """None for a cluster that began empty, and in a node that joined later."""

    def is_called(self, name: str) -> bool:
        """Whether the cluster may be called `name`. Founders can tell even if the name is not written down here: the
        cluster id is made of it."""
        if self.name or not self.membership.voters:
            return name == self.name or not self.name
        return cluster_id_of(name, self.membership, self.lineage) == self.cluster_id


def founding_membership(members: tuple[Member, ...]) -> Membership:
    """All founders are voters. Raises `ConfigError` when they can't be."""
    ordered = tuple(sorted(members))
    membership = Membership(voters=tuple(member.node_id for member in ordered), members=ordered)
    if problems := membership.problems():
        raise ConfigError("members: " + "; ".join(problems))
    return membership


def cluster_id_of(name: str, membership: Membership, lineage: Lineage | None = None) -> str:
    """The id of the cluster with this name, founders and lineage. A founder with a typo in its list gets another id."""
    facts = [name, *(f"{member.node_id}={member.peer_address}" for member in membership.members)]
    if lineage is not None:
        facts.append(f"{lineage.kind} {lineage.cluster_id} {lineage.index}@{lineage.term} {lineage.mark}")
    return xxhash.xxh3_128_hexdigest("\n".join(facts).encode())


def save_founding(disk: Disk, path: str, owner: Identity, founding: Founding) -> None:
    """Durable on return."""
    failpoints.reach("cluster.before_save")
    save_owned(disk, path, _MAGIC, owner, founding)


def join_cluster(disk: Disk, path: str, vote: VoteFile, founding: Founding) -> None:
    """Write down which cluster this node has joined. Blocking; durable on return.

    The vote file is written last. So if it names a cluster and the file `cluster` does not, that file is an older one.
    """
    save_founding(disk, path, msgspec.structs.replace(vote.identity, cluster_id=founding.cluster_id), founding)
    vote.join(founding.cluster_id)


def load_founding(disk: Disk, path: str) -> Owned[Founding] | None:
    """The saved founding and the directory that it belongs to; None without a file. Raises `Corruption`,
    `FormatError`."""
    try:
        return load_owned(disk, path, _MAGIC, Founding)
    except Corruption as exc:
        raise Corruption(f"{exc}. Remove this node from the cluster and add it under a new id.") from exc
