"""Has scheduled commands run when their time has come: a leader proposes an entry that does it."""

from __future__ import annotations

from contextlib import suppress

from raftkv.errors import NotAccepted
from raftkv.machine import DUE_AT_ONCE
from raftkv.model import Index
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.engine import Engine
from raftkv.node.firing import Firings
from raftkv.node.proposing import OwnEntries
from raftkv.node.status import TimerStatus


class Timers:
    """Looks at every tick whether something is due. Without timers, or before the first one's time, that is all."""

    def __init__(self, body: Body, applier: Applier, engine: Engine, firings: Firings) -> None:
        self._body = body
        self._applier = applier
        self._engine = engine
        self._firings = firings
        self._entries = OwnEntries(body, applier)

    def look(self) -> None:
        """Propose to run what is due, if this node leads and knows what that is."""
        due_ms = self._applier.runner.next_due_ms
        if due_ms is None or not self._may_propose():
            return
        raft = self._body.raft
        self._engine.observe_clocks()
        if raft.entry_time_ms() < due_ms:
            return
        with suppress(NotAccepted):  # then it is due at the next tick as well
            self._entries.proposed(raft.propose_due(DUE_AT_ONCE))
            self._body.wake()

    def applied(self, index: Index) -> None:
        """The entries up to `index` are applied: if more is due than one entry does, the next one follows."""
        if self._entries.is_last(index):
            self.look()

    def _may_propose(self) -> bool:
        """Whether this leader knows what is due, and takes in commands."""
        return self._entries.may_follow() and not self._engine.holds and self._engine.refuse_writes is None

    def status(self) -> TimerStatus:
        """For the node's status."""
        runner, met = self._applier.runner, self._firings
        return TimerStatus(runner.timers, runner.next_due_ms, met.fired, met.failed, met.dropped)
