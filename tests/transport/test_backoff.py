"""How long a node waits before it dials again."""

from __future__ import annotations

from raftkv.transport.backoff import Backoff


def test_waits_double_up_to_a_second() -> None:
    """50 ms to 1 s without jitter, and from the beginning after a success."""
    backoff = Backoff(lambda n: 0)
    assert [backoff.next_s() for _ in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.next_s() == 0.05


def test_jitter_adds_up_to_half() -> None:
    """Nodes that lost the same peer don't come back in step."""
    backoff = Backoff(lambda n: n - 1)
    assert [backoff.next_s() for _ in range(6)] == [0.075, 0.15, 0.3, 0.6, 1.2, 1.5]
