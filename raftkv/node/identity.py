"""Which cluster and which member of it a data directory belongs to."""

from __future__ import annotations

import msgspec
import xxhash

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import ConfigError, Corruption
from raftkv.log import Identity, Owned, VoteFile, load_owned, save_owned
from raftkv.model import Member, Membership

_MAGIC = b"RKVclus\n"

DEFAULT_NAME = "raftkv"
"""What a cluster is called for which nobody has said a name."""

failpoints.declare(
    __name__,
    {
        "cluster.before_save": "a new directory does not say yet to which cluster it belongs",
    },
)


class Founding(msgspec.Struct, frozen=True):
    """How the cluster began, as written into each founder's data directory; empty for one who joined later."""

    cluster_id: str
    membership: Membership
    name: str = ""
    """What the cluster is called; empty where that is not known, as one who joins may not have been told."""

    machine: str = ""
    """The state machine whose data these are; empty where nobody has said it."""

    def is_called(self, name: str) -> bool:
        """Whether `name` may be the cluster's: its founders can tell also when they have not written it down."""
        if self.name or not self.membership.voters:
            return name == self.name or not self.name
        return cluster_id_of(name, self.membership) == self.cluster_id


def founding_membership(members: tuple[Member, ...]) -> Membership:
    """All founders are voters. Raises `ConfigError` when they can't be."""
    ordered = tuple(sorted(members))
    membership = Membership(voters=tuple(member.node_id for member in ordered), members=ordered)
    if problems := membership.problems():
        raise ConfigError("members: " + "; ".join(problems))
    return membership


def cluster_id_of(name: str, membership: Membership) -> str:
    """Every founder computes the same id from the same name and members, so a list with a typo is another cluster."""
    facts = [name, *(f"{member.node_id}={member.peer_address}" for member in membership.members)]
    return xxhash.xxh3_128_hexdigest("\n".join(facts).encode())


def save_founding(disk: Disk, path: str, owner: Identity, founding: Founding) -> None:
    """Durable on return."""
    failpoints.reach("cluster.before_save")
    save_owned(disk, path, _MAGIC, owner, founding)


def join_cluster(disk: Disk, path: str, vote: VoteFile, founding: Founding) -> None:
    """Remember over restarts which cluster this node has joined. Blocking; durable on return.

    The vote file says it last: when it does, a `cluster` file that does not is an older one.
    """
    save_founding(disk, path, msgspec.structs.replace(vote.identity, cluster_id=founding.cluster_id), founding)
    vote.join(founding.cluster_id)


def load_founding(disk: Disk, path: str) -> Owned[Founding] | None:
    """What was saved, and in which data directory; None when nothing was. Raises `Corruption`, `FormatError`."""
    try:
        return load_owned(disk, path, _MAGIC, Founding)
    except Corruption as exc:
        raise Corruption(f"{exc}. Remove this node from the cluster and add it under a new id.") from exc
