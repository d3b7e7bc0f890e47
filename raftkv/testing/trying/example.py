"""One example of an application's test: its calls alone, elsewhere, beside the model, and then in a world of faults."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.judging.models import Answer, ModelState, Raised, Returned, check_model
from raftkv.testing.trying.determinism import find_difference
from raftkv.testing.trying.performance import Performance
from raftkv.testing.trying.replica import Effect, Replica, Step, arguments
from raftkv.testing.trying.script import Call, Fault, Script, program
from raftkv.testing.world.cluster import START_MS, SimCluster

_MAY_DEPEND = "depend on its arguments, the tables, self.now, self.random and self.index, and on nothing else"


def run_example(
    machine: type[StateMachine],
    model: type,
    script: Script,
    *,
    key: str | None = None,
    only: Cause | None = None,
    observe: Callable[[SimCluster], None] | None = None,
) -> None:
    """Raises `CounterExample` when `script` shows a mistake; `NotImportable` or `TwinDied` when it can't be run.

    What can be checked without a cluster is checked first, because that names the wrong call. With `only`, failures of
    other causes are ignored.
    """
    calls = sorted(script.calls, key=lambda call: call.at_ms)
    steps = [
        Step(START_MS + call.at_ms, call.name, machine.methods[call.name].encode_args(call.args, {})) for call in calls
    ]
    try:
        if only in (None, Cause.NONDETERMINISTIC, Cause.REMEMBERS):
            _check_elsewhere(machine, calls, steps)
        if only in (None, Cause.DISAGREES, Cause.FAILED):
            _check_beside(machine, model, calls, steps)
        if only is None or only.needs_a_world:
            Performance(machine, model, script, key, observe).run()
    except CounterExample as found:
        found.program = program(script, machine, model)
        raise


def _check_elsewhere(machine: type[StateMachine], calls: list[Call], steps: list[Step]) -> None:
    """Check that the calls have the same effects in other processes."""
    finding = find_difference(machine, steps)
    if finding is None:
        return
    call = calls[finding.step]
    method = machine.methods[call.name]
    why = {
        Cause.NONDETERMINISTIC: f"is not deterministic: {finding.difference}",
        Cause.REMEMBERS: f"uses something outside of tables, which a restart forgets: {finding.difference}",
    }[finding.cause]
    text = f"{call.described} {why}.\n{method.line}: a {method.kind} may {_MAY_DEPEND}"
    raise CounterExample(finding.cause, text)


def _check_beside(machine: type[StateMachine], model: type, calls: list[Call], steps: list[Step]) -> None:
    """Check that the calls have the results that the model gives."""
    replica, state = Replica(machine), ModelState(model())
    for call, step in zip(calls, steps, strict=True):
        state = _check_call(machine, replica.run(step), call, state)


def _check_call(machine: type[StateMachine], effect: Effect, call: Call, state: ModelState) -> ModelState:
    """Compare one call's effect with the model's answer; returns the model's next state."""
    if effect.failed is not None:
        raise CounterExample(Cause.FAILED, f"{call.described} stops every node: {effect.failed}")
    expected, following = state.call(call.name, arguments(machine, call.name, call.args))
    found = answer_of(machine, call.name, effect)
    if expected != found:
        method = machine.methods[call.name]
        raise CounterExample(
            Cause.DISAGREES,
            f"{call.described} {found}, the model {expected}, with nothing going wrong\n{method.line}: {method.kind} "
            f"{method.describe()}",
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
        machine.methods[call.name].encode_args(call.args, {})
    check_model(machine, model, sorted({call.name for call in commands}))
    run_example(machine, model, Script(seed=seed, size=size, faults=tuple(faults), calls=tuple(commands)), key=key)
