"""Addresses that an operator has written beside the log, for when all nodes have moved and none finds another.

The file `addresses` replaces the addresses in the newest membership of this node's log, and nothing else. Members,
votes, cluster and log stay, so it can't make a second cluster. The file says which node it belongs to, and to which
entry's membership; it counts until a newer membership is committed. Once the nodes have found each other and elected a
leader, the leader writes these addresses into the log.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from raftkv.disk import Disk
from raftkv.errors import Corruption, FormatError, InvalidArgument, WrongDataDir
from raftkv.log import Identity, load_own, save_owned
from raftkv.model import Index, Member, Membership
from raftkv.node.peers.members import check_addresses

_MAGIC = b"RKVaddr\n"


class Moved(msgspec.Struct, frozen=True):
    """New addresses of some members, in place of those in the membership of the entry `index`."""

    index: Index
    members: tuple[Member, ...]

    def applied_to(self, membership: Membership) -> Membership:
        """The same membership with these addresses; nodes that are no members of it are ignored."""
        where = {member.node_id: member for member in self.members}
        return msgspec.structs.replace(
            membership, members=tuple(where.get(each.node_id, each) for each in membership.members)
        )


def placed(membership: Membership, moved: Moved | None) -> Membership:
    """The membership, with the operator's addresses in place of its own where there are any."""
    return membership if moved is None else moved.applied_to(membership)


def moved(index: Index, membership: Membership, members: Sequence[Member]) -> Moved:
    """Check new addresses for the membership of the entry `index`. Raises `InvalidArgument`."""
    if strangers := sorted({each.node_id for each in members} - set(membership.all_nodes())):
        raise InvalidArgument(
            f"nodes {strangers} are no members ({membership.describe()}): who belongs to the cluster is not changed "
            "by this, only where its members are"
        )
    if len({each.node_id for each in members}) < len(members):
        raise InvalidArgument("a node is given twice: say each once, with its new addresses")
    found = Moved(index, tuple(sorted(members)))
    changed = found.applied_to(membership)
    for member in found.members:
        check_addresses(changed, member)
    return found


def save_moved(disk: Disk, path: str, owner: Identity, value: Moved) -> None:
    """Durable on return."""
    save_owned(disk, path, _MAGIC, owner, value)


def load_moved(disk: Disk, path: str, owner: Identity) -> Moved | None:
    """What was saved in this directory; None when nothing was.

    Raises `Corruption`, `FormatError` or `WrongDataDir`: what an operator has ordered is not passed over in silence.
    """
    advice = "Remove that file, and give the order again (raftkv member rewrite)"
    try:
        return load_own(disk, path, _MAGIC, owner, Moved)
    except (Corruption, FormatError, WrongDataDir) as exc:
        raise type(exc)(f"{exc}. {advice}.") from exc
