"""Noise on a network: frames with flipped bits, lost frames, repeated ones, and frames in another order."""

from __future__ import annotations

import random
from collections import Counter, deque

from raftkv.model import NodeId
from raftkv.testing.world.cluster import CLIENT

REMEMBERED = 30
"""Pieces of each way that may come again, much later."""


class Noise:
    """An `Interference` of a `MemoryNetwork`.

    TCP and checksums prevent most of this, so most of it happens only behind a broken proxy; but none of it may break a
    promise. Between clients and nodes there are only flips, because a client can't tell when an answer is repeated.
    """

    def __init__(self, dice: random.Random, fired: Counter[str]) -> None:
        self._dice = dice
        self._fired = fired
        self.chances: dict[str, float] = {}
        """By kind of fault: the part of all pieces that it meets."""
        self._old: dict[tuple[NodeId, NodeId], deque[bytes]] = {}
        self._late: dict[tuple[NodeId, NodeId], bytes] = {}

    def calm(self) -> None:
        """Let everything through from now on."""
        self.chances = {}
        self._late.clear()

    def __call__(self, sender: NodeId, to: NodeId, piece: bytes) -> list[bytes]:
        if self._happens("bit flip"):
            flipped = bytearray(piece)
            flipped[self._dice.randrange(len(piece))] ^= 1 << self._dice.randrange(8)
            return [bytes(flipped)]
        if CLIENT in (sender, to):
            return [piece]
        return self._between_peers((sender, to), piece)

    def _between_peers(self, way: tuple[NodeId, NodeId], piece: bytes) -> list[bytes]:
        arriving = [piece]
        if self._happens("lost frame"):
            arriving = []
        elif self._happens("frame out of order") and way not in self._late:
            self._late[way] = piece
            return []
        elif self._happens("repeated frame") and (old := self._old.get(way)):
            arriving = [piece, self._dice.choice(old)]
        if (late := self._late.pop(way, None)) is not None:
            arriving.append(late)
        self._old.setdefault(way, deque(maxlen=REMEMBERED)).append(piece)
        return arriving

    def _happens(self, kind: str) -> bool:
        chance = self.chances.get(kind)
        if chance is None or self._dice.random() >= chance:
            return False
        self._fired[kind] += 1
        return True
