"""The ready-made key-value machine and its clients."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
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
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.kv.client": "BlockingKeyValueClient KeyValueClient",
            "raftkv.kv.machine": "KeyValue WatchedKeyValue",
            "raftkv.kv.model": (
                "ChangedAt Condition Delete Exists Get Increment Item LimitExceeded Missing Operation "
                "OperationResult Page Put Stamp TransactionResult ValueIs VersionIs"
            ),
            "raftkv.kv.views": "BlockingKeyValueView KeyValueView",
        },
    )

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
