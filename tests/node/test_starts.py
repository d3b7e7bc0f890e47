"""What tells a data directory from its copies: the starts that it has had."""

from __future__ import annotations

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.errors import Corruption
from raftkv.log import Identity
from raftkv.node.starts import KEPT, is_continued, load_starts, record_start

OWNER = Identity(cluster_id="c", node_id=1, incarnation="i1")


def test_starts_are_recorded_and_bounded():
    """Durable at once, the newest ones only."""
    disk = SimDisk()
    disk.mkdir("/d")
    for boot in range(1, KEPT + 10):
        starts = record_start(disk, "/d/starts", OWNER, load_starts(disk, "/d/starts", OWNER), boot, f"n{boot}")
        disk.crash()
        assert load_starts(disk, "/d/starts", OWNER) == starts
    assert len(starts) == KEPT
    assert starts[-1] == (KEPT + 9, f"n{KEPT + 9}")


def test_a_copy_never_comes_to_have_had_the_starts_of_the_original():
    """However often it is started (F21); what is too long ago to be remembered is believed."""
    original = [(1, "a"), (2, "b"), (3, "c")]
    copy = [(1, "a"), (2, "b"), (3, "x"), (4, "y")]
    assert is_continued([*original, (4, "d")], 3, "c")
    assert not is_continued(copy, 3, "c")
    assert is_continued(copy, 2, "b")
    assert is_continued(copy[2:], 1, "?")
    assert not is_continued([(1, "a"), (3, "c")], 2, "b")
    assert is_continued([], 7, "g")
    assert not is_continued([(3, "x")], 3, "c"), "the oldest that is remembered is remembered"


def test_a_damaged_record_is_refused():
    """Without it nobody could tell the directory from a copy."""
    disk = SimDisk()
    disk.mkdir("/d")
    record_start(disk, "/d/starts", OWNER, [], 1, "a")
    for at in range(disk.size("/d/starts")):
        disk.flip("/d/starts", at)
        with pytest.raises(Corruption, match="under a new id"):
            load_starts(disk, "/d/starts", OWNER)
        disk.flip("/d/starts", at)


def test_the_failpoint_stands_before_a_start_is_recorded(monkeypatch):
    """Who is killed there has counted a start in the vote file, and recorded none."""
    disk, passed = SimDisk(), []
    disk.mkdir("/d")
    monkeypatch.setattr(failpoints, "reach", lambda name: passed.append((name, disk.exists("/d/starts"))))
    record_start(disk, "/d/starts", OWNER, [], 1, "a")
    assert ("start.before_record", False) in passed and disk.exists("/d/starts")
