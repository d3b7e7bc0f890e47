"""What is offered to somebody who has written a name that is none."""

from __future__ import annotations

import pytest

from raftkv.spelling import meant

NAMES = ["snapshot_entries", "snapshot_log_bytes", "auto_upgrade", "tick_ms"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("snapshot_entires", "snapshot_entries"),
        ("SNAPSHOT_ENTRIES", "snapshot_entries"),
        ("autoupgrade", "auto_upgrade"),
        ("tick", "tick_ms"),
    ],
)
def test_the_nearest_name_is_offered(name: str, expected: str) -> None:
    """Letters may be exchanged, missing, or of the other case."""
    assert meant(name, NAMES) == f"; did you mean {expected!r}?"


@pytest.mark.parametrize("name", ["", "x", "nosuch", "colour_of_the_page"])
def test_nothing_is_offered_that_is_not_near(name: str) -> None:
    """A guess that is wrong costs more than none."""
    assert meant(name, NAMES) == ""
    assert meant(name, []) == ""
