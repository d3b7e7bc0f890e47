"""Who a node is: one of the founders, one that was added later, or one that comes back."""

from __future__ import annotations

import asyncio
import posixpath
import ssl as tls
from collections.abc import Callable
from typing import Any

import msgspec

from raftkv.client import Admin, ClientOptions
from raftkv.disk import Disk
from raftkv.errors import Corruption, FrameError, RaftKVError
from raftkv.model import Member, Membership, NodeId
from raftkv.node.identity import cluster_id_of, founding_membership
from raftkv.syncobj.settings import split

CLUSTER_NAME = "syncobj"
ASK_S = 1.0
"""How long one node is asked who it is; one that is down refuses at once."""
AGAIN_S = 0.2
"""Between two questions of a node that waits to be added."""


class Place(msgspec.Struct, frozen=True):
    """A node's number, and the founders when it is one of them and starts for the first time."""

    node_id: NodeId
    members: tuple[Member, ...] = ()


def founders(addresses: set[str]) -> tuple[Member, ...]:
    """Numbered in the order of their addresses, so that all come to the same."""
    return tuple(Member(number, each, each) for number, each in enumerate(sorted(addresses), 1))


def next_id(membership: Membership) -> NodeId:
    """A number that was never used."""
    return max((*membership.all_nodes(), *membership.removed, 0)) + 1


async def find_place(
    disk: Disk,
    directory: str,
    address: str,
    others: set[str],
    *,
    ssl: tls.SSLContext | None,
    on_wait: Callable[[str], None],
) -> Place:
    """Where this node belongs: what its directory says, or else what the others say; durable on return.

    A node that the cluster does not know is waiting to be added; `on_wait` hears of that, and then it goes on asking.
    """
    path = posixpath.join(directory, "node")
    if disk.exists(path):
        return Place(_load(disk, path, address))
    place = await _ask_for_place(address, others, ssl, on_wait)
    disk.mkdir(directory)
    disk.write_atomic(path, msgspec.msgpack.encode((place.node_id, address)))
    return place


def _load(disk: Disk, path: str, address: str) -> NodeId:
    try:
        node_id, known = msgspec.msgpack.decode(disk.read_bytes(path), type=tuple[NodeId, str])
    except msgspec.MsgspecError as exc:
        raise Corruption(f"{path} can't be read ({exc}): remove this node and add it with an empty directory") from exc
    if known != address:
        raise Corruption(f"{path} belongs to the node at {known}, not to {address}: give each node its own directory")
    return node_id


async def _ask_for_place(
    address: str, others: set[str], ssl: tls.SSLContext | None, on_wait: Callable[[str], None]
) -> Place:
    members = founders({address, *others})
    own = next(member.node_id for member in members if member.peer_address == address)
    founded = cluster_id_of(CLUSTER_NAME, founding_membership(members))
    while others:
        answers = await asyncio.gather(*(status_of(each, ssl) for each in sorted(others)))
        foreign = [answer for answer in answers if answer is not None and answer["cluster_id"] not in ("", founded)]
        if not foreign:
            break
        for answer in foreign:
            for member in answer["membership"]["members"]:
                if member["peer_address"] == address:
                    return Place(member["node_id"])
        on_wait(f"{address} waits to be added to the cluster of {sorted(others)} (addNodeToCluster)")
        await asyncio.sleep(AGAIN_S)
    return Place(own, members)


async def status_of(address: str, ssl: tls.SSLContext | None) -> dict[str, Any] | None:
    """What the node at `address` says of itself, or None when it says nothing."""
    if not await _listens(address):
        return None
    admin = Admin([address], options=ClientOptions(connect_timeout_s=ASK_S), ssl=ssl)
    try:
        return await admin.status(ASK_S)
    except (RaftKVError, FrameError):
        return None
    finally:
        await admin.close()


async def _listens(address: str) -> bool:
    """Whether anybody is there: a client would go on trying for as long as it may."""
    try:
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(*split(address))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
