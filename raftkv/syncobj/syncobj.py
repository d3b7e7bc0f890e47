"""`SyncObj`: PySyncObj's class, with raftkv inside."""

from __future__ import annotations

import concurrent.futures.thread
import math
import threading
import time
import weakref
from abc import ABCMeta
from collections.abc import Callable, Iterable
from typing import Any

import pysyncobj
from pysyncobj.config import FAIL_REASON
from pysyncobj.node import Node, TCPNode
from pysyncobj.version import VERSION

from raftkv.core.roles import Leader
from raftkv.errors import ConfigError, InvalidArgument, RaftKVError
from raftkv.logs import TextLog
from raftkv.node import Node as RaftNode
from raftkv.syncobj.calls import Callback
from raftkv.syncobj.codec import CODECS
from raftkv.syncobj.door import CannotListen
from raftkv.syncobj.host import Host
from raftkv.syncobj.members import add_member, remove_member, transfer
from raftkv.syncobj.objects import Objects
from raftkv.syncobj.reasons import Denied
from raftkv.syncobj.settings import HostSettings, SyncObjConf

logger = TextLog("raftkv.syncobj")

_living: weakref.WeakSet[Any] = weakref.WeakSet()


def _end_all() -> None:
    for each in list(_living):
        each.destroy()


# Before threads are joined and executors closed, or the nodes could not finish what their disks do. What is registered
# last is called first, so the module of the executors has to be there already.
assert concurrent.futures.thread
getattr(threading, "_register_atexit", lambda end: None)(_end_all)


class _Starting(ABCMeta):
    """A metaclass that starts the node when the class's whole `__init__` is done, and the initial state is complete."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        made = super().__call__(*args, **kwargs)
        made._start()
        return made


class SyncObj(pysyncobj.SyncObj, metaclass=_Starting):  # type: ignore[misc]
    """An object that is the same on every node. Subclass it, and mark what changes it with `@replicated`.

    The node starts when the object is made, or, within `__init__`, with the first question about the cluster; the
    attributes set until then are the initial state. It stops with `destroy`, or with the program.
    """

    def __init__(
        self,
        selfNode: Node | str | None,
        otherNodes: Iterable[Node | str],
        conf: pysyncobj.SyncObjConf | None = None,
        consumers: list[Any] | None = None,
        nodeClass: type[Node] = TCPNode,
        transport: Any = None,
        transportClass: Any = None,
    ) -> None:
        """Addresses are "host:port". Raises `ConfigError`, `SyncObjException`, a `NodeStopped` that says what to do."""
        if transport is not None or transportClass is not None:
            raise ConfigError("transport, transportClass: raftkv has a transport of its own, and takes no other")
        if selfNode is None:
            raise ConfigError("selfNode = None: read-only nodes are not hosted; ask a node of the cluster instead")
        conf = conf if conf is not None else SyncObjConf()
        conf.validate()
        self._conf = conf
        self._nodeClass = nodeClass
        self._selfNode = self._nodeOf(selfNode)
        others = {node.id: node for node in map(self._nodeOf, otherNodes) if node.id != self._selfNode.id}
        self._nodes = {self._selfNode.id: self._selfNode, **others}
        settings = HostSettings.of(conf, self._selfNode.id)
        hosted = [_consumer(each) for each in consumers or []]
        codec = CODECS[getattr(conf, "codec", "pickle")]()
        self._objects = Objects(self, hosted, codec, lambda old, new: self._host.version_changed(old, new))
        self._methodToID = self._objects.method_to_id
        self._idToMethod = self._objects.id_to_method
        self._host = Host(settings, conf, set(others), self._objects)
        self._startLock = threading.RLock()
        self._begun = False
        self._own: set[str] = set()
        self._own = set(vars(self))
        for each in hosted:
            each._syncObj = self
        _living.add(self)

    def _nodeOf(self, node: Node | str) -> Any:
        return node if isinstance(node, Node) else self._nodeClass(node)

    def _start(self) -> None:
        with self._startLock:
            if self._begun:
                return
            self._begun = True
            self._objects.begin(self._own)
            try:
                self._host.begin()
            except CannotListen as exc:
                raise pysyncobj.SyncObjException("BindError") from exc

    def destroy(self) -> None:
        """Stop the node. Returns when its files are closed; in a callback it returns before, as both use one thread."""
        _living.discard(self)
        self._host.end()

    def destroy_synchronous(self) -> None:
        """As `destroy`."""
        self.destroy()

    def _destroy(self) -> None:
        self.destroy()

    def tick_thread_alive(self) -> bool:
        """Whether the node's thread runs."""
        return self._host.alive

    def doTick(self, timeToWait: float = 0.0) -> None:
        """With `autoTick=False`: let the node run for up to `timeToWait` seconds."""
        assert not self._conf.autoTick
        self._start()
        self._host.tick(timeToWait)

    def waitReady(self) -> None:
        """Wait until the node listens. Raises an error that will keep it from listening."""
        self.waitBinded()

    def waitBinded(self) -> None:
        """Wait until the node listens, or has given up: then `SyncObjException`."""
        self._start()
        if not self._host.started.wait(None if self._conf.autoTick else 0):
            raise pysyncobj.SyncObjException("BindError")
        if self._host.error is not None:
            raise pysyncobj.SyncObjException("BindError") from self._host.error

    def _getFuncName(self, funcName: Any) -> str:
        return self._objects.called(funcName)

    def _applyCommand(self, command: bytes, callback: Callback | None, commandType: int | None = None) -> None:
        """Called by the decorators, with a pickle of a method's number and arguments that this process has made."""
        self._start()
        kind, pickled = (command[0], command[1:]) if commandType is None else (commandType, command)
        try:
            call = bytes([kind]) + self._objects.codec.call(pickled)
        except Exception:
            if callback is None:
                raise
            logger.exception("a call can't be replicated: its arguments can't be read back")
            callback(None, FAIL_REASON.REQUEST_DENIED)
            return
        self._host.calls.put(call, callback)

    def getCodeVersion(self) -> int:
        """The code version that the cluster was switched to."""
        return self._objects.version

    def setCodeVersion(self, newVersion: int, callback: Callback | None = None) -> None:
        """Switch all nodes to the methods of `newVersion`, after the calls that this node has made before.

        It is refused (`REQUEST_DENIED`, whose `exception` says why) while a node is down or runs code without them.
        Raises `InvalidArgument` for a version that this node does not have, or one below the enabled one.
        """
        assert isinstance(newVersion, int)
        own, enabled = self._objects.own_version, self._objects.version
        if newVersion > own:
            raise InvalidArgument(f"wrong version, current version is {own}, requested version is {newVersion}")
        if newVersion < enabled:
            raise InvalidArgument(f"wrong version, enabled version is {enabled}, requested version is {newVersion}")
        self._start()
        self._host.switch(newVersion, callback)

    def addNodeToCluster(self, node: Node | str, callback: Callback | None = None) -> None:
        """Add a node, then start it; it gets the log first, and its vote when it has caught up."""
        self._change(lambda: add_member(self._host, self._nodeOf(node).id), callback)

    def removeNodeFromCluster(self, node: Node | str, callback: Callback | None = None) -> None:
        """Remove a node. To add its address again later, empty its directory first."""
        self._change(lambda: remove_member(self._host, self._nodeOf(node).id), callback)

    def transferLeadership(self, node: Node | str | None = None, callback: Callback | None = None) -> None:
        """Hand leadership to `node`, or to the one that holds most of the log; only the leader can."""
        if not self._isLeader():
            if callback is not None:
                callback(None, FAIL_REASON.NOT_LEADER)
            return
        target = None if node is None else self._nodeOf(node).id
        self._host.spawn(lambda: _tell(transfer(self._host, target), callback))

    def _change(self, work: Callable[[], Any], callback: Callback | None) -> None:
        if not self._conf.dynamicMembershipChange:
            raise Exception("dynamicMembershipChange is disabled")
        self._start()
        self._host.spawn(lambda: _tell(work(), callback))

    def readBarrier(self, timeout: float | None = None) -> int:
        """Wait until this node has applied all that any node has acknowledged before this call: what is read after it
        is linearizable. Returns the log index; raises `SyncObjException` ("Timeout") after `timeout` seconds."""
        self._start()
        try:
            return self._host.run(self._host.confirmed_barrier(), timeout)
        except TimeoutError:
            raise pysyncobj.SyncObjException("Timeout") from None

    @property
    def readAge(self) -> float:
        """How old local reads may be, in seconds: all that was acknowledged earlier than that is applied here.

        A few times in each election time-out this node asks the leader, which asks a majority. Between two answers the
        age goes up, also while the process is paused. It is infinite before the first answer."""
        confirmed = self._host.duties.confirmed_at
        return math.inf if confirmed == -math.inf else max(0.0, time.monotonic() - confirmed)

    @property
    def isStale(self) -> bool:
        """Whether local reads are doubtful, because there may be a new leader of which this node has not heard."""
        return self.readAge > self._host.settings.config.election_timeout_ms / 1000

    @property
    def _node(self) -> RaftNode | None:
        return self._host.node

    def isReady(self) -> bool:
        """Whether this node has caught up with the cluster once since its start."""
        self._start()
        return self._host.ready

    def _isReady(self) -> bool:
        return self.isReady()

    def _isLeader(self) -> bool:
        self._start()
        return self._host.state == 2

    def _getLeader(self) -> Any:
        self._start()
        node = self._node
        leader = node.leader if node is not None and node.failure is None else None
        return None if leader is None else self._known(leader.peer_address)

    def _known(self, address: str) -> Any:
        if address not in self._nodes:
            self._nodes[address] = self._nodeOf(address)
        return self._nodes[address]

    @property
    def conf(self) -> Any:
        return self._conf

    def _getConf(self) -> Any:
        return self._conf

    @property
    def encryptor(self) -> None:
        """None: links are encrypted by TLS, not by a password."""
        return

    def _getEncryptor(self) -> None:
        return

    @property
    def selfNode(self) -> Any:
        return self._selfNode

    @property
    def otherNodes(self) -> set[Any]:
        """The other members, as this node knows them."""
        node = self._node
        if node is None:
            return {each for each in self._nodes.values() if each != self._selfNode}
        addresses = [member.peer_address for member in node.raft.membership.members]
        return {self._known(each) for each in addresses if each != self._selfNode.id}

    @property
    def readonlyNodes(self) -> set[Any]:
        """None: there are no read-only nodes."""
        return set()

    def isNodeConnected(self, node: Any) -> bool:
        """Whether a connection from this node to `node` is up."""
        hosted = self._node
        if hosted is None:
            return False
        links = hosted.transport.links()
        members = hosted.raft.membership.members
        return any(
            member.peer_address == node.id and member.node_id in links and links[member.node_id].connected
            for member in members
        )

    @property
    def hasQuorum(self) -> bool:
        """Whether this node is connected to a majority, itself among it."""
        others = self.otherNodes
        return sum(map(self.isNodeConnected, others)) + 1 > (len(others) + 1) / 2

    @property
    def raftLastApplied(self) -> int:
        return self._node.applier.applied_index if self._node is not None else 0

    @property
    def raftCommitIndex(self) -> int:
        return self._node.raft.commit_index if self._node is not None else 0

    @property
    def raftCurrentTerm(self) -> int:
        return self._node.raft.term if self._node is not None else 0

    def _getTerm(self) -> int:
        return self.raftCurrentTerm

    def _getRaftLogSize(self) -> int:
        node = self._node
        return 0 if node is None else node.raft.log.last_index - node.raft.log.first_index + 1

    def getStatus(self) -> dict[str, Any]:
        """PySyncObj's keys, and `read_age` and `is_stale` for local reads."""
        self._start()
        others = sorted(self.otherNodes, key=lambda node: str(node.id))
        status: dict[str, Any] = {
            "version": VERSION,
            "revision": "deprecated",
            "self": self._selfNode,
            "state": self._host.state,
            "leader": self._getLeader(),
            "has_quorum": self.hasQuorum,
            "partner_nodes_count": len(others),
        }
        for node in others:
            status[f"partner_node_status_server_{node.id}"] = 2 if self.isNodeConnected(node) else 0
        status |= {
            "readonly_nodes_count": 0,
            "log_len": self._getRaftLogSize(),
            "last_applied": self.raftLastApplied,
            "commit_idx": self.raftCommitIndex,
            "raft_term": self.raftCurrentTerm,
        }
        progress = self._progress()
        for name, which in (("next_node", 0), ("match", 1)):
            status[f"{name}_idx_count"] = len(progress)
            for address, indexes in progress.items():
                status[f"{name}_idx_server_{address}"] = indexes[which]
        return status | {
            "leader_commit_idx": self.raftCommitIndex if self._getLeader() is not None else None,
            "uptime": int(time.monotonic() - self._host.started_at),
            "self_code_version": self._objects.own_version,
            "enabled_code_version": self._objects.version,
            "read_age": self.readAge,
            "is_stale": self.isStale,
        }

    def _progress(self) -> dict[str, tuple[int, int]]:
        """(next index, match index) of each other node by address; empty unless this node leads."""
        node = self._node
        role = node.raft.role if node is not None else None
        if node is None or not isinstance(role, Leader):
            return {}
        addresses = {member.node_id: member.peer_address for member in node.raft.membership.members}
        return {
            addresses[each]: (known.next_index, known.match_index)
            for each, known in list(role.progress.items())
            if each in addresses
        }

    def _getStatus(self, args: Any, callback: Callback) -> None:
        callback(self.getStatus(), FAIL_REASON.SUCCESS)

    def printStatus(self) -> None:
        """Write the status to the log."""
        for key, value in self.getStatus().items():
            logger.info("%s: %s", key, value)

    def _printStatus(self) -> None:
        self.printStatus()

    def forceLogCompaction(self) -> None:
        """Make an image of the objects and a snapshot soon, whatever has happened since the last one."""
        self._start()
        self._host.duties.force_compaction = True

    def _forceLogCompaction(self) -> None:
        self.forceLogCompaction()

    def addOnTickCallback(self, callback: Callable[[], Any]) -> None:
        """Call `callback` about twenty times a second, on the node's thread."""
        self._host.on_tick.append(callback)

    def removeOnTickCallback(self, callback: Callable[[], Any]) -> None:
        """Don't call `callback` any more. A callback that was never added is ignored."""
        if callback in self._host.on_tick:
            self._host.on_tick.remove(callback)


def _consumer(each: Any) -> Any:
    if not isinstance(each, pysyncobj.SyncObjConsumer) and getattr(each, "_consumer", None):
        each = each._consumer()
    if not isinstance(each, pysyncobj.SyncObjConsumer):
        raise pysyncobj.SyncObjException("Consumers must be inherited from SyncObjConsumer")
    return each


async def _tell(work: Any, callback: Callback | None) -> None:
    """Do `work`, then call `callback` with its outcome as a fail reason."""
    reason: int = FAIL_REASON.SUCCESS
    try:
        await work
    except RaftKVError as exc:
        logger.warning("not done: %s", exc)
        reason = Denied(exc)
    if callback is not None:
        try:
            callback(None, reason)
        except Exception:  # what an application's callback raises harms nobody else
            logger.exception("a callback of the application failed")
