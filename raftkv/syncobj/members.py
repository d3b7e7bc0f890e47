"""Adds and removes nodes by their addresses. An address can be used again, a node's number can't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftkv.errors import ChangeRefused, Indeterminate, InvalidArgument
from raftkv.model import Member, Membership, NodeId
from raftkv.syncobj.founding import next_id

if TYPE_CHECKING:
    from raftkv.syncobj.host import Host

DEADLINE_S = 30.0


async def _membership(host: Host) -> Membership:
    """The newest membership: this node's, after it has applied all that is committed."""
    await host.confirmed_barrier()
    assert host.node is not None
    return host.node.raft.membership


def _id_of(membership: Membership, address: str) -> NodeId | None:
    return next((member.node_id for member in membership.members if member.peer_address == address), None)


async def add_member(host: Host, address: str) -> None:
    """Add the node at `address`. The leader gives it a vote when it has caught up."""
    membership = await _membership(host)
    if _id_of(membership, address) is not None:
        raise ChangeRefused(f"{address} is a member already")
    admin = host.admin()
    try:
        await admin.add_learner(Member(next_id(membership), address, address), DEADLINE_S)
    except Indeterminate:
        if _id_of(await _membership(host), address) is None:
            raise
    finally:
        await admin.close()


async def remove_member(host: Host, address: str) -> None:
    """Remove the node at `address`; its number is never used again. Raises `ChangeRefused`."""
    node_id = _id_of(await _membership(host), address)
    if node_id is None:
        raise ChangeRefused(f"{address} is no member")
    admin = host.admin()
    try:
        await admin.remove(node_id, DEADLINE_S)
    except (Indeterminate, InvalidArgument):
        if _id_of(await _membership(host), address) is not None:
            raise
    finally:
        await admin.close()


async def transfer(host: Host, address: str | None) -> None:
    """Hand leadership over from this node, which has to be the leader."""
    node = host.node
    assert node is not None
    target = None
    if address is not None and (target := _id_of(node.raft.membership, address)) is None:
        raise ChangeRefused(f"{address} is no member")
    await node.orders.transfer_leadership(target)
