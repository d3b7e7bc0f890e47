"""The applied state: the port, the RocksDB store (the only place that knows rocksdict), one in memory."""

from raftkv.state.memory import MemoryStates, MemoryStore
from raftkv.state.port import (
    META_KEY,
    OWNER_FILE,
    SESSION_PREFIX,
    STEP_KEYS,
    TABLE_PREFIX,
    Applied,
    Changes,
    Reader,
    States,
    StateView,
    Store,
)
from raftkv.state.rocks import RocksStates, RocksStore

__all__ = [
    "META_KEY",
    "OWNER_FILE",
    "SESSION_PREFIX",
    "STEP_KEYS",
    "TABLE_PREFIX",
    "Applied",
    "Changes",
    "MemoryStates",
    "MemoryStore",
    "Reader",
    "RocksStates",
    "RocksStore",
    "StateView",
    "States",
    "Store",
]
