"""Tests of your own application under everything that raftkv is tested under: simulated clusters, faults, histories.

```python
from hypothesis import strategies as st
from raftkv.testing import calls, fault_test

SKUS = st.sampled_from(["apple", "pear"])                       # few, so that they meet

class InventoryModel:                                           # what the state machine should do, as a plain class
    def __init__(self):
        self.stock = {}

    def receive(self, sku, quantity):
        if quantity <= 0:
            raise ValueError                                    # a rejection: only the class's name is compared
        self.stock[sku] = self.stock.get(sku, 0) + quantity
        return self.stock[sku]

    def on_hand(self, sku):
        return self.stock.get(sku, 0)

test_inventory = fault_test(
    Inventory,
    model=InventoryModel,
    commands=[calls(Inventory.receive, SKUS, quantity=st.integers(0, 9)), calls(Inventory.on_hand, SKUS)],
    key="sku",                                                  # calls with different skus have nothing in common
)
```

Each example is a script of calls and faults. Its calls are first made without any cluster: in two other processes,
which differ in hash seed, time and dice, so that a command which depends on these is named, with the field that
differed; then beside the model. Then several clients with sessions make them in a simulated cluster, in which the
faults strike. Everything recovers, all replicas must be equal, and the history must be one that the model can explain
(linearizability). A failing script is shrunk, printed as a program, drawn, and saved to a file that `raftkv replay`
shows.

Where time matters, a method of the model takes `now_ms`; see `raftkv.testing.judging.models`. Arguments that only an
answer can tell, as tokens and ids, come from `earlier(…)`.

The pytest plugin comes with the package: `--raftkv-budget quick|ci|soak` (or `RAFTKV_BUDGET`, or `raftkv_budget` in
pytest's configuration) says how much is tried, `--raftkv-seed N` tries other examples, `--raftkv-failures DIR`
(`.raftkv`) is where failures are saved. `fault_test` needs hypothesis: `pip install 'raftkv[testing]'`.

When the application changes, `upgrade_test` tests that its new version can take the place of the released one, node by
node, while calls go on.

Real nodes come from the fixtures `raftkv_cluster` and `raftkv_servers`, which the plugin brings.

For stories of your own, see `scenario` and `SimCluster`; for unit tests without a cluster, `raftkv.LocalMachine`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raftkv.testing.faults.nemesis import fault_kinds
    from raftkv.testing.judging.failure import (
        Cause,
        CounterExample,
        Failure,
        NeverAnswered,
        NeverRan,
        UndecidedHistory,
    )
    from raftkv.testing.judging.models import UnfitModel
    from raftkv.testing.trying.application import fault_test
    from raftkv.testing.trying.budget import Budget
    from raftkv.testing.trying.determinism import TwinDied
    from raftkv.testing.trying.example import rerun
    from raftkv.testing.trying.references import NotImportable
    from raftkv.testing.trying.replacing import rerun_upgrade
    from raftkv.testing.trying.saved import SavedFailure, load
    from raftkv.testing.trying.script import Call, Earlier, Fault
    from raftkv.testing.trying.stories import play, scenario
    from raftkv.testing.trying.strategies import UnfitStrategy, calls, earlier
    from raftkv.testing.trying.upgrade import upgrade_test
    from raftkv.testing.world.cluster import SimCluster
    from raftkv.testing.world.loop import elapse

__all__ = [
    "Budget",
    "Call",
    "Cause",
    "CounterExample",
    "Earlier",
    "Failure",
    "Fault",
    "NeverAnswered",
    "NeverRan",
    "NotImportable",
    "SavedFailure",
    "SimCluster",
    "TwinDied",
    "UndecidedHistory",
    "UnfitModel",
    "UnfitStrategy",
    "calls",
    "earlier",
    "elapse",
    "fault_kinds",
    "fault_test",
    "load",
    "play",
    "rerun",
    "rerun_upgrade",
    "scenario",
    "upgrade_test",
]

_PLACES = {
    "Budget": "trying.budget",
    "Call": "trying.script",
    "Cause": "judging.failure",
    "CounterExample": "judging.failure",
    "Earlier": "trying.script",
    "Failure": "judging.failure",
    "Fault": "trying.script",
    "NeverAnswered": "judging.failure",
    "NeverRan": "judging.failure",
    "NotImportable": "trying.references",
    "SavedFailure": "trying.saved",
    "SimCluster": "world.cluster",
    "TwinDied": "trying.determinism",
    "UndecidedHistory": "judging.failure",
    "UnfitModel": "judging.models",
    "UnfitStrategy": "trying.strategies",
    "calls": "trying.strategies",
    "earlier": "trying.strategies",
    "elapse": "world.loop",
    "fault_kinds": "faults.nemesis",
    "fault_test": "trying.application",
    "load": "trying.saved",
    "play": "trying.stories",
    "rerun": "trying.example",
    "rerun_upgrade": "trying.replacing",
    "scenario": "trying.stories",
    "upgrade_test": "trying.upgrade",
}


if not TYPE_CHECKING:  # which knows each name from above, and is to know no others

    def __getattr__(name: str) -> object:
        """Import what is asked for: pytest imports this package at every start, mostly for nothing."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
        except ModuleNotFoundError as exc:
            if exc.name != "hypothesis":
                raise
            text = f"{name} needs hypothesis: python3 -m pip install 'raftkv[testing]'"
            raise ModuleNotFoundError(text, name="hypothesis") from exc
