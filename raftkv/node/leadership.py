"""Whether this node leads, said only when it may serve, and taken back at once."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.model import NodeId, Term
from raftkv.node.applier import Applier
from raftkv.node.body import Body


class Role(msgspec.Struct, frozen=True):
    """What a node is in its cluster."""

    is_leader: bool
    """Whether it leads and may serve: everything that was acknowledged before is applied here."""
    term: Term
    """Of two leaders, the one of the higher term is the true one; give it along where that is to be checked."""
    leader: NodeId | None
    """Who leads, as far as this node knows: itself, before it may serve, too."""


class Leadership:
    """Tells of each new role once, on the loop's thread, after what the node was just doing."""

    def __init__(self, body: Body, applier: Applier) -> None:
        self._body = body
        self._applier = applier
        self._told: list[Callable[[Role], None]] = []
        self.role = self._now()

    def _now(self) -> Role:
        body, raft = self._body, self._body.raft
        if body.has_ended:
            return Role(False, raft.term, None)
        # Its own first entry is applied, so all are that were committed before (§8).
        serves = raft.is_leader and body.doubt is None and self._applier.runner.applied.term == raft.term
        return Role(serves, raft.term, raft.leader)

    def look(self) -> None:
        """Tell of the role if it is another one."""
        role = self._now()
        if role != self.role:
            self.role = role
            for told in self._told:
                told(role)

    def tell(self, told: Callable[[Role], None]) -> None:
        """Call `told` now, and with each new role; it must not raise."""
        self._told.append(told)
        told(self.role)
