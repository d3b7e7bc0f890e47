"""Applications written to PySyncObj, on raftkv: change the import.

**Unpickling bytes is executing them.** Arguments and states are pickles, as with PySyncObj, so whoever can send bytes
to a node can run code in it. Therefore a node listens on loopback, or its peers show certificates (`peerTLS`), or its
`codec` is "msgpack", which takes plain data and executes nothing; anything else raises `ConfigError`. Nothing else in
raftkv unpickles.

```python
from raftkv.syncobj import SyncObj, replicated           # was: from pysyncobj import SyncObj, replicated
from raftkv.syncobj.batteries import ReplDict            # was: from pysyncobj.batteries import ReplDict

class Counter(SyncObj):
    def __init__(self, own, others):
        super().__init__(own, others)
        self.count = 0

    @replicated
    def add(self, amount):
        self.count += amount
        return self.count

counter = Counter("10.0.0.1:4321", ["10.0.0.2:4321", "10.0.0.3:4321"])
counter.add(2, sync=True)
```

The decorators, `SyncObjConsumer` and the batteries are those of the `pysyncobj` package itself. All the rest is a node
of raftkv in a thread of its own; any number of them can be in one process.

Migration
=========

*What to change.* The import. Objects and consumers stay as they are, methods, callbacks, `sync`, `timeout` and fail
reasons too. `syncobj_admin` does not speak to these nodes: use `raftkv status`, `raftkv transfer` and so on with the
node's one address. Data files of PySyncObj are not read: start with an empty journal, and fill it by calls.

*Where data is kept.* In the directory that is named after `journalFile` (or `fullDumpFile`), with ".raftkv" behind it,
or in `dataDir`. Without any of these it is a temporary directory, removed at the end: then a node that restarts has
forgotten what it acknowledged, so it leaves the cluster and comes back under a new number, for which a majority of the
others must be up; when all nodes stop at once, everything is gone. Set `journalFile` where that matters.

====================================  =============================================  ==================================
what                                  with PySyncObj                                 here
====================================  =============================================  ==================================
success, in a callback or by `sync`   on a majority, in memory; the journal is not   synced on a majority, and applied
                                      synced                                         on the node that called
a leader is lost meanwhile            LEADER_CHANGED, though it may be applied; a    sent again in a session, applied
                                      retry may apply it twice                       once; the caller just waits
nobody knows the outcome              –                                              UNKNOWN_OUTCOME (with `destroy`,
                                                                                     or a snapshot in its place)
calls of one node                     in order while the leader lives                in order, always
a method raises                       every node repeats it for ever                 REQUEST_DENIED for its caller; the
                                                                                     reason's `exception` says what;
                                                                                     what it changed before stays
a callback raises                     its node applies the entry twice               logged
local reads                           may be 30 s old, unmarked                      `isStale`, `readAge`: how old
a linearizable read                   –                                              `readBarrier()`, then read
a leader that is cut off              leads on for `leaderFallbackTimeout`           for an election time-out
`setCodeVersion` while a node runs    done; that node stalls for ever                REQUEST_DENIED within seconds, also
code without that version                                                            while a node is down: nobody knows
                                                                                     what it will run
a node of old code starts             it stalls                                      an error says what to install
after a restart from a dump           calls go to the methods of version 0           the enabled version goes on
nodes number their methods otherwise  they run each other's calls as others          the one that differs is refused, or
                                                                                     stops, and names the methods
====================================  =============================================  ==================================

*Settings.* These act: autoTick, autoTickPeriod (of `doTick` only), commandsQueueSize, commandsWaitLeader,
raftMinTimeout (elections begin after one to two of it), appendEntriesPeriod (at most a fifth of that), journalFile,
fullDumpFile, bindAddress, bindRetryTime, maxBindRetries, logCompactionMinEntries and logCompactionMinTime (but not
more often than every five seconds), dynamicMembershipChange, onReady, onStateChanged, onCodeVersionChanged. All others
are accepted; those that are set and do nothing, `password` among them, are named in one warning. A `serializer` of the
application's own is refused: the state is what is in the attributes.

*Code versions.* A method that is new, or does something else than before, is marked `@replicated(ver=N)` beside the old
one; when every node runs that code, the application calls `setCodeVersion(N)` (or an operator, in place of
`syncobj_admin -set_version`, `raftkv upgrade --to N+1`: raftkv counts versions from 1). Nothing is ever switched by
itself. Until then a method that only `N` has raises `NotEnabled`, which is a `KeyError` as there. A switch takes effect
behind the calls that its node made before. Calls name their methods by numbers, so the methods of a version that is in
use stay as they are: adding, removing or renaming one without a later version is refused by its name, where PySyncObj
would confuse them. That counts for consumers and batteries too. Versions are at most 999999.

*What is replicated.* The attributes that the object has when its `__init__` is done, or asks the first question about
the cluster, and those that its replicated methods make. An attribute that can't be pickled then (a lock, a thread) is
left as it is on each node, and named in the log.

*What else differs.* `destroy` waits until the files are closed. There are no read-only nodes (`selfNode=None`) and no
foreign transports. `addNodeToCluster` succeeds before the new node votes: it does when it has the log. An
address that was removed may be added again with an empty directory. `ReplSet.pop` takes the same element everywhere.

*What a method may do* is what it may do there: whatever has the same effect on every node. Time, dice, files and the
order of sets are not the same. The objects are in memory, so that a mistake here is not noticed, as there; only the
calls are compared between nodes. `ReplLockManager` gives its clients' time as an argument, and trusts their clocks.

How it works
============

`door` lets one port speak to peers and clients. `calls` batches calls into entries, `machine` keeps them in the node's
state, with the applied index in the same write. `objects` runs them. When `logCompactionMinEntries` calls have been
made, the attributes are streamed into the state as an image, piece by piece and never as a whole in memory, and a
snapshot is taken of both; calls wait meanwhile, elections and replication go on. A node that starts, or gets a
snapshot, makes its objects from the image and the calls behind it.

A method of the application runs on the node's thread; while it runs, nothing else does. A program that keeps the
interpreter busy should call `sys.setswitchinterval(0.0005)`.
"""

from raftkv.extras import needs

with needs("syncobj", "raftkv.syncobj"):
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
