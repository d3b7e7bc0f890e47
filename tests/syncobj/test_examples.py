"""The examples of PySyncObj's documentation, written anew, with the import changed."""

from __future__ import annotations

from raftkv.syncobj import SyncObj, replicated
from tests.syncobj.clusters import DEADLINE_S, cluster, eventually


class Counter(SyncObj):
    """The counter of its README."""

    def __init__(self, own, others, conf=None):
        super().__init__(own, others, conf)
        self.__counter = 0

    @replicated
    def incCounter(self):
        """Add one."""
        self.__counter += 1
        return self.__counter

    @replicated
    def addValue(self, value, cn):
        """Add some; `cn` comes back, so that a callback knows which call it was."""
        self.__counter += value
        return self.__counter, cn

    def getCounter(self):
        """What this node has."""
        return self.__counter


def test_a_counter_is_the_same_on_all_nodes():
    """A call on any of three nodes is applied on all of them; its result comes back to who called."""
    with cluster(Counter) as counters:
        assert counters[0].incCounter(sync=True, timeout=DEADLINE_S) == 1
        assert counters[1].incCounter(sync=True, timeout=DEADLINE_S) == 2
        outcomes = []
        counters[2].addValue(10, 7, callback=lambda result, error: outcomes.append((result, error)))
        eventually(lambda: outcomes)
        assert outcomes == [((12, 7), 0)]
        for counter in counters:
            counter.readBarrier(DEADLINE_S)
            assert counter.getCounter() == 12
