"""Faults of the network between real nodes, and between them and their clients, done by the proxy."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterable, Sequence

from tests.chaos.fault import RealFault
from tests.chaos.lane import Conditions, Way
from tests.chaos.proxy import LinkProxy
from tests.chaos.relay import CLIENTS
from tests.chaos.stage import ChaosStage

CUT = Conditions(cut=True)

BITE_S = 20.0
"""By then a frame must have met the fault, or it has none to meet."""

SHAPES = 5
"""Of partitions in one round."""


def shapes(nodes: Sequence[int]) -> list[tuple[Way, ...]]:
    """Every way to cut some of the ways between nodes, from none to all: 64 for three nodes."""
    ways = [(one, two) for one in nodes for two in nodes if one != two]
    return [shape for count in range(len(ways) + 1) for shape in itertools.combinations(ways, count)]


def written(ways: Iterable[Way]) -> str:
    """`1→2 2→1`, with c for clients."""
    return " ".join(f"{one or 'c'}→{two or 'c'}" for one, two in ways) or "nothing"


class LinkFault(RealFault):
    """Something that the proxy does; it has met something when the proxy has counted that.

    Subclasses say in `counted` which counts of the proxy show that the fault did anything.
    """

    counted: tuple[str, ...] = ()

    def __init__(self, proxy: LinkProxy, dice: random.Random) -> None:
        self.proxy = proxy
        self.dice = dice
        self._before = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def done_so_far(self) -> int:
        """How often the proxy has done what this fault is about."""
        return sum(self.proxy.counts[name] for name in self.counted)

    async def inject(self, stage: ChaosStage) -> None:
        """Begin, and see it happen once; what goes on and on does so in a task of its own, until `heal`."""
        self._before = self.done_so_far
        await self.begin(stage)

        async def bites() -> bool | None:
            return self.done_so_far > self._before or None

        await stage.until(bites, f"{self.describe()} meeting a frame", BITE_S)

    async def begin(self, stage: ChaosStage) -> None:
        """What a subclass does to links."""
        self._task = asyncio.ensure_future(self.go_on(stage))

    async def go_on(self, stage: ChaosStage) -> None:
        """What a subclass does until it is cancelled."""
        await asyncio.Event().wait()

    async def heal(self, stage: ChaosStage) -> None:
        """Every link is as it should be; count what happened."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()  # what went wrong in it is not to be lost
        self.proxy.heal()
        if self.done_so_far > self._before:
            stage.met(self.kind, self.times())

    def times(self) -> int:
        """How many faults it was, if it was any."""
        return 1

    def pick(self) -> int:
        """Some node."""
        return self.dice.choice(self.proxy.nodes)


class Weather(LinkFault):
    """Conditions on some ways, as long as it is not healed."""

    def __init__(
        self,
        proxy: LinkProxy,
        dice: random.Random,
        *,
        kind: str,
        rows: str,
        ways: Sequence[Way],
        conditions: Conditions,
        counted: tuple[str, ...],
    ) -> None:
        super().__init__(proxy, dice)
        self.kind, self.rows = kind, rows
        self._ways, self._conditions = ways, conditions
        self.counted = counted

    async def begin(self, stage: ChaosStage) -> None:
        self.proxy.put(self._ways, self._conditions)

    def describe(self) -> str:
        return f"{self.kind}: {self._conditions.describe()} on {written(self._ways)}"


class Partitions(LinkFault):
    """One shape after the other, each for a while, with a calm while between two of them; then it is done."""

    kind = "partitions of any shape"
    rows = "F39 F40 F41"
    counted = ("cut",)

    def __init__(
        self,
        proxy: LinkProxy,
        dice: random.Random,
        chosen: Sequence[tuple[Way, ...]] | None = None,
        *,
        hold_s: tuple[float, float] = (0.8, 2.5),
        calm_s: tuple[float, float] = (0.2, 1.0),
    ) -> None:
        super().__init__(proxy, dice)
        self._chosen = list(chosen) if chosen is not None else dice.sample(shapes(proxy.nodes)[1:], k=SHAPES)
        self._hold_s, self._calm_s = hold_s, calm_s
        self._met: list[tuple[Way, ...]] = []

    async def begin(self, stage: ChaosStage) -> None:
        for shape in self._chosen:
            before = self.proxy.counts["cut"]
            stage.note(f"cut {written(shape)}")
            self.proxy.put(shape, CUT)
            await asyncio.sleep(self.dice.uniform(*self._hold_s))

            async def bites(before: int = before) -> bool | None:
                return self.proxy.counts["cut"] > before or None

            # A link that an earlier cut has ended may need some seconds to be there again.
            await stage.until(bites, f"a cut of {written(shape)} meeting a frame", BITE_S)
            self.proxy.heal()
            self._met.append(shape)
            await asyncio.sleep(self.dice.uniform(*self._calm_s))

    def times(self) -> int:
        return len(self._met)

    def describe(self) -> str:
        return f"{self.kind}: {', then '.join(written(shape) for shape in self._chosen)}"


class EveryShape(Partitions):
    """All shapes of a partition, in some order, each for a moment longer than an election takes."""

    kind = "every shape of a partition"

    def __init__(self, proxy: LinkProxy, dice: random.Random) -> None:
        every = shapes(proxy.nodes)[1:]
        super().__init__(proxy, dice, dice.sample(every, k=len(every)), hold_s=(0.7, 1.1), calm_s=(0.1, 0.3))

    def describe(self) -> str:
        return f"{self.kind}: {len(self._chosen)}"


class LeaderCutOff(LinkFault):
    """The leader can't hear, can't be heard, or both."""

    kind = "the leader cut off"
    rows = "F40 F72"
    counted = ("cut",)

    def __init__(self, proxy: LinkProxy, dice: random.Random, how: str = "") -> None:
        super().__init__(proxy, dice)
        self._how = how or dice.choice(("deaf", "mute", "deaf and mute"))

    async def begin(self, stage: ChaosStage) -> None:
        leader = (await stage.leader()).node_id
        ways = [way for way in self.proxy.ways if leader in way]
        if self._how != "deaf and mute":
            ways = [way for way in ways if way[1 if self._how == "deaf" else 0] == leader]
        stage.note(f"cut {written(ways)}")
        self.proxy.put(ways, CUT)

    def describe(self) -> str:
        return f"{self.kind}: {self._how}"


class Bridge(LinkFault):
    """The leader and one follower don't hear each other, and both hear the third: as at Cloudflare in 2020."""

    kind = "two nodes cut, both seeing the third"
    rows = "F39"
    counted = ("cut",)

    async def begin(self, stage: ChaosStage) -> None:
        leader = (await stage.leader()).node_id
        other = self.dice.choice([node_id for node_id in self.proxy.nodes if node_id != leader])
        stage.note(f"cut {leader}→{other} {other}→{leader}")
        self.proxy.put([(leader, other), (other, leader)], CUT)

    def describe(self) -> str:
        return self.kind


class Flapping(LinkFault):
    """A link that is cut and whole in turns, each for 50 ms to a second."""

    kind = "a flapping link"
    rows = "F43"
    counted = ("cut",)

    async def go_on(self, stage: ChaosStage) -> None:
        one, two = self.dice.sample(self.proxy.nodes, k=2)
        stage.note(f"{one}↔{two} flaps")
        while True:
            self.proxy.put([(one, two), (two, one)], CUT)
            await asyncio.sleep(self.dice.uniform(0.05, 1.0))
            self.proxy.heal()
            await asyncio.sleep(self.dice.uniform(0.05, 1.0))

    def describe(self) -> str:
        return self.kind


class Resets(LinkFault):
    """RST to connections of nodes or clients, again and again."""

    kind = "connections reset"
    rows = "F43 F74"
    counted = ("reset",)

    def __init__(self, proxy: LinkProxy, dice: random.Random, *, of_clients: bool) -> None:
        super().__init__(proxy, dice)
        self._of_clients = of_clients

    async def go_on(self, stage: ChaosStage) -> None:
        ways = [(CLIENTS, node) for node in self.proxy.nodes] if self._of_clients else self.proxy.ways
        while True:
            self.proxy.reset(self.dice.sample(ways, k=self.dice.randint(1, len(ways))))
            await asyncio.sleep(self.dice.uniform(0.05, 0.6))

    def times(self) -> int:
        return self.done_so_far - self._before

    def describe(self) -> str:
        return f"{self.kind}: of {'clients' if self._of_clients else 'nodes'}"


class HalfOpen(LinkFault):
    """One end of connections is gone, and the other hears nothing of it."""

    kind = "connections half open"
    rows = "F40"
    counted = ("half open",)

    def __init__(self, proxy: LinkProxy, dice: random.Random, *, of_clients: bool) -> None:
        super().__init__(proxy, dice)
        self._of_clients = of_clients
        self._at_target = dice.random() < 0.5 or of_clients

    async def begin(self, stage: ChaosStage) -> None:
        leader = (await stage.leader()).node_id
        ways = [(CLIENTS, leader)] if self._of_clients else [way for way in self.proxy.ways if leader in way]
        self.proxy.open_half(ways, at_target=self._at_target)

    def describe(self) -> str:
        side = "those who were connected to" if self._at_target else "those who had connected"
        return f"{self.kind}: of {'clients' if self._of_clients else 'nodes'} with the leader; gone are {side}"


class LostReplies(LinkFault):
    """Answers to clients vanish, and so do their connections: was it done? Counters tell whether it was done twice."""

    kind = "lost replies to clients"
    rows = "F36 F74"
    counted = ("drop",)

    async def go_on(self, stage: ChaosStage) -> None:
        back = [(node, CLIENTS) for node in self.proxy.nodes]
        there = [(CLIENTS, node) for node in self.proxy.nodes]
        self.proxy.put(back, Conditions(drop=0.3))
        while True:
            await asyncio.sleep(self.dice.uniform(0.05, 0.4))
            self.proxy.reset(there)

    def times(self) -> int:
        return self.done_so_far - self._before

    def describe(self) -> str:
        return f"{self.kind}: three of ten, and a reset behind them"


class ClientsCutOff(LinkFault):
    """Clients reach the leader and don't hear it, or don't reach it, or both: nobody is served meanwhile."""

    kind = "clients cut off from the leader"
    rows = "F36 F74"
    counted = ("cut",)

    def __init__(self, proxy: LinkProxy, dice: random.Random) -> None:
        super().__init__(proxy, dice)
        self._there, self._back = dice.choice(((True, False), (False, True), (True, True)))

    async def begin(self, stage: ChaosStage) -> None:
        leader = (await stage.leader()).node_id
        ways = [(CLIENTS, leader)] * self._there + [(leader, CLIENTS)] * self._back
        stage.note(f"cut {written(ways)}")
        self.proxy.put(ways, CUT)

    def describe(self) -> str:
        return f"{self.kind}: {'requests' * self._there} {'answers' * self._back}"


def rough(proxy: LinkProxy, dice: random.Random) -> Weather:
    """Frames between nodes late, in another order, twice, or not at all."""
    conditions = Conditions(
        delay_ms=round(dice.uniform(0, 20)),
        jitter_ms=round(dice.uniform(1, 40)),
        drop=0.02,
        duplicate=0.1,
        reorder=0.1,
        replay=0.02,
    )
    counted = ("delay", "drop", "duplicate", "reorder")
    return Weather(
        proxy, dice, kind="rough links", rows="F28 F29 F30", ways=proxy.ways, conditions=conditions, counted=counted
    )


def replays(proxy: LinkProxy, dice: random.Random) -> Weather:
    """What was said long ago is said again, behind every third frame."""
    return Weather(
        proxy,
        dice,
        kind="old frames replayed",
        rows="F28 F29 F48",
        ways=proxy.ways,
        conditions=Conditions(replay=0.3, duplicate=0.1),
        counted=("replay",),
    )


def flips(proxy: LinkProxy, dice: random.Random, *, of_clients: bool) -> Weather:
    """One bit of one frame in fifty, or of one in twenty of the fewer ones of clients, is wrong."""
    ways = proxy.client_ways if of_clients else proxy.ways
    kind = "bits flipped on the way " + ("of clients" if of_clients else "between nodes")
    return Weather(
        proxy,
        dice,
        kind=kind,
        rows="F61",
        ways=ways,
        conditions=Conditions(flip=0.05 if of_clients else 0.02),
        counted=("flip",),
    )


def throttle(proxy: LinkProxy, dice: random.Random) -> Weather:
    """Everything from and to one node is slow."""
    node = dice.choice(proxy.nodes)
    ways = [way for way in [*proxy.ways, *proxy.client_ways] if node in way]
    conditions = Conditions(bytes_s=dice.choice((20_000, 100_000)), delay_ms=dice.choice((0, 50)))
    return Weather(
        proxy, dice, kind="a slow link", rows="F34 F67", ways=ways, conditions=conditions, counted=("throttle",)
    )
