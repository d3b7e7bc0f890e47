"""Histories in Jepsen's form, as EDN or as lines of JSON: of registers or mutexes, and of maps of them.

```
{:process 0, :type :invoke, :f :write, :value 3}
{:process 1, :type :invoke, :f :read,  :value nil}
{:process 0, :type :ok,     :f :write, :value 3}
{:process 1, :type :ok,     :f :read,  :value 3}
```

Each event is a map. Time is the order of the events. A process is a number; what others do (`:nemesis`) is skipped.

- `type`: `invoke`; then `ok`, or `fail` (certainly not done), or `info` (unknown). Without an end it is unknown.
- `f` and `value`: `read` or `get` (the value that was read, in the `ok`), `write` or `put` (the value), `cas` or
  `compare-and-set` (`[old new]`), `append` (a string, behind what is there), `delete` (back to the initial value).
  Of a mutex: `acquire` (or `lock`) and `release` (or `unlock`), whose values say nothing. Who holds it is not compared,
  as a client whose call has an unknown end goes on under another number.
- The key of a map is `key`, or each value is `[key value]`, as Jepsen's independent keys are. That is assumed if each
  call's value is a pair (a `cas`'s `[key [old new]]`), which reads of a single register never are.

EDN may be one vector of events, or one event after the other, with tags. A line of JSON has the same names in strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from raftkv.errors import InvalidArgument
from raftkv.testing.judging.edn import NotEDN, Placed, Word, read_edn
from raftkv.testing.judging.operation import UNKNOWN, Operation

NAMES = {
    "read": "read",
    "get": "read",
    "write": "write",
    "put": "write",
    "set": "write",
    "cas": "cas",
    "compare-and-set": "cas",
    "append": "append",
    "delete": "delete",
    "acquire": "acquire",
    "lock": "acquire",
    "release": "release",
    "unlock": "release",
}
"""What an event's `f` may be, and what it is called here."""


WITHOUT_ARGUMENT = ("read", "delete", "acquire", "release")

HELD = Word("held")
"""What is behind the key of a mutex that someone has; behind one that nobody has is the initial value."""


class NotAHistory(InvalidArgument):
    """A file is no history that can be judged; the text tells the line, and what should be there."""


class CellModel:
    """A register that one can append to, or a mutex: the model of what is behind each key."""

    def __init__(self, initial: Any) -> None:
        self._initial = initial

    def __call__(self, state: Any, operation: Operation) -> tuple[Any, Any]:
        argument = operation.argument
        match operation.name:
            case "read":
                return state, state
            case "write":
                return None, argument
            case "cas":
                return (None, argument[1]) if state == argument[0] else (UNKNOWN, state)
            case "append":
                before = "" if state is None else state
                return (None, before + argument) if isinstance(before, str) else (UNKNOWN, state)
            case "acquire":
                return (None, HELD) if state == self._initial else (UNKNOWN, state)
            case "release":
                return (None, self._initial) if state == HELD else (UNKNOWN, state)
            case _:
                return None, self._initial


def read_history(text: str) -> list[Operation]:
    """The operations of a history, in the order of their calls, without those that were certainly not done.

    Raises `NotAHistory`.
    """
    is_json = text.lstrip("\ufeff \t\r\n")[:1] == "{" and text.split("{", 1)[1].lstrip()[:1] == '"'
    try:
        events = [_Event(each) for each in (_lines_of_json(text) if is_json else read_edn(text.lstrip("\ufeff")))]
    except NotEDN as exc:
        raise NotAHistory(str(exc)) from exc
    except RecursionError as exc:
        raise NotAHistory("brackets are nested too deeply") from exc
    return _operations([each for each in events if each.process is not None])


def _lines_of_json(text: str) -> Iterator[Placed]:
    for line, each in enumerate(text.split("\n"), 1):
        if each.strip():
            try:
                yield Placed(line, _plain(json.loads(each)))
            except ValueError as exc:
                raise NotAHistory(f"line {line}: no JSON: {exc}") from exc


def _plain(value: Any) -> Any:
    """As `read_edn` gives it: lists are tuples, and true is not 1."""
    if isinstance(value, bool):
        return Word("true" if value else "false")
    if isinstance(value, list):
        return tuple(_plain(each) for each in value)
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, dict) else value


class _Event:
    """One event, with its fields by their names."""

    def __init__(self, placed: Placed) -> None:
        self.line, found = placed
        if not isinstance(found, dict):
            raise NotAHistory(f"line {self.line}: an event is a map with process, type, f and value, not {found!r}")
        fields = {str(name).removeprefix(":"): value for name, value in found.items()}
        missing = [name for name in ("process", "type", "f") if name not in fields]
        if missing:
            raise NotAHistory(f"line {self.line}: this event has no {' and no '.join(missing)}")
        process = fields["process"]
        self.process: int | None = process if isinstance(process, int) else None
        self.type, self.f = (str(fields[name]).removeprefix(":") for name in ("type", "f"))
        self.value: Any = fields.get("value")
        self.key: Any = fields.get("key")


def _operations(events: list[_Event]) -> list[Operation]:
    independent = _are_independent(event for event in events if event.type == "invoke")
    found: dict[int, Operation] = {}
    running: dict[int, tuple[int, _Event]] = {}
    for at, event in enumerate(events):
        process = event.process
        assert process is not None
        if event.type == "invoke":
            if process in running:
                line = running[process][1].line
                raise NotAHistory(
                    f"line {event.line}: process {process} calls before its call of line {line} has ended"
                )
            running[process] = (at, event)
            found[at] = _called(process, event, at, independent)
            continue
        if process not in running:
            raise NotAHistory(f"line {event.line}: process {process} ends a call that it has not begun")
        begun, call = running.pop(process)
        if event.f != call.f:
            raise NotAHistory(f"line {event.line}: {event.f} ends the call of {call.f} of line {call.line}")
        match event.type:
            case "ok":
                operation = found[begun]
                key, value = _split(event, independent)
                if operation.is_read and key == operation.key:
                    operation.result = _hashable(value, event)
                elif operation.is_read:
                    raise NotAHistory(f"line {event.line}: key {key!r} ends the read of {operation.key!r}")
                else:
                    operation.result = None
                operation.returned = at
            case "fail":
                del found[begun]
            case "info":
                pass
            case _:
                raise NotAHistory(f"line {event.line}: the type is {event.type}, and none of invoke, ok, fail, info")
    return list(found.values())


def _are_independent(calls: Iterable[_Event]) -> bool:
    """Whether each value is a pair of a key and a value."""
    return all(_is_pair(event.value) and (NAMES.get(event.f) != "cas" or _is_pair(event.value[1])) for event in calls)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2


def _split(event: _Event, independent: bool) -> tuple[Any, Any]:
    if not independent:
        return _hashable(event.key, event), event.value
    if not _is_pair(event.value):
        raise NotAHistory(f"line {event.line}: the value is no [key value], as those of all calls are")
    return _hashable(event.value[0], event), event.value[1]


def _called(process: int, event: _Event, at: int, independent: bool) -> Operation:
    name = NAMES.get(event.f)
    if name is None:
        raise NotAHistory(f"line {event.line}: f is {event.f}, and none of {', '.join(NAMES)}")
    key, value = _split(event, independent)
    argument = None if name in WITHOUT_ARGUMENT else _hashable(value, event)
    if name == "cas" and not _is_pair(argument):
        raise NotAHistory(f"line {event.line}: the value of a {event.f} is [old new]")
    if name == "append" and (not isinstance(argument, str) or isinstance(argument, Word)):
        raise NotAHistory(f"line {event.line}: what is appended is a string")
    return Operation(process, key, name, argument, at, is_read=name == "read")


def _hashable(value: Any, event: _Event) -> Any:
    try:
        hash(value)
    except TypeError as exc:
        raise NotAHistory(f"line {event.line}: keys and values can't be maps") from exc
    return value
