"""Histories: what clients asked, what they heard, and when."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from raftkv.testing.judging.operation import Operation
from raftkv.testing.world.recorder import Recorder


class History:
    """All operations of a run, in the order of their calls, without those that were certainly not done."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.recorder: Recorder | None = None

    def call(
        self, client: int, key: Hashable, name: str, argument: Any, now: float, *, is_read: bool = False
    ) -> Operation:
        """A client begins an operation, which is in the history from now on."""
        operation = Operation(client, key, name, argument, now, is_read=is_read)
        self.operations.append(operation)
        if self.recorder is not None:
            self.recorder.called(operation)
        return operation

    def returned(self, operation: Operation, result: Any, now: float) -> None:
        """The client has heard the operation's result."""
        operation.result, operation.returned = result, now
        if self.recorder is not None:
            self.recorder.answered(operation, refused=False)

    def refused(self, operation: Operation) -> None:
        """The client has heard that nothing was done: take the operation out."""
        self.operations.remove(operation)
        if self.recorder is not None:
            self.recorder.answered(operation, refused=True)
