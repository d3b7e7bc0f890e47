"""Which command or query is meant: by its name, or by the function that its class declares."""

from __future__ import annotations

from raftkv.errors import InvalidArgument
from raftkv.machine.methods import Method, kind_of, method_of
from raftkv.machine.statemachine import StateMachine


class UnknownMethod(InvalidArgument, AttributeError):
    """The state machine has no such command or query; nothing was sent."""


def find_method(machine: type[StateMachine], asked: object) -> Method:
    """The command or query of this name, or the one whose function this is: `Inventory.receive`.

    Of a base class's function that `machine` has overridden it is the one of `machine`, as in a call of Python.
    Raises `UnknownMethod`, which says what to write.
    """
    if isinstance(asked, str):
        method = machine.methods.get(asked)
        if method is None:
            raise UnknownMethod(f"{machine.__name__} has no command or query {asked!r}; it has {_known(machine)}")
        return method
    method = method_of(machine, asked)
    if method is None:
        raise UnknownMethod(_mistake(machine, asked))
    return method


def is_part(machine: type[StateMachine], name: str) -> bool:
    """Whether a part of the machine is called so, or a part of a part: "locks", "jobs.locks"."""
    return any(each.startswith(f"{name}.") for each in machine.methods)


def _known(machine: type[StateMachine]) -> str:
    return ", ".join(machine.methods) or "none"


def _mistake(machine: type[StateMachine], asked: object) -> str:
    """What is wrong with it, and what to write instead."""
    own = machine.__name__
    if places := [name for name, each in machine.methods.items() if each.function.__code__ is _code_of(asked)]:
        found = getattr(asked, "__qualname__", "")
        return f"{found} is in a part of {own}: name it as {' or '.join(f'{own}.{place}' for place in places)}"
    text = getattr(asked, "__qualname__", None) or repr(asked)
    if kind := kind_of(asked):
        return (
            f"{text} is a {kind} of another machine, and this is about {own}, which has {_known(machine)}: "
            f"name one of these, or make a client of the class that has {text}"
        )
    if any(asked is each for base in machine.__mro__ for each in vars(base).values()):
        return f"{text} is neither a command nor a query: mark it with @command or @query to call it from outside"
    example = next(iter(machine.methods), "method")
    return (
        f"{text} is no method of {own}: name a command or query as the class has it, like {own}.{example}, followed by "
        f"its arguments; there are {_known(machine)}"
    )


def _code_of(asked: object) -> object:
    return getattr(asked, "__code__", None)
