"""The leader's comparison of its followers' digests with its own: who differs, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeAlias

import msgspec

from raftkv.model import Index, Membership, NodeId


class Outlier(msgspec.Struct, frozen=True):
    """A majority of the voters agrees, and `node` differs from them."""

    node: NodeId
    index: Index


class NoMajority(msgspec.Struct, frozen=True):
    """The voters' states differ at `index`, and no state can have a majority, whatever the silent ones hold."""

    index: Index
    sides: tuple[tuple[NodeId, ...], ...]
    """Who agrees with whom; the leader's side is the first."""
    agreed_index: Index
    """The last index at which a majority is known to have agreed; 0 when none is known."""


Finding: TypeAlias = Outlier | NoMajority


class Doubt(msgspec.Struct, frozen=True):
    """Voters differ from the leader, and it is not decided yet who is wrong."""

    index: Index
    differ: tuple[NodeId, ...]
    silent: tuple[NodeId, ...]
    """Who would have to say what it holds."""


class _Voice(msgspec.Struct):
    """What is known of one replica compared with this one."""

    agreed_index: Index = 0
    differs_index: Index | None = None
    digest: int | None = None
    """What it has after the entry that all are asked for, if that differs."""
    has_ended: bool = False
    """Whether its process has ended since it differed: it may come back with another state, so it is no side now."""


class DigestComparer:
    """The leader's comparison of its followers' reports with its own digests."""

    def __init__(self, node_id: NodeId, digest_at: Callable[[Index], int | None]) -> None:
        self._node_id = node_id
        self._digest_at = digest_at
        self._voices: dict[NodeId, _Voice] = {}
        self._agreed_index: Index = 0
        self.asked: Index | None = None
        """The index at which those that differ are compared with each other; None while nobody differs."""
        self.compared = 0

    def clear(self) -> None:
        """Another term: others report to another leader."""
        self._voices.clear()
        self.asked = None

    def forget(self, node: NodeId) -> None:
        """Its process has ended, and may come back with another state. That somebody differed is not forgotten."""
        voice = self._voices.get(node)
        if voice is None or voice.differs_index is None:
            self._voices.pop(node, None)
        else:
            voice.agreed_index, voice.digest, voice.has_ended = 0, None, True

    def report(self, node: NodeId, index: Index, digest: int, membership: Membership) -> Finding | None:
        """Take in a report; returns what is certain now, if anything is.

        A report for an index that this node has not applied yet, or has long left behind, says nothing, and
        neither does one of a node that is no member.
        """
        own = self._digest_at(index)
        if own is None or membership.member(node) is None:
            return None
        self.compared += 1
        voice = self._voices.setdefault(node, _Voice())
        if own == digest:
            voice.agreed_index = max(voice.agreed_index, index)
            voice.differs_index = voice.digest = None
            self._agreed_index = max(self._agreed_index, self._majority_index(index, membership))
        else:
            if voice.differs_index is None or voice.has_ended:
                voice.differs_index = index
            if self.asked is None:
                self.asked = index
            if index == self.asked:
                voice.digest = digest
        voice.has_ended = False
        return self.judge(membership)

    def judge(self, membership: Membership) -> Finding | None:
        """What is certain now: of whoever differs, as a report may be the opinion that another's case waited for."""
        differ = self._differ(membership)
        if not differ:
            self.asked = None
            return None
        for node in differ:
            voice = self._voices[node]
            index = voice.differs_index
            if index is not None and not voice.has_ended and _is_majority(self.agree(index), membership):
                # It is told now; should that be lost, its next report shows it again.
                voice.differs_index = voice.digest = None
                return Outlier(node, index)
        assert self.asked is not None, f"{differ} differ, and nobody is asked"
        sides = self._sides(self.asked, membership)
        if any(_is_majority(side, membership) for side in sides[1:]):
            return Outlier(self._node_id, self.asked)
        silent = self.silent(membership)
        others = [node for node in silent if not self._differs_by(node, self.asked)]
        chances = [[*sides[0], *others], silent, *([*side, *silent] for side in sides[1:])]
        if any(_is_majority(chance, membership) for chance in chances):
            return None
        return NoMajority(self.asked, tuple(tuple(side) for side in sides), self._agreed_index)

    def doubt(self, membership: Membership) -> Doubt | None:
        """Whether the leader may be the one that is wrong; learners that differ are no reason for that."""
        differ = [
            node
            for node in self._differ(membership)
            if membership.is_voter(node)
            and not _is_majority(self.agree(self._voices[node].differs_index or 0), membership)
        ]
        if not differ:
            return None
        return Doubt(self.asked or 0, tuple(differ), tuple(self.silent(membership)))

    def ask(self, index: Index) -> None:
        """Compare at `index`, the newest that is applied here: who was started since the difference has that."""
        if self.asked is not None and index > self.asked:
            self.asked = index
            for voice in self._voices.values():
                voice.digest = None

    def silent(self, membership: Membership) -> list[NodeId]:
        """The voters of which it is not known what they have at the index that is asked for."""
        heard = [node for side in self._sides(self.asked or 0, membership) for node in side]
        return [node for node in membership.all_voters() if node not in heard]

    def _differ(self, membership: Membership) -> list[NodeId]:
        voices = self._voices.items()
        return [node for node, voice in voices if voice.differs_index is not None and membership.member(node)]

    def _differs_by(self, node: NodeId, index: Index) -> bool:
        voice = self._voices.get(node)
        return voice is not None and not voice.has_ended and (voice.differs_index or index + 1) <= index

    def agree(self, index: Index) -> list[NodeId]:
        """This node, and whoever agrees with it at `index`."""
        return [self._node_id, *(node for node, voice in self._voices.items() if voice.agreed_index >= index)]

    def _sides(self, index: Index, membership: Membership) -> list[list[NodeId]]:
        """The voters that hold the same state at `index`, as far as that is known; this node's side is the first."""
        own = [node for node in self.agree(index) if membership.is_voter(node)]
        sides: dict[int, list[NodeId]] = {}
        for node, voice in self._voices.items():
            if voice.digest is not None and node not in own and membership.is_voter(node):
                sides.setdefault(voice.digest, []).append(node)
        return [own, *sides.values()]

    def _majority_index(self, newest: Index, membership: Membership) -> Index:
        """The newest index, up to `newest`, at which a majority agrees with this node."""
        for index in sorted({newest, *(min(voice.agreed_index, newest) for voice in self._voices.values())})[::-1]:
            if _is_majority(self.agree(index), membership):
                return index
        return 0


def _is_majority(nodes: Collection[NodeId], membership: Membership) -> bool:
    """Whether `nodes` decide: in both memberships, while a change is joint. Only voters are opinions: learners that
    differ, however many there are, are no case against the leader."""
    return all(
        2 * sum(voter in nodes for voter in voters) > len(voters)
        for voters in (membership.voters, membership.outgoing)
        if voters
    )
