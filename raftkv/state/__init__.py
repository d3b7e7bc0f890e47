"""The applied state: the interface of a store, one on RocksDB (only it knows rocksdict), and one in memory."""

from raftkv.state.interface import (
    META_KEY,
    OWNER_FILE,
    SESSION_PREFIX,
    STEP_KEYS,
    TABLE_PREFIX,
    VERSION_KEY,
    Applied,
    Changes,
    Reader,
    States,
    StateView,
    Store,
)
from raftkv.state.memory import MemoryStates, MemoryStore
from raftkv.state.rocks import RocksStates, RocksStore

__all__ = [
    "META_KEY",
    "OWNER_FILE",
    "SESSION_PREFIX",
    "STEP_KEYS",
    "TABLE_PREFIX",
    "VERSION_KEY",
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
