"""Many keys in order, to which more are added at any time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

BLOCK_KEYS = 512
"""Keys in a block, up to twice as many: each new one moves half a block."""


class OrderedKeys:
    """A set of keys, in blocks, so that to add one to a hundred thousand still takes only a microsecond or two.

    Invariants: no block is empty; each is in order, and below the next; `_firsts` are their first keys.
    """

    def __init__(self) -> None:
        self._blocks: list[list[bytes]] = []
        self._firsts: list[bytes] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: bytes) -> None:
        """Add a key; nothing happens when it is there already."""
        if not self._blocks:
            self._blocks, self._firsts, self._count = [[key]], [key], 1
            return
        number = max(0, bisect_right(self._firsts, key) - 1)
        block = self._blocks[number]
        at = bisect_left(block, key)
        if at < len(block) and block[at] == key:
            return
        block.insert(at, key)
        self._firsts[number] = block[0]
        self._count += 1
        if len(block) > 2 * BLOCK_KEYS:
            self._blocks[number : number + 1] = [block[:BLOCK_KEYS], block[BLOCK_KEYS:]]
            self._firsts[number : number + 1] = [block[0], block[BLOCK_KEYS]]

    def between(self, low: bytes, high: bytes) -> list[bytes]:
        """The keys from `low` to before `high`, in order."""
        found: list[bytes] = []
        for number in range(max(0, bisect_right(self._firsts, low) - 1), len(self._blocks)):
            if self._firsts[number] >= high:
                break
            block = self._blocks[number]
            found += block[bisect_left(block, low) : bisect_left(block, high)]
        return found
