"""Where to look next among keys that are deleted but still stored, and that readers skip."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

POST_EVERY = 128
"""Deletions from one guidepost to the next: so few that a part hardly ever needs more than one step, even when keys
are deleted in random order."""
POSTS_MAX = 16_384
"""Guideposts that are kept: enough for two million deletions, more than RocksDB keeps before it clears them away."""

_BASE = 257
"""A byte is a digit from 1 to 256, a key's end is 0: so numbers sort as keys do, and no two keys share one."""
_MORE_DIGITS = 8


class Gap:
    """A search for the next key that lives in [`low`, `high`), a bounded piece of work at a time.

    A store that gives up a search after many deleted keys does not say how far it has come. So it searches one part at
    a time, `probe`, whose end is known: the next part is smaller when there was too much in this one, larger when it
    was empty. Parts are taken from `low` upwards, or from `high` downwards when `reverse`.

    Invariant: nothing lives between where the search began and `position`.
    """

    def __init__(self, low: bytes, high: bytes, *, reverse: bool = False) -> None:
        shared = next((at for at, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), None)
        self._prefix = low[: min(len(low), len(high)) if shared is None else shared]
        self._digits = max(len(low), len(high)) - len(self._prefix)
        self._low, self._high = self._number(low), self._number(high)
        self._reverse = reverse
        self._width = max(1, self._high - self._low)
        self._run = 0
        """How many of the last probes in a row were empty; negative: how many held too much."""
        self._failed: tuple[bytes, bytes] | None = None

    def _number(self, key: bytes) -> int:
        number = 0
        for byte in key[len(self._prefix) :]:
            number = number * _BASE + byte + 1
        return number * int(_BASE ** (self._digits - len(key) + len(self._prefix)))

    def _key(self, number: int) -> bytes:
        """The first key that is not below `number`."""
        digits = []
        for _ in range(self._digits):
            number, digit = divmod(number, _BASE)
            digits.append(digit)
        digits.reverse()
        end = digits.index(0) if 0 in digits else len(digits)
        key = self._prefix + bytes(digit - 1 for digit in digits[:end])
        return key + b"\0" if any(digits[end:]) else key

    @property
    def is_over(self) -> bool:
        """Whether nothing lives in all of it."""
        return self._low >= self._high

    @property
    def position(self) -> bytes:
        """How far it was searched: no living key is between where the search began and here."""
        return self._key(self._high if self._reverse else self._low)

    @property
    def probe(self) -> tuple[bytes, bytes]:
        """The part to search now: from the first key to before the second."""
        if not self._reverse:
            return self._key(self._low), self._key(min(self._high, self._low + self._width))
        high = self._key(self._high)
        # Several numbers may stand for the same key: a part between them would be empty.
        while (low := self._key(max(self._low, self._high - self._width))) >= high:
            self._width <<= 4
        return low, high

    @property
    def is_smallest(self) -> bool:
        """Whether the probe held too much and can't be smaller: then search it whole, however long that takes."""
        return self._failed == self.probe

    def empty(self) -> None:
        """No key lives in the probe. The next one is larger, and grows faster the more of them were empty in a row."""
        if self._reverse:
            self._high = max(self._low, self._high - self._width)
        else:
            self._low = min(self._high, self._low + self._width)
        self._run = max(self._run, 0) + 1
        self._width = max(1, min(self._width << min(self._run, 64), self._high - self._low))

    def too_much(self) -> None:
        """The store gave up. The next probe is smaller, and shrinks faster the more of them held too much in a row."""
        self._failed = self.probe
        self._run = min(self._run, 0) - 1
        shift = min(-2 * self._run, 64)
        if self._width >> shift == 0:
            self._digits += _MORE_DIGITS
            self._low *= _BASE**_MORE_DIGITS
            self._high *= _BASE**_MORE_DIGITS
            self._width *= _BASE**_MORE_DIGITS
        self._width = max(1, self._width >> shift)


class Guideposts:
    """Some of the keys that were deleted lately, by which a range is cut into parts that hold few of them each.

    Old or missing ones do no harm, but make reading slower. Written by one thread, read by any.
    """

    def __init__(self) -> None:
        self._posts: list[bytes] = []
        self.deletions = 0
        """How many there were in all."""

    def deleted(self, key: bytes) -> None:
        """One more key was deleted."""
        self.deletions += 1
        if self.deletions % POST_EVERY == 0:
            insort(self._posts, key)
            if len(self._posts) > POSTS_MAX:
                self._posts = self._posts[::2]  # a new list: readers go on with the old one

    def next(self, start: bytes, end: bytes, *, reverse: bool) -> bytes:
        """The end of a range's first part; in reverse, the beginning of its last part."""
        posts = self._posts
        if reverse:
            at = bisect_left(posts, end) - 1
            return max(start, posts[at]) if at >= 0 else start
        at = bisect_right(posts, start)
        return min(end, posts[at]) if at < len(posts) else end
