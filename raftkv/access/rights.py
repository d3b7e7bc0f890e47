"""What somebody may do: the decisions, made of the grants of all their roles."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

from raftkv.access.model import VERBS, Grant
from raftkv.errors import InvalidArgument
from raftkv.spelling import meant

Kind: TypeAlias = Literal["command", "query"]

DECISIONS_MAX = 1_000
"""Names whose decisions are remembered; a client may ask for any number of names."""


NAME_CHARS_MAX = 1_024
"""What is longer is no command, query or order, and is not looked for: a client may send names of megabytes."""


class Touch(msgspec.Struct, frozen=True):
    """Keys of the key-value machine that a call reads or writes."""

    what: Literal["read", "write"]
    start: bytes
    end: bytes | None
    """Before this key; None: to the last one."""

    @classmethod
    def of_key(cls, what: Literal["read", "write"], key: bytes) -> Touch:
        """One key."""
        return cls(what, key, key + b"\0")


class Rights:
    """What the grants of a user allow. What no grant allows is refused."""

    def __init__(self, grants: Iterable[Grant] = (), *, is_root: bool = False) -> None:
        """`is_root`: everything is allowed, whatever the grants say."""
        self.is_root = is_root
        names: dict[str, list[str]] = {"command": [], "query": [], "admin": []}
        prefixes: dict[str, list[bytes]] = {"read": [], "write": []}
        for grant in grants:
            if isinstance(grant.pattern, bytes):
                prefixes[grant.what].append(grant.pattern)
            else:
                names[grant.what].append(grant.pattern)
        self._names = {what: tuple(dict.fromkeys(patterns)) for what, patterns in names.items()}
        self._prefixes = {what: _outermost(each) for what, each in prefixes.items()}
        self._decided: dict[tuple[str, str], bool] = {}

    def may_call(self, kind: Kind, name: str, touches: Sequence[Touch] | None = None) -> bool:
        """Whether a command or query may be called: by its name, or else because all that it touches is allowed.

        `touches` are all the keys that this call reads and writes; None where nobody can say.
        """
        if self._may(kind, name):
            return True
        return bool(touches) and all(map(self.may_touch, touches or ()))

    def may_call_any(self, kind: Kind) -> bool:
        """Whether there is any command, or any query, that may be called."""
        return self.is_root or bool(self._names[kind] or self._prefixes["write" if kind == "command" else "read"])

    def may_admin(self, verb: str) -> bool:
        """Whether an order may be given."""
        return self._may("admin", verb)

    def may_touch(self, touch: Touch) -> bool:
        """Whether all keys of a range may be read, or written: one prefix must have all of them."""
        if self.is_root:
            return True
        prefixes = self._prefixes[touch.what]
        at = bisect_right(prefixes, touch.start) - 1
        if at < 0 or not touch.start.startswith(prefixes[at]):
            return False
        behind = _behind(prefixes[at])
        return behind is None or (touch.end is not None and touch.end <= behind)

    def _may(self, what: str, name: str) -> bool:
        if self.is_root:
            return True
        if len(name) > NAME_CHARS_MAX:
            return False
        known = self._decided.get((what, name))
        if known is None:
            known = any(matches(pattern, name) for pattern in self._names[what])
            if len(self._decided) >= DECISIONS_MAX:
                self._decided.clear()
            self._decided[what, name] = known
        return known


def _outermost(prefixes: Iterable[bytes]) -> list[bytes]:
    """Sorted, and without those that begin with another one: so the last that is not behind a key is the only one that
    may be its prefix."""
    kept: list[bytes] = []
    for prefix in sorted(prefixes):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return kept


NO_RIGHTS = Rights()
"""Of somebody who has not signed in, or is no user any more."""


def matches(pattern: str, name: str) -> bool:
    """Whether `name` is of a pattern, in which `*` stands for any characters. Takes time by their lengths alone."""
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    last = rest.pop()
    at, end = len(first), len(name) - len(last)
    if end < at or not (name.startswith(first) and name.endswith(last)):
        return False
    for part in rest:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _behind(prefix: bytes) -> bytes | None:
    """The first key behind all that begin with `prefix`; None when there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def check_verb(grant: Grant) -> None:
    """Raises `InvalidArgument` for a grant of orders that there are none of, which would look like a right.

    It is for whoever gives one: a grant that is in the log already may be of an order that a later raftkv has.
    """
    pattern = grant.pattern
    if grant.what == "admin" and isinstance(pattern, str) and not any(matches(pattern, verb) for verb in VERBS):
        raise InvalidArgument(
            f"{grant.describe()}: there is no such order; there are {', '.join(VERBS)}{meant(pattern, VERBS)}"
        )
