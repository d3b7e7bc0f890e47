"""How a process's log looks, for people and for programs, and that everything printed is part of it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from collections.abc import Iterator

import structlog

from raftkv.cli.logs import VALUE_CHARS_MAX, process_log
from raftkv.errors import Corruption
from raftkv.logs import EventLog

logger = EventLog("raftkv")


@contextlib.contextmanager
def printing() -> Iterator[io.StringIO]:
    """Keep what the process prints to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as stream:
        yield stream


def lines(err: io.StringIO) -> list[dict]:
    """Each line is an object."""
    return [json.loads(line) for line in err.getvalue().splitlines()]


def test_every_line_is_json_whoever_says_it():
    """The log, other libraries' log, what is printed, and the last word of a process that fails."""
    with printing() as err, process_log(as_json=True, level="info") as said:
        logger.info("event", leader=None)
        logger.debug("not asked for")
        logging.getLogger("asyncio").error("%s was never retrieved", "it")
        logging.getLogger("asyncio").info("not asked for")
        print("one\ntwo", file=sys.stderr)
        print("begun", end="", file=sys.stderr)
        said.ended(Corruption("a file is damaged: do this"))
    found = lines(err)
    assert found[0]["event"] == "event" and found[0]["leader"] is None
    assert [each["level"] for each in found if each["event"] == "it was never retrieved"] == ["error"]
    assert [each["text"] for each in found if each["event"] == "printed"][-3:] == ["one", "two", "begun"]
    (last,) = [each for each in found if each["event"] == "process_ended"]
    assert (last["level"], last["error"], last["reason"]) == ("error", "Corruption", "a file is damaged: do this")


def test_people_are_not_told_of_what_is_not_known():
    """`leader=None` says less than nothing; an error is its name and what to do."""
    with printing() as err, process_log(as_json=False, level="info") as said:
        logger.info("role_changed", leader=None, term=3)
        said.ended(Corruption("a file is damaged: do this"))
    assert "role_changed" in err.getvalue() and "term=3" in err.getvalue() and "leader" not in err.getvalue()
    assert err.getvalue().endswith("Corruption: a file is damaged: do this\n")


def test_a_long_value_is_cut_and_its_line_stays_whole():
    """Else a reader of JSON would get half an object."""
    with printing() as err, process_log(as_json=True, level="info"):
        logger.info("event", text="x" * 10 * VALUE_CHARS_MAX)
        logger.error("failed", exc_info=ValueError("x" * 10 * VALUE_CHARS_MAX))
    first, second = lines(err)
    assert len(first["text"]) < 2 * VALUE_CHARS_MAX and len(second["exception"]) < 2 * VALUE_CHARS_MAX


def test_afterwards_all_is_as_before():
    """A process that goes on, such as one that runs tests, logs and prints as it did."""
    with printing() as err:
        out, handlers, config = sys.stdout, logging.root.handlers, structlog.get_config()
        with process_log(as_json=True, level="info"):
            kept = sys.stderr
        assert sys.stdout is out and sys.stderr is err and logging.root.handlers is handlers
        assert structlog.get_config() == config
        print("to nobody", file=kept)
