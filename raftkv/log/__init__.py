"""The durable Raft log and the vote file, on a `Disk`."""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.log.cache import Write
    from raftkv.log.log import Log
    from raftkv.log.owned import Identity, Owned, check_owner, decode_owned, load_own, load_owned, save_owned
    from raftkv.log.vote import VoteFile, VoteSeen
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.log.cache": "Write",
            "raftkv.log.log": "Log",
            "raftkv.log.owned": "Identity Owned check_owner decode_owned load_own load_owned save_owned",
            "raftkv.log.vote": "VoteFile VoteSeen",
        },
    )

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
