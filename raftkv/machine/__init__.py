"""The application's view: a state machine's class, its tables, and what runs it, once per command.

```python
class Inventory(StateMachine):
    stock = Table(str, int)

    @command
    def receive(self, sku: str, quantity: int) -> int:
        if quantity <= 0:
            raise ValueError("quantity must be positive")
        total = self.stock.get(sku, 0) + quantity
        self.stock[sku] = total
        return total

    @query
    def on_hand(self, sku: str) -> int:
        return self.stock.get(sku, 0)

assert LocalMachine(Inventory).receive("apple", 3) == 3      # no cluster needed to test it
```

Every node applies every command, at another time and in another process. So a command may depend on its
arguments, the tables, `self.now`, `self.random` and `self.index`, and on nothing else: no clock, no dice, no
files, no sets' order. What it raises is the caller's `Rejected`, or the `Rejection` itself that it declares, and has
no effect.
"""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.history import BEGINNING, Asked, Compacted, Cursor, Found, Recorded
    from raftkv.machine.accesses import access_payload
    from raftkv.machine.active import Active, listed, runs
    from raftkv.machine.changes import Change, Source, asked, find_source, read_change
    from raftkv.machine.checked import check_machine
    from raftkv.machine.events import Emitter, Events
    from raftkv.machine.grown import Difference, changed, not_grown
    from raftkv.machine.keys import prefix_end
    from raftkv.machine.limits import Limits, TooLarge, TooManyRows
    from raftkv.machine.lineages import lineage_payload
    from raftkv.machine.local import LocalMachine
    from raftkv.machine.looking import ROWS, SCHEMA, Rows
    from raftkv.machine.methods import Method, command, every, on_expire, query
    from raftkv.machine.mirror import mirrored
    from raftkv.machine.naming import UnknownMethod, find_method, is_part
    from raftkv.machine.outcome import CommandDone, Outcome, OutcomeKind, QueryDone, read_rejection, rejection_payload
    from raftkv.machine.pages import Page
    from raftkv.machine.parts import Part
    from raftkv.machine.payloads import (
        BEGIN_LINEAGE,
        CHANGE_ACCESS,
        CLOSE_SESSION,
        NO_SESSION,
        OPEN_OWNED_SESSION,
        OPEN_SESSION,
        decode_command,
        decode_query,
        encode_command,
        encode_query,
        open_owned_session,
    )
    from raftkv.machine.reading import Interrupted, SliceOver
    from raftkv.machine.recorder import History
    from raftkv.machine.rejection import Rejection, as_declared
    from raftkv.machine.runner import Runner
    from raftkv.machine.schema import decode_schema, encode_schema
    from raftkv.machine.sets import SetView
    from raftkv.machine.shapes import strict_decoder
    from raftkv.machine.statemachine import Component, StateMachine
    from raftkv.machine.tables import Set, Table, Value
    from raftkv.machine.timers import DUE_AT_ONCE, FIRED_AT_ONCE, Due, Fired, TooManyTimers, encode_due
    from raftkv.machine.times import BOUNDS_S, SLOW_S, MethodTime, MethodTimes
    from raftkv.machine.upgrades import upgrade
    from raftkv.machine.versions import Activation, Founding, Kept, Step, VersionChange, decode_change, encode_change
    from raftkv.machine.view import View
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.history": "BEGINNING Asked Compacted Cursor Found Recorded",
            "raftkv.machine.accesses": "access_payload",
            "raftkv.machine.active": "Active listed runs",
            "raftkv.machine.changes": "Change Source asked find_source read_change",
            "raftkv.machine.checked": "check_machine",
            "raftkv.machine.events": "Emitter Events",
            "raftkv.machine.grown": "Difference changed not_grown",
            "raftkv.machine.keys": "prefix_end",
            "raftkv.machine.limits": "Limits TooLarge TooManyRows",
            "raftkv.machine.lineages": "lineage_payload",
            "raftkv.machine.local": "LocalMachine",
            "raftkv.machine.looking": "ROWS SCHEMA Rows",
            "raftkv.machine.methods": "Method command every on_expire query",
            "raftkv.machine.mirror": "mirrored",
            "raftkv.machine.naming": "UnknownMethod find_method is_part",
            "raftkv.machine.outcome": "CommandDone Outcome OutcomeKind QueryDone read_rejection rejection_payload",
            "raftkv.machine.pages": "Page",
            "raftkv.machine.parts": "Part",
            "raftkv.machine.payloads": (
                "BEGIN_LINEAGE CHANGE_ACCESS CLOSE_SESSION NO_SESSION OPEN_OWNED_SESSION OPEN_SESSION decode_command "
                "decode_query encode_command encode_query open_owned_session"
            ),
            "raftkv.machine.reading": "Interrupted SliceOver",
            "raftkv.machine.recorder": "History",
            "raftkv.machine.rejection": "Rejection as_declared",
            "raftkv.machine.runner": "Runner",
            "raftkv.machine.schema": "decode_schema encode_schema",
            "raftkv.machine.sets": "SetView",
            "raftkv.machine.shapes": "strict_decoder",
            "raftkv.machine.statemachine": "Component StateMachine",
            "raftkv.machine.tables": "Set Table Value",
            "raftkv.machine.timers": "DUE_AT_ONCE FIRED_AT_ONCE Due Fired TooManyTimers encode_due",
            "raftkv.machine.times": "BOUNDS_S SLOW_S MethodTime MethodTimes",
            "raftkv.machine.upgrades": "upgrade",
            "raftkv.machine.versions": "Activation Founding Kept Step VersionChange decode_change encode_change",
            "raftkv.machine.view": "View",
        },
    )

__all__ = [
    "BEGINNING",
    "BEGIN_LINEAGE",
    "BOUNDS_S",
    "CHANGE_ACCESS",
    "CLOSE_SESSION",
    "DUE_AT_ONCE",
    "FIRED_AT_ONCE",
    "NO_SESSION",
    "OPEN_OWNED_SESSION",
    "OPEN_SESSION",
    "ROWS",
    "SCHEMA",
    "SLOW_S",
    "Activation",
    "Active",
    "Asked",
    "Change",
    "CommandDone",
    "Compacted",
    "Component",
    "Cursor",
    "Difference",
    "Due",
    "Emitter",
    "Events",
    "Fired",
    "Found",
    "Founding",
    "History",
    "Interrupted",
    "Kept",
    "Limits",
    "LocalMachine",
    "Method",
    "MethodTime",
    "MethodTimes",
    "Outcome",
    "OutcomeKind",
    "Page",
    "Part",
    "QueryDone",
    "Recorded",
    "Rejection",
    "Rows",
    "Runner",
    "Set",
    "SetView",
    "SliceOver",
    "Source",
    "StateMachine",
    "Step",
    "Table",
    "TooLarge",
    "TooManyRows",
    "TooManyTimers",
    "UnknownMethod",
    "Value",
    "VersionChange",
    "View",
    "access_payload",
    "as_declared",
    "asked",
    "changed",
    "check_machine",
    "command",
    "decode_change",
    "decode_command",
    "decode_query",
    "decode_schema",
    "encode_change",
    "encode_command",
    "encode_due",
    "encode_query",
    "encode_schema",
    "every",
    "find_method",
    "find_source",
    "is_part",
    "lineage_payload",
    "listed",
    "mirrored",
    "not_grown",
    "on_expire",
    "open_owned_session",
    "prefix_end",
    "query",
    "read_change",
    "read_rejection",
    "rejection_payload",
    "runs",
    "strict_decoder",
    "upgrade",
]
