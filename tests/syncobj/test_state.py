"""What a node's objects are after a restart, an image, a snapshot: the state at the applied index, always."""

from __future__ import annotations

import threading

import pytest

from raftkv.syncobj import SyncObj, SyncObjConf, replicated
from raftkv.syncobj.batteries import (
    ReplCounter,
    ReplDict,
    ReplList,
    ReplPriorityQueue,
    ReplQueue,
    ReplSet,
)
from tests.syncobj.clusters import DEADLINE_S, addresses, cluster, eventually, others

BATTERIES = (ReplCounter, ReplList, ReplDict, ReplSet, ReplQueue, ReplPriorityQueue)


class Store(SyncObj):
    """Attributes of all kinds, and all batteries that have a state of their own."""

    def __init__(self, own, others=(), **settings):
        self.batteries = [battery() for battery in BATTERIES]
        super().__init__(own, list(others), SyncObjConf(**settings), consumers=self.batteries)
        self.__data = {}
        self.lock = threading.Lock()  # can't be pickled, so it is no part of the state

    @replicated
    def set(self, key, value):
        """Set one."""
        self.__data[key] = value
        return len(self.__data)

    @replicated
    def grow_and_fail(self, key):
        """Changes the state, then raises."""
        self.__data[key] = "half"
        raise KeyError(key)

    @replicated
    def remember(self, name, value):
        """Makes an attribute that was not there at the beginning."""
        setattr(self, name, value)

    def everything(self):
        """The state, comparable."""
        counter, items, mapping, members, queue, heap = self.batteries
        return (
            dict(self.__data),
            vars(self).get("later"),
            counter.get(),
            list(items.rawData()),
            dict(mapping.rawData()),
            set(members.rawData()),
            list(queue._ReplQueue__data),
            list(heap._ReplPriorityQueue__data),
        )


def fill(store, start=0, count=5):
    """Use every one of them."""
    counter, items, mapping, members, queue, heap = store.batteries
    for number in range(start, start + count):
        store.set(f"key {number}", {"number": number, "tuple": (1, 2)})
        counter.inc()
        items.append(number)
        mapping[number] = f"value {number}"
        members.add((number, "x"))
        queue.put(number)
        heap.put(-number)
    store.remember("later", start)
    queue.get(sync=True, timeout=DEADLINE_S)


@pytest.mark.parametrize("codec", ["pickle", "msgpack"])
@pytest.mark.parametrize("imaged", [False, True])
def test_a_restart_brings_everything_back(tmp_path, codec, imaged):
    """Attributes and batteries survive the end of the process, from calls alone or from an image and calls."""
    (place,) = addresses(1)
    settings = {"journalFile": str(tmp_path / "journal"), "codec": codec}
    store = Store(place, **settings)
    fill(store)
    if imaged:
        store.forceLogCompaction()
        eventually(lambda: store._objects.image_size > 0)
        fill(store, start=5)
    expected = store.everything()
    store.destroy()
    again = Store(place, **settings)
    try:
        assert again.everything() == expected
        assert again._objects.image_size > 0 or not imaged
        fill(again, start=20)
        assert again.everything() != expected
    finally:
        again.destroy()


def test_what_a_method_changed_before_it_raised_is_there_after_a_restart(tmp_path):
    """A method that raises is its caller's trouble; nodes that run it, and those that run it again, agree (F75)."""
    (place,) = addresses(1)
    store = Store(place, journalFile=str(tmp_path / "journal"))
    with pytest.raises(Exception) as raised:
        store.grow_and_fail("a", sync=True, timeout=DEADLINE_S)
    assert raised.value.errorCode == 6
    assert isinstance(raised.value.errorCode.exception, KeyError)
    expected = store.everything()
    assert expected[0] == {"a": "half"}
    store.destroy()
    again = Store(place, journalFile=str(tmp_path / "journal"))
    try:
        assert again.everything() == expected
    finally:
        again.destroy()


def test_images_do_not_pile_up_and_calls_are_forgotten(tmp_path):
    """An image replaces the one before and the calls that it covers; more than one piece is read back whole."""
    (place,) = addresses(1)
    settings = {"journalFile": str(tmp_path / "journal")}
    store = Store(place, **settings)
    for number in range(3):
        store.set(number, "x" * 300_000, sync=True, timeout=DEADLINE_S)
        before = store._objects._generation
        store.forceLogCompaction()
        eventually(
            lambda before=before: store._objects._generation > before and not store._host.duties.force_compaction
        )
    machine = store._host.node.applier.runner.instance
    assert {key[0] for key in machine.chunks} == {machine.image.generation}
    assert machine.image.size > 900_000
    assert not list(machine.calls)
    expected = store.everything()
    store.destroy()
    again = Store(place, **settings)
    try:
        assert again.everything() == expected
    finally:
        again.destroy()


@pytest.mark.parametrize("codec", ["pickle", "msgpack"])
def test_a_node_that_comes_late_gets_the_state_by_a_snapshot(tmp_path, codec):
    """A follower whose entries are gone from the leader's log takes the image, and its objects become those (F67)."""
    places = addresses(3)

    def make(number):
        settings = {"journalFile": str(tmp_path / str(number)), "codec": codec}
        return Store(places[number], others(places[number], places), **settings)

    made = [make(0), make(1)]
    try:
        fill(made[0])
        for each in made:
            forget_the_log(each)
        fill(made[0], start=50)
        made.append(make(2))
        late = made[2]
        late.readBarrier(DEADLINE_S)
        assert late._host.node.snapshots.installed == 1
        assert late.everything() == made[0].everything()
        fill(late, start=100)
        made[0].readBarrier(DEADLINE_S)
        assert late.everything() == made[0].everything()
    finally:
        for each in made:
            each.destroy()


def forget_the_log(store):
    """Take a snapshot, and keep nothing behind it."""
    host = store._host
    store.readBarrier(DEADLINE_S)

    async def forget():
        host.duties.force_compaction = True
        host.node.snapshots._taking._cut_index = lambda index, *_: index
        await host.node.orders.take_snapshot()
        host.duties.force_compaction = False

    host.run(forget(), DEADLINE_S)


def test_a_state_that_cannot_be_pickled_is_kept_as_calls(tmp_path):
    """No image can be made of it; nothing stops, and nothing is lost."""
    (place,) = addresses(1)
    store = Odd(place, tmp_path)
    store.keep("a", sync=True, timeout=DEADLINE_S)
    store.forceLogCompaction()
    eventually(lambda: not store._host.duties.force_compaction)
    assert store._objects.image_size == 0
    store.keep("b", sync=True, timeout=DEADLINE_S)
    store.destroy()
    again = Odd(place, tmp_path)
    try:
        assert [each() for each in again.kept] == ["a", "b"]
    finally:
        again.destroy()


class Odd(SyncObj):
    """Makes functions of what it is given."""

    def __init__(self, own, directory):
        super().__init__(own, [], SyncObjConf(journalFile=str(directory / "journal")))
        self.kept = []

    @replicated
    def keep(self, value):
        """A lambda can't be pickled."""
        self.kept.append(lambda: value)


def test_objects_of_one_process_do_not_meet():
    """Many objects in one process, each a cluster of its own."""
    with cluster(lambda own, _: Store(own), count=3) as stores:
        for number, store in enumerate(stores):
            assert store.set(number, number, sync=True, timeout=DEADLINE_S) == 1
        assert [store.everything()[0] for store in stores] == [{0: 0}, {1: 1}, {2: 2}]
