"""Majorities, also of two memberships at once (§6): pure arithmetic, nothing that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftkv.model import Membership, NodeId


def majority(count: int) -> int:
    """How many of `count` voters are a majority."""
    return count // 2 + 1


def reached_by_majority(voters: tuple[NodeId, ...], value: Callable[[NodeId], int]) -> int:
    """The greatest number that a majority of `voters` has reached, if each has reached `value(voter)`."""
    return sorted(map(value, voters))[(len(voters) - 1) // 2]


def reached_by_quorum(membership: Membership, value: Callable[[NodeId], int]) -> int:
    """The same for a membership: in a joint one both majorities must have reached it (§6)."""
    reached = reached_by_majority(membership.voters, value)
    if membership.outgoing:
        reached = min(reached, reached_by_majority(membership.outgoing, value))
    return reached


def is_quorum(membership: Membership, nodes: Iterable[NodeId]) -> bool:
    """Whether `nodes` hold a majority of the voters, in both halves of a joint membership."""
    yes = set(nodes)
    return all(
        sum(voter in yes for voter in half) >= majority(len(half))
        for half in (membership.voters, membership.outgoing)
        if half
    )
