"""How the command line speaks: tables for people, JSON for programs, exit codes for scripts."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, TextIO

import click
import msgspec

from raftkv.errors import (
    DiskError,
    Forbidden,
    Indeterminate,
    InvalidArgument,
    NodeRemoved,
    NodeStopped,
    NotAccepted,
    RaftKVError,
    SessionExpired,
    Unauthenticated,
)
from raftkv.extras import needs

if TYPE_CHECKING:
    from rich.console import Console

EXIT_CODES = {
    0: "done",
    1: "no: not found, condition does not hold, rejected by the command itself, or a check failed",
    2: "wrong usage: an option, a setting or an argument",
    3: "not accepted, so safe to try again: no leader, no quorum, busy, refused for now",
    4: "outcome unknown: it may have been done",
    5: "data in doubt: a node stopped itself, or files are damaged, locked or of another node",
    6: "the node was removed from its cluster: nothing is in doubt, don't start it again",
    7: "not allowed: nobody has signed in, or whoever has may not do it",
    130: "interrupted by Ctrl-C: what may go on regardless was said",
    143: "ended by SIGTERM: what may go on regardless was said",
}
"""Every exit code, for the help text."""


def exit_code(error: RaftKVError) -> int:
    """The exit code of an error, by which a script can tell what to do."""
    match error:
        case InvalidArgument():
            return 2
        case NotAccepted():
            return 3
        case Indeterminate() | SessionExpired():
            return 4
        case Unauthenticated() | Forbidden():
            return 7
        case NodeRemoved():
            return 6
        case NodeStopped():
            return 5
        case _:
            return 1


class ErrorSaid(msgspec.Struct, frozen=True):
    """What a command prints instead, when it fails."""

    error: str
    """Its kind: the name of an exception, UsageError, or Interrupted."""
    message: str


def text_of(error: RaftKVError) -> str:
    """What a command says of an error: what a node would do about its disk, it tells for itself."""
    if not isinstance(error, DiskError):
        return str(error)
    from raftkv.disk.advice import AGAIN  # files are much, and most commands have none

    return str(error).replace(AGAIN, "then give the command again")


def fail(error: RaftKVError, *, as_json: bool = False) -> NoReturn:
    """Print an error, as text or as JSON, and exit with its code."""
    if as_json:
        print_json(ErrorSaid(type(error).__name__, text_of(error)))
    else:
        console = make_console(stderr=True)
        from rich.markup import escape

        console.print(f"[bold red]{type(error).__name__}[/]: {escape(text_of(error))}", soft_wrap=True)
    sys.exit(exit_code(error))


def fail_usage(error: click.ClickException) -> NoReturn:
    """Print as JSON what is wrong with the words of a command, and exit with its code."""
    print_json(ErrorSaid("UsageError", error.format_message()))
    sys.exit(error.exit_code)


@contextmanager
def errors_reported(as_json: bool) -> Iterator[None]:
    """Turn raftkv's errors into a message and an exit code."""
    try:
        yield
    except RaftKVError as exc:
        fail(exc, as_json=as_json)


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command that talks to no cluster the option `--json`; its function gets `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(function)


def print_text(text: str, as_json: bool) -> None:
    """The text of a file that a command makes: as it is, or as the `text` of a JSON document."""
    if as_json:
        print_json({"text": text})
    else:
        click.echo(text, nl=False)


def json_line(value: Any) -> bytes:
    """One JSON document a line, in UTF-8."""
    return msgspec.json.encode(value) + b"\n"


def print_json(value: Any) -> None:
    """One JSON document a line."""
    click.echo(json_line(value).decode(), nl=False)


def write_unbuffered(out: BinaryIO, data: bytes) -> None:
    """Write all of it, for a thread that nothing waits for: the end of the process would wait for the lock of a buffer,
    and stdout has one. Raises `OSError`."""
    left, raw = memoryview(data), getattr(out, "raw", out)
    while left:
        left = left[raw.write(left) :]


def takes_more(out: TextIO) -> bool:
    """Whether a line can be written there now; not where a pipe is full, as nobody reads it."""
    try:
        return bool(select.select([], [out.fileno()], [], 0)[1])
    except (OSError, ValueError):  # it is in memory, or closed: whoever writes there is told
        return True


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal. Without a terminal, tables get all the width they need, and no line is broken.

    Nothing is made a picture: to rich, `:1234:` in `host:1234: refused` is the name of one, and so is a part of some
    keys and of some addresses of IPv6. Raises `MissingExtra` without rich, which most of what scripts run doesn't need.
    """
    with needs("cli", "the command line"):
        from rich.console import Console

    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if is_terminal else 160
    return Console(stderr=stderr, highlight=False, emoji=False, soft_wrap=not is_terminal, width=width)


def size_of(count: int) -> str:
    """A number of bytes for people, in the largest unit that fits."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""
