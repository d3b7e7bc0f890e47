"""The places that a peer's address stands for: looked up anew at each try, with the last good answer meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

LookUp = Callable[[str], "Sequence[str] | asyncio.Future[tuple[str, ...]]"]
"""Given an address, returns the places that it stands for, at once or later. Both may raise `OSError`."""

WAIT_S = 0.5
"""How long a new answer is waited for when there is an old one; most are there within some ms."""

SLOW_S = 1.0
"""A lookup that takes longer is logged."""


class Name:
    """The address of one peer, and the places (numeric addresses, as the network calls them) that it stands for.

    There is at most one lookup under way. While a slow one goes on, the places at which the peer was found before are
    tried; when the answer does not contain them they are tried last, as the answer may be wrong. A node that answers
    says in the handshake which one it is, so an old place can do no harm.
    """

    def __init__(self, address: str, look_up: LookUp) -> None:
        self.address = address
        self._look_up = look_up
        self._lookup: asyncio.Future[tuple[str, ...]] | None = None
        self._since = 0.0
        self._is_awaited = False
        self._found: tuple[str, ...] = ()
        self._good: str | None = None
        self._tries = 0
        self.doubt: OSError | None = None
        """Why the places are those of an earlier lookup (the newest failed, or is slow); None when they are new."""

    async def places(self) -> Sequence[str]:
        """Where to dial now, in this order; each time another place is first. Raises `OSError`; may take for ever."""
        if self._lookup is None:
            found = self._look_up(self.address)
            if not isinstance(found, asyncio.Future):
                self._take(found)
                return self._in_turn()
            self._lookup, self._since = found, asyncio.get_running_loop().time()
        await self._wait(self._lookup)
        return self._in_turn()

    async def _wait(self, lookup: asyncio.Future[tuple[str, ...]]) -> None:
        known = bool(self._found or self._good)
        timeout = max(0.0, self._since + WAIT_S - asyncio.get_running_loop().time()) if known else None
        self._is_awaited = True
        try:
            await asyncio.wait([lookup], timeout=timeout)
        finally:
            self._is_awaited = False
        if not lookup.done():
            self.doubt = OSError(f"the lookup of {self.address} has taken {self._age():.1f} s so far")
            return
        self._lookup = None
        try:
            self._take(lookup.result())
        except OSError as exc:
            if not known:
                raise
            self.doubt = exc

    def _take(self, found: Sequence[str]) -> None:
        self._found, self.doubt = tuple(found), None

    def _in_turn(self) -> Sequence[str]:
        good = (self._good,) if self._good is not None else ()
        # The place where the peer was found before comes first, if the lookup still gives it.
        first = good if self._good in self._found else ()
        places = tuple(dict.fromkeys((*first, *self._found, *good)))
        at = self._tries % len(places)
        self._tries += 1
        return places[at:] + places[:at]

    def worked(self, place: str) -> None:
        """The peer was met at this place."""
        self._good = place
        self._tries = 0

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._since

    @property
    def slow_s(self) -> float | None:
        """Seconds that a dial has waited for a lookup; None when that is not long."""
        age = self._age() if self._is_awaited else 0.0
        return age if age >= SLOW_S else None

    def close(self) -> None:
        if self._lookup is not None:
            self._lookup.cancel()
