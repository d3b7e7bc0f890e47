"""Views: states at one index, which a node holds for a short time, so that clients can read them page by page."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raftkv.config import Config
from raftkv.errors import Busy, ViewExpired

if TYPE_CHECKING:
    from raftkv.state import StateView


class HeldView:
    """One view. One query reads it at a time, and it is closed only between two queries."""

    def __init__(self, view: StateView, now: float) -> None:
        self.view = view
        self.used_at = now
        self.is_read = False
        self.expired = ""
        """Why it can't be read any more; empty while it can."""

    def begin(self) -> None:
        """A query begins to read. Raises `ViewExpired`, or `Busy` while another query reads."""
        if self.expired:
            raise ViewExpired(self.expired)
        if self.is_read:
            raise Busy("another query reads this view at the moment")
        self.is_read = True

    def end(self, now: float) -> None:
        """The query has finished; `now` is when, in seconds of the loop's time."""
        self.is_read, self.used_at = False, now
        if self.expired:
            self.view.close()

    def expire(self, why: str) -> None:
        """Let no more queries begin, and close the view when the query that reads it now has finished."""
        self.expired = why
        if not self.is_read:
            self.view.close()


class Views:
    """Holds views by their numbers, which are random: they can't be guessed, and no two starts of a node share one.

    Invariants: at most `views_max` views are open. One is closed when it was not used for `view_idle_s`, or when more
    than `view_changes_max` keys were written since it was opened, as it keeps their old values in memory.
    """

    def __init__(self, config: Config, clock: Callable[[], float], draw: Callable[[int], int]) -> None:
        self._config = config
        self._clock = clock
        self._draw = draw
        self._held: dict[int, HeldView] = {}
        self.opened = 0
        """How many views were opened, since the start."""
        self.expired = 0
        """How many of them were closed before their clients closed them."""

    def __len__(self) -> int:
        return len(self._held)

    def open(self, view: Callable[[], StateView]) -> int:
        """Open a view; returns its number. Raises `Busy` when `views_max` are open."""
        self.sweep()
        if len(self._held) >= self._config.views_max:
            raise Busy(f"{len(self._held)} views are open here: views_max allows no more at once")
        number = 1 + self._draw(2**62)
        self._held[number] = HeldView(view(), self._clock())
        self.opened += 1
        return number

    def find(self, number: int) -> HeldView:
        """The view with this number. Raises `ViewExpired` when there is none."""
        self.sweep()
        held = self._held.get(number)
        if held is None:
            raise ViewExpired(
                f"this node holds no view {number}: it was not used for {self._config.view_idle_s:g} s, more than "
                f"{self._config.view_changes_max} keys were written meanwhile, or its node is not this one any more. "
                "Begin anew, with another view"
            )
        return held

    def close(self, number: int) -> None:
        """Close a view, if it is still held."""
        held = self._held.pop(number, None)
        if held is not None:
            held.expire("the view was closed")

    def sweep(self) -> None:
        """Close the views that were not used for too long, or have too many changes to remember."""
        now, config = self._clock(), self._config
        for number, held in list(self._held.items()):
            idle = not held.is_read and now - held.used_at >= config.view_idle_s
            if idle or held.view.changes > config.view_changes_max:
                self._expire(number, "the view is too old: begin anew, with another one")

    def close_all(self) -> None:
        """Close all views, because the store is about to be closed. No query may be reading."""
        for number in list(self._held):
            self._expire(number, "the node's state was replaced: begin anew, with another view")

    def _expire(self, number: int, why: str) -> None:
        self.expired += 1
        self._held.pop(number).expire(why)
