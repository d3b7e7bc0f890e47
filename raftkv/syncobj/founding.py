"""Finds a node's number: it is one of the founders, was added later, or comes back."""

from __future__ import annotations

import asyncio
import posixpath
import ssl as tls
from collections.abc import Callable
from typing import Any

import msgspec

from raftkv.client import Admin, ClientOptions
from raftkv.disk import Disk
from raftkv.errors import Corruption, FrameError, RaftKVError, WrongDataDir
from raftkv.model import Member, Membership, NodeId
from raftkv.node.identity import cluster_id_of, founding_membership
from raftkv.syncobj.settings import split

CLUSTER_NAME = "syncobj"
ASK_S = 1.0
"""How long one node is asked who it is; one that is down refuses at once."""
AGAIN_S = 0.2
"""Between two questions of a node that waits to be added."""


class Place(msgspec.Struct, frozen=True):
    """A node's number, and the founders if it is one of them and starts for the first time."""

    node_id: NodeId
    members: tuple[Member, ...] = ()


def founders(addresses: set[str]) -> tuple[Member, ...]:
    """The founders, numbered in the order of their addresses, so that every node gets the same numbers."""
    return tuple(Member(number, each, each) for number, each in enumerate(sorted(addresses), 1))


def next_id(membership: Membership) -> NodeId:
    """A number that no member has or had."""
    return max((*membership.all_nodes(), *membership.removed, 0)) + 1


class Seeker(msgspec.Struct):
    """Looks for a node's number, at its start."""

    address: str
    others: set[str]
    ssl: tls.SSLContext | None
    replaceable: bool
    """Whether it may take a new number where an earlier start of it is known, because it keeps nothing on purpose."""
    on_wait: Callable[[str], None]
    """Hears why the place is not found yet."""
    leaving: bool = False
    """Whether this start has removed the earlier one's number, and has to see to a new one."""

    async def find(self, disk: Disk, directory: str) -> Place:
        """Take the number from the directory, or else ask the other nodes; durable on return.

        A node that the cluster does not know asks again until it has been added. Raises `Corruption`, `WrongDataDir`.
        """
        path = posixpath.join(directory, "node")
        if disk.exists(path):
            return Place(_load(disk, path, self.address))
        place = await self._ask()
        disk.mkdir(directory)
        disk.write_atomic(path, msgspec.msgpack.encode((place.node_id, self.address)))
        return place

    async def _ask(self) -> Place:
        members = founders({self.address, *self.others})
        own = next(member.node_id for member in members if member.peer_address == self.address)
        founded = cluster_id_of(CLUSTER_NAME, founding_membership(members))
        while True:
            answers = [answer for answer in await self._answers() if answer["cluster_id"]]
            if not answers:
                return Place(own, members)
            node_id = self._number_in(answers)
            if node_id is None and self.leaving:
                await self._replace(None)
            elif node_id is None:
                self.on_wait(f"{self.address} waits to be added to the cluster of {sorted(self.others)}")
            elif self._was_met(answers, node_id):
                await self._replace(node_id)
            elif node_id == own and all(answer["cluster_id"] == founded for answer in answers):
                return Place(own, members)
            else:
                return Place(node_id)
            await asyncio.sleep(AGAIN_S)

    async def _answers(self) -> list[dict[str, Any]]:
        answers = await asyncio.gather(*(status_of(each, self.ssl) for each in sorted(self.others)))
        return [answer for answer in answers if answer is not None]

    def _number_in(self, answers: list[dict[str, Any]]) -> NodeId | None:
        """The highest number that a node knows for this address, which is the newest."""
        members = [member for answer in answers for member in answer["membership"]["members"]]
        return max((each["node_id"] for each in members if each["peer_address"] == self.address), default=None)

    @staticmethod
    def _was_met(answers: list[dict[str, Any]], node_id: NodeId) -> bool:
        peers = [peer for answer in answers for peer in answer["peers"]]
        return any(peer["node_id"] == node_id and peer["incarnation"] is not None for peer in peers)

    async def _replace(self, old: NodeId | None) -> None:
        """Get a new number, because a node with this address and number has acknowledged what this directory lacks.

        The old number is removed first; for that the others need a majority without it.
        """
        if not self.replaceable:
            raise WrongDataDir(
                f"the cluster knows {self.address} with another data directory, so this one lacks what was "
                "acknowledged: give it its old directory back, or remove the node and add it again"
            )
        admin = Admin(sorted(self.others), ssl=self.ssl)
        try:
            if old is not None:
                await admin.remove(old)
                self.leaving = True
            membership = msgspec.convert((await admin.status())["membership"], Membership)
            await admin.add_learner(Member(next_id(membership), self.address, self.address))
        except RaftKVError as exc:
            self.on_wait(f"{self.address} has lost its data, and can't be replaced yet: {exc}")
        finally:
            await admin.close()


def _load(disk: Disk, path: str, address: str) -> NodeId:
    try:
        node_id, known = msgspec.msgpack.decode(disk.read_bytes(path), type=tuple[NodeId, str])
    except msgspec.MsgspecError as exc:
        raise Corruption(f"{path} can't be read ({exc}): remove this node and add it with an empty directory") from exc
    if known != address:
        raise Corruption(f"{path} belongs to the node at {known}, not to {address}: give each node its own directory")
    return node_id


async def status_of(address: str, ssl: tls.SSLContext | None) -> dict[str, Any] | None:
    """The status of the node at `address`; None when it does not answer."""
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
    """Whether anything listens at the address. A client would not tell: it would try until its deadline."""
    try:
        async with asyncio.timeout(ASK_S):
            _, writer = await asyncio.open_connection(*split(address))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
