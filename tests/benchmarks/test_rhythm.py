"""The loops that decide when load is sent: an open loop's timetable does not wait for the system."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from benchmarks.load import keys
from benchmarks.load.rhythm import NS, ClosedLoop, OpenLoop, Recorder
from raftkv.testing.world.loop import SimLoop

MS = 1_000_000


def clock() -> int:
    """Virtual time, as the recorder wants it."""
    return round(asyncio.get_running_loop().time() * NS)


class Stalling:
    """A connection to a system that answers within a millisecond, but for a while in which it answers nothing."""

    def __init__(self, recorder: Recorder, stall: tuple[float, float], refuses: int = 0) -> None:
        self._recorder = recorder
        self._stall = stall
        self._refuses = refuses
        self.submitted = 0

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def submit(self, reads: bool, key: bytes, due_ns: int) -> None:
        """Refused at once, answered in a millisecond, or when the stall is over."""
        self.submitted += 1
        loop = asyncio.get_running_loop()
        if self.submitted <= self._refuses:
            loop.call_soon(self._recorder.failed, self, "BUSY")
            return
        begin, end = self._stall
        wait = end - loop.time() if begin <= loop.time() < end else 0.001
        loop.call_later(wait, self._recorder.answered, self, due_ns)


def run(rhythm, recorder: Recorder, connection: Stalling, seconds: float):
    """Let it run in virtual time; returns what was recorded."""

    async def go():
        recorder.window(0, round(seconds * NS))
        recorder.rhythm = rhythm
        await rhythm.run([connection], round(seconds * NS))
        recorder.rhythm = None
        return recorder.result(cpu_s=0.0, unanswered=rhythm.unanswered, timeline=True)

    return SimLoop().run(go())


def open_loop(rate: float) -> OpenLoop:
    """One operation at a time, so many a second due."""
    return OpenLoop(itertools.repeat((False, b"k")), 1, rate, clock)


def closed_loop() -> ClosedLoop:
    """One operation at a time, the next when it is answered."""
    return ClosedLoop(itertools.repeat((False, b"k")), 1, clock)


def slower_than(result, milliseconds: float) -> int:
    """How many operations took longer."""
    pairs = zip(result.due_ns, result.answered_ns, strict=True)
    return sum(answered - due > milliseconds * MS for due, answered in pairs)


def test_an_open_loop_counts_what_a_stall_would_have_kept_waiting():
    """A stall of half of the run is seen by half of the operations, not only by the one that was under way."""
    recorder = Recorder(by_due_time=True, clock=clock)
    result = run(open_loop(200), recorder, Stalling(recorder, (0.0, 0.5)), 1.0)
    assert result.operations == 200
    assert result.unanswered == 0
    assert 90 <= slower_than(result, 50) <= 125
    assert result.histogram().percentile_ms(80) > 200


def test_operations_are_due_at_even_distances_whatever_is_answered():
    """The timetable has no memory of the system."""
    recorder = Recorder(by_due_time=True, clock=clock)
    result = run(open_loop(100), recorder, Stalling(recorder, (0.1, 0.3)), 0.5)
    assert sorted(result.due_ns) == [number * NS // 100 for number in range(50)]


def test_a_closed_loop_omits_them():
    """The same stall is one slow operation for one that waits for each answer: why the open loop is there."""
    recorder = Recorder(by_due_time=False, clock=clock)
    result = run(closed_loop(), recorder, Stalling(recorder, (0.0, 0.5)), 1.0)
    assert slower_than(result, 50) == 1
    assert result.histogram().percentile_ms(99) < 5


def test_what_is_never_answered_is_reported():
    """A system that stops for good is not a fast one: what it owes is counted."""
    recorder = Recorder(by_due_time=True, clock=clock)
    result = run(open_loop(100), recorder, Stalling(recorder, (0.5, 1e6)), 1.0)
    assert result.operations == 50
    assert result.unanswered == 50


@pytest.mark.parametrize("make", [closed_loop, lambda: open_loop(100)])
def test_a_load_that_is_told_to_stop_ends_early(make):
    """Its measured time is what it was until then, so that its throughput is right."""
    by_due_time = make is not closed_loop
    recorder = Recorder(by_due_time=by_due_time, clock=clock)
    rhythm = make()

    async def go():
        recorder.window(0, 1_000 * NS)
        recorder.rhythm = rhythm
        loop = asyncio.get_running_loop()
        loop.call_later(0.5, recorder.stop)
        loop.call_later(0.5, rhythm.stop)
        await rhythm.run([Stalling(recorder, (0, 0))], 1_000 * NS)
        assert loop.time() < 0.6
        return recorder.result(cpu_s=0.0, unanswered=rhythm.unanswered, timeline=False)

    result = SimLoop().run(go())
    assert result.seconds == 0.5
    assert result.unanswered == 0
    assert result.throughput == pytest.approx(100 if by_due_time else 1_000, rel=0.02)


def test_a_failed_operation_is_counted_and_the_connection_used_again():
    """Errors don't end a run, and don't count as answers."""
    recorder = Recorder(by_due_time=False, clock=clock)
    result = run(closed_loop(), recorder, Stalling(recorder, (0, 0), refuses=3), 0.3)
    assert result.errors == {"BUSY": 3}
    assert result.operations > 200


def test_operations_are_the_same_for_the_same_seed():
    """Another seed gives others; reads have their share; a skewed draw prefers few keys."""

    def first(**changes):
        settings = {"keys": 1_000, "zipf": 0.0, "reads": 0.25, "seed": 7, **changes}
        return list(itertools.islice(keys.operations(**settings), 10_000))

    assert first() == first()
    assert first() != first(seed=8)
    assert sum(reads for reads, _ in first()) == pytest.approx(2_500, abs=200)
    even, skewed = first(), first(zipf=0.99)
    assert max(map([key for _, key in skewed].count, {key for _, key in skewed[:50]})) > 20 * len(even) / 1_000
    assert all(len(key) == 16 for _, key in even)
