"""Clients that wait at a node until something happens: each is answered once, or has gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from raftkv.errors import RaftKVError
from raftkv.machine import QueryDone
from raftkv.model import Index
from raftkv.node.deadlines import Deadlines
from raftkv.node.telling import Telling


def _nobody(index: Index, result: bytes | RaftKVError) -> None:
    """The client has gone."""


class Parked:
    """A client that waits."""

    __slots__ = ("done", "is_over", "place", "step")

    def __init__(self, place: Parking[Any], done: QueryDone) -> None:
        self.place = place
        self.done = done
        self.step = 0
        """Of the deadlines."""
        self.is_over = False
        """Whether it was answered, or is about to be."""

    def cancel(self) -> None:
        """Forget it: its client has gone."""
        self.done = _nobody
        self.place.end(self)


W = TypeVar("W", bound=Parked)


class Parking(Generic[W]):
    """Those who wait for things of one kind. Each `done` is called once, unless it is cancelled."""

    def __init__(self, over: Callable[[W], None], left: Callable[[W], None]) -> None:
        """`over` is called with one whose time is over, `left` with each that waits no longer; neither may raise."""
        self._left = left
        self._open: dict[W, None] = {}
        self._deadlines = Deadlines(over)
        self._telling = Telling()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[W]:
        """Those who wait now; they may end meanwhile."""
        return iter(list(self._open))

    def add(self, who: W, wait_s: float) -> None:
        """From now on it waits, for so long."""
        self._open[who] = None
        who.step = self._deadlines.add(who, wait_s)

    def end(self, who: W) -> None:
        """It waits no longer."""
        if who.is_over:
            return
        who.is_over = True
        self._open.pop(who, None)
        self._deadlines.drop(who, who.step)
        self._left(who)

    def tell(self, who: W, index: Index, result: bytes | RaftKVError) -> None:
        """Answer it now, unless it is over."""
        if not who.is_over:
            self.end(who)
            who.done(index, result)

    def tell_soon(self, who: W, index: Index, result: bytes | RaftKVError) -> None:
        """Answer it in a turn of the loop in which there is time for it, unless it is over."""
        if not who.is_over:
            self.end(who)
            self._telling.soon(self._done, who, index, result)

    def _done(self, who: W, index: Index, result: bytes | RaftKVError) -> None:
        who.done(index, result)  # `_nobody`, if it was cancelled in the meantime

    def stop(self, error: RaftKVError) -> None:
        """All that wait get `error`."""
        for who in self:
            self.tell(who, 0, error)
