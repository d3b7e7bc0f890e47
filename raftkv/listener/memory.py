"""What was met a while ago, within bounds: so many things, each for so long."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Memory(Generic[K]):
    """Things that were met within the last `lasting_s` seconds, the newest `most` of them. `clock` gives seconds."""

    def __init__(self, most: int, lasting_s: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._lasting_s = lasting_s
        self._clock = clock
        self._until: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, thing: K) -> bool:
        return self._clock() < self._until.get(thing, float("-inf"))

    def add(self, thing: K) -> None:
        """It was met now."""
        self._until[thing] = self._clock() + self._lasting_s
        self._until.move_to_end(thing)
        if len(self._until) > self._most:
            self._until.popitem(last=False)
