"""What somebody may have meant who wrote a name that there is none of."""

from __future__ import annotations

from collections.abc import Iterable


def meant(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'status'?", for the end of an error about a name; empty where none of the known is like it."""
    from difflib import get_close_matches  # slow to import, and only for who has made a mistake

    lowered = {each.lower(): each for each in known}
    found = get_close_matches(name.lower(), lowered, n=1)
    return f"; did you mean {lowered[found[0]]!r}?" if found else ""
