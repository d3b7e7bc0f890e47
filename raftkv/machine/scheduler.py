"""What `schedule` and `cancel` of a machine do: check the call that is to come, and keep it as a timer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import msgspec

from raftkv.errors import InvalidArgument, NotActive
from raftkv.machine.active import Active
from raftkv.machine.methods import Method, method_of
from raftkv.machine.timers import Timers, due_ms_of


class Scheduler:
    """Schedules commands of one machine, as its active version has them."""

    def __init__(self, machine: type[Any], timers: Timers, active: Callable[[], Active]) -> None:
        self._machine = machine
        self._part: type[Any] | None = None
        self._timers = timers
        self._active = active

    def within(self, part: type[Any]) -> Scheduler:
        """The same for a part of the machine, which may name its own commands as its own class has them."""
        found = copy.copy(self)
        found._part = part
        return found

    def schedule(
        self,
        now_ms: int,
        when: float | timedelta | datetime,
        command: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> int:
        """Returns a handle. Raises as `StateMachine.schedule`."""
        method, active = self._method(command), self._active()
        try:
            encoded = method.encode_args(args, dict(kwargs))
        except InvalidArgument as exc:
            if isinstance(exc.__cause__, RecursionError):
                raise exc.__cause__ from None  # as of all that a command makes and that is too deep
            raise
        due_ms = due_ms_of(when, now_ms)
        offered = active.commands.get(method.name)
        if offered is None:
            if method.span.since > active.version:
                return 0  # as a table that is not there yet: a class of the active version does not even ask
            raise NotActive(f"version {active.version} has no command {method.name} any more")
        active.check(offered, msgspec.Raw(encoded))
        return self._timers.add(due_ms, method.name, encoded, active.limits.timers)

    def cancel(self, handle: int) -> bool:
        """Whether it was there."""
        if type(handle) is not int:
            raise TypeError(f"a handle is what `schedule` has returned, an int, not {handle!r}")
        return self._timers.cancel(handle)

    def _method(self, command: Any) -> Method:
        function = getattr(command, "__func__", command)
        method = method_of(self._machine, function)
        if self._part is not None:
            method = method_of(self._part, function) or method
        if method is None or method.is_query:
            owner, name = self._machine.__name__, getattr(function, "__name__", "")
            raise TypeError(f"{command!r} is no command of {owner}: schedule one like {owner}.{name or 'expire'}")
        return method
