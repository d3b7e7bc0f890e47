"""What a failure does not need is left out, in few tries."""

from __future__ import annotations

import pytest

from raftkv.testing import Call, Fault
from raftkv.testing.trying.script import Script
from raftkv.testing.trying.trimming import trimmed


@pytest.mark.parametrize("needed", [(), (7,), (3, 21), (0, 1, 26)])
def test_only_what_is_needed_is_left(needed):
    """Of the calls and of the faults, whichever these are."""
    tries = []
    script = Script(
        faults=tuple(Fault("crash", at_ms=number) for number in range(9)),
        calls=tuple(Call("receive", ("a", number)) for number in range(27)),
    )

    def fails(part):
        tries.append(part)
        return {call.args[1] for call in part.calls} >= set(needed) and any(each.at_ms == 4 for each in part.faults)

    found = trimmed(script, fails)
    assert [call.args[1] for call in found.calls] == list(needed)
    assert [fault.at_ms for fault in found.faults] == [4]
    assert len(tries) < 80
