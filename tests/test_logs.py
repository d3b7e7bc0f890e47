"""Whatever a log's handlers do, whoever writes a line goes on (F78)."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from raftkv import Server
from raftkv.kv import KeyValue, KeyValueClient
from raftkv.logs import EventLog, Losses, TextLog, write_to_logging, written_to

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


@pytest.fixture
def records():
    """The records of `logging` that events become in a program that did not ask for structlog."""
    found, logger, handler = [], logging.getLogger("raftkv"), logging.Handler()
    handler.emit = found.append
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    with written_to(write_to_logging):
        yield found
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


def test_an_event_is_a_record_with_its_fields(records):
    """A handler that prints text shows them, and one that knows attributes has them; the line is the caller's."""
    EventLog("raftkv.node.test").warning("role_changed", node=1, role="leader", why="it was asked", leader=None)
    (record,) = records
    assert (record.name, record.levelname) == ("raftkv.node.test", "WARNING")
    assert record.getMessage() == "role_changed node=1 role=leader why='it was asked'"
    assert (record.event, record.node, record.why, record.leader) == ("role_changed", 1, "it was asked", None)
    assert record.funcName == "test_an_event_is_a_record_with_its_fields"


def test_no_field_is_in_the_way_of_a_record(records):
    """`logging` refuses fields that are called as its own attributes: they get an underscore."""
    EventLog("raftkv").info("100 % done", name="n", args=1, message="m", event_=2)
    (record,) = records
    assert (record.name_, record.args_, record.message_, record.event_) == ("n", 1, "m", 2)
    assert record.getMessage().startswith("100 % done name=n")


def test_an_exception_is_the_records_own(records):
    """With a traceback, as of `logging` itself."""
    try:
        raise ValueError("why")
    except ValueError as exc:
        EventLog("raftkv").error("failed", exc_info=exc)
    (record,) = records
    assert record.exc_info is not None and record.exc_info[0] is ValueError


def test_levels_of_loggers_count(records):
    """A program asks for more of one part, and for less of another."""
    logging.getLogger("raftkv.node").setLevel(logging.ERROR)
    try:
        EventLog("raftkv.node.test").warning("left out")
        EventLog("raftkv.server.test").debug("said")
    finally:
        logging.getLogger("raftkv.node").setLevel(logging.NOTSET)
    assert [record.event for record in records] == ["said"]


PROGRAM = """
import asyncio, logging, sys, tempfile
{setup}
from raftkv import Server, log_to_structlog
from raftkv.kv import KeyValue, KeyValueClient

async def main():
    with tempfile.TemporaryDirectory() as directory:
        async with Server(KeyValue, data_dir=directory) as server:
            async with KeyValueClient([server.address]) as kv:
                await kv.get(b"a")  # answered when there is a leader
            {within}

asyncio.run(main())
"""


def run(setup: str, within: str) -> tuple[str, str]:
    """What a program prints that runs a node: to stdout, and to stderr."""
    program = PROGRAM.format(setup=setup, within=within)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_program_keeps_the_defaults_of_structlog():
    """Its own events are printed after a node has started in it, and the node's are not among them."""
    out, err = run("import structlog", 'structlog.get_logger().info("mine", sku="apple")')
    assert "mine" in out and "apple" in out
    assert "raftkv" not in out and "role" not in out and err == ""


def test_a_program_keeps_its_own_structlog_and_gets_events_when_it_asks():
    """Its processors see the node's events beside its own, once it has asked for them."""
    setup = (
        "import structlog\n"
        "structlog.configure(processors=[structlog.processors.JSONRenderer()])\n"
        "before = structlog.get_config()\n"
    )
    say = 'structlog.get_logger().info("mine"); assert structlog.get_config() == before'
    assert run(setup, say) == ('{"event": "mine"}\n', "")
    out, err = run(setup + "from raftkv import log_to_structlog; log_to_structlog()\n", say)
    assert '{"event": "mine"}\n' in out and '"event": "role_changed"' in out and err == ""


def test_a_program_keeps_its_own_logging():
    """The node's events go to its handlers at its level, and its handlers and levels are what they were."""
    setup = (
        'logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")\n'
        "before = (logging.root.handlers[:], logging.root.level)\n"
    )
    out, err = run(setup, 'logging.info("mine"); assert before == (logging.root.handlers[:], logging.root.level)')
    assert "root INFO mine\n" in out and err == ""
    assert re.search(r"^raftkv\.\S+ INFO role_changed .*role=leader", out, re.MULTILINE), out


def test_a_program_without_a_log_hears_nothing():
    """Nothing is printed to stderr that nobody has asked for, warnings included."""
    assert run("", "from raftkv.logs import EventLog; EventLog('raftkv.node').error('failed')") == ("", "")


def test_nothing_logs_past_it():
    """A logger of structlog or `logging` that is used as it is could raise into a node."""
    past = [
        str(path)
        for path in MODULES
        if path.name != "logs.py" and re.search(r"\b(get_logger|getLogger)\b", path.read_text())
    ]
    assert not past
