"""Recipes: what applications need again and again, as machines to be used alone, mixed in, or as parts.

Each is a `Component` with faces for asyncio and for threads; a face takes a client, and the part that it is about.

**What a command here does to the state is fixed once it is released**: which rows it writes, in which order and with
which numbers, what it returns, which error it raises, and when. Nodes of two releases are in one cluster while it is
upgraded, and both apply the same entries; so do those of a log that is replayed. A command that does otherwise, were it
only right at last, makes them part (`Diverged`). `tests/formats` keeps what each command does, and says when one does
otherwise. What is to change keeps its old way beside the new one, which counts from an entry on that the leader
proposes when all nodes can go the new way: `raftkv.machine.versions` says how. Queries, faces, and the texts of errors
may change as they like. What is declared (commands with their arguments, tables, records) is part of the schema of each
application that has the recipe, where another one under the same version is refused (`SchemaChanged`): what is new
comes in a recipe of its own.
"""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.recipes.barriers import AwaitedBarriers, Barriers, BlockingBarriers, OtherParties
    from raftkv.recipes.claims import BlockingClaim, Claim, NotAcquired
    from raftkv.recipes.elections import AwaitedElections, BlockingElections, Elections
    from raftkv.recipes.fences import Fences, StaleToken
    from raftkv.recipes.locks import AwaitedLocks, BlockingLocks, Locks
    from raftkv.recipes.members import AwaitedMembers, BlockingMembers, Members
    from raftkv.recipes.once import (
        AwaitedIdempotencyKeys,
        BlockingIdempotencyKeys,
        IdempotencyKeys,
        KeyInUse,
        KeyLost,
        KeyReused,
        KeyState,
        KeyTurn,
        TooManyKeys,
    )
    from raftkv.recipes.queues import DeadLetter, JobLost, Queues, Seen, Sizes, TakenJob, TooManyJobs
    from raftkv.recipes.rates import AwaitedRateLimits, BlockingRateLimits, Pace, RateLimits, TooFast, TooManyBuckets
    from raftkv.recipes.readwrite import AwaitedReadWriteLocks, BlockingReadWriteLocks, ReadWriteLocks
    from raftkv.recipes.semaphores import AwaitedSemaphores, BlockingSemaphores, OtherLimit, Semaphores
    from raftkv.recipes.turns import Holder, LockLost, TooManyWaiters, Turns
    from raftkv.recipes.workers import AwaitedQueues, BlockingQueues, BlockingWork, Work
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.recipes.barriers": "AwaitedBarriers Barriers BlockingBarriers OtherParties",
            "raftkv.recipes.claims": "BlockingClaim Claim NotAcquired",
            "raftkv.recipes.elections": "AwaitedElections BlockingElections Elections",
            "raftkv.recipes.fences": "Fences StaleToken",
            "raftkv.recipes.locks": "AwaitedLocks BlockingLocks Locks",
            "raftkv.recipes.members": "AwaitedMembers BlockingMembers Members",
            "raftkv.recipes.once": (
                "AwaitedIdempotencyKeys BlockingIdempotencyKeys IdempotencyKeys KeyInUse KeyLost KeyReused KeyState "
                "KeyTurn TooManyKeys"
            ),
            "raftkv.recipes.queues": "DeadLetter JobLost Queues Seen Sizes TakenJob TooManyJobs",
            "raftkv.recipes.rates": "AwaitedRateLimits BlockingRateLimits Pace RateLimits TooFast TooManyBuckets",
            "raftkv.recipes.readwrite": "AwaitedReadWriteLocks BlockingReadWriteLocks ReadWriteLocks",
            "raftkv.recipes.semaphores": "AwaitedSemaphores BlockingSemaphores OtherLimit Semaphores",
            "raftkv.recipes.turns": "Holder LockLost TooManyWaiters Turns",
            "raftkv.recipes.workers": "AwaitedQueues BlockingQueues BlockingWork Work",
        },
    )

__all__ = [
    "AwaitedBarriers",
    "AwaitedElections",
    "AwaitedIdempotencyKeys",
    "AwaitedLocks",
    "AwaitedMembers",
    "AwaitedQueues",
    "AwaitedRateLimits",
    "AwaitedReadWriteLocks",
    "AwaitedSemaphores",
    "Barriers",
    "BlockingBarriers",
    "BlockingClaim",
    "BlockingElections",
    "BlockingIdempotencyKeys",
    "BlockingLocks",
    "BlockingMembers",
    "BlockingQueues",
    "BlockingRateLimits",
    "BlockingReadWriteLocks",
    "BlockingSemaphores",
    "BlockingWork",
    "Claim",
    "DeadLetter",
    "Elections",
    "Fences",
    "Holder",
    "IdempotencyKeys",
    "JobLost",
    "KeyInUse",
    "KeyLost",
    "KeyReused",
    "KeyState",
    "KeyTurn",
    "LockLost",
    "Locks",
    "Members",
    "NotAcquired",
    "OtherLimit",
    "OtherParties",
    "Pace",
    "Queues",
    "RateLimits",
    "ReadWriteLocks",
    "Seen",
    "Semaphores",
    "Sizes",
    "StaleToken",
    "TakenJob",
    "TooFast",
    "TooManyBuckets",
    "TooManyJobs",
    "TooManyKeys",
    "TooManyWaiters",
    "Turns",
    "Work",
]
