"""What is reported as a loss."""

from __future__ import annotations

import asyncio

from raftkv.transport.presence import Presence
from tests.transport.worlds import Talker


def lost(story: str) -> list[str]:
    """The losses reported in a story of `-` (a connection with node 2 breaks) and `+` (node 2 is heard)."""

    async def main() -> list[str]:
        talker = Talker(1)
        presence = Presence(talker)
        for number, what in enumerate(story):
            if what == "+":
                presence.heard(2)
            else:
                presence.broke(2, f"at {number}")
        return [reason for _, reason in talker.lost]

    return asyncio.run(main())


def test_two_connections_of_a_dead_process_are_one_loss() -> None:
    """Without a sign of life between them, breaks are one."""
    assert lost("+--") == ["at 1"]


def test_a_break_behind_a_sign_of_life_is_a_loss_of_its_own() -> None:
    """The one connection broke, the other still told of a leader: its end is news."""
    assert lost("+-+-") == ["at 1", "at 3"]


def test_losses_are_kept_apart_by_peer() -> None:
    """One peer's loss says nothing of another's."""

    async def main() -> list[int]:
        talker = Talker(1)
        presence = Presence(talker)
        for peer in (2, 3, 2, 3):
            presence.broke(peer, "gone")
        return [peer for peer, _ in talker.lost]

    assert asyncio.run(main()) == [2, 3]
