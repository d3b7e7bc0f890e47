"""Tells on the terminal what happens in the demo, with the time at which it did."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from raftkv.cli.demo.load import Ledger


class Narrator:
    """Prints a line for each event; on a terminal there is one more line, which shows what is being waited for."""

    def __init__(self, console: Console, ledger: Ledger) -> None:
        self._console = console
        self._ledger = ledger
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """How many seconds ago the demo began."""
        return time.monotonic() - self._began

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show what is being waited for, as long as it lasts."""
        if not self._console.is_terminal:
            yield
            return
        spinner = Spinner("dots")

        def render() -> RenderableType:
            spinner.update(text=Text(f"{what} · {self._ledger.count:,} writes acknowledged"))
            return spinner

        with Live(console=self._console, get_renderable=render, transient=True, refresh_per_second=10):
            yield

    def say(self, text: str) -> None:
        """Print that something has happened; `text` may have rich's markup."""
        self._console.print(f"[dim]{self.seconds:5.1f} s[/]  {text}")
