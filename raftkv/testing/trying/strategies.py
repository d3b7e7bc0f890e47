"""Hypothesis strategies of calls and of whole scripts, checked against the state machine that they are for."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import msgspec
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from raftkv.errors import InvalidArgument
from raftkv.machine import Method, StateMachine
from raftkv.machine.methods import method_of as method_named
from raftkv.machine.methods import name_of
from raftkv.testing.faults.nemesis import fault_kinds
from raftkv.testing.trying.budget import Budget
from raftkv.testing.trying.replica import arguments
from raftkv.testing.trying.script import Call, Earlier, Fault, Script

T = TypeVar("T")

SEED_MAX = 2**16
CHANCE_MAX = 2**16

_MENDS = ("restart", "heal")
"""These come by themselves in every world, so that a script need not hold them."""


class UnfitStrategy(InvalidArgument):
    """A strategy doesn't fit the command or query that it is for; the text says what to change."""


class CallsOf:
    """Calls of one command or query, with a strategy for each argument; made by `calls`."""

    def __init__(
        self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], function: Callable[..., Any] | None = None
    ) -> None:
        """`function` is the very method that was named, if not by its name alone."""
        self.name = name
        self.function = function
        self.args = args
        self.kwargs = kwargs

    def strategy(self, machine: type[StateMachine], key: str | None) -> SearchStrategy[Call]:
        """The calls as a strategy. Raises `UnfitStrategy`."""
        method = method_of(machine, self.name, key)
        if self.function is not None and method_named(machine, self.function) is None:
            raise UnfitStrategy(f"{self.function.__qualname__} is not {machine.__name__}.{self.name}")
        self._check(method)
        bound = method.signature.bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        parts = [each if isinstance(each, SearchStrategy) else st.just(each) for each in bound.args]
        return st.tuples(*parts).map(lambda args: fitting(machine, Call(self.name, args), key))

    def _check(self, method: Method) -> None:
        names = list(method.signature.parameters)
        written = method.describe()
        for name in self.kwargs:
            if name not in names:
                raise UnfitStrategy(f"{written} has no argument {name}: it has {', '.join(names) or 'none'}")
        if len(self.args) > len(names):
            raise UnfitStrategy(f"{written} has {len(names)} arguments, but there are {len(self.args)} strategies")
        for number, (name, parameter) in enumerate(method.signature.parameters.items()):
            if number < len(self.args):
                if name in self.kwargs:
                    raise UnfitStrategy(f"{written}: there are two strategies for {name}")
            elif name not in self.kwargs and parameter.default is parameter.empty:
                raise UnfitStrategy(f"{written} needs a strategy for {name}: add `{name}={_suggested(method, name)}`")


def calls(method: Callable[..., Any] | str, /, *args: Any, **kwargs: Any) -> CallsOf:
    """Calls of a command or query: `calls(Inventory.receive, sku=st.sampled_from("ab"), quantity=st.integers(0, 9))`.

    There is a strategy for each argument, by position or name; what is no strategy is always passed as it is, and
    arguments with a default may be left out. Let few keys be drawn: what never meets never goes wrong.
    """
    if isinstance(method, str):
        return CallsOf(method, args, kwargs)
    name = name_of(method)
    if not name:
        raise UnfitStrategy(f"calls({method!r}, …): must be a command or a query, such as calls(Inventory.receive, …)")
    return CallsOf(name, args, kwargs, method)


def method_of(machine: type[StateMachine], name: str, key: str | None) -> Method:
    """The command or query `name`, which must have the argument `key`. Raises `UnfitStrategy`."""
    method = machine.methods.get(name)
    if method is None:
        known = ", ".join(machine.methods)
        raise UnfitStrategy(f"{machine.__name__} has no command or query {name!r}; it has {known}")
    if key is not None and key not in method.signature.parameters:
        raise UnfitStrategy(
            f"key={key!r}: {method.describe()} has no such argument, so the history can't be looked at one key at a "
            "time: leave out key, or that call"
        )
    return method


def fitting(machine: type[StateMachine], call: object, key: str | None) -> Call:
    """`call`, with its arguments as a node gets them. Raises `UnfitStrategy` when they are of other types."""
    if not isinstance(call, Call):
        raise UnfitStrategy(f"a strategy in `commands` gave {call!r}: it must give `Call`s, as `calls(…)` does")
    method = method_of(machine, call.name, key)
    for each in call.args:
        if isinstance(each, Earlier):
            method_of(machine, each.name, None)
    try:
        plain = arguments(machine, call.name, call.plain)
        return Call(call.name, tuple(_standing(*each) for each in zip(call.args, plain, strict=True)))
    except InvalidArgument as exc:
        found = re.search(r"\$\[(\d+)\]", str(exc))
        names = list(method.signature.parameters)
        if found is None or int(found[1]) >= len(names):
            raise UnfitStrategy(f"{call.described} doesn't fit {exc}") from exc
        name = names[int(found[1])]
        raise UnfitStrategy(
            f"the strategy for {name} of {method.describe()} gave {call.args[int(found[1])]!r}: "
            f"use one of its type, like `{name}={_suggested(method, name)}`"
        ) from exc


def _standing(arg: Any, plain: Any) -> Any:
    """An argument of a script, where `plain` is what it is without an earlier answer."""
    return msgspec.structs.replace(arg, otherwise=plain) if isinstance(arg, Earlier) else plain


def _suggested(method: Method, name: str) -> str:
    """A strategy for an argument, as one would write it."""
    kind = method.types[name]
    written = repr(st.from_type(kind))
    return f"st.{written}" if re.fullmatch(r"\w+\(.*\)", written) else "st.…"


BACK_MAX = 3
"""Answers before the newest one that are drawn: an old token is what a mistake takes for a new one."""


def earlier(
    method: Callable[..., Any] | str, otherwise: Any, *, part: str | int | None = None
) -> SearchStrategy[Earlier]:
    """For an argument: what a command or query answered earlier, to any client.

    ```python
    calls(Locks.unlock, NAMES, token=earlier(Locks.lock, otherwise=0))
    ```

    Mostly the newest answer that has the argument's type, sometimes one of those before it; `otherwise`, or what that
    strategy gives, while there is none. `part` names a field of the answer, or an item by its number.
    """
    name = method if isinstance(method, str) else name_of(method)
    without = otherwise if isinstance(otherwise, SearchStrategy) else st.just(otherwise)
    return st.builds(Earlier, st.just(name), without, st.integers(0, BACK_MAX), st.just(part))


CallSource: TypeAlias = CallsOf | SearchStrategy[Call]
"""What may stand in the `commands` of a `fault_test`."""


def any_call(
    machine: type[StateMachine], sources: Sequence[CallSource], key: str | None = None
) -> SearchStrategy[Call]:
    """A call of any of `sources`. Raises `UnfitStrategy`."""
    if not sources:
        raise UnfitStrategy(f"commands is empty: add `calls({machine.__name__}.{next(iter(machine.methods))}, …)`")
    found: list[SearchStrategy[Call]] = []
    for number, source in enumerate(sources):
        if isinstance(source, CallsOf):
            found.append(source.strategy(machine, key))
        elif isinstance(source, SearchStrategy):
            found.append(source.map(lambda call: fitting(machine, call, key)))
        else:
            raise UnfitStrategy(f"commands[{number}] is {source!r}: it must be `calls(…)` or a strategy of `Call`s")
        if found[-1].is_empty:
            raise UnfitStrategy(f"commands[{number}] holds a strategy that gives nothing, as st.nothing() does")
    names = [source.name for source in sources if isinstance(source, CallsOf)]
    if len(names) == len(sources) and all(machine.methods[name].is_query for name in names):
        raise UnfitStrategy(f"commands holds only queries ({', '.join(names)}): nothing would ever change")
    return st.one_of(found)


@st.composite
def scripts(draw: DrawFn, call: SearchStrategy[Call], budget: Budget, clients: int, kinds: Sequence[str]) -> Script:
    """Scripts within a budget; they shrink towards three nodes, no faults, and few calls of one client at once."""
    # Much at once: a fault meets calls under way. Or spread: elections end, nodes recover, snapshots are taken.
    at_ms = st.integers(0, budget.duration_ms // draw(st.sampled_from([16, 4, 1])))
    fault = st.builds(Fault, st.sampled_from(kinds), at_ms, st.integers(0, CHANCE_MAX))
    timed = st.builds(_timed, call, st.integers(1, clients), at_ms)
    # Lists of lists: hypothesis makes lists of about five, and shortens both kinds well.
    found = [each for some in draw(st.lists(st.lists(timed), max_size=budget.bursts_max)) for each in some]
    return Script(
        seed=draw(st.integers(0, SEED_MAX)),
        size=draw(st.sampled_from([3, 1, 5])),
        faults=tuple(sorted(draw(st.lists(fault, max_size=budget.faults_max)), key=lambda each: each.at_ms)),
        calls=tuple(sorted(found, key=lambda each: each.at_ms)),
    )


LONG_CALLS = 60
"""In a long script: of a dozen commands each is called about five times, and meets what the others have left."""
_SPANS = ((2_000, 1), (30, 1_000), (300, 1_000))
"""Of long scripts, in steps of so many milliseconds: in one of these, rows and timers of most applications run out
between the calls; and at the very time of some, which is mostly in whole seconds."""


def long_ones(draw: DrawFn, timed: Callable[[SearchStrategy[int]], SearchStrategy[T]]) -> list[T]:
    """So many of what `timed` gives for times, all over one span."""
    steps, step_ms = draw(st.sampled_from(_SPANS))
    at_ms = st.integers(0, steps).map(lambda step: step * step_ms)
    return draw(st.lists(timed(at_ms), min_size=LONG_CALLS, max_size=LONG_CALLS))


@st.composite
def long_scripts(draw: DrawFn, call: SearchStrategy[Call], clients: int) -> Script:
    """Scripts of many calls and no faults; hypothesis makes none of them shorter, but `trimmed` does."""
    found = long_ones(draw, lambda at_ms: st.builds(_timed, call, st.integers(1, clients), at_ms))
    return Script(calls=tuple(sorted(found, key=lambda each: each.at_ms)))


def _timed(call: Call, client: int, at_ms: int) -> Call:
    return Call(call.name, call.args, client=client, at_ms=at_ms)


def chosen_kinds(names: Sequence[str] | None) -> list[str]:
    """The kinds of faults of a test: all that break something, or `names`. Raises `UnfitStrategy`."""
    known = fault_kinds()
    if names is None:
        return [kind for kind in known if kind not in _MENDS]
    for name in names:
        if name not in known:
            raise UnfitStrategy(f"there is no fault {name!r}: there are {', '.join(known)}")
    if not names:
        raise UnfitStrategy("faults is empty: leave it out for all of them")
    return list(names)
