"""Which libraries belong to which part of raftkv: what runs without a part runs without its libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from raftkv.errors import MissingExtra


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Around imports that `what` needs and that the extra `extra` brings. Raises `MissingExtra` if one is missing."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "raftkv":
            raise
        raise MissingExtra(
            f"{what} needs {exc.name}, which is not installed: pip install 'raftkv[{extra}]'", name=exc.name
        ) from exc
