"""The drill book: every drill, and how one is done with each system."""

from __future__ import annotations

import datetime
from pathlib import Path

from tests.drills import access, copies, daily, etcds, failures, keys, members
from tests.drills.drill import Drill
from tests.drills.etcds import EtcdNodes
from tests.drills.nodes import Nodes
from tests.drills.ours import OurNodes
from tests.drills.result import Played, Way
from tests.drills.terminal import DrillFailed

DRILLS: dict[str, Drill] = {
    drill.name: drill
    for drill in (*failures.DRILLS, *members.DRILLS, *copies.DRILLS, *keys.DRILLS, *daily.DRILLS, *access.DRILLS)
}
"""By name, in the order of the table."""


def missing(drill: Drill) -> str | None:
    """Why it can't be done beside etcd here; None when it can."""
    return drill.missing() or (None if drill.etcds is None else etcds.missing())


def play_ours(drill: Drill, place: Path) -> Way:
    """With raftkv, in a directory that is made. Raises `DrillFailed`."""
    nodes = OurNodes(place)
    with nodes.terminal:
        drill.ours(nodes)
    return _way(drill, nodes)


def play_etcds(drill: Drill, place: Path) -> Way | None:
    """With etcd; None where it has no way. Raises `DrillFailed`."""
    if drill.etcds is None:
        return None
    nodes = EtcdNodes(place)
    with nodes.terminal:
        drill.etcds(nodes)
    return _way(drill, nodes)


def play(drill: Drill, place: Path) -> Played:
    """With both, in turn. Raises `DrillFailed`."""
    ours, its = play_ours(drill, place / "raftkv"), play_etcds(drill, place / "etcd")
    return Played(drill.name, datetime.datetime.now(datetime.UTC).date().isoformat(), ours, its)


def _way(drill: Drill, nodes: Nodes) -> Way:
    if nodes.terminal.seconds is None:
        raise DrillFailed(f"{drill.name}: {nodes.system} came to no relief")
    return Way(nodes.terminal.typed, round(nodes.terminal.seconds, 2))
