"""PySyncObj's programming model on raftkv."""

from pysyncobj import FAIL_REASON, SyncObjConsumer, SyncObjException, replicated, replicated_sync

from raftkv.syncobj.settings import SyncObjConf
from raftkv.syncobj.syncobj import SyncObj

__all__ = [
    "FAIL_REASON",
    "SyncObj",
    "SyncObjConf",
    "SyncObjConsumer",
    "SyncObjException",
    "replicated",
    "replicated_sync",
]
