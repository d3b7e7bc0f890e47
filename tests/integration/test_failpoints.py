"""Real nodes killed at failpoints, with CAMPAIGNS=1 at every one; each has to fire. Nothing acknowledged is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from raftkv import failpoints
from tests.campaign.large import CAMPAIGN
from tests.chaos.clients import MACHINE, recorded
from tests.chaos.points import INSTALLING, LEADING, HandoverDropped, KilledAt, reached
from tests.chaos.round import Bounds, play_round
from tests.chaos.transfers import SETTINGS
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

BOUNDS = Bounds(hold_s=(0.0, 0.1), operations_min=20, recover_s=30.0)

GROUP_SIZE = 5
"""Names on one cluster."""


def groups(kind: str, names: Sequence[str]) -> list[object]:
    """The names in groups, each with some from everywhere; the first one is always tried."""
    count = -(-len(names) // GROUP_SIZE)
    return [pytest.param(names[at::count], id=f"{kind}-{at}", marks=[CAMPAIGN] if at else []) for at in range(count)]


INSTALLED = [name for name in failpoints.names() if name.startswith(INSTALLING)]
LED = [name for name in failpoints.names() if name.startswith(LEADING)]
OTHERS = [name for name in reached() if name not in {*INSTALLED, *LED}]


@pytest.mark.parametrize(
    "names", [*groups("installing", INSTALLED), *groups("leading", LED), *groups("others", OTHERS)]
)
def test_a_node_killed_anywhere_goes_on(names: Sequence[str], tmp_path: Path) -> None:
    """At each of these places in turn, under recorded load; then all states are equal (F1, F6, F50, F59, F60)."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 3, arguments=[*MACHINE, *SETTINGS]) as cluster:
            stage = start(cluster, tmp_path)
            await stage.leader()
            async with recorded(cluster.addresses) as clients:
                for name in names:
                    await play_round(stage, clients, KilledAt(stage.dice, [name]), BOUNDS)
            await stage.until_equal()
            assert all(stage.fired[f"failpoint {name}"] == 1 for name in names)

    tell(story())


def test_a_handover_whose_message_is_lost(tmp_path: Path) -> None:
    """Writes go on, whoever leads then (F45)."""

    async def story() -> None:
        with ForkedCluster(tmp_path, 3, arguments=MACHINE) as cluster:
            stage = start(cluster, tmp_path)
            async with recorded(cluster.addresses) as clients:
                await play_round(stage, clients, HandoverDropped(), BOUNDS)
            await stage.until_equal()

    tell(story())
