"""The judge of requests while rights change."""

from __future__ import annotations

import pytest

from tests.chaos.rights import May, judge


@pytest.mark.parametrize(
    ("may", "was_done"), [(May.DO, True), (May.NOT, False), (May.EITHER, True), (May.EITHER, False)]
)
def test_what_ends_as_it_has_to_is_right(may: May, was_done: bool) -> None:
    """Also whatever ends while a right is being changed."""
    judge(may, b"k", was_done=was_done)


def test_a_request_that_gets_through_and_one_that_is_refused_wrongly_are_told_of() -> None:
    """By the key, and by what the node said."""
    with pytest.raises(AssertionError, match="got a request through, though the right was gone"):
        judge(May.NOT, b"k", was_done=True)
    with pytest.raises(AssertionError, match="has the right, and was refused: ann may not"):
        judge(May.DO, b"k", was_done=False, said="ann may not")
