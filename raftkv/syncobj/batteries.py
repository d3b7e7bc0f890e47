"""PySyncObj's batteries, as they are: they need nothing of their host but what `SyncObj` gives."""

from pysyncobj.batteries import (
    ReplCounter,
    ReplDict,
    ReplList,
    ReplLockManager,
    ReplPriorityQueue,
    ReplQueue,
    ReplSet,
)

__all__ = ["ReplCounter", "ReplDict", "ReplList", "ReplLockManager", "ReplPriorityQueue", "ReplQueue", "ReplSet"]
