"""The requests of one connection that wait until something happens: bounded, and forgotten with their client."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from raftkv.errors import Busy, InvalidArgument
from raftkv.listener.demands import Demand
from raftkv.listener.interface import Parked
from raftkv.wire import Request


class _Waiting(msgspec.Struct, frozen=True):
    parked: Parked
    size: int
    """How much it keeps in memory."""
    demand: Demand | None
    """What its client must still have a right to when it is answered; None where nobody is asked."""


class ParkedRequests:
    """Those of one connection, by their numbers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[int, _Waiting] = {}
        self.held_bytes = 0

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._waiting))

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._waiting

    def check(self, request: Request) -> None:
        """Raises `Busy` for one too many, and `InvalidArgument` for a number that waits already."""
        if len(self._waiting) >= self._most:
            raise Busy(f"{len(self._waiting)} requests of this connection wait already until something changes")
        if request.id in self._waiting:
            raise InvalidArgument(f"request {request.id} of this connection waits already: number each of its own")

    def add(self, request: Request, parked: Parked, demand: Demand | None) -> None:
        self._waiting[request.id] = _Waiting(parked, len(request.payload), demand)
        self.held_bytes += len(request.payload)

    def take(self, request_id: int) -> tuple[Parked, Demand | None]:
        """Let go of one that is about to be answered, or is not wanted any more."""
        waiting = self._waiting.pop(request_id)
        self.held_bytes -= waiting.size
        return waiting.parked, waiting.demand
