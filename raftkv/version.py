"""The version of raftkv that runs."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def package_version() -> str:
    """The installed version, or "0" when raftkv runs from a bare checkout. Looked up once: that reads files, for up to
    30 ms, and every look at a node's status asks for it on the loop."""
    try:
        return version("raftkv")
    except PackageNotFoundError:
        return "0"
