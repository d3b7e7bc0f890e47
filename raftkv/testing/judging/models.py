"""An application's model: a plain class with the state machine's methods, and states of it that can be searched.

```python
class InventoryModel:
    def __init__(self) -> None:
        self.stock: dict[str, int] = {}

    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError                      # the command must be rejected with a ValueError; texts may differ
        self.stock[sku] = self.stock.get(sku, 0) + quantity
        return self.stock[sku]

    def on_hand(self, sku: str) -> int:
        return self.stock.get(sku, 0)
```

A method returns what the command returns, or raises what it raises. What a method that raises has changed is undone.
Where the model can't know, it returns `unittest.mock.ANY`, alone or within a list or the like.

A method that also takes `now_ms` is told the time that the command or query has in `self.now_ms`:

```python
class LocksModel:                                 # of a machine that schedules `expire` for each lock that it gives
    def lock(self, name: str, now_ms: int) -> int | None: ...

    def expire(self, name: str, token: int) -> None: ...
```

Commands that the machine has scheduled, that repeat, or that run for rows which are over, are told to the model when
they were run, if it has a method of the name; it must agree with what they gave. That does not check that they
run at all: a model that keeps when each is due can tell by `now_ms` that it was told nothing, long after that, as there
may have been no leader.

A command `acquire` of a part `locks` is the model's `locks_acquire`.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from raftkv.errors import InvalidArgument
from raftkv.machine import StateMachine


class UnfitModel(InvalidArgument):
    """A model lacks a method that the state machine has, or takes other arguments; the text says what to change."""


@dataclass(frozen=True)
class Returned:
    """A call ended with a result."""

    value: Any

    def __str__(self) -> str:
        return f"gives {self.value!r}"


@dataclass(frozen=True)
class Raised:
    """A call was rejected; equal when the exception's class has the same name, whatever its text."""

    error_type: str
    message: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"raises {self.error_type}" + (f": {self.message}" if self.message else "")


Answer: TypeAlias = Returned | Raised


def said(name: str) -> str:
    """What the model's method for a command or query is called."""
    return name.replace(".", "_")


def check_model(machine: type[StateMachine], model: type, names: list[str]) -> None:
    """Raises `UnfitModel` when `model` can't be called like `machine`'s methods `names`, or not made or copied."""
    for name in names:
        method = machine.methods[name]
        own = said(name)
        function = getattr(model, own, None)
        line = f"`def {own}(self{''.join(f', {each}' for each in method.signature.parameters)})`"
        if function is None:
            raise UnfitModel(f"{model.__name__} has no method {own}: add {line}, like {method.describe()}")
        now = {"now_ms": 0} if own in timed_methods(model) else {}
        try:
            inspect.signature(function).bind(None, *method.signature.parameters, **now)
        except TypeError as exc:
            raise UnfitModel(
                f"{model.__name__}.{own} can't be called like {method.describe()}: {exc}; make it {line}"
            ) from exc
    try:
        ModelState(model())
    except Exception as exc:
        raise UnfitModel(
            f"{model.__name__}() can't be made and copied: {type(exc).__name__}: {exc}; "
            "a model is made without arguments, and keeps plain data that `copy.deepcopy` copies"
        ) from exc


@functools.cache
def timed_methods(model: Any) -> frozenset[str]:
    """The names of the model's methods that take `now_ms`."""
    found = inspect.getmembers(model, inspect.isfunction)
    return frozenset(name for name, function in found if "now_ms" in inspect.signature(function).parameters)


class ModelState:
    """The model at one moment: never changed, and equal to any other in which the model's attributes are equal."""

    __slots__ = ("_frozen", "_hash", "_instance", "_next")

    def __init__(self, instance: Any) -> None:
        """Takes `instance`, which must not change from now on. Raises `UnfitModel` for what can't be compared."""
        self._instance = instance
        try:
            self._frozen = freeze(instance)
        except TypeError as exc:
            raise UnfitModel(f"{type(instance).__name__} keeps something that can't be compared: {exc}") from exc
        self._hash = hash(self._frozen)
        self._next: dict[Any, tuple[Answer, ModelState]] = {}

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelState) and self._frozen == other._frozen

    def has(self, name: str) -> bool:
        """Whether the model says anything of a command."""
        return callable(getattr(self._instance, said(name), None))

    def call(self, name: str, args: tuple[Any, ...], now_ms: int = 0) -> tuple[Answer, ModelState]:
        """What the model says to a call at a time, and the state behind it."""
        model: Any = type(self._instance)
        now = {"now_ms": now_ms} if said(name) in timed_methods(model) else {}
        place = (name, freeze(args), *now.values())
        known = self._next.get(place)
        if known is None:
            known = self._next[place] = self._call(name, copy.deepcopy(args), now)
        return known

    def _call(self, name: str, args: tuple[Any, ...], now: dict[str, int]) -> tuple[Answer, ModelState]:
        instance = copy.deepcopy(self._instance)
        try:
            answer: Answer = Returned(copy.deepcopy(getattr(instance, said(name))(*args, **now)))
        except Exception as exc:  # noqa: BLE001 (whatever the model raises is its answer)
            return Raised(type(exc).__name__, str(exc)), self
        following = ModelState(instance)
        return answer, self if following == self else following


def freeze(value: Any) -> Hashable:
    """A hashable value that is equal for equal values, of plain data and of objects that consist of it."""
    if isinstance(value, dict):
        return (dict, frozenset((freeze(key), freeze(each)) for key, each in value.items()))
    if isinstance(value, list | tuple | deque):
        return (tuple if isinstance(value, tuple) else list, tuple(freeze(each) for each in value))
    if isinstance(value, set | frozenset):
        return (set, frozenset(freeze(each) for each in value))
    if isinstance(value, bytearray):
        return (bytearray, bytes(value))
    fields = getattr(value, "__struct_fields__", None)
    if fields is not None:
        return (type(value), tuple(freeze(getattr(value, field)) for field in fields))
    hashing: Any = type(value).__hash__
    if hasattr(value, "__dict__") and not isinstance(value, type) and hashing in (object.__hash__, None):
        return (type(value), freeze(vars(value)))
    # 1, True and 1.0 are equal, and yet other states.
    hash(value)
    return (type(value), value)
