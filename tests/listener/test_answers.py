"""What became of a command, as its client is told."""

from __future__ import annotations

import pytest

from raftkv.listener.answers import outcome_response
from raftkv.machine import Outcome, OutcomeKind
from raftkv.wire import Status

EXPECTED = {
    OutcomeKind.APPLIED: Status.OK,
    OutcomeKind.REJECTED: Status.REJECTED,
    OutcomeKind.SESSION_EXPIRED: Status.SESSION_EXPIRED,
    OutcomeKind.STALE_DUPLICATE: Status.INDETERMINATE,
}


@pytest.mark.parametrize("kind", OutcomeKind)
def test_an_outcome_has_its_status(kind):
    """Only what was applied is answered as done; a late copy of what was acknowledged is not (F74)."""
    response = outcome_response(7, 12, Outcome(kind, b"payload"))
    assert response.status is EXPECTED[kind]
    assert (response.id, response.index, response.payload) == (7, 12, b"payload")
