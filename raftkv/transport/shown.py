"""Reads what `ssl` tells of a certificate that it has accepted (`getpeercert`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def common_names(shown: dict[str, Any]) -> Iterator[str]:
    """Those of its subject."""
    for group in shown.get("subject", ()):
        for kind, value in group:
            if kind == "commonName":
                yield str(value)


def alternative_names(shown: dict[str, Any], *kinds: str) -> Iterator[str]:
    """What it is for besides, of these kinds, as `DNS`."""
    for kind, value in shown.get("subjectAltName", ()):
        if kind in kinds:
            yield str(value)
