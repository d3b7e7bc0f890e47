"""`fault_test`: one declaration tests an application under all the faults under which raftkv itself is tested."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import ALONE, IN_A_WORLD, Cause, CounterExample
from raftkv.testing.judging.models import UnfitModel, check_model
from raftkv.testing.trying.budget import Budget, budget_of, chosen
from raftkv.testing.trying.determinism import RESTARTS_MAX
from raftkv.testing.trying.example import run_example
from raftkv.testing.trying.hunting import Hunt
from raftkv.testing.trying.keeping import keep
from raftkv.testing.trying.references import Reference
from raftkv.testing.trying.script import Script
from raftkv.testing.trying.strategies import (
    CallsOf,
    CallSource,
    UnfitStrategy,
    any_call,
    chosen_kinds,
    long_scripts,
    scripts,
)
from raftkv.testing.trying.tally import Tally, due_by_themselves, left_to_others


def fault_test(
    machine: type[StateMachine],
    *,
    model: type,
    commands: Sequence[CallSource],
    key: str | None = None,
    clients: int = 3,
    faults: Sequence[str] | None = None,
    budget: str | Budget | None = None,
) -> Callable[[], None]:
    """A test of `machine` against `model`; give it a name that pytest collects: `test_inventory = fault_test(…)`.

    `commands` holds `calls(…)` of commands and queries, which several clients with sessions make at once, while nodes
    crash, disks fail, the network is cut, clocks jump and members come and go. What the clients heard must be what
    `model` could have said (see `raftkv.testing.judging.models`), calls must do the same in any process, and every
    invariant of the cluster must hold.

    `key` names an argument that every call has, if calls with different values of it have nothing to do with each
    other: histories are then looked at one value at a time, which is much quicker. `faults` are the kinds of faults
    to choose from (default: all of `fault_kinds()`); `budget` is "quick", "ci", "soak", or a `Budget` of your own
    (default: as pytest's `--raftkv-budget` or the environment's `RAFTKV_BUDGET` says, or quick).

    How often each call succeeded and was rejected, and each command ran by itself, stands in pytest's report of the
    test (`-rA` shows it). It warns (`NeverAnswered`) of calls that never succeeded, and (`NeverRan`) of commands that
    are to run every so often and never did. Look there at those that others schedule, and at those for rows that are
    over: a model that is told of nothing agrees with a machine that has scheduled nothing, and `0 by itself` is all
    that shows.

    The test raises `CounterExample`, with the smallest script that was found to fail. Raises `UnfitStrategy`,
    `UnfitModel` or `NotImportable` at once when the declaration is wrong.
    """
    case = FaultTest(machine, model, commands, key, clients, faults, budget)

    def test(*_self: object) -> None:  # an instance, where it stands in a class
        __tracebackhide__ = True
        case.run()

    test.__doc__ = f"{machine.__name__} under faults is what {model.__name__} says."
    return test


SEARCHED_RESTARTS = 2
"""In each script of the search: many scripts find more than many restarts of one."""


class FaultTest:
    """What was declared, checked."""

    def __init__(
        self,
        machine: type[StateMachine],
        model: type,
        commands: Sequence[CallSource],
        key: str | None,
        clients: int,
        faults: Sequence[str] | None,
        budget: str | Budget | None,
    ) -> None:
        """Raises as `fault_test` does."""
        if not (isinstance(machine, type) and issubclass(machine, StateMachine)):
            raise UnfitModel(f"{machine!r} can't be tested: it must be a class made from StateMachine")
        if not isinstance(model, type):
            raise UnfitModel(f"model={model!r}: it must be a class, as each history begins with a new instance")
        Reference.of(machine)
        Reference.of(model)
        self.call = any_call(machine, commands, key)
        names = [source.name for source in commands if isinstance(source, CallsOf)]
        check_model(machine, model, names if len(names) == len(commands) else list(machine.methods))
        if clients < 1:
            raise UnfitStrategy(f"clients = {clients}: must be at least 1")
        self.machine, self.model, self.key, self.clients = machine, model, key, clients
        self.kinds = chosen_kinds(faults)
        self.budget = budget
        self.names = names
        self.tally = Tally()

    def run(self) -> None:
        """Raises `CounterExample`; warns of calls that never succeeded, and of what never ran by itself."""
        __tracebackhide__ = True
        budget, self.tally = budget_of(self.budget), self._tally()
        # All scripts alone, and then in worlds: most mistakes show without one, in a hundredth of the time.
        tried = scripts(self.call, budget, self.clients, self.kinds)
        alone = Hunt(tried, self._alone, budget)
        found = (
            alone.run()
            or Hunt(long_scripts(self.call, self.clients), self._alone, budget, are_long=True).run()
            or Hunt(tried, self._in_a_world, budget, before=alone).run()
        )
        chosen.tried.append(self.tally.described())
        if found is None:
            self.tally.warn()
            return
        script, error = found
        try:
            run_example(self.machine, self.model, script, key=self.key)  # what `rerun` is going to show
        except CounterExample as again:
            error = again
        picture, error = error.picture, CounterExample(error.cause, error.described, error.program)
        error.picture = picture
        keep(error, script, self.machine, self.model, self.key)
        if not chosen.reports:
            error.add_note(error.instructions)
        raise error

    def _tally(self) -> Tally:
        machine, names = self.machine, self.names
        return Tally(names, due_by_themselves(machine), left_to_others(machine, self.model, names))

    def _alone(self, script: Script, only: Cause | None) -> None:
        run_example(
            self.machine,
            self.model,
            script,
            only=ALONE if only is None else {only},
            restarts_max=SEARCHED_RESTARTS if only is None else RESTARTS_MAX,
            tally=self.tally if only is None else None,
        )

    def _in_a_world(self, script: Script, only: Cause | None) -> None:
        run_example(self.machine, self.model, script, key=self.key, only=IN_A_WORLD if only is None else {only})
