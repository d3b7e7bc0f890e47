"""The durable Raft log and the vote file, on a `Disk`."""

from raftkv.log.cache import Write
from raftkv.log.log import Log
from raftkv.log.vote import Identity, VoteFile

__all__ = ["Identity", "Log", "VoteFile", "Write"]
