"""A host whose names and clock are as files say, in the one process that is told so."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tests.chaos.host import FileSays, HostClock, LookupAnswer, answer_names, keep_time, line_of, log_of, say

SECOND_NS = 1_000_000_000


def test_names_are_answered_as_the_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An address, or none; numbers and other names are looked up as ever, and what was asked is written down."""
    path = tmp_path / "names.json"
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    say(path, {"a.test": LookupAnswer("127.0.0.5"), "b.test": LookupAnswer(None)})
    answer_names(str(path))
    assert socket.getaddrinfo("a.test", 80, type=socket.SOCK_STREAM)[0][4] == ("127.0.0.5", 80)
    with pytest.raises(socket.gaierror, match="Temporary failure"):
        socket.getaddrinfo("b.test", 80)
    assert socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("a.test", 80, flags=socket.AI_NUMERICHOST)
    asked = [
        line_of(os.getpid(), "a.test", LookupAnswer("127.0.0.5")),
        line_of(os.getpid(), "b.test", LookupAnswer(None)),
    ]
    assert log_of(path).read_text() == "".join(asked)


def test_a_clock_that_jumped_and_goes_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is ahead by its jump, and by what it gained since; without a word it is right."""
    assert HostClock(1_000, 3.0, 5 * SECOND_NS).wrong_ns(9 * SECOND_NS) == 9 * SECOND_NS
    assert HostClock(-1_000).wrong_ns(9 * SECOND_NS) == -SECOND_NS
    right_ns = lambda: 7 * SECOND_NS  # noqa: E731 (a clock that stands)
    for ahead_ms, path in ((0, tmp_path / "nothing"), (86_400_000, tmp_path / "clock.json")):
        monkeypatch.setattr(time, "time_ns", right_ns)
        if ahead_ms:
            say(path, HostClock(ahead_ms))
        keep_time(str(path))
        assert time.time_ns() == 7 * SECOND_NS + ahead_ms * 1_000_000


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at each look, as a clock is looked at all the time."""
    path, now = tmp_path / "clock.json", 0
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    say(path, HostClock(1))
    told: FileSays[HostClock] = FileSays(str(path), HostClock, HostClock())
    assert told.value() == HostClock(1)
    say(path, HostClock(2))
    assert told.value() == HostClock(1)
    now = SECOND_NS
    assert told.value() == HostClock(2)
