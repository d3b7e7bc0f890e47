"""Answers many clients without holding the loop up: so many in one turn, the others in the next ones."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVarTuple

TOLD_AT_ONCE = 64
"""Clients that are answered in one turn of the loop: ten thousand may wait for the same thing."""


Ts = TypeVarTuple("Ts")


class Telling:
    """Calls what it is given, in that order, from the next turn of the loop on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._left: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def __len__(self) -> int:
        return len(self._left)

    def soon(self, tell: Callable[[*Ts], None], *args: *Ts) -> None:
        """Call `tell` with `args` when its turn has come; it must not raise."""
        if not self._left:
            self._loop.call_soon(self._some)
        self._left.append((tell, args))

    def _some(self) -> None:
        for _ in range(min(TOLD_AT_ONCE, len(self._left))):
            tell, args = self._left.popleft()
            tell(*args)
        if self._left:
            self._loop.call_soon(self._some)
