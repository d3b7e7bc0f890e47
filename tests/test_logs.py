"""Whatever a log's handlers do, whoever writes a line goes on (F78)."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path

import pytest
import structlog

from raftkv import Server
from raftkv.kv import KeyValue, KeyValueClient
from raftkv.logs import EventLog, Losses, TextLog

MODULES = sorted((Path(__file__).parent.parent / "raftkv").rglob("*.py"))


class Handlers(logging.Handler):
    """A program's own, for structlog and for `logging`: keeps what it gets, or raises."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.said: list[str] = []

    def __call__(self, _: object, __: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        self._take(" ".join(str(value) for value in fields.values()))
        return fields

    def emit(self, record: logging.LogRecord) -> None:
        self._take(record.getMessage())

    def _take(self, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.said.append(text)


@pytest.fixture
def handlers():
    """What the log goes to."""
    handlers = Handlers()
    structlog.configure(processors=[handlers], logger_factory=structlog.ReturnLoggerFactory())
    logging.getLogger("test").addHandler(handlers)
    yield handlers
    logging.getLogger("test").removeHandler(handlers)


class Unspeakable(Exception):
    """An error that fails when its text is asked for."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("kind", [EventLog, TextLog])
@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("closed"), Unspeakable()])
def test_a_line_never_raises_and_what_is_lost_is_counted(handlers, kind, error):
    """One line says how many were lost, when they get through again; then all is well."""
    losses = Losses()
    log = kind("test", losses)
    log.warning("first")
    handlers.error = error
    log.error("second")
    log.warning("third")
    assert losses.health.lines_lost == 2
    assert type(error).__name__ in str(losses.health.problem)
    handlers.error = None
    log.warning("fourth")
    assert losses.health.lines_lost == 2 and losses.health.problem is None
    first, fourth, lost = handlers.said
    assert (first, fourth) == ("first", "fourth")
    assert "lost" in lost and "2" in lost


def test_a_value_without_a_text_loses_its_line_only(handlers):
    """What renders a line may fail as well as what writes it."""
    losses = Losses()
    EventLog("test", losses).info("event", value=Unspeakable())
    assert losses.health.lines_lost == 1


def test_a_text_that_does_not_fit_its_values_loses_its_line_only(handlers):
    """As `logging` puts them together only in its handlers."""
    losses = Losses()
    TextLog("test", losses).warning("%d of them", "some")
    assert losses.health.lines_lost == 1


def test_a_server_in_another_program_serves_though_that_programs_log_fails(handlers, tmp_path):
    """It starts, leads, takes writes and ends, and its status says what it could not say."""
    handlers.error = OSError(28, "No space left on device")

    async def story() -> None:
        async with Server(KeyValue, data_dir=tmp_path) as server:
            async with KeyValueClient([server.address]) as client:
                await client.put(b"k", b"v")
                assert (await client.get(b"k")).value == b"v"
            status = server.status()
            assert status.log_lines_lost > 0
            assert any("No space left" in problem for problem in status.problems())

    asyncio.run(story())
    handlers.error = None
    EventLog("test").info("all is well")
    assert "log_lines_lost" in handlers.said[-1]


def test_nothing_logs_past_it():
    """A logger of structlog or `logging` that is used as it is could raise into a node."""
    past = [
        str(path)
        for path in MODULES
        if path.name != "logs.py" and re.search(r"\b(get_logger|getLogger)\b", path.read_text())
    ]
    assert not past
