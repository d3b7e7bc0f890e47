"""Whether what somebody calls a state machine is one."""

from __future__ import annotations

from raftkv.errors import MachineError
from raftkv.machine.statemachine import StateMachine


def check_machine(given: object, taker: str) -> None:
    """Raises `MachineError`, which says what `taker` must be given, when `given` is no class of a state machine."""
    if isinstance(given, type) and issubclass(given, StateMachine):
        return
    if isinstance(given, StateMachine):
        name = type(given).__name__
        raise MachineError(f"{taker} was given an instance of {name}: give it the class itself, {taker}({name}, …)")
    what = f"the class {given.__qualname__}" if isinstance(given, type) else f"{type(given).__name__} {given!r:.60}"
    raise MachineError(
        f"{taker} was given {what}, which is no state machine: give it a class that derives from raftkv.StateMachine"
    )
