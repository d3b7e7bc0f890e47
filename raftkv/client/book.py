"""The addresses that a client knows, and the order in which it tries them."""

from __future__ import annotations

from collections.abc import Container, Sequence

from raftkv.addresses import parse
from raftkv.errors import InvalidArgument
from raftkv.wire import Members

ADDRESSES_MAX = 64
"""Addresses known at once: more than any cluster has, and a bound on what wrong hints can make us try."""

ADDRESS_CHARS_MAX = 300
"""A name has at most 253; whatever is longer was not meant as an address."""

PASS_OVER_S = 2.0
"""How long a node that gave no sign of life is passed over, whoever names it: those that name it may not
have noticed yet, and waiting for it again would take longer than electing another."""

HINTS_MAX = 2
"""Hints that are followed one after the other before the next address of the round is tried."""

ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 (not to listen there: a member that says so can't be found by it)


class AddressBook:
    """Addresses from three sources: seeds, which the book was made with and never forgets; members, as the cluster told
    them; and hints, which are kept until they fail.

    The address to try next is the one that failed least often since the leader was last found, and among equals the
    next in the round. So an address where no node is left soon comes last, but none is left out for ever. A book that
    doesn't learn has its seeds only.

    Invariants: the keys of `_tries` are the known addresses, in the order of the round, where new ones come last. There
    are at most `ADDRESSES_MAX` and one more, or as many as there are seeds.
    """

    def __init__(self, seeds: Sequence[str], *, learns: bool = True) -> None:
        self._learns = learns
        self._seeds = tuple(dict.fromkeys(seeds))
        self._members = Members()
        self._tries = dict.fromkeys(self._seeds, 0)
        self._last: str | None = None
        self._suggested: str | None = None
        self._hints = 0
        self._silent_until: dict[str, float] = {}
        """Nodes that gave no sign of life, and until when they are passed over."""

    @property
    def known(self) -> tuple[str, ...]:
        """All known addresses, in the order of the round."""
        return tuple(self._tries)

    def learn(self, members: Members) -> bool:
        """Take note of the members; returns whether they have changed. Older news than the last is ignored."""
        if not self._learns or members.index < self._members.index:
            return False
        usable = tuple(dict.fromkeys(address for address in members.addresses if is_usable(address)))[:ADDRESSES_MAX]
        if not usable or usable == self._members.addresses:
            return False
        self._members = Members(members.index, usable)
        least = min(self._tries.values())
        room = ADDRESSES_MAX - len(usable)
        # If there are many seeds, not all are kept beside the members, but at least one is.
        seeds = [seed for seed in self._seeds if seed not in usable][: max(1, room)]
        stay = [address for address in self._tries if address in usable or address in seeds]
        self._tries = {address: self._tries.get(address, least) for address in (*stay, *usable, *seeds)}
        return True

    def suggest(self, address: str) -> None:
        """A node says that the leader is at this address."""
        if self._learns:
            self._suggested = address

    @property
    def has_hint(self) -> bool:
        return self._suggested is not None

    def next(self, now: float, busy: Container[str] = ()) -> str | None:
        """What to try now: none of those that are being tried (`busy`). None when there is no other."""
        suggested, self._suggested = self._suggested, None
        if suggested is not None and suggested not in self._tries and len(self._tries) < ADDRESSES_MAX:
            self._tries[suggested] = min(self._tries.values())
        followed = suggested is not None and self._hints < HINTS_MAX and suggested in self._tries
        if followed and suggested is not None and suggested not in busy and not self._is_silent(suggested, now):
            # The round goes on where it was: removed nodes name each other, and would be all that is ever asked.
            self._hints += 1
            return suggested
        self._hints = 0
        candidates = [address for address in self._round() if address not in busy]
        if not candidates:
            return None
        self._last = min(candidates, key=lambda address: (self._is_silent(address, now), self._tries[address]))
        return self._last

    def _round(self) -> list[str]:
        """All addresses, beginning behind the last one that `next` gave."""
        known = list(self._tries)
        if self._last not in self._tries:
            return known
        at = known.index(self._last) + 1
        return known[at:] + known[:at]

    def in_vain(self, address: str, *, unreachable: bool = False) -> None:
        """This address failed: there is no node, or not the leader. A hint without a node is forgotten."""
        if address not in self._tries:
            return
        self._tries[address] += 1
        if unreachable and address not in self._seeds and address not in self._members.addresses:
            del self._tries[address]

    def found(self, address: str) -> None:
        """The leader is at this address. Of the others, no more is kept than whether they failed."""
        self._tries = {each: min(tries, 1) for each, tries in self._tries.items()}
        if address in self._tries:
            self._tries[address] = 0

    def pass_over(self, address: str, now: float) -> None:
        """The node at this address gives no sign of life: try others first for `PASS_OVER_S` seconds."""
        self._silent_until = {each: until for each, until in self._silent_until.items() if until > now}
        self._silent_until[address] = now + PASS_OVER_S

    def _is_silent(self, address: str, now: float) -> bool:
        return self._silent_until.get(address, 0.0) > now


def is_usable(address: str) -> bool:
    """Whether a client on another machine can connect to this address."""
    try:
        host, _ = parse(address)
    except InvalidArgument:
        return False
    return len(address) <= ADDRESS_CHARS_MAX and host not in ANYWHERE
