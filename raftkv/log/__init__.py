"""The durable Raft log and the vote file, on a `Disk`."""

from raftkv.log.cache import Write
from raftkv.log.log import Log
from raftkv.log.owned import Identity, Owned, check_owner, decode_owned, load_own, load_owned, save_owned
from raftkv.log.vote import VoteFile, VoteSeen

__all__ = [
    "Identity",
    "Log",
    "Owned",
    "VoteFile",
    "VoteSeen",
    "Write",
    "check_owner",
    "decode_owned",
    "load_own",
    "load_owned",
    "save_owned",
]
