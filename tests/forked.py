"""Clusters of real nodes that are forked, from a process that every process of a test run has for all of its tests."""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from raftkv.processes.cluster import Launched, ProcessCluster
from tests.chaos.warm import WarmParent


@cache
def _parent() -> WarmParent:
    parent = WarmParent()
    parent.__enter__()
    atexit.register(parent.__exit__)
    return parent


def fork(command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> Launched:
    """`Launch` with a forked node; the parent is started with the first one."""
    return _parent().launch(command, environment, log_path)


ForkedCluster = partial(ProcessCluster, launch=fork)
"""`ProcessCluster` whose nodes are forked: for tests to which it makes no difference, as a fresh node costs well over a
second of processor time."""
