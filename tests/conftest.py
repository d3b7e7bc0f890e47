"""What all tests share: quiet logs. Simulated clusters have much to say, and nobody reads it."""

from __future__ import annotations

import signal

import pytest
import structlog

import raftkv.state.rocks  # noqa: F401 (it is imported when a node starts: not in the midst of a test)
from raftkv import logs


def pytest_configure() -> None:
    """Heed Ctrl-C even where a shell has started the tests in the background, which ignores it for all their children:
    some tests press it in programs of theirs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before():
    """What a test has heard of signals by is no other's: a process that a later one forks could not be ended."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@pytest.fixture(autouse=True)
def quiet_logs():
    """Log to a structlog that writes to nowhere, whatever a test before has set: some tests look at its events."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with logs.written_to(logs.write_to_structlog):
        yield
    structlog.reset_defaults()
