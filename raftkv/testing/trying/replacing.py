"""One example of an upgrade's test: its calls on both classes side by side, and then in a world that is upgraded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import ALONE, IN_A_WORLD, Cause, CounterExample
from raftkv.testing.trying.pair import check_versions, method_of_call, program, require_grown
from raftkv.testing.trying.rollout import Rollout
from raftkv.testing.trying.script import Call, Fault, Script
from raftkv.testing.trying.sides import UPGRADE, SideBySide
from raftkv.testing.world.cluster import SimCluster


def run_upgrade(
    old: type[StateMachine],
    new: type[StateMachine],
    script: Script,
    *,
    shows_pieces: bool = False,
    only: Collection[Cause] = frozenset(Cause),
    observe: Callable[[SimCluster], None] | None = None,
) -> None:
    """Raises `CounterExample` when the classes or `script` show a mistake of the causes `only`.

    The classes are compared first, then what can be seen without a cluster, because that names the wrong place.
    """
    try:
        require_grown(old, new)
        if (ALONE - {Cause.GREW_APART}) & {*only}:
            for each in (_upgraded_last(script), script):
                sides = SideBySide(old, new, each, shows_pieces=shows_pieces)
                try:
                    sides.run()
                except CounterExample as found:
                    found.picture = sides.picture(found.described)
                    raise
        if IN_A_WORLD & {*only}:
            Rollout(old, new, script, observe).run()
    except CounterExample as found:
        found.program = program(old, new, script, shows_pieces=shows_pieces)
        raise


def _upgraded_last(script: Script) -> Script:
    """The same calls, all while the old version is active: in a world it may take long until the newer one is, and it
    may become so even if no fault of the script says when."""
    last = max((call.at_ms for call in script.calls), default=0)
    return msgspec.structs.replace(script, faults=(Fault(UPGRADE, at_ms=last + 1),))


def rerun_upgrade(
    old: type[StateMachine],
    new: type[StateMachine],
    *,
    seed: int = 0,
    size: int = 3,
    faults: Sequence[Fault] = (),
    commands: Sequence[Call] = (),
    shows_pieces: bool = False,
) -> None:
    """Play one script again, as a failed `upgrade_test` prints it. Raises `CounterExample` when it fails.

    Raises `UnfitModel` or `InvalidArgument` when it doesn't fit the classes.
    """
    check_versions(old, new)
    for call in commands:
        method_of_call(old, new, call).encode_args(call.args, {})
    script = Script(seed=seed, size=size, faults=tuple(faults), calls=tuple(commands))
    run_upgrade(old, new, script, shows_pieces=shows_pieces)
