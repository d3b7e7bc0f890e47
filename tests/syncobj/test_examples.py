"""The examples of PySyncObj's documentation, written anew, with the import changed."""

from __future__ import annotations

import threading
import time
import weakref

from raftkv.syncobj import SyncObj, SyncObjConf, replicated
from raftkv.syncobj.batteries import (
    ReplCounter,
    ReplDict,
    ReplList,
    ReplLockManager,
    ReplPriorityQueue,
    ReplQueue,
    ReplSet,
)
from tests.syncobj.clusters import DEADLINE_S, addresses, cluster, eventually, others


class Counter(SyncObj):
    """The counter of its README and of `examples/counter.py`."""

    def __init__(self, own, others):
        super().__init__(own, others)
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


class KVStorage(SyncObj):
    """`examples/kvstorage.py`: a dict behind three methods, with members that may change."""

    def __init__(self, own, others):
        super().__init__(own, others, SyncObjConf(dynamicMembershipChange=True))
        self.__data = {}

    @replicated
    def set(self, key, value):
        """Set one."""
        self.__data[key] = value

    @replicated
    def pop(self, key):
        """Remove one."""
        self.__data.pop(key, None)

    def get(self, key):
        """What this node has."""
        return self.__data.get(key, None)


def test_a_key_value_store_without_waiting_for_anything():
    """Its calls are neither waited for nor called back; every node has them in the end."""
    with cluster(KVStorage) as stores:
        stores[0].set("a", "1")
        stores[1].set("b", "2")
        for store in stores:
            eventually(lambda store=store: (store.get("a"), store.get("b")) == ("1", "2"))
        stores[2].pop("a")
        for store in stores:
            eventually(lambda store=store: store.get("a") is None)


class LockImpl(SyncObj):
    """The state of `examples/lock.py`: who holds what since when."""

    def __init__(self, own, others, autoUnlockTime):
        super().__init__(own, others)
        self.__locks = {}
        self.__autoUnlockTime = autoUnlockTime

    @replicated
    def acquire(self, path, client, now):
        """Take a lock, or keep it; one that was not kept for too long is free."""
        holder = self.__locks.get(path)
        if holder is not None and now - holder[1] > self.__autoUnlockTime:
            holder = None
        if holder is None or holder[0] == client:
            self.__locks[path] = (client, now)
            return True
        return False

    @replicated
    def ping(self, client, now):
        """Keep all locks of `client`."""
        for path in list(self.__locks):
            holder, since = self.__locks[path]
            if now - since > self.__autoUnlockTime:
                del self.__locks[path]
            elif holder == client:
                self.__locks[path] = (client, now)

    @replicated
    def release(self, path, client):
        """Let go of a lock."""
        if self.__locks.get(path, (None,))[0] == client:
            del self.__locks[path]

    def isAcquired(self, path, client, now):
        """Whether this node has it that `client` holds the lock."""
        holder = self.__locks.get(path)
        return holder is not None and holder[0] == client and now - holder[1] < self.__autoUnlockTime


class Lock:
    """The other half of it: a thread that keeps the locks."""

    def __init__(self, own, others, autoUnlockTime):
        self.impl = LockImpl(own, others, autoUnlockTime)
        self.own = own
        self.over = threading.Event()
        self.thread = threading.Thread(target=Lock.keep, args=(weakref.proxy(self), autoUnlockTime / 4))
        self.thread.start()

    def keep(self, period):
        """Until the end."""
        while not self.over.wait(period):
            if self.impl._getLeader() is not None:
                self.impl.ping(self.own, time.time())

    def destroy(self):
        """End the thread and the node."""
        self.over.set()
        self.thread.join(DEADLINE_S)
        self.impl.destroy()


def test_a_lock_has_one_holder():
    """Taken on one node, refused on another one, free again behind its release."""
    with cluster(lambda own, rest: Lock(own, rest, 20.0)) as locks:
        first, second, _ = locks
        assert first.impl.acquire("door", first.own, time.time(), sync=True, timeout=DEADLINE_S)
        assert not second.impl.acquire("door", second.own, time.time(), sync=True, timeout=DEADLINE_S)
        for lock in locks:
            eventually(lambda lock=lock: lock.impl.isAcquired("door", first.own, time.time()))
        first.impl.release("door", first.own)
        eventually(lambda: second.impl.acquire("door", second.own, time.time(), sync=True, timeout=DEADLINE_S))


class Node:
    """A plain `SyncObj` with all batteries as its consumers, as in the README."""

    def __init__(self, own, others):
        self.counters = ReplCounter(), ReplCounter()
        self.dict, self.list, self.set = ReplDict(), ReplList(), ReplSet()
        self.queue, self.heap = ReplQueue(maxsize=2), ReplPriorityQueue()
        self.consumers = [*self.counters, self.dict, self.list, self.set, self.queue, self.heap]
        self.obj = SyncObj(own, others, consumers=self.consumers)

    def destroy(self):
        """Stop it."""
        self.obj.destroy()


def test_batteries_are_the_same_on_all_nodes():
    """Each does on every node what it does alone."""
    wait = {"sync": True, "timeout": DEADLINE_S}
    with cluster(Node) as nodes:
        first, second, third = nodes
        first.counters[0].set(42, **wait)
        assert second.counters[0].add(10, **wait) == 52
        assert third.counters[1].inc(**wait) == 1
        assert first.counters[1].sub(3, **wait) == -2
        first.dict.set("a", 1, **wait)
        first.dict["b"] = 2
        assert second.dict.setdefault("c", 3, **wait) == 3
        second.dict.update({"d": 4}, **wait)
        assert third.dict.pop("a", **wait) == 1
        first.list.reset([3, 1], **wait)
        second.list.append(2, **wait)
        third.list.sort(**wait)
        third.list.insert(0, 9, **wait)
        first.set.update({1, 2, 3}, **wait)
        second.set.discard(2, **wait)
        third.set.add("b", **wait)
        assert second.set.pop(**wait) == 1
        assert [first.queue.put(number, **wait) for number in range(3)] == [True, True, False]
        assert second.queue.get(**wait) == 0
        for number in (5, 3, 4):
            first.heap.put(number, **wait)
        assert third.heap.get(**wait) == 3
        for node in nodes:
            node.obj.readBarrier(DEADLINE_S)
            assert [counter.get() for counter in node.counters] == [52, -2]
            assert node.dict.rawData() == {"b": 2, "c": 3, "d": 4}
            assert node.list.rawData() == [9, 1, 2, 3]
            assert node.set.rawData() == {3, "b"}
            assert (node.queue.qsize(), node.heap.qsize()) == (1, 2)


def test_locks_are_held_and_let_go():
    """The lock manager as it is: one holder at a time."""
    places = addresses(2)
    locks = [ReplLockManager(autoUnlockTime=30.0, selfID=name) for name in ("a", "b")]
    nodes = [SyncObj(place, others(place, places), consumers=[lock]) for place, lock in zip(places, locks, strict=True)]
    try:
        assert locks[0].tryAcquire("door", sync=True, timeout=DEADLINE_S)
        assert not locks[1].tryAcquire("door", sync=True, timeout=DEADLINE_S)
        assert locks[0].isAcquired("door")
        locks[0].release("door", sync=True, timeout=DEADLINE_S)
        assert locks[1].tryAcquire("door", sync=True, timeout=DEADLINE_S)
    finally:
        for lock, node in zip(locks, nodes, strict=True):
            lock.destroy()
            node.destroy()
        for thread in threading.enumerate():
            if thread.name.endswith("(_autoAcquireThread)"):
                thread.join(DEADLINE_S)
