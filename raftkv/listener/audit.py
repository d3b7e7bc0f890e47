"""Tells the log who ordered what of a node, and who was refused: `audit`, with who, from where, what, and its end.

Secrets and data are never in it. What is only looked at is told when it is refused: a status is asked for once a
second by some, and a backup is read in thousands of pieces. Refusals are told up to a number, and then counted.
"""

from __future__ import annotations

from collections.abc import Callable

from raftkv.errors import Forbidden, RaftKVError
from raftkv.listener.identity import Identity
from raftkv.logs import EventLog
from raftkv.wire import RequestKind

orders = EventLog("raftkv.audit")
refusals = EventLog("raftkv.audit.refused")
"""Two, so that a flood of these does not crowd out the others where lines are counted by who says them."""

LOOKS = frozenset({RequestKind.STATUS, RequestKind.BACKUP_READ})

REFUSALS_MAX = 20
WINDOW_S = 10.0
TEXT_MAX = 300
"""Characters of a reason."""


class Audit:
    """Writes events; `clock` gives seconds. `tick` is to be called now and then."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._told = self._untold = 0

    def ordered(self, identity: Identity, kind: RequestKind, address: str, error: RaftKVError | None) -> None:
        """An order has ended: done, or with an error."""
        if kind in LOOKS and error is None:
            return
        outcome = "done" if error is None else type(error).__name__
        fields = {} if error is None else {"reason": str(error)[:TEXT_MAX]}
        orders.info(
            "audit", who=identity.describe(), address=address, what=kind.name.lower(), outcome=outcome, **fields
        )

    def refused(self, identity: Identity, kind: RequestKind, address: str, error: RaftKVError) -> None:
        """A request was refused because of who sent it."""
        outcome = "forbidden" if isinstance(error, Forbidden) else "unauthenticated"
        self._refusal(identity, address, what=kind.name.lower(), outcome=outcome, reason=str(error)[:TEXT_MAX])

    def not_signed_in(self, identity: Identity, address: str, user: str) -> None:
        """Somebody has shown what signs nobody in, for `user` (empty: for no user of this cluster, who may be anything
        that was typed)."""
        told = {"user": user} if user else {}
        self._refusal(identity, address, what="sign_in", outcome="unauthenticated", reason=identity.why, **told)

    def _refusal(self, identity: Identity, address: str, **fields: str) -> None:
        self.tick()
        if self._told >= REFUSALS_MAX:
            self._untold += 1
            return
        self._told += 1
        refusals.warning("audit", who=identity.describe(), address=address, **fields)

    def tick(self) -> None:
        """Tell how many refusals were not told of, when their window is over."""
        now = self._clock()
        if now - self._since < WINDOW_S:
            return
        if self._untold:
            refusals.warning("audit", outcome="refused", more=self._untold, seconds=round(now - self._since))
        self._since, self._told, self._untold = now, 0, 0
