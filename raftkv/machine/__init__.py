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

from raftkv.machine.active import Active, listed, runs
from raftkv.machine.grown import changed, not_grown
from raftkv.machine.keys import prefix_end
from raftkv.machine.limits import Limits, TooLarge
from raftkv.machine.local import LocalMachine
from raftkv.machine.methods import Method, command, query
from raftkv.machine.outcome import CommandDone, Outcome, OutcomeKind, QueryDone, read_rejection, rejection_payload
from raftkv.machine.payloads import (
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_SESSION,
    decode_command,
    decode_query,
    encode_command,
    encode_query,
)
from raftkv.machine.reading import Interrupted, SliceOver
from raftkv.machine.rejection import Rejection, as_declared
from raftkv.machine.runner import Runner
from raftkv.machine.schema import decode_schema, encode_schema
from raftkv.machine.shapes import strict_decoder
from raftkv.machine.statemachine import StateMachine
from raftkv.machine.tables import Table, Value
from raftkv.machine.upgrades import upgrade
from raftkv.machine.versions import Activation, Change, Founding, Kept, Step, decode_change, encode_change

__all__ = [
    "CLOSE_SESSION",
    "NO_SESSION",
    "OPEN_SESSION",
    "Activation",
    "Active",
    "Change",
    "CommandDone",
    "Founding",
    "Interrupted",
    "Kept",
    "Limits",
    "LocalMachine",
    "Method",
    "Outcome",
    "OutcomeKind",
    "QueryDone",
    "Rejection",
    "Runner",
    "SliceOver",
    "StateMachine",
    "Step",
    "Table",
    "TooLarge",
    "Value",
    "as_declared",
    "changed",
    "command",
    "decode_change",
    "decode_command",
    "decode_query",
    "decode_schema",
    "encode_change",
    "encode_command",
    "encode_query",
    "encode_schema",
    "listed",
    "not_grown",
    "prefix_end",
    "query",
    "read_rejection",
    "rejection_payload",
    "runs",
    "strict_decoder",
    "upgrade",
]
