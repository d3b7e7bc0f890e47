"""How far a long command is, at which rate and for how long still; and what its end by Ctrl-C or SIGTERM leaves behind.

One bar for all commands, on stderr, and only where that is a terminal: a script's output stays its own.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import msgspec

from raftkv.cli.output import ErrorSaid, print_json, size_of, takes_more
from raftkv.extras import needs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PACE_S = 10.0
"""The rate is that of the last so many seconds."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell has it."""

TERMINATED = 143
"""The exit code after SIGTERM, as a shell has it."""

_signals: list[int] = []
"""What has interrupted the command, besides Ctrl-C."""


def stderr() -> Console:
    """Where bars are shown. Raises `MissingExtra` without rich."""
    with needs("cli", "the command line"):
        from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False)


class Stand(msgspec.Struct, frozen=True):
    """How far something is: so much of so much, of one kind of thing."""

    what: str
    done: int
    total: int | None
    """None while nobody knows how much there is."""
    is_bytes: bool = False
    unit: str = "entries"
    """What is counted, unless it is bytes."""


class Pace:
    """How fast something gets on, and how long it will take at that rate."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._what = ""

    def describe(self, stand: Stand, now: float) -> str:
        """A line on it, with rate and time left as soon as they are known; `now` in seconds of any clock."""
        if stand.what != self._what or (self._seen and stand.done < self._seen[-1][1]):
            self._what = stand.what
            self._seen.clear()
        self._seen.append((now, stand.done))
        while len(self._seen) > 2 and self._seen[1][0] <= now - PACE_S:
            self._seen.popleft()
        since, first = self._seen[0]
        passed, gone = now - since, stand.done - first
        text = f"{stand.what}: {_how_far(stand)}"
        if passed <= 0 or gone <= 0:
            return text
        from raftkv.node.status import seconds_text  # a node's status is much, and most commands show no rates

        rate = gone / passed
        text += f", {_amount(int(rate), stand)}/s"
        if stand.total is None:
            return text
        return f"{text}, {seconds_text(int(1000 * max(0, stand.total - stand.done) / rate))} left"


def _how_far(stand: Stand) -> str:
    if stand.total is None:
        return _amount(stand.done, stand)
    return f"{100 * stand.done // max(1, stand.total)} % of {_amount(stand.total, stand)}"


def _amount(count: int, stand: Stand) -> str:
    return size_of(count) if stand.is_bytes else f"{count} {stand.unit}"


class Bar:
    """What a terminal shows of one command; where there is none, it shows nothing."""

    def __init__(self, progress: Progress, what: str) -> None:
        self._progress = progress
        self._task = progress.add_task(what, total=None)
        self._pace = Pace()

    def show(self, stand: Stand) -> None:
        """How far it is now. Any thread, but one at a time."""
        if not self._progress.disable:
            self.say(self._pace.describe(stand, monotonic()), stand.done, stand.total)

    def say(self, line: str, done: int = 0, total: int | None = None) -> None:
        """A line of one's own, and how long the bar is; without a total it only moves."""
        self._progress.update(self._task, description=line, completed=done, total=total)


@contextlib.contextmanager
def bar(what: str, console: Console | None = None) -> Iterator[Bar]:
    """Show how far a command is, from now to the end of the block; `what` says what it does until more is known."""
    console = console or stderr()
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bar(progress, what)


@contextlib.contextmanager
def reading_shown(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how much of `total` bytes was read; what this gives is told of each piece."""
    with bar(what) as shown:
        done = 0

        def on_read(size: int) -> None:
            nonlocal done
            done += size
            shown.show(Stand(what, min(done, total), total, True))

        yield on_read


def interrupted(words: str, *, as_json: bool) -> NoReturn:
    """Say what goes on regardless of Ctrl-C or SIGTERM and what was given up, and end with the exit code for that.

    As JSON only where somebody takes what is printed: else the command would not end.
    """
    if as_json and takes_more(sys.stdout):
        print_json(ErrorSaid("Interrupted", words))
    else:
        stderr().print(f"interrupted: {words}", markup=False, soft_wrap=True)
    sys.exit(TERMINATED if signal.SIGTERM in _signals else INTERRUPTED)


@contextlib.contextmanager
def interruptible(words: str | Callable[[], str], *, as_json: bool) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into words on what they leave behind, which are asked for then, and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted(words if isinstance(words, str) else words(), as_json=as_json)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does, so that whoever is stopped by it (`timeout`, a supervisor) says the same.

    A second one ends the process at once. Nothing changes on another thread, or where SIGTERM does something already.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    _signals.clear()
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _on_sigterm(_: int, __: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _signals.append(signal.SIGTERM)
    if callable(signal.getsignal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)  # an event loop ends its task in its own way
    else:
        raise KeyboardInterrupt  # a shell has programs in the background ignore SIGINT, but not SIGTERM
