"""The ready-made key-value machine and its clients."""

from raftkv.kv.client import BlockingKeyValueClient, KeyValueClient
from raftkv.kv.machine import KeyValue, WatchedKeyValue
from raftkv.kv.model import (
    ChangedAt,
    Condition,
    Delete,
    Exists,
    Get,
    Increment,
    Item,
    LimitExceeded,
    Missing,
    Operation,
    OperationResult,
    Page,
    Put,
    Stamp,
    TransactionResult,
    ValueIs,
    VersionIs,
)
from raftkv.kv.views import BlockingKeyValueView, KeyValueView

__all__ = [
    "BlockingKeyValueClient",
    "BlockingKeyValueView",
    "ChangedAt",
    "Condition",
    "Delete",
    "Exists",
    "Get",
    "Increment",
    "Item",
    "KeyValue",
    "KeyValueClient",
    "KeyValueView",
    "LimitExceeded",
    "Missing",
    "Operation",
    "OperationResult",
    "Page",
    "Put",
    "Stamp",
    "TransactionResult",
    "ValueIs",
    "VersionIs",
    "WatchedKeyValue",
]
