"""One example of an application's test: its calls alone, elsewhere, beside the model, and then in a world of faults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import IN_A_WORLD, Cause, CounterExample
from raftkv.testing.judging.models import Answer, ModelState, Raised, Returned, check_model
from raftkv.testing.tracing.sidebyside import Side, Sides
from raftkv.testing.trying.answers import beside, difference_of, resolved
from raftkv.testing.trying.bylog import told_of
from raftkv.testing.trying.determinism import RESTARTS_MAX, find_difference
from raftkv.testing.trying.differences import told
from raftkv.testing.trying.performance import Performance
from raftkv.testing.trying.replica import Effect, Replica, Step, arguments
from raftkv.testing.trying.script import Call, Fault, Script, program
from raftkv.testing.trying.tally import Tally
from raftkv.testing.world.cluster import START_MS, SimCluster

LATER_MS = 1_000
"""Time goes on so long behind the last call, for what was scheduled."""

_MAY_DEPEND = "depend on its arguments, the tables, self.now, self.random and self.index, and on nothing else"


def run_example(
    machine: type[StateMachine],
    model: type,
    script: Script,
    *,
    key: str | None = None,
    only: Collection[Cause] = frozenset(Cause),
    observe: Callable[[SimCluster], None] | None = None,
    restarts_max: int = RESTARTS_MAX,
    tally: Tally | None = None,
) -> None:
    """Raises `CounterExample` when `script` shows a mistake; `NotImportable` or `TwinDied` when it can't be run.

    What can be checked without a cluster is checked first, because that names the wrong call. Failures of other causes
    than `only` are not looked for. `restarts_max` is how often the process is restarted in which calls run alone, if
    what a restart forgets is looked for; `tally` is told what came of these.
    """
    calls, steps = resolved(machine, sorted(script.calls, key=lambda call: call.at_ms), START_MS)
    try:
        if {Cause.NONDETERMINISTIC, Cause.REMEMBERS} & {*only}:
            _check_elsewhere(machine, calls, steps, restarts_max if Cause.REMEMBERS in only else 0)
        if {Cause.DISAGREES, Cause.FAILED} & {*only}:
            _check_beside(machine, model, calls, steps, tally or Tally())
        if IN_A_WORLD & {*only}:
            Performance(machine, model, script, key, observe).run()
    except CounterExample as found:
        found.program = program(script, machine, model)
        raise


def _check_elsewhere(machine: type[StateMachine], calls: list[Call], steps: list[Step], restarts_max: int) -> None:
    """Check that the calls have the same effects in other processes."""
    finding = find_difference(machine, steps, restarts_max)
    if finding is None:
        return
    call = calls[finding.step]
    method = machine.methods[call.name]
    why = {
        Cause.NONDETERMINISTIC: f"is not deterministic: {finding.difference}",
        Cause.REMEMBERS: f"uses something outside of tables, which a restart forgets: {finding.difference}",
    }[finding.cause]
    text = f"{call.described} {why}.\n{method.line}: a {method.kind} may {_MAY_DEPEND}"
    error = CounterExample(finding.cause, text)
    rows = [
        Side(call.described, told(machine, call.name, one), told(machine, call.name, other))
        for call, one, other in zip(calls, *finding.runs, strict=False)
    ]
    error.picture = Sides(*finding.words, rows)
    raise error


def _check_beside(machine: type[StateMachine], model: type, calls: list[Call], steps: list[Step], tally: Tally) -> None:
    """Check that the calls have the results that the model gives."""
    rows: list[Side] = []
    try:
        _run_beside(machine, model, calls, steps, tally, rows)
    except CounterExample as error:
        error.picture = Sides("the machine", "the model", rows)
        raise


def _run_beside(
    machine: type[StateMachine],
    model: type,
    calls: list[Call],
    steps: list[Step],
    tally: Tally,
    rows: list[Side],
) -> None:
    replica, state = Replica(machine), ModelState(model())
    for call, step in zip(calls, steps, strict=True):
        effect = replica.run(step)
        state = _told(machine, replica, state, rows, tally)
        state = _check_call(machine, effect, call, step.time_ms, state, rows)
        tally.add(call.name, effect.rejected is None)
    waited = replica.wait(steps[-1].time_ms + LATER_MS) if steps else Effect()
    _told(machine, replica, state, rows, tally)
    if waited.failed is not None:
        rows.append(Side("what was scheduled", [f"stops every node: {waited.failed}"], []))
        raise CounterExample(Cause.FAILED, f"what was scheduled stops every node: {waited.failed}")


def _told(
    machine: type[StateMachine], replica: Replica, state: ModelState, rows: list[Side], tally: Tally
) -> ModelState:
    """The model's state when it was told of what has run by itself."""
    for fired in replica.fired:
        tally.add_fired(fired.name)
        state = told_of(machine, fired, state, Cause.DISAGREES, rows)
    replica.fired.clear()
    return state


def _check_call(
    machine: type[StateMachine], effect: Effect, call: Call, now_ms: int, state: ModelState, rows: list[Side]
) -> ModelState:
    """Compare one call's effect with the model's answer; returns the model's next state."""
    if effect.failed is not None:
        rows.append(Side(call.described, told(machine, call.name, effect), []))
        raise CounterExample(Cause.FAILED, f"{call.described} stops every node: {effect.failed}")
    expected, following = state.call(call.name, arguments(machine, call.name, call.args), now_ms)
    found = answer_of(machine, call.name, effect)
    rows.append(Side(call.described, *beside(found, expected)))
    if expected != found:
        method = machine.methods[call.name]
        raise CounterExample(
            Cause.DISAGREES,
            f"{call.described} {found}, the model {expected}, with nothing going wrong\n{method.line}: {method.kind} "
            f"{method.describe()}{difference_of(found, expected)}",
        )
    return following


def answer_of(machine: type[StateMachine], name: str, effect: Effect) -> Answer:
    """The answer that a client would have got for this effect."""
    if effect.rejected is not None:
        return Raised(*effect.rejected)
    assert effect.result is not None, "a call that was not rejected has a result"
    return Returned(machine.methods[name].decode_result(effect.result))


def rerun(
    machine: type[StateMachine],
    model: type,
    *,
    seed: int = 0,
    size: int = 3,
    faults: Sequence[Fault] = (),
    commands: Sequence[Call] = (),
    key: str | None = None,
) -> None:
    """Play one script again, as a failed `fault_test` prints it. Raises `CounterExample` when it fails.

    Raises `UnfitModel` or `InvalidArgument` when it doesn't fit the machine.
    """
    for call in commands:
        if call.name not in machine.methods:
            raise InvalidArgument(f"{machine.__name__} has no command or query {call.name!r}")
        machine.methods[call.name].encode_args(call.plain, {})
    check_model(machine, model, sorted({call.name for call in commands}))
    run_example(machine, model, Script(seed=seed, size=size, faults=tuple(faults), calls=tuple(commands)), key=key)
