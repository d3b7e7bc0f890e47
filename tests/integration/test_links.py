"""Real nodes and clients with a proxy on every link: cut, rough, slow, wrong, reset, half open."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.chaos.clients import MACHINE, recorded
from tests.chaos.links import (
    Bridge,
    ClientsCutOff,
    Flapping,
    HalfOpen,
    LeaderCutOff,
    LinkFault,
    LostReplies,
    Partitions,
    Resets,
    flips,
    replays,
    rough,
    shapes,
    throttle,
)
from tests.chaos.proxy import LinkProxy
from tests.chaos.round import Bounds, play_round
from tests.chaos.transfers import SETTINGS, TransferCut
from tests.forked import ForkedCluster
from tests.integration.nodes import start, tell

Making = Callable[[LinkProxy, random.Random], LinkFault]


BOUNDS = Bounds(hold_s=(0.3, 0.7), operations_min=25, recover_s=30.0)


def rounds(tmp_path: Path, seed: int, faults: Sequence[Making], settings: Sequence[str] = ()) -> None:
    """These faults one after the other on one cluster, each under recorded load, and the verdict."""

    async def story() -> None:
        cluster = ForkedCluster(tmp_path, 3, arguments=[*MACHINE, *settings], apart=True)
        with cluster, LinkProxy.of(cluster, seed) as proxy:
            stage = start(cluster, tmp_path, seed=seed, proxy=proxy)
            await stage.leader()
            async with recorded(cluster.addresses, seed=seed) as clients:
                for make in faults:
                    await play_round(stage, clients, make(proxy, stage.dice), BOUNDS)
            await stage.until_equal()

    tell(story())


def test_there_are_64_shapes_of_cuts_between_three_nodes() -> None:
    """Each of the six ways is cut or not; a run of chaos goes through all, this test through some."""
    assert len(set(shapes([1, 2, 3]))) == 64


def test_what_is_cut_is_survived(tmp_path: Path) -> None:
    """Three shapes, a leader that nobody hears, the bridge of 2020, a link that flaps (F39, F40, F41, F43)."""

    def some(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return Partitions(proxy, dice, dice.sample(shapes(proxy.nodes)[7:], k=3), hold_s=(0.5, 1.0), calm_s=(0.1, 0.3))

    def mute(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return LeaderCutOff(proxy, dice, "mute")

    rounds(tmp_path, 1, [some, mute, Bridge, Flapping])


def test_what_is_rough_slow_or_wrong_is_survived(tmp_path: Path) -> None:
    """Frames late, twice, overtaken, lost, of the past, through a needle's eye, with a wrong bit (F28, F61, F67)."""

    def between_nodes(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return flips(proxy, dice, of_clients=False)

    def of_clients(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return flips(proxy, dice, of_clients=True)

    rounds(tmp_path, 2, [rough, replays, throttle, between_nodes, of_clients])


def test_what_is_reset_or_half_open_is_survived(tmp_path: Path) -> None:
    """Connections of nodes and of clients that end for both, or for one of the two (F40, F43)."""
    makes = [
        lambda proxy, dice, of_clients=of_clients, make=make: make(proxy, dice, of_clients=of_clients)
        for make in (Resets, HalfOpen)
        for of_clients in (False, True)
    ]
    rounds(tmp_path, 3, makes)


def test_what_clients_do_not_hear_is_not_done_twice(tmp_path: Path) -> None:
    """Replies vanish with their connections, and nodes are out of reach one way or the other: each increment counts
    once, or nobody was told that it did (F36, F74)."""
    rounds(tmp_path, 4, [LostReplies, ClientsCutOff])


def test_a_transfer_that_is_cut_goes_on(tmp_path: Path) -> None:
    """A follower gets its snapshot through two cuts in the middle, and clients are served meanwhile (F66, F67)."""
    rounds(tmp_path, 5, [TransferCut], SETTINGS)
