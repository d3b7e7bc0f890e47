"""Cuts the power in the midst of work on a simulated disk."""

from __future__ import annotations

import random
from collections.abc import Callable

from raftkv.disk.simulated import SimDisk
from raftkv.testing.world.operations import from_operation


class PowerOut(BaseException):
    """The power has gone out before an operation on the disk."""


def cut_off(disk: SimDisk, number: int, work: Callable[[], object]) -> bool:
    """Do `work`, with the power going out just before its `number`th operation on the disk; returns whether it did.

    Of what was not synced then, a random part survives, another one for each `number`.
    """

    def out(kind: str, path: str) -> None:
        raise PowerOut

    disk.fault = from_operation(number, out)
    try:
        work()
    except PowerOut:
        return True
    finally:
        disk.fault = None
        disk.crash(random.Random(number))
    return False
