"""The power goes, the process is killed or the disk fails, at every single operation."""

from __future__ import annotations

import contextlib
import random

import pytest

from raftkv.disk.simulated import SimDisk
from raftkv.errors import DiskError, DiskFull
from raftkv.model import HardState
from tests.campaign.large import IS_LARGE
from tests.log.workload import State, Workload, run_all

WAYS = ["nothing kept", "killed", *range(5)]
"""How it ends: the power goes and nothing or a random part of what was pending stays, or the power stays."""


class PowerCut(BaseException):
    """Ends whatever runs."""


def fail_at(disk, number, error):
    """Make the `number`th operation from now raise."""
    left = [number]

    def fault(kind, path):
        left[0] -= 1
        if left[0] == 0:
            raise error

    disk.fault = fault


def end(disk, way):
    """Let it end."""
    disk.fault = None
    if way == "killed":
        disk.kill()
    else:
        disk.crash(None if way == "nothing kept" else random.Random(way))


def count(run):
    """How many operations `run` does on a new disk."""
    disk = SimDisk()
    run(Workload(disk))
    return disk.operations


OPERATIONS = count(run_all)

STEP = 1 if IS_LARGE else 5
"""Each way is met at every fifth operation in a plain run, one way at others than the next, so that all are met."""


def some_operations(first):
    """Numbers of operations, those from `first` on (counted from 0, around)."""
    return range(1 + first % STEP, OPERATIONS + 1, STEP)


def interrupted(number, way, error=PowerCut):
    """A workload on a disk as it is after the run was ended so."""
    work = Workload(SimDisk())
    fail_at(work.disk, number, error)
    with pytest.raises(type(error) if isinstance(error, BaseException) else error):
        run_all(work)
    end(work.disk, way)
    return work


def check_and_go_on(work):
    """Nothing that was acknowledged is missing, nothing was invented, what was seen stays, and all goes on."""
    work.open()
    end(work.disk, "nothing kept")
    work.open()
    before = work.state
    work.cast(HardState(9, 1))
    work.append([100], [100])
    work.append([1_800], cut=work.state.last.index)
    work.append([100])
    work.compact(before.last.index)
    work.reopen()
    assert [entry.term for entry in work.state.entries][-3:] == [9] * 3


def test_the_workload_does_everything():
    """What the other tests interrupt: there is enough of it, and it comes to what it should."""
    work = Workload(SimDisk())
    kinds = set()
    work.disk.fault = lambda kind, path: kinds.add(kind)
    run_all(work)
    assert kinds == {"mkdir", "create", "write", "truncate", "sync", "rename", "remove", "sync_dir"}
    assert OPERATIONS > 150
    assert work.state.start.index == 200
    assert len(work.state.entries) == 2
    check_and_go_on(work)


@pytest.mark.parametrize("way", WAYS)
def test_it_ends_at_every_operation(way):
    """What was acknowledged is there, and an unfinished write is there whole or not (F1, F2, F4, F7, F8, F12)."""
    for number in some_operations(WAYS.index(way)):
        check_and_go_on(interrupted(number, way))


def test_it_ends_again_while_it_recovers():
    """Recovery can be interrupted anywhere, too (F7, F8, F12)."""
    for number in range(1, OPERATIONS + 1, 4 * STEP):
        at, way = 1, WAYS[number // 4 % len(WAYS)]
        while True:
            work = interrupted(number, way)
            fail_at(work.disk, at, PowerCut)
            try:
                work.open()
            except PowerCut:
                end(work.disk, at)
                check_and_go_on(work)
                at += 1
            else:
                break
        assert at > 3


@pytest.mark.parametrize("error", [DiskError("EIO"), DiskFull("ENOSPC")], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("keeps", [False, True])
def test_the_disk_fails_at_every_operation(error, keeps):
    """Whatever fails, it is not tried again; the next process finds a sound log, and what it finds stays (F13, F15)."""
    for number in some_operations(2 * keeps + isinstance(error, DiskFull)):
        work = Workload(SimDisk())
        work.disk.failed_sync_keeps = keeps
        fail_at(work.disk, number, error)
        with contextlib.suppress(DiskError):
            run_all(work)
            assert work.state.start.index == 200, "only the note of a clean end may fail silently"
        end(work.disk, "killed")
        check_and_go_on(work)


def test_a_log_whose_write_failed_is_unusable():
    """Every call is refused with the reason until it is opened again, as nobody knows what is on disk (F13, F15)."""
    for call in (
        lambda work: work.append([40]),
        lambda work: work.append([1_900]),
        lambda work: work.append([1], cut=2),
        lambda work: work.compact(3),
        lambda work: work.reset(work.state.start),
    ):
        work = Workload(SimDisk())
        work.open()
        for _ in range(4):
            work.append([900])
        fail_at(work.disk, 1, DiskFull("the disk is full"))
        with pytest.raises(DiskFull):
            call(work)
        work.disk.fault = None
        for again in (
            lambda work=work: work.log.write([work.log.stage(None, [])]),
            lambda work=work: work.log.load(1, 1, 0),
            lambda work=work: work.log.compact(3),
        ):
            with pytest.raises(DiskError, match=r"is unusable: an earlier change failed \(the disk is full\)"):
                again()
        work.log.close()
        work.disk.kill()
        work.open()
        work.append([40])


def test_a_disk_that_is_really_full():
    """A part of a batch is written; with the disk still full the log opens, with space it goes on (F13)."""
    for missing in range(1, 2_500, 61):
        work = Workload(SimDisk())
        work.open()
        work.append([400])
        work.disk.capacity_bytes = work.disk.used_bytes() + 2_500 - missing
        with contextlib.suppress(DiskFull):
            while True:
                work.append([400])
        acknowledged = work.state
        assert acknowledged.entries
        work.disk.kill()
        work.open()
        assert work.state.entries[: len(acknowledged.entries)] == acknowledged.entries
        work.disk.capacity_bytes *= 100
        work.append([400])
        work.reopen()


def test_the_checks_would_notice():
    """A workload that expects something else does not pass."""
    work = interrupted(OPERATIONS, "killed")
    other = Workload(work.disk, State())
    with pytest.raises(AssertionError):
        other.open()
