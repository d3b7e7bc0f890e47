"""Nodes killed while they start, and again while they start anew."""

from __future__ import annotations

import random
from collections.abc import Sequence

from raftkv import failpoints
from raftkv.processes.cluster import NodeProcess
from tests.chaos.points import INSTALLING, KilledAt, arm, check_killed, ends
from tests.chaos.stage import ChaosStage

STARTING = (
    "start.recovered",
    "start.before_record",
    "start.counted",
    "vote.before_write",
    "vote.between_copies",
    "vote.after_sync",
)
"""Reached by every start, whatever it finds."""

INSTALLS = tuple(name for name in failpoints.names() if name.startswith(INSTALLING))

GOES_ON_S = 5.0
"""For an install to go on after a start; that it does not come to any of its steps again is right, too."""

START_S = 60.0


class KilledTwice(KilledAt):
    """A node is killed while it starts or installs a snapshot, and the start after that does not get through either.

    What was killed in an install meets its next step again if it can, and is killed there too; every start after the
    first is killed at one of its own steps. Then it is left alone, and must serve.
    """

    kind = "a node killed while it started anew after a kill"
    again = "an install that went on killed again"
    rows = "F88"

    def __init__(self, dice: random.Random, names: Sequence[str] | None = None) -> None:
        drawn = [dice.choice(STARTING), dice.choice(INSTALLS)]
        super().__init__(dice, names if names is not None else drawn)

    async def _bring_back(self, stage: ChaosStage, node: NodeProcess) -> None:
        await self._kill_install(stage, node)
        name = self._dice.choice(STARTING)
        stage.note(f"node {node.node_id} will be killed at {name} of its next start")
        arm(stage, node, f"{name}:kill")
        assert await ends(node, START_S), f"a start of node {node.node_id} does not come to {name}"
        check_killed(stage, node, name)
        await super()._bring_back(stage, node)

    async def _kill_install(self, stage: ChaosStage, node: NodeProcess) -> None:
        """At the first step of an install that it comes to, if there is one left to be done."""
        arm(stage, node, ",".join(f"{name}:kill" for name in INSTALLS))
        if await ends(node, GOES_ON_S):
            check_killed(stage, node, *INSTALLS)
            stage.met(self.again)
        else:
            node.kill()
