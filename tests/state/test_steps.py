"""Reading in bounded steps: what lives is found, whatever is deleted around it, and no step is a long one (F79)."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raftkv.disk.simulated import SimDisk
from raftkv.state import Applied, MemoryStates, gaps, rocks
from raftkv.state.gaps import Gap, Guideposts
from raftkv.state.rocks import RocksStates

KEYS = st.lists(st.sampled_from([b"", b"\0", b"\0\0", b"a", b"b", b"\xff", b"zz"]), max_size=4).map(b"".join)


@pytest.fixture(params=["rocks", "memory"])
def store(request, tmp_path):
    """An empty store of each kind."""
    states = RocksStates() if request.param == "rocks" else MemoryStates(SimDisk())
    store = states.open(str(tmp_path / "s"))
    yield store
    store.close()


def live(steps):
    """The keys and values of some steps, which must be in order; and all their positions."""
    positions, found = [], []
    for key, value in steps:
        positions.append(key)
        if value is not None:
            found.append((key, value))
    return found, positions


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    writes=st.lists(st.tuples(KEYS, st.booleans()), max_size=60),
    later=st.lists(st.tuples(KEYS, st.booleans()), max_size=20),
    bounds=st.tuples(KEYS, KEYS),
    reverse=st.booleans(),
    flush=st.booleans(),
)
def test_steps_find_what_a_scan_finds(store, monkeypatch, writes, later, bounds, reverse, flush):
    """Forwards and in reverse, with steps of two deleted keys, guideposts or none: the same keys in the same order.

    A view finds them also when everything is written anew while it is read.
    """
    monkeypatch.setattr(rocks, "STEP_KEYS", 2)
    monkeypatch.setattr(gaps, "POST_EVERY", 3)
    for key, lives in writes:
        store.write({b"\x02" + key: b"v" if lives else None}, Applied(1, 1))
    if flush:
        store.flush()
    start, end = b"\x02" + bounds[0], b"\x02" + bounds[1]
    expected = list(store.scan(start, end, reverse=reverse))
    view = store.view()
    for reader in (store, view):
        found, positions = live(reader.steps(start, end, reverse=reverse))
        assert found == expected
        assert positions == sorted(positions, reverse=reverse)
    steps = view.steps(start, end, reverse=reverse)
    found = [step for step in [next(steps, None)] if step is not None]
    store.write({b"\x02" + key: None if lives else b"w" for key, lives in later}, Applied(2, 1))
    assert live([*found, *steps])[0] == live(view.steps(start, end, reverse=reverse))[0] == expected
    view.close()


def test_a_view_shows_the_state_as_it_was(store):
    """Values, keys and the applied index, whatever is written, deleted or flushed after it was taken."""
    store.write({b"\x02a": b"1", b"\x02b": b"2"}, Applied(1, 1))
    view = store.view()
    store.write({b"\x02a": None, b"\x02c": b"3"}, Applied(2, 1))
    store.flush()
    assert view.applied.index == 1
    assert (view.get(b"\x02a"), view.get(b"\x02c")) == (b"1", None)
    assert live(view.steps(b"\x02", b"\x03"))[0] == [(b"\x02a", b"1"), (b"\x02b", b"2")]
    view.close()
    view.close()
    assert store.get(b"\x02a") is None


def test_a_step_over_many_deleted_keys_is_a_small_one(tmp_path, monkeypatch):
    """20,000 deleted keys before the first that lives: many steps, each of which RocksDB gives up in time."""
    store = RocksStates().open(str(tmp_path / "s"))
    dead = [b"\x02dead/%08d" % number for number in range(20_000)]
    store.write(dict.fromkeys(dead, b"v") | {b"\x02z": b"v", b"\x02a": b"v"}, Applied(1, 1))
    store.write(dict.fromkeys(dead), Applied(2, 1))
    looks = []
    look = rocks._look
    monkeypatch.setattr(rocks, "_look", lambda *args, **kinds: looks.append(kinds) or look(*args, **kinds))
    for reverse in (False, True):
        found, positions = live(store.steps(b"\x02b", b"\x03", reverse=reverse))
        assert found == [(b"\x02z", b"v")]
        assert len(positions) >= 20_000 / rocks.STEP_KEYS
    assert not any(kinds.get("whole") for kinds in looks)
    store.close()


def test_rocksdb_clears_many_deleted_keys_away_by_itself(tmp_path):
    """A flush of a file of deletions makes RocksDB rewrite it at once: then nobody goes over them any more."""
    store = RocksStates().open(str(tmp_path / "s"))
    dead = [b"\x02dead/%08d" % number for number in range(5_000)]
    store.write(dict.fromkeys(dead, b"v") | {b"\x02z": b"v"}, Applied(1, 1))
    store.flush()
    store.write(dict.fromkeys(dead), Applied(2, 1))
    store.flush()
    for _ in range(100_000):
        if len(list(store.steps(b"\x02a", b"\x03"))) == 1:
            break
    else:
        pytest.fail("the deleted keys are still there")
    store.close()


def test_a_gap_without_guideposts_is_crossed_in_parts_that_become_small_enough():
    """Against a naive twin: parts follow each other, none with more than the bound is called empty."""
    dead = sorted(b"some/long/prefix/%06d" % number for number in range(3_000))
    for reverse in (False, True):
        gap, covered = Gap(b"some/", b"some0", reverse=reverse), 0
        while not gap.is_over:
            low, high = gap.probe
            inside = sum(low <= key < high for key in dead)
            if inside > 50:
                assert not gap.is_smallest
                gap.too_much()
            else:
                covered += inside
                gap.empty()
        assert covered == len(dead)


def test_what_can_not_be_made_smaller_is_looked_at_whole():
    """Two neighbours: after many cuts the part is the smallest there is, and the search ends."""
    for reverse in (False, True):
        gap = Gap(b"a", b"b\0", reverse=reverse)
        for _ in range(200):
            gap.too_much()
        assert gap.is_smallest or reverse
        low, high = gap.probe
        assert b"a" <= low < high <= b"b\0"


def test_guideposts_are_bounded(monkeypatch):
    """However much is deleted, only some posts are kept, and they still spread over all of it."""
    monkeypatch.setattr(gaps, "POSTS_MAX", 64)
    posts = Guideposts()
    for number in range(100_000):
        posts.deleted(b"%08d" % number)
    assert len(posts._posts) <= 64
    assert posts.next(b"0", b"9", reverse=False) < b"9"
    assert posts.next(b"0", b"9", reverse=True) > b"0"
