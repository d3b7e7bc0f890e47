"""The applied state: the interface of a store, and one in memory; `raftkv.state.rocks` has the one on RocksDB.

Only that module knows rocksdict, and it is not imported here: a client works without.
"""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.state.interface import (
        ACCESS_PREFIX,
        COUNTS_KEY,
        HISTORY_PREFIX,
        LINEAGE_KEY,
        META_KEY,
        OWNER_FILE,
        SESSION_PREFIX,
        STEP_KEYS,
        TABLE_PREFIX,
        TIMER_PREFIX,
        VERSION_KEY,
        Applied,
        Changes,
        Reader,
        States,
        StateView,
        Store,
    )
    from raftkv.state.memory import MemoryStates, MemoryStore
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.state.interface": (
                "ACCESS_PREFIX COUNTS_KEY HISTORY_PREFIX LINEAGE_KEY META_KEY OWNER_FILE SESSION_PREFIX STEP_KEYS "
                "TABLE_PREFIX TIMER_PREFIX VERSION_KEY Applied Changes Reader States StateView Store"
            ),
            "raftkv.state.memory": "MemoryStates MemoryStore",
        },
    )

__all__ = [
    "ACCESS_PREFIX",
    "COUNTS_KEY",
    "HISTORY_PREFIX",
    "LINEAGE_KEY",
    "META_KEY",
    "OWNER_FILE",
    "SESSION_PREFIX",
    "STEP_KEYS",
    "TABLE_PREFIX",
    "TIMER_PREFIX",
    "VERSION_KEY",
    "Applied",
    "Changes",
    "MemoryStates",
    "MemoryStore",
    "Reader",
    "StateView",
    "States",
    "Store",
]
