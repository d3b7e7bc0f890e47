"""`upgrade_test`: one declaration tests that a new version of an application can take the place of the old one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from raftkv.machine import StateMachine
from raftkv.testing.judging.failure import ALONE, IN_A_WORLD, Cause, CounterExample
from raftkv.testing.trying.budget import Budget, budget_of, chosen
from raftkv.testing.trying.hunting import Hunt
from raftkv.testing.trying.keeping import draw
from raftkv.testing.trying.pair import check_versions, spoken
from raftkv.testing.trying.replacing import run_upgrade
from raftkv.testing.trying.rollout import BREAKS, MOVES
from raftkv.testing.trying.script import Call, Fault, Script
from raftkv.testing.trying.sides import UPGRADE
from raftkv.testing.trying.strategies import (
    CHANCE_MAX,
    SEED_MAX,
    CallsOf,
    CallSource,
    UnfitStrategy,
    any_call,
    long_ones,
)
from raftkv.testing.world.cluster import SimCluster


def upgrade_test(
    old: type[StateMachine],
    new: type[StateMachine],
    commands: Sequence[CallSource],
    *,
    clients: int = 2,
    shows_pieces: bool = False,
    budget: str | Budget | None = None,
) -> Callable[[], None]:
    """A test that `new`, a later version of the application `old`, can take its place while calls go on.

    ```python
    from shop import Shop
    from tests.shop_v1 import Shop as OldShop          # the class as it was released, under the same name

    test_upgrade = upgrade_test(
        OldShop,
        Shop,
        [calls(Shop.receive, SKUS, st.integers(0, 9)), calls(Shop.sell, SKUS), calls(Shop.count, SKUS)],
    )
    ```

    What the classes declare is compared first. Then scripts of calls are tried, of commands that only `new` has, too.
    Clients 1, 3, … have the class `old`, clients 2, 4, … have `new`. Each script is run without a cluster: while
    the old version is active, both classes must do the same to every table and give the same results, also when time
    passes and what was scheduled is run; then the new
    version becomes active, its upgrades must go well with calls between their pieces, after restarts too, and what
    comes to stand in the tables must not depend on whether calls came between the pieces or after them
    (`shows_pieces=True` says that it may). Queries that had an answer must have one still (neither None, nor fewer
    items than before: a row was lost), and none may raise what looks like a mistake. In the end the script is
    played in a simulated cluster, whose nodes are restarted with the other class in any order, back as well, while
    nodes crash, the network is cut, and snapshots are installed.

    `commands` holds `calls(…)` of either class. `budget` is as for `fault_test`. The test raises `CounterExample`, with
    the smallest script that was found to fail, and draws it. Raises `UnfitStrategy` or `UnfitModel` at once when the
    declaration is wrong.
    """
    case = UpgradeTest(old, new, commands, clients, shows_pieces, budget)

    def test(*_self: object) -> None:  # an instance, where it stands in a class
        __tracebackhide__ = True
        case.run()

    test.__doc__ = f"Version {new.version} of {new.__name__} takes the place of version {old.version}."
    return test


class UpgradeTest:
    """What was declared, checked."""

    def __init__(
        self,
        old: type[StateMachine],
        new: type[StateMachine],
        commands: Sequence[CallSource],
        clients: int,
        shows_pieces: bool,
        budget: str | Budget | None,
    ) -> None:
        """Raises as `upgrade_test` does."""
        check_versions(old, new)
        if clients < 2:
            raise UnfitStrategy(f"clients = {clients}: must be at least 2, one for each version")
        self.old, self.new, self.clients = old, new, clients
        self.shows_pieces, self.budget = shows_pieces, budget
        self.call = _calls(old, new, commands)

    def run(self) -> None:
        """Raises `CounterExample`."""
        __tracebackhide__ = True
        budget = budget_of(self.budget)
        try:
            self._attempt(Script(), {Cause.GREW_APART})  # needs no script
        except CounterExample as exc:
            script, error = Script(), exc
        else:
            tried = _scripts(self, budget)
            alone = Hunt(tried, self._alone, budget)
            found = (
                alone.run()
                or Hunt(_long_scripts(self), self._alone, budget, are_long=True).run()
                or Hunt(tried, self._in_a_world, budget, before=alone).run()
            )
            if found is None:
                return
            script, error = found
        picture, error = error.picture, CounterExample(error.cause, error.described, error.program)
        error.picture = picture
        draw(error, f"{self.new.__name__}: version {self.old.version} to {self.new.version}", self._playing(script))
        if not chosen.reports:
            error.add_note(error.instructions)
        raise error

    def _playing(self, script: Script) -> Callable[[Callable[[SimCluster], None]], None]:
        """Plays it in a world that is observed."""
        return lambda observe: run_upgrade(
            self.old, self.new, script, shows_pieces=self.shows_pieces, only=IN_A_WORLD, observe=observe
        )

    def _alone(self, script: Script, only: Cause | None) -> None:
        self._attempt(script, ALONE if only is None else {only})

    def _in_a_world(self, script: Script, only: Cause | None) -> None:
        self._attempt(script, IN_A_WORLD if only is None else {only})

    def _attempt(self, script: Script, only: Collection[Cause]) -> None:
        __tracebackhide__ = True
        run_upgrade(self.old, self.new, script, shows_pieces=self.shows_pieces, only=only)


def _calls(
    old: type[StateMachine], new: type[StateMachine], sources: Sequence[CallSource]
) -> SearchStrategy[tuple[Call, bool]]:
    """Calls, and whether only the old class can make them. Raises `UnfitStrategy`."""
    if not sources:
        raise UnfitStrategy(f"commands is empty: add `calls({new.__name__}.{next(iter(new.methods))}, …)`")
    of_old = [source for source in sources if _is_old(old, new, source)]
    of_new = [source for source in sources if source not in of_old]
    found = []
    if of_new:
        found.append(any_call(new, of_new).map(lambda call: (_without_answers(call), False)))
    if of_old:
        found.append(any_call(old, of_old).map(lambda call: (_without_answers(call), True)))
    return st.one_of(found)


def _without_answers(call: Call) -> Call:
    if call.plain != call.args:
        raise UnfitStrategy(
            f"{call.described} is to get an earlier answer, in which two versions need not agree: draw the argument, "
            "as `st.integers(0, 3)` does"
        )
    return call


def _is_old(old: type[StateMachine], new: type[StateMachine], source: CallSource) -> bool:
    if not isinstance(source, CallsOf):
        return False
    if source.function is None:
        return source.name not in new.methods and source.name in old.methods
    known = new.methods.get(source.name)
    return (known is None or known.function is not source.function) and source.name in old.methods


@st.composite
def _scripts(draw: DrawFn, case: UpgradeTest, budget: Budget) -> Script:
    """Scripts within a budget; they shrink towards few calls of one client and nothing that breaks."""
    at_ms = st.integers(0, budget.duration_ms // draw(st.sampled_from([16, 4, 1])))
    fault = st.builds(Fault, st.sampled_from([*MOVES, *BREAKS]), at_ms, st.integers(0, CHANCE_MAX))
    drawn = st.tuples(case.call, st.integers(1, case.clients), at_ms)
    found = [
        _timed(case, *each) for some in draw(st.lists(st.lists(drawn), max_size=budget.bursts_max)) for each in some
    ]
    faults = [*draw(st.lists(fault, max_size=budget.faults_max)), Fault(UPGRADE, draw(at_ms), draw(st.integers(0, 5)))]
    return Script(
        seed=draw(st.integers(0, SEED_MAX)),
        size=draw(st.sampled_from([3, 1, 5])),
        faults=tuple(sorted(faults, key=lambda each: each.at_ms)),
        calls=tuple(sorted(found, key=lambda each: each.at_ms)),
    )


@st.composite
def _long_scripts(draw: DrawFn, case: UpgradeTest) -> Script:
    """Scripts of many calls, with one change of version among them."""
    found = long_ones(draw, lambda at_ms: st.tuples(case.call, st.integers(1, case.clients), at_ms))
    calls = sorted((_timed(case, *each) for each in found), key=lambda each: each.at_ms)
    change = Fault(UPGRADE, draw(st.sampled_from(calls)).at_ms, draw(st.integers(0, 5)))
    return Script(faults=(change,), calls=tuple(calls))


def _timed(case: UpgradeTest, drawn: tuple[Call, bool], client: int, at_ms: int) -> Call:
    """The call of a client that can make it."""
    call, is_old = drawn
    if is_old:
        return Call(call.name, call.args, client=client - 1 + client % 2, at_ms=at_ms)
    if client % 2 and (args := spoken(case.old, case.new, call)) is not None:
        return Call(call.name, args, client=client, at_ms=at_ms)
    return Call(call.name, call.args, client=client + client % 2, at_ms=at_ms)
