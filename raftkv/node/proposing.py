"""When a part of a node that proposes entries by itself may propose the next one."""

from __future__ import annotations

from raftkv.model import Index, Term
from raftkv.node.applier import Applier
from raftkv.node.body import Body


class OwnEntries:
    """The entries of one such part. It decides by the state, so it goes on only from one that has all of them."""

    def __init__(self, body: Body, applier: Applier) -> None:
        self._body = body
        self._applier = applier
        self._last: tuple[Term, Index] = (0, 0)

    def may_follow(self) -> bool:
        """Whether this leader has applied all that earlier terms left, and what this part proposed itself."""
        raft, applied = self._body.raft, self._applier.runner.applied
        if not raft.is_leader or self._body.doubt is not None or applied.term != raft.term:
            return False
        return self._last[0] != raft.term or applied.index >= self._last[1]

    def proposed(self, index: Index) -> None:
        """The part has proposed an entry."""
        self._last = self._body.raft.term, index

    def is_last(self, index: Index) -> bool:
        """Whether it is the entry that was proposed last."""
        return index == self._last[1]
