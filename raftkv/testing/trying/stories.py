"""Your own stories in a simulated world: a coroutine that gets a cluster, while all invariants are checked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Concatenate, ParamSpec

from raftkv.config import Config
from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine
from raftkv.testing.judging.check import Check
from raftkv.testing.judging.checks import all_checks
from raftkv.testing.judging.logtime import LogTimeIsBounded
from raftkv.testing.judging.watching import LOOK_S, look, watched
from raftkv.testing.trying.budget import chosen
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.loop import SimLoop
from raftkv.testing.world.settings import CONFIG
from raftkv.testing.world.unheard import quiet

P = ParamSpec("P")


def play(
    machine: type[StateMachine],
    story: Callable[[SimCluster], Awaitable[Any]],
    *,
    size: int = 3,
    seed: int | None = None,
    config: Config = CONFIG,
    started: bool = True,
    without: Collection[str] = (),
    look_s: float = LOOK_S,
) -> None:
    """Start a simulated cluster, wait for its first leader, and let `story` happen in it, in virtual time.

    Every invariant of raftkv is looked at meanwhile. Raises what the story raises, and `Failure` for an invariant
    that does not hold. The same `seed` (default: that of `--raftkv-seed`, or 0) is the same world, to the byte.
    When the story is over, what hangs goes on and every node is stopped, which must go well, too.

    A story that is not `started` begins before any node does, and starts them itself. One that does on purpose what
    must never happen names the invariants that it goes `without`, as a `Failure` does (`"ElectionSafety"`). One that
    takes hours of virtual time is faster when it is looked at less often than every `look_s` seconds.
    """
    __tracebackhide__ = True
    number = seed if seed is not None else chosen.seed or 0

    failed: list[Exception] = []

    async def world() -> None:
        __tracebackhide__ = True
        cluster = SimCluster(machine, size, seed=number, config=config)
        checks = _checks(without)

        async def told() -> None:
            __tracebackhide__ = True
            if started:
                await cluster.start()
                await cluster.until_leader()
            await story(cluster)
            look(cluster, checks)
            await _end(cluster)

        try:
            await watched(cluster, checks, told(), look_s)
            look(cluster, checks)
        except Exception as exc:  # noqa: BLE001 (raised again below, where asyncio's own lines are not in its trace)
            failed.append(exc)

    with quiet():
        SimLoop().run(world())
    if failed:
        failed[0].add_note(f"in the simulated world of seed {number}")
        raise failed[0]


def _checks(without: Collection[str]) -> list[Check]:
    checks = [*all_checks(), LogTimeIsBounded()]
    if unknown := {*without} - {check.name for check in checks}:
        raise InvalidArgument(f"there are no invariants {sorted(unknown)}")
    return [check for check in checks if check.name not in without]


async def _end(cluster: SimCluster) -> None:
    for sim in cluster.nodes.values():
        if sim.is_up:
            sim.mend_disk()
            sim.unhang()
            sim.thaw()
    await cluster.stop()


def scenario(
    machine: type[StateMachine],
    *,
    size: int = 3,
    seed: int | None = None,
    config: Config = CONFIG,
    started: bool = True,
    without: Collection[str] = (),
    look_s: float = LOOK_S,
) -> Callable[[Callable[Concatenate[SimCluster, P], Awaitable[None]]], Callable[P, None]]:
    """Make a test of a story.

    ```python
    @scenario(Inventory)
    async def test_what_was_acknowledged_stays(cluster: SimCluster) -> None:
        inventory = cluster.client().remote
        await inventory.receive("apple", 3)
        leader = await cluster.until_leader()
        cluster.nodes[leader.node_id].crash()
        assert await inventory.on_hand("apple") == 3
    ```

    The first argument is the cluster, whatever its name; the others are pytest's fixtures, as usual. For the rest see
    `play`.
    """

    def made(story: Callable[Concatenate[SimCluster, P], Awaitable[None]]) -> Callable[P, None]:
        def test(*args: P.args, **kwargs: P.kwargs) -> None:
            __tracebackhide__ = True
            play(
                machine,
                lambda cluster: story(cluster, *args, **kwargs),
                size=size,
                seed=seed,
                config=config,
                started=started,
                without=without,
                look_s=look_s,
            )

        test.__name__, test.__qualname__, test.__doc__ = story.__name__, story.__qualname__, story.__doc__
        test.__module__ = story.__module__
        signature = inspect.signature(story)
        _, *rest = signature.parameters.values()
        test.__signature__ = signature.replace(parameters=rest, return_annotation=None)  # type: ignore[attr-defined]
        return test

    return made
