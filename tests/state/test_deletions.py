"""What stores tell of deletions, and that RocksDB gives their space back by itself once they are flushed."""

from __future__ import annotations

import os

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.state import Applied
from raftkv.state.memory import MemoryStates
from raftkv.state.rocks import RocksStates
from tests.waiting import until

KEYS = [b"\x02%04d" % number for number in range(200)]


@pytest.fixture(params=["rocks", "memory"])
def store(request, tmp_path):
    """An empty store of each kind."""
    states = RocksStates() if request.param == "rocks" else MemoryStates(SimDisk())
    found = states.open(str(tmp_path / "s") if request.param == "rocks" else "/s")
    yield found
    found.close()


def test_space_comes_back_after_a_flush_without_later_writes(store):
    """Deletions are counted; once the files are rewritten there is only what lives."""
    store.write({key: os.urandom(10_000) for key in KEYS}, Applied(1, 1))
    store.flush()
    before = store.approximate_bytes()
    assert before > 1_900_000 and store.deletions == 0
    assert store.keys_about() == pytest.approx(len(KEYS), abs=2)
    store.write(dict.fromkeys(KEYS[:-1]), Applied(2, 1))
    assert store.deletions == len(KEYS) - 1
    store.flush()
    until(lambda: not store.is_rewriting(), "the files are rewritten")
    assert store.approximate_bytes() < 100_000 < before
    assert store.keys_about() <= 2
    assert store.get(KEYS[-1]) is not None and store.get(KEYS[0]) is None
