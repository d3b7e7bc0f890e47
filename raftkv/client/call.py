"""A request that waits for its answer, and whether it may have been applied, over all attempts to send it."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from raftkv.errors import Busy, Indeterminate, RaftKVError, Unavailable
from raftkv.model import Index
from raftkv.wire import RequestKind


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A node's answer: the encoded result, and the log index at which it was computed."""

    payload: bytes
    index: Index


class Carrier(Protocol):
    """A connection over which a call was sent."""

    def forget(self, call: PendingCall) -> None:
        """The caller of `call` has gone: ignore the answer."""


class PendingCall:
    """A request, from the caller's `await` to its answer.

    Invariants: a call either waits to be sent, or is on one `link`; `future` is done exactly once; once `maybe_applied`
    is set it stays set.
    """

    __slots__ = (
        "born",
        "changes_state",
        "deadline",
        "deadline_s",
        "future",
        "kind",
        "last_error",
        "link",
        "maybe_applied",
        "parks",
        "patient",
        "payload",
        "repeatable",
        "request_id",
        "stale",
        "timer",
        "tries",
    )

    def __init__(
        self,
        kind: RequestKind,
        payload: bytes,
        future: asyncio.Future[Answer],
        *,
        deadline: float,
        deadline_s: float,
        changes_state: bool,
        repeatable: bool,
        stale: bool,
        parks: bool = False,
    ) -> None:
        self.born = 0
        """Its place in the order in which its client has begun links and calls."""
        self.kind = kind
        self.payload = payload
        self.future = future
        self.deadline = deadline
        self.deadline_s = deadline_s
        self.changes_state = changes_state
        """Whether it matters if it was done: a query, or a session that nobody uses, does no harm."""
        self.repeatable = repeatable
        """Whether sending it twice does no harm: it changes nothing, or its session makes sure of that."""
        self.stale = stale
        self.parks = parks
        """Whether it is answered when something happens, or shortly before its deadline: until then a node that gives
        signs of life is trusted with it."""
        self.patient = False
        """Whether its node may be silent until the deadline: some of what operators ask takes minutes."""
        self.link: Carrier | None = None
        self.request_id = 0
        self.timer: asyncio.TimerHandle | None = None
        self.maybe_applied = False
        """Whether some node may have it in its log without having told us what became of it."""
        self.last_error: RaftKVError | None = None
        self.tries = 0

    @property
    def done(self) -> bool:
        return self.future.done()

    def succeed(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, error: RaftKVError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def give_up(self, why: str) -> None:
        """End the call without an answer. The error says whether the request may have been done."""
        last = f" ({self.last_error})" if self.last_error is not None else ""
        if self.maybe_applied:
            error: RaftKVError = Indeterminate(f"{why}, and the command may have been applied{last}")
        else:
            error = (Busy if isinstance(self.last_error, Busy) else Unavailable)(f"{why}{last}")
        error.__cause__ = self.last_error
        self.fail(error)
