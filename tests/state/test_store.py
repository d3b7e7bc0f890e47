"""The contract of a store, over both kinds."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.disk import RealDisk
from raftkv.disk.simulated import SimDisk
from raftkv.errors import StateCorruption
from raftkv.state import META_KEY, Applied, MemoryStates
from raftkv.state.rocks import RocksStates


@pytest.fixture(params=["rocks", "memory", "memory on simulated disk"])
def states(request, tmp_path):
    """A kind of stores, and the directory for them."""
    if request.param == "rocks":
        return RocksStates(), str(tmp_path)
    if request.param == "memory":
        return MemoryStates(RealDisk()), str(tmp_path)
    return MemoryStates(SimDisk()), "/data"


def everything(store):
    """All that is in it, but for its own record."""
    return {key: value for key, value in store.scan(b"", None) if key != META_KEY}


def test_a_new_store_has_applied_nothing(states):
    """An empty directory is the state before the first entry."""
    kind, directory = states
    store = kind.open(directory + "/s")
    assert store.applied == Applied()
    assert everything(store) == {}
    store.close()


def test_what_is_flushed_survives_and_what_is_not_does_not_come_alone(states):
    """After a restart there are the values of one write, and the index of the same one (F59)."""
    kind, directory = states
    store = kind.open(directory + "/s")
    for index in range(1, 6):
        store.write({b"\x02a": b"%d" % index, b"\x02%d" % index: b""}, Applied(index, 1, index * 10, index))
        if index == 3:
            store.flush()
    assert store.applied == Applied(5, 1, 50, 5)
    store.close()
    store = kind.open(directory + "/s")
    index = store.applied.index
    assert 3 <= index <= 5
    assert store.get(b"\x02a") == b"%d" % index
    assert set(everything(store)) == {b"\x02a", *(b"\x02%d" % n for n in range(1, index + 1))}
    store.close()


def test_a_checkpoint_is_the_state_as_it_was(states):
    """What is written later is not in it, and what was written before is, flushed or not (F61)."""
    kind, directory = states
    store = kind.open(directory + "/s")
    store.write({b"\x02a": b"1"}, Applied(1, 1, 0, 7))
    store.flush()
    store.write({b"\x02b": b"2"}, Applied(2, 1, 0, 8))
    store.freeze()
    store.checkpoint(directory + "/c")
    store.thaw()
    store.write({b"\x02c": b"3", b"\x02a": None}, Applied(3, 1, 0, 9))
    copy = kind.open(directory + "/c")
    assert copy.applied == Applied(2, 1, 0, 8)
    assert everything(copy) == {b"\x02a": b"1", b"\x02b": b"2"}
    assert copy.verify() == 2
    copy.close()
    assert everything(store) == {b"\x02b": b"2", b"\x02c": b"3"}
    store.close()


def test_the_state_is_never_behind_its_copy(states):
    """A checkpoint makes durable what it copies: after a restart the state is at least there (F59)."""
    kind, directory = states
    store = kind.open(directory + "/s")
    store.write({b"\x02a": b"1"}, Applied(1, 1, 0, 7))
    store.freeze()
    store.checkpoint(directory + "/c")
    store.thaw()
    if isinstance(kind, MemoryStates):
        assert kind.open(directory + "/s").applied == Applied(1, 1, 0, 7)
    store.close()
    store = kind.open(directory + "/s")
    assert store.applied == Applied(1, 1, 0, 7)
    store.close()


def test_a_destroyed_store_is_gone(states):
    """Nothing of it comes back; destroying what is not there does nothing."""
    kind, directory = states
    store = kind.open(directory + "/s")
    store.write({b"\x02a": b"1"}, Applied(1, 1, 0, 7))
    store.flush()
    store.close()
    kind.destroy(directory + "/s")
    kind.destroy(directory + "/s")
    store = kind.open(directory + "/s")
    assert store.applied == Applied()
    store.close()


keys = st.binary(min_size=1, max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.dictionaries(keys, st.none() | st.binary(max_size=5), max_size=6), max_size=5),
    start=keys,
    end=st.none() | keys,
    reverse=st.booleans(),
)
def test_it_does_what_a_sorted_dictionary_does(states, batches, start, end, reverse):
    """Gets, deletes and scans of any range in both directions agree with a plain dictionary."""
    kind, directory = states
    kind.destroy(directory + "/s")
    store = kind.open(directory + "/s")
    model: dict[bytes, bytes] = {}
    for index, batch in enumerate(batches, 1):
        store.write({b"\x02" + key: value for key, value in batch.items()}, Applied(index, 1))
        for key, value in batch.items():
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
    for key in [*model, start]:
        assert store.get(b"\x02" + key) == model.get(key)
    found = list(store.scan(b"\x02" + start, b"\x03" if end is None else b"\x02" + end, reverse=reverse))
    expected = sorted((key, model[key]) for key in model if key >= start and (end is None or key < end))
    assert found == [(b"\x02" + key, value) for key, value in (reversed(expected) if reverse else expected)]
    assert everything(store) == {b"\x02" + key: value for key, value in model.items()}
    store.close()


def test_a_flipped_bit_in_an_image_is_found():
    """The store in memory checks what it reads, like the real one."""
    disk = SimDisk()
    store = MemoryStates(disk).open("/s")
    store.write({b"\x02a": b"1"}, Applied(1, 1))
    store.flush()
    for offset in range(disk.size("/s/image")):
        disk.flip("/s/image", offset, 3)
        with pytest.raises(StateCorruption):
            MemoryStates(disk).open("/s")
        disk.flip("/s/image", offset, 3)
    assert MemoryStates(disk).open("/s").get(b"\x02a") == b"1"
