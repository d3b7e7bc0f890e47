"""How a process writes its log: lines for people, or a JSON object a line, always to stderr, and never in its way.

All that this process prints goes through queues (`raftkv.cli.sink`): the log, what other libraries log or warn of,
tracebacks, and what a state machine prints. So nothing that this process says can hold it up or fail in it.
"""

from __future__ import annotations

import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from raftkv import logs
from raftkv.cli.flood import Flood
from raftkv.cli.sink import LINE_BYTES_MAX, Sink, Write, to_descriptor
from raftkv.errors import RaftKVError
from raftkv.logs import EventLog, LogHealth

logger = EventLog(__name__)

FLUSH_S = 2.0
"""How long the end of the process may be held up by what it still has to say."""

VALUE_CHARS_MAX = 8192
"""Of one value in a line, such as a traceback: a line is kept whole up to 64 KiB."""


class ProcessLog:
    """The log of a running process."""

    def __init__(self, *, as_json: bool, out: Sink, err: Sink) -> None:
        self._as_json = as_json
        self._sinks = (out, err)

    def health(self) -> LogHealth:
        """Lines that were lost, here and in what renders them, and why none get through now."""
        found = [logs.health(), *(sink.health for sink in self._sinks)]
        problems = [each.problem for each in found if each.problem is not None]
        return LogHealth(sum(each.lines_lost for each in found), problems[-1] if problems else None)

    def ended(self, error: RaftKVError) -> None:
        """The last word of a process that ends with an error."""
        if self._as_json:
            logger.error("process_ended", error=type(error).__name__, reason=str(error))
        else:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)


@contextmanager
def process_log(*, as_json: bool, level: str) -> Iterator[ProcessLog]:
    """Send all output of this process through queues; `level` is debug, info, warning or error. At the end all is set
    back."""
    streams = sys.stdout, sys.stderr
    is_terminal = streams[1].isatty()
    renderers = _renderers(as_json=as_json, colors=is_terminal)
    out = Sink("stdout", _write_to(streams[0]), lambda lost: f"({lost} lines were lost here)\n".encode())
    err = Sink("stderr", _write_to(streams[1]), lambda lost: _render(renderers, "log_lines_lost", lines=lost))
    handlers = logging.root.handlers
    before = structlog.get_config() if structlog.is_configured() else None
    structlog.configure(
        processors=renderers,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=lambda *_: _ToSink(err),
        cache_logger_on_first_use=False,
    )
    logging.root.handlers = [_ToLog(logging.WARNING)]
    sys.stdout = _Lines(streams[0], lambda line: out.put(_encode(line)))
    sys.stderr = _Lines(streams[1], lambda line: err.put(_printed(renderers, line) if as_json else _encode(line)))
    try:
        flood = Flood(logs.write_to_structlog)
        with logs.written_to(flood):
            try:
                yield ProcessLog(as_json=as_json, out=out, err=err)
            finally:
                flood.flush()
    finally:
        sys.stdout.close()
        sys.stderr.close()
        sys.stdout, sys.stderr = streams
        logging.root.handlers = handlers
        end = time.monotonic() + FLUSH_S
        for sink in (err, out):
            sink.close(max(0.0, end - time.monotonic()))
        structlog.reset_defaults()
        if before is not None:
            structlog.configure(**before)


def _renderers(*, as_json: bool, colors: bool) -> list[Processor]:
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if as_json:
        return [*shared, structlog.processors.format_exc_info, _shorten, structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [*shared, _leave_out, _shorten, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]


def _leave_out(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    """Leave out fields that are None: to people, `leader=None` says nothing."""
    return {name: value for name, value in fields.items() if value is not None}


def _shorten(_: WrappedLogger, __: str, fields: EventDict) -> EventDict:
    for name, value in fields.items():
        if isinstance(value, str) and len(value) > VALUE_CHARS_MAX:
            fields[name] = value[:VALUE_CHARS_MAX] + " …"
    return fields


def _render(renderers: list[Processor], event: str, **fields: object) -> bytes:
    """A line of the log whatever its level: it goes past structlog, in front of what is queued."""
    made: Any = {"event": event, **fields}
    for render in renderers:
        made = render(None, "warning", made)
    return _encode(str(made))


def _printed(renderers: list[Processor], line: str) -> bytes:
    """What something else has printed, such as a line of a traceback, in the log's own form."""
    return _render(renderers, "printed", text=line)


def _encode(line: str) -> bytes:
    return (line + "\n").encode("utf-8", "backslashreplace")


def _write_to(stream: TextIO) -> Write:
    """Past the stream's own buffer if there is a descriptor: what hangs there would be written again at the end."""
    try:
        return to_descriptor(stream.fileno())
    except OSError:

        def write(data: bytes) -> int:
            stream.write(data.decode("utf-8", "replace"))
            stream.flush()
            return len(data)

        return write


class _ToSink:
    """The file to which structlog writes its lines."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def _put(self, line: str) -> None:
        self._sink.put(_encode(line))

    debug = info = warning = error = critical = msg = _put


class _ToLog(logging.Handler):
    """A handler that makes other libraries' log records part of this log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            say = logger.error if record.levelno >= logging.ERROR else logger.warning
            say(record.getMessage(), logger=record.name, exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 (a text that does not fit its values is no business of who logs)
            self.handleError(record)


class _Lines(io.TextIOBase):
    """A replacement of `sys.stdout` or `sys.stderr`, which passes on whole lines."""

    def __init__(self, stream: TextIO, put: Callable[[str], None]) -> None:
        self._stream = stream
        self._put = put
        self._lock = threading.RLock()
        self._begun = ""

    encoding = "utf-8"
    errors = "backslashreplace"

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"only text can be written here, not {type(text).__name__}")
        with self._lock:
            *lines, self._begun = (self._begun + text).split("\n")
            if len(self._begun) > LINE_BYTES_MAX:
                lines.append(self._begun)
                self._begun = ""
        for line in lines:
            self._put(line)
        return len(text)

    def close(self) -> None:
        """Hand on what has no end of line yet; who still has this stream may go on writing, to nobody."""
        with self._lock:
            begun, self._begun = self._begun, ""
        if begun:
            self._put(begun)
