"""Where to look next among keys that are deleted but still stored, which nobody is shown."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

POST_EVERY = 128
"""Deletions from one guidepost to the next: few enough that even in random order hardly a part holds a step's worth."""
POSTS_MAX = 16_384
"""Guideposts that are kept: for two million deletions, more than RocksDB holds before it clears them away."""

_BASE = 257
"""A byte is a digit from 1 to 256, the end of a key is 0: so numbers have the order of keys, and no two are alike."""
_MORE_DIGITS = 8


class Gap:
    """A search for the next key that lives in [`low`, `high`), a bounded piece of work at a time.

    A store that gave up a look after so many deleted keys does not say how far it has come. So a look is taken into a
    part, `probe`, whose end is known: the part becomes smaller when there was too much in it, larger when it was empty.
    Parts are taken from `low` upwards, or from `high` downwards when `reverse`.

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
        """How many probes were empty one after the other; negative: how many were too much."""
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
        """How far it was searched: no key that lives is below (above, in reverse) and at or above where it began."""
        return self._key(self._high if self._reverse else self._low)

    @property
    def probe(self) -> tuple[bytes, bytes]:
        """Where to look now: from the first to before the second."""
        if not self._reverse:
            return self._key(self._low), self._key(min(self._high, self._low + self._width))
        high = self._key(self._high)
        # Many numbers may stand for one key, which would be a part without any.
        while (low := self._key(max(self._low, self._high - self._width))) >= high:
            self._width <<= 4
        return low, high

    @property
    def is_smallest(self) -> bool:
        """Whether there was too much in this probe, and it can't be smaller: look at it whole, whatever it takes."""
        return self._failed == self.probe

    def empty(self) -> None:
        """Nothing lives in the probe; the next is larger, the more so the more often that was the case."""
        if self._reverse:
            self._high = max(self._low, self._high - self._width)
        else:
            self._low = min(self._high, self._low + self._width)
        self._run = max(self._run, 0) + 1
        self._width = max(1, min(self._width << min(self._run, 64), self._high - self._low))

    def too_much(self) -> None:
        """The look was given up; the next probe is smaller, the more so the more often that was the case."""
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
    """Some of the keys that were deleted lately: how a range is best taken in parts that hold few of them each.

    Nothing is wrong when they are old or missing, only slower. Written by one thread, read by any.
    """

    def __init__(self) -> None:
        self._posts: list[bytes] = []
        self._count = 0

    def deleted(self, key: bytes) -> None:
        """One more was deleted."""
        self._count += 1
        if self._count % POST_EVERY == 0:
            insort(self._posts, key)
            if len(self._posts) > POSTS_MAX:
                self._posts = self._posts[::2]  # another list: who reads goes on with the one that it has

    def next(self, start: bytes, end: bytes, *, reverse: bool) -> bytes:
        """Up to where the first part of a range goes; in reverse, from where on the last part."""
        posts = self._posts
        if reverse:
            at = bisect_left(posts, end) - 1
            return max(start, posts[at]) if at >= 0 else start
        at = bisect_right(posts, start)
        return min(end, posts[at]) if at < len(posts) else end
