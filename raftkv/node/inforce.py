"""Who may do what, as far as this node has applied it."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.access import Access


class InForce:
    """Has the newest `Access`, and tells one watcher when another one is in force, or the same one has changed."""

    def __init__(self) -> None:
        self.access = Access()
        self._told: Callable[[], None] = lambda: None

    def took_effect(self, access: Access) -> None:
        """A change was applied, or the state was replaced."""
        self.access = access
        self._told()

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called from now on, on the loop's thread; it must not raise."""
        self._told = changed
