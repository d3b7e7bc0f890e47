"""The states of each node over time, and which records of a trace a diagram shows."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from raftkv.model import NodeId
from raftkv.testing.tracing.records import Happening, What

if TYPE_CHECKING:
    from raftkv.testing.tracing.trace import Trace

DOWN = ""
STARTING = "starting"

_ENDS = {What.CRASH: DOWN, What.START: STARTING}


class Span(msgspec.Struct, frozen=True):
    """A time in which a node kept one state."""

    state: str
    """Its role, `STARTING`, or `DOWN`."""
    begin: float
    end: float


class Lifeline:
    """One node's states in their order."""

    def __init__(self, happenings: Iterable[Happening], now: str) -> None:
        self._times: list[tuple[float, int]] = []
        self._states: list[str] = []
        first: Happening | None = None
        for happening in happenings:
            first = first if first is not None else happening
            state = state_after(happening)
            if state is not None:
                self._times.append((happening.at, happening.number))
                self._states.append(state)
        self._start = now if first is None else _state_before(first)

    def state(self, at: float, number: float = math.inf) -> str:
        """The node's state at the time `at`, after the record `number` if several have that time."""
        place = bisect.bisect_right(self._times, (at, number))
        return self._states[place - 1] if place else self._start

    def spans(self, since: float, until: float) -> list[Span]:
        """The node's states between two times, without gaps; equal neighbours are merged."""
        found: list[Span] = []
        at, state = since, self.state(since)
        for (time, _), following in zip(self._times, self._states, strict=True):
            if since < time <= until and following != state:
                found.append(Span(state, at, time))
                at, state = time, following
        return [*found, Span(state, at, until)]


def state_after(happening: Happening) -> str | None:
    """The state of a node after a happening; None if the happening does not change it."""
    if happening.what is What.STOP and happening.label == "stopped":
        return DOWN
    return _ENDS.get(happening.what) if happening.what in _ENDS else happening.role or None


def _state_before(first: Happening) -> str:
    """The state of a node before the oldest of its happenings that are kept."""
    match first.what:
        case What.START:
            return DOWN
        case What.UP:
            return STARTING
        case _:
            return first.role or "Follower"


def lifelines(trace: Trace) -> dict[NodeId, Lifeline]:
    """The lifelines of all nodes, in the order of their ids."""
    own: dict[NodeId, list[Happening]] = {node_id: [] for node_id in trace.nodes}
    for happening in trace.happenings:
        if happening.node is not None:
            own[happening.node].append(happening)
    return {node_id: Lifeline(own[node_id], now) for node_id, now in trace.nodes.items()}


def without_echoes(happenings: Iterable[Happening]) -> list[Happening]:
    """Leave out notes of the world about events that the records of nodes and network show as well."""
    kept = list(happenings)
    shown = {each.at for each in kept if each.what not in (What.WORLD, What.COMMIT, What.TERM)}
    return [each for each in kept if each.what is not What.WORLD or each.at not in shown]
