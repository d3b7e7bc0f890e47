"""Real nodes and clients with a proxy on every link: cut, rough, slow, wrong, reset, half open."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from raftkv.testing.processes import ProcessCluster
from raftkv.testing.real.links import (
    Bridge,
    Flapping,
    HalfOpen,
    LeaderCutOff,
    LinkFault,
    LostReplies,
    Partitions,
    Resets,
    clients_cut_off,
    flips,
    replays,
    rough,
    shapes,
    throttle,
)
from raftkv.testing.real.proxy import LinkProxy
from raftkv.testing.real.transfers import SETTINGS, TransferCut
from tests.integration.nodes import WORKLOAD, Load, Scene, leader_of, load, tell, until, until_equal

Making = Callable[[LinkProxy, random.Random], LinkFault]


async def meet(fault: LinkFault, scene: Scene, clients: Load, *, during: int, after: int = 12) -> None:
    """One fault: so many operations end while it lasts and again when it is healed, and it did something."""
    scene.note(fault.describe())
    before = scene.fired[fault.kind]
    done = fault.done_so_far
    await fault.inject(scene)
    await clients.more(during)

    async def met() -> bool | None:
        return fault.done_so_far > done or None

    await until(met, f"{fault.describe()} doing something")
    await fault.heal(scene)
    assert scene.fired[fault.kind] > before, f"{fault.kind} did nothing: {scene.notes}"
    await clients.more(after)
    await scene.leader()


def rounds(tmp_path: Path, seed: int, faults: dict[Making, int], settings: Sequence[str] = ()) -> None:
    """These faults one after the other on one cluster, each with its number of operations, and the verdict."""

    async def story() -> None:
        with (
            ProcessCluster(tmp_path, 3, arguments=[*WORKLOAD, *settings], apart=True) as cluster,
            LinkProxy.of(cluster, seed) as proxy,
        ):
            cluster.start_all()
            await leader_of(cluster)
            scene, dice = Scene(cluster), random.Random(seed)
            async with load(cluster, seed=seed) as clients:
                await clients.more(12)
                for make, during in faults.items():
                    await meet(make(proxy, dice), scene, clients, during=during)
            await until_equal(cluster)
            assert all(node.is_running for node in cluster.nodes.values())

    tell(story())


def test_there_are_64_shapes_of_cuts_between_three_nodes() -> None:
    """Each of the six ways is cut or not; a run of chaos goes through all, this test through some."""
    assert len(set(shapes([1, 2, 3]))) == 64


def test_what_is_cut_is_survived(tmp_path: Path) -> None:
    """Four shapes, a leader that nobody hears, the bridge of 2020, a link that flaps (F39, F40, F41, F43)."""

    def some(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return Partitions(proxy, dice, dice.sample(shapes(proxy.nodes)[7:], k=4), hold_s=(0.5, 1.0), calm_s=(0.1, 0.3))

    def mute(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return LeaderCutOff(proxy, dice, "mute")

    rounds(tmp_path, 1, {some: 40, mute: 15, Bridge: 30, Flapping: 30})


def test_what_is_rough_slow_or_wrong_is_survived(tmp_path: Path) -> None:
    """Frames late, twice, overtaken, lost, of the past, through a needle's eye, with a wrong bit (F28, F61, F67)."""

    def between_nodes(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return flips(proxy, dice, of_clients=False)

    def of_clients(proxy: LinkProxy, dice: random.Random) -> LinkFault:
        return flips(proxy, dice, of_clients=True)

    rounds(tmp_path, 2, {rough: 30, replays: 40, throttle: 20, between_nodes: 40, of_clients: 40})


def test_what_is_reset_or_half_open_is_survived(tmp_path: Path) -> None:
    """Connections of nodes and of clients that end for both, or for one of the two (F40, F43)."""
    rounds(
        tmp_path,
        3,
        {
            lambda proxy, dice: Resets(proxy, dice, of_clients=False): 30,
            lambda proxy, dice: Resets(proxy, dice, of_clients=True): 30,
            lambda proxy, dice: HalfOpen(proxy, dice, of_clients=False): 10,
            lambda proxy, dice: HalfOpen(proxy, dice, of_clients=True): 10,
        },
    )


@pytest.mark.parametrize("seed", [4])
def test_what_clients_do_not_hear_is_not_done_twice(tmp_path: Path, seed: int) -> None:
    """Replies vanish with their connections, and nodes are out of reach one way or the other: each increment counts
    once, or nobody was told that it did (F36, F74)."""
    rounds(tmp_path, seed, {LostReplies: 15, clients_cut_off: 0})


def test_a_transfer_that_is_cut_goes_on(tmp_path: Path) -> None:
    """A follower gets its snapshot through two cuts in the middle, and clients are served meanwhile (F66, F67)."""
    rounds(tmp_path, 5, {TransferCut: 60}, SETTINGS)
