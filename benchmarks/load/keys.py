"""Which operations come next: keys and kinds, drawn before the clock runs, the same for the same seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

DRAWN = 1 << 16
"""Operations drawn beforehand; a generator goes around them, so that drawing costs nothing while it measures."""


def key(number: int) -> bytes:
    """The key with this number, which has 16 bytes."""
    return b"key-%012d" % number


def in_order(keys: int, first: int, step: int) -> Iterator[tuple[bool, bytes]]:
    """Writes of every `step`th key from `first` on, again and again."""
    return itertools.cycle([(False, key(number)) for number in range(first, keys, step)])


def operations(*, keys: int, zipf: float, reads: float, seed: int) -> Iterator[tuple[bool, bytes]]:
    """(whether it reads, key), for ever."""
    chance = random.Random(seed)
    if zipf:
        ranks = list(range(keys))
        chance.shuffle(ranks)  # the popular keys are not neighbours
        weights = list(itertools.accumulate(1 / (rank + 1) ** zipf for rank in range(keys)))
        numbers = chance.choices(ranks, cum_weights=weights, k=DRAWN)
    else:
        numbers = [chance.randrange(keys) for _ in range(DRAWN)]
    return itertools.cycle([(chance.random() < reads, key(number)) for number in numbers])


def value(size: int, seed: int) -> bytes:
    """Bytes that nothing can compress."""
    return random.Random(seed).randbytes(size)
