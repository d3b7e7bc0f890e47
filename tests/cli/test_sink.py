"""The queue between whoever says something and a descriptor that may hang or fail (F78)."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from raftkv.cli import sink as sinks
from raftkv.cli.sink import BYTES_MAX, LINE_BYTES_MAX, LINES_MAX, Sink, to_descriptor
from tests.waiting import until

WAIT_S = 20


class Far:
    """What a sink writes to: it takes everything, or nothing until it is told to go on, or fails."""

    def __init__(self) -> None:
        self.taken = b""
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_in = threading.Event()
        self.error: OSError | None = None
        self.at_most = 1 << 30

    def __call__(self, data: bytes) -> int:
        self.is_in.set()
        assert self.goes_on.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        taken = data[: self.at_most]
        self.taken += taken
        return len(taken)


@pytest.fixture
def far():
    """The far end."""
    far = Far()
    yield far
    far.goes_on.set()


def sink_to(far: Far) -> Sink:
    """A sink whose notices can be told from lines."""
    return Sink("test", far, lambda lost: f"lost {lost}\n".encode())


def test_everything_arrives_in_order_when_all_is_well(far):
    """Also when little is taken at a time."""
    far.at_most = 3
    sink = sink_to(far)
    for number in range(100):
        sink.put(f"{number}\n".encode())
    assert sink.close(WAIT_S)
    assert far.taken == b"".join(f"{number}\n".encode() for number in range(100))
    assert sink.health.lines_lost == 0 and sink.health.problem is None


@pytest.mark.parametrize("line", [b"x\n", b"x" * 1000 + b"\n"], ids=["many", "long"])
def test_the_oldest_lines_go_when_nobody_takes_them_and_one_line_says_how_many(far, line):
    """F78: bounded in lines and in bytes; the notice stands where the lost ones would be."""
    far.goes_on.clear()
    sink = sink_to(far)
    sink.put(b"in hand\n")
    assert far.is_in.wait(WAIT_S)
    kept = min(LINES_MAX, BYTES_MAX // len(line))
    for number in range(kept + 10):
        sink.put(line if number >= 10 else line.replace(b"x", b"o"))
    assert sink.health.lines_lost == 10
    far.goes_on.set()
    assert sink.close(WAIT_S)
    assert far.taken == b"in hand\nlost 10\n" + line * kept


def test_a_write_that_hangs_is_a_problem_after_a_while(far, monkeypatch):
    """Status can say what the log can't, and takes it back when the write is done."""
    monkeypatch.setattr(sinks, "STUCK_S", 0.0)
    far.goes_on.clear()
    sink = sink_to(far)
    sink.put(b"a\n")
    until(lambda: sink.health.problem is not None)
    assert "nobody takes them" in sink.health.problem
    far.goes_on.set()
    until(lambda: sink.health.problem is None)
    assert sink.close(WAIT_S)


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_an_error_is_kept_and_tried_again_with_the_same_lines(far, code, monkeypatch):
    """A disk gets space again, a named pipe another reader: nothing is lost that the queue has room for."""
    monkeypatch.setattr(sinks, "RETRY_S", (0.001, 0.002))
    far.error = OSError(code, os.strerror(code))
    sink = sink_to(far)
    sink.put(b"a\n")
    until(lambda: sink.health.problem is not None)
    assert os.strerror(code) in sink.health.problem
    sink.put(b"b\n")
    far.error = None
    until(lambda: far.taken == b"a\nb\n")
    until(lambda: sink.health.problem is None)
    assert sink.close(WAIT_S)


def test_the_end_waits_a_bounded_time_for_what_hangs_and_not_at_all_for_what_fails(far):
    """Whatever the sink does, the process ends; what failed is tried once more."""
    failing = Far()
    failing.error = OSError(errno.ENOSPC, "full")
    sink = sink_to(failing)
    sink.put(b"a\n")
    until(lambda: sink.health.problem is not None)
    assert not sink.close(WAIT_S)
    assert not sink._thread.is_alive(), "it has given up by itself"
    far.goes_on.clear()
    hanging = sink_to(far)
    hanging.put(b"a\n")
    assert not hanging.close(0.01)


def test_a_line_is_cut_at_its_bound(far):
    """And is a line still."""
    sink = sink_to(far)
    sink.put(b"x" * (LINE_BYTES_MAX + 1) + b"\n")
    sink.put(b"next\n")
    assert sink.close(WAIT_S)
    assert far.taken == b"x" * (LINE_BYTES_MAX - 1) + b"\nnext\n"


def test_a_descriptor_that_returns_at_once_is_waited_for():
    """Whoever shares it may have set it so; that it is full now is no error."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    big = bytes(1 << 20)
    sink = Sink("test", to_descriptor(writes), lambda lost: b"")
    for at in range(0, len(big), LINE_BYTES_MAX):
        sink.put(big[at : at + LINE_BYTES_MAX])
    got = 0
    while got < len(big):
        got += len(os.read(reads, 1 << 16))
    assert sink.close(WAIT_S)
    os.close(reads)
    os.close(writes)
