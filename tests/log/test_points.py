"""Where the failpoints stand: each on the side of the change that its meaning names, or who is killed there shows
nothing."""

from __future__ import annotations

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.log.vote import VoteFile
from raftkv.model import HardState, LogStart
from tests.log.logs import IDENTITY, VOTE, append, entries_behind, open_log


@pytest.fixture
def passed(monkeypatch):
    """A disk, and every failpoint that is passed with how many changes of the disk had been made by then."""
    disk, found = SimDisk(), []
    monkeypatch.setattr(failpoints, "reach", lambda name: found.append((name, disk.operations)))
    return disk, found


def since(passed):
    """What has been passed since the last question, with the changes counted from the first of them."""
    _, found = passed
    told = [(name, count - found[0][1]) for name, count in found if not name.startswith("atomic")]
    found.clear()
    return told


def test_a_batch_is_written_between_its_points(passed):
    """One write and its sync, and nothing before or behind."""
    log = open_log(passed[0])
    append(log, entries_behind(LogStart(), 1, [40]))
    since(passed)
    append(log, entries_behind(log.load(1, 1, 0)[0], 1, [40]))
    assert since(passed) == [("log.batch.before_sync", 0), ("log.batch.after_sync", 2)]


def test_a_reset_is_done_between_its_points(passed):
    """And within it the manifest is replaced between its own: what is dropped goes after that."""
    log = open_log(passed[0])
    append(log, entries_behind(LogStart(), 1, [40]))
    since(passed)
    log.reset(LogStart(9, 1, 1, 1))
    told = since(passed)
    names = [name for name, _ in told]
    assert names == [
        "log.reset.before",
        "log.segment.created",
        "log.manifest.before",
        "log.manifest.after",
        "log.segment.removed",
        "log.reset.after",
    ]
    counts = [count for _, count in told]
    assert counts == sorted(set(counts)), "something is changed between any two"


def test_a_vote_is_written_between_its_points(passed):
    """One copy, then the other."""
    disk, _ = passed
    disk.mkdir("/n")
    vote = VoteFile.create(disk, VOTE, IDENTITY, HardState())
    since(passed)
    vote.write(HardState(3, 1), 0)
    assert since(passed) == [("vote.before_write", 0), ("vote.between_copies", 2), ("vote.after_sync", 4)]
