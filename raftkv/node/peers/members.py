"""Memberships with one member changed, and the check that each of its addresses is what it is said to be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

from raftkv.addresses import address_problem
from raftkv.errors import FrameError, InvalidArgument, Unavailable
from raftkv.model import Member, Membership, NodeId
from raftkv.wire import (
    NO_VERSION,
    PROTOCOL_VERSION,
    ClientHello,
    Hello,
    HelloReply,
    ServerHello,
    decode_message,
    decode_server_hello,
    encode_client_hello,
    encode_message,
)

Ask: TypeAlias = Callable[[str, bytes], Awaitable[bytes | None]]
"""Sends a first frame to an address; returns the frame that comes back, or None."""

_NODE_FRAME = encode_message(
    Hello(
        version=NO_VERSION,
        cluster_id="",
        node_id=0,
        incarnation="",
        boot=0,
        nonce="",
        fingerprint="",
        lease_reads=False,
        durable_index=0,
    )
)
_CLIENT_FRAME = encode_client_hello(ClientHello(PROTOCOL_VERSION))


def with_learner(current: Membership, member: Member) -> Membership:
    """`current` with one more node, which has no vote. Raises `InvalidArgument`."""
    if current.member(member.node_id) is not None:
        raise InvalidArgument(f"node {member.node_id} is a member already")
    check_addresses(current, member)
    return Membership(
        voters=current.voters,
        learners=tuple(sorted({*current.learners, member.node_id})),
        members=tuple(sorted((*current.members, member))),
    )


def without(current: Membership, node_id: NodeId) -> Membership:
    """`current` without one of its members. Raises `InvalidArgument`."""
    if current.member(node_id) is None:
        raise InvalidArgument(f"node {node_id} is no member ({current.describe()})")
    return Membership(
        voters=tuple(voter for voter in current.voters if voter != node_id),
        learners=tuple(learner for learner in current.learners if learner != node_id),
        members=tuple(member for member in current.members if member.node_id != node_id),
    )


def with_addresses(current: Membership, member: Member) -> Membership:
    """`current` with other addresses of one of its members. Raises `InvalidArgument`."""
    if current.member(member.node_id) is None:
        raise InvalidArgument(f"node {member.node_id} is no member ({current.describe()}): add it instead")
    check_addresses(current, member)
    members = [member if each.node_id == member.node_id else each for each in current.members]
    return msgspec.structs.replace(current, members=tuple(members))


def check_addresses(current: Membership, member: Member) -> None:
    """Raises `InvalidArgument` for an address that can't be dialled, or that another member has."""
    for address in (member.peer_address, member.client_address):
        if address and (problem := address_problem(address)) is not None:
            raise InvalidArgument(f"node {member.node_id}: {problem}")
        for other in current.members:
            if address and other.node_id != member.node_id and address in (other.peer_address, other.client_address):
                raise InvalidArgument(
                    f"{address} is an address of node {other.node_id} already: one that is used by more than one "
                    "member would send some to the wrong node"
                )


class Answers(msgspec.Struct, frozen=True):
    """What answers at a member's two addresses: "nodes", "clients", or "" for nobody."""

    peer: str
    client: str
    node_id: NodeId | None = None
    """The id of the node that answers at the client address."""


async def who_answers(ask: Ask, member: Member) -> Answers:
    """Dial both addresses. Each is tried first as what it should be, then as the other."""
    peer, _ = await _kind_at(ask, member.peer_address, ("nodes", "clients"))
    client, node_id = await _kind_at(ask, member.client_address, ("clients", "nodes"))
    return Answers(peer, client, node_id)


async def _kind_at(ask: Ask, address: str, kinds: tuple[str, ...]) -> tuple[str, NodeId | None]:
    for kind in kinds if address else ():
        answer = await ask(address, _NODE_FRAME if kind == "nodes" else _CLIENT_FRAME)
        if answer is None:
            continue
        try:
            if kind == "clients":
                hello: ServerHello = decode_server_hello(answer)
                return kind, hello.node_id
            if isinstance(decode_message(answer), HelloReply):
                return kind, None
        except FrameError:
            continue
    return "", None


def check_answers(member: Member, answers: Answers) -> None:
    """Raises `InvalidArgument` when the wrong node or service answers. Silence is fine: the node may start later."""
    given = f"{member.node_id}={member.peer_address}/{member.client_address}"
    if answers.peer == "clients" and answers.client in ("nodes", ""):
        swapped = f"{member.node_id}={member.client_address}/{member.peer_address}"
        raise InvalidArgument(
            f"{given}: a node listens for clients at {member.peer_address}, where the address for nodes belongs: "
            f"are the two swapped? Then write {swapped}"
        )
    if answers.client == "nodes" and answers.peer in ("clients", ""):
        swapped = f"{member.node_id}={member.client_address}/{member.peer_address}"
        raise InvalidArgument(
            f"{given}: a node listens for other nodes at {member.client_address}, where the address for clients "
            f"belongs: are the two swapped? Then write {swapped}"
        )
    if answers.node_id is not None and answers.node_id != member.node_id:
        raise InvalidArgument(f"{given}: node {answers.node_id} answers at {member.client_address}")


def check_is_there(member: Member, answers: Answers) -> None:
    """Raises `Unavailable` when one of the member's addresses does not answer."""
    for address, kind in ((member.peer_address, answers.peer), (member.client_address, answers.client)):
        if not kind:
            raise Unavailable(
                f"nobody answers at {address}: start node {member.node_id} there first (it will say that the "
                "membership sends others elsewhere), or insist on it (--force) if it comes there later"
            )
