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

A method returns what the command returns, or raises what it raises. Where the model can't know, as with `self.now`,
it returns `unittest.mock.ANY`, alone or within a list or the like. What a method that raises has changed is undone.
"""

from __future__ import annotations

import copy
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


def check_model(machine: type[StateMachine], model: type, names: list[str]) -> None:
    """Raises `UnfitModel` when `model` can't be called like `machine`'s methods `names`, or not made or copied."""
    for name in names:
        method = machine.methods[name]
        function = getattr(model, name, None)
        line = f"`def {name}(self{''.join(f', {each}' for each in method.signature.parameters)})`"
        if function is None:
            raise UnfitModel(f"{model.__name__} has no method {name}: add {line}, like {method.describe()}")
        try:
            inspect.signature(function).bind(None, *method.signature.parameters)
        except TypeError as exc:
            raise UnfitModel(
                f"{model.__name__}.{name} can't be called like {method.describe()}: {exc}; make it {line}"
            ) from exc
    try:
        ModelState(model())
    except Exception as exc:
        raise UnfitModel(
            f"{model.__name__}() can't be made and copied: {type(exc).__name__}: {exc}; "
            "a model is made without arguments, and keeps plain data that `copy.deepcopy` copies"
        ) from exc


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

    def call(self, name: str, args: tuple[Any, ...]) -> tuple[Answer, ModelState]:
        """What the model says to a call, and the state behind it."""
        place = (name, freeze(args))
        known = self._next.get(place)
        if known is None:
            known = self._next[place] = self._call(name, copy.deepcopy(args))
        return known

    def _call(self, name: str, args: tuple[Any, ...]) -> tuple[Answer, ModelState]:
        instance = copy.deepcopy(self._instance)
        try:
            answer: Answer = Returned(copy.deepcopy(getattr(instance, name)(*args)))
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
