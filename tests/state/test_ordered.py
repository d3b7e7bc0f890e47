"""Keys in order, compared with a sorted list."""

from __future__ import annotations

import random

from raftkv.state.ordered import BLOCK_KEYS, OrderedKeys


def test_keys_are_a_set_in_order_however_they_come():
    """Upwards, downwards, by chance and twice: what lies in a range is what a sorted list has there."""
    dice = random.Random(7)
    numbers = [*range(3 * BLOCK_KEYS), *range(9_000, 7_000, -1), *(dice.randrange(10_000) for _ in range(4_000))]
    ordered, naive = OrderedKeys(), set()
    assert ordered.between(b"", b"\xff") == []
    for number in numbers:
        ordered.add(b"%05d" % number)
        naive.add(b"%05d" % number)
        if number % 97 == 0:
            low, high = sorted(b"%05d" % dice.randrange(10_000) for _ in range(2))
            assert ordered.between(low, high) == sorted(key for key in naive if low <= key < high)
    assert len(ordered) == len(naive)
    assert ordered.between(b"", b"\xff") == sorted(naive)
