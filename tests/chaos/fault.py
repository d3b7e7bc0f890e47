"""What a fault is: done to a stage, and undone."""

from __future__ import annotations

from abc import ABC, abstractmethod

from tests.chaos.stage import ChaosStage


class RealFault(ABC):
    """Something bad that is done to a stage and undone.

    A fault calls `stage.met` when it has really done something: one that was only meant makes its round fail.
    """

    kind: str
    """Its name in reports and ledgers, such as "the leader killed"."""
    rows: str
    """The rows of the table of faults that it covers, such as "F4 F26"."""

    @abstractmethod
    async def inject(self, stage: ChaosStage) -> None:
        """Do it. What goes on for a while does so in a task of its own, until `heal`."""

    async def heal(self, stage: ChaosStage) -> None:  # noqa: B027 (many faults are over when they are done)
        """Undo it; by default there is nothing to undo. Afterwards the cluster has to serve within its bound."""

    @abstractmethod
    def describe(self) -> str:
        """What it does with its parameters, for the log of a run."""
