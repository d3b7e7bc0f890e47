"""`fault_test`: one declaration tests an application under all the faults under which raftkv itself is tested."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence

import hypothesis
from hypothesis import HealthCheck, Phase

from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import Cause, CounterExample
from raftkv.testing.judging.models import UnfitModel, check_model
from raftkv.testing.trying.budget import Budget, budget_of, chosen
from raftkv.testing.trying.determinism import TwinDied
from raftkv.testing.trying.example import run_example
from raftkv.testing.trying.keeping import keep
from raftkv.testing.trying.references import Reference
from raftkv.testing.trying.script import Script
from raftkv.testing.trying.strategies import CallsOf, CallSource, UnfitStrategy, any_call, chosen_kinds, scripts
from raftkv.testing.trying.trimming import trimmed


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

    The test raises `CounterExample`, with the smallest script that was found to fail. Raises `UnfitStrategy`,
    `UnfitModel` or `NotImportable` at once when the declaration is wrong.
    """
    case = FaultTest(machine, model, commands, key, clients, faults, budget)

    def test(*_self: object) -> None:  # an instance, where it stands in a class
        __tracebackhide__ = True
        case.run()

    test.__doc__ = f"{machine.__name__} under faults is what {model.__name__} says."
    return test


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

    def run(self) -> None:
        """Raises `CounterExample`."""
        __tracebackhide__ = True
        budget = budget_of(self.budget)
        hunt = _Hunt(self, budget)
        found = hunt.run()
        if found is None:
            return
        script, error = found
        try:
            run_example(self.machine, self.model, script, key=self.key)  # what `rerun` is going to show
        except CounterExample as again:
            error = again
        error = CounterExample(error.cause, error.described, error.program)
        keep(error, script, self.machine, self.model, self.key)
        if not chosen.reports:
            error.add_note(error.instructions)
        raise error


class _Enough(BaseException):
    """Ends the search, because the budget is used up, or nothing can be tried.

    Hypothesis lets it pass, as it is no `Exception`; from any other it would go on to shrink for minutes.
    """


class _Hunt:
    """Looks for a script that fails, and then for smaller ones, within a budget."""

    def __init__(self, case: FaultTest, budget: Budget) -> None:
        self._case = case
        self._budget = budget
        self._left = 5 * budget.shrinks  # half of it, in tenths; the other half is for what `trimmed` tries
        self._cause: Cause | None = None
        self._found: dict[str, CounterExample | None] = {}
        self._smallest: Script | None = None
        self._trouble: TwinDied | InvalidArgument | None = None

    def run(self) -> tuple[Script, CounterExample] | None:
        """Search, and return the failure of the smallest script that failed; None without one."""
        with contextlib.suppress(CounterExample, _Enough):
            self._hypothesis()()
        if self._trouble is not None:
            raise self._trouble.with_traceback(None) from None
        if self._smallest is None:
            return None
        self._left += 5 * self._budget.shrinks
        with contextlib.suppress(_Enough):
            trimmed(self._smallest, self._fails)
        error = self._found[repr(self._smallest)]
        assert error is not None, "the smallest script that failed has failed"
        return self._smallest, error

    def _hypothesis(self) -> Callable[[], None]:
        """Make hypothesis's search, which tries scripts, and after a failure smaller ones."""
        case, budget = self._case, self._budget
        seed = chosen.seed
        if seed is None:
            # The same scripts every time, except in a soak, which should try new ones.
            seed = 0 if budget.name != "soak" else random.SystemRandom().getrandbits(32)
        settings = hypothesis.settings(
            max_examples=budget.examples,
            database=None,  # a failure is saved to a file of its own
            deadline=None,
            derandomize=False,
            phases=[Phase.generate, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        given = hypothesis.given(scripts(case.call, budget, case.clients, case.kinds))(self._try)
        return hypothesis.seed(seed)(settings(given))

    def _fails(self, script: Script) -> bool:
        try:
            self._try(script)
        except CounterExample:
            return True
        return False

    def _try(self, script: Script) -> None:
        """Raises `CounterExample`; always the same for the same script, and from one line, by which it is known."""
        place = repr(script)
        if place not in self._found:
            if self._cause is not None:
                if self._left <= 0:
                    raise _Enough
                self._left -= 10 if self._cause.needs_a_world else 1
            self._found[place] = self._run(script)
        error = self._found[place]
        if error is not None and self._cause in (None, error.cause):  # who looks for one mistake is not to find another
            self._cause, self._smallest = error.cause, script
            raise error.with_traceback(None)

    def _run(self, script: Script) -> CounterExample | None:
        case = self._case
        try:
            run_example(case.machine, case.model, script, key=case.key, only=self._cause)
        except CounterExample as error:
            return error
        except (TwinDied, InvalidArgument) as trouble:
            self._trouble = trouble  # smaller scripts would be of no help
            raise _Enough from trouble
        return None
