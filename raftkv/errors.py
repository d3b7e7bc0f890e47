"""Every exception of raftkv, grouped by who must act.

=================  ==============================================================================
the caller          `Rejected` (`AccessRejected`), `InvalidArgument`, `ConfigError`, `MachineError`,
                    `TooMuchWork`, `NotRunning`, `AlreadyStarted`, `MissingExtra`, `WrongLoop`: mend the call
the caller, anew    `ViewExpired`: what was read so far is of a state that nobody holds any more;
                    `Compacted` (of `raftkv.history`): changes are not kept any more that were to be read;
                    `OtherLineage` (there too): a cursor is of before a restore, behind which this cluster
                    does not go on
the caller, later   `TimedOut`: when it may have come to be; `NotActive`: when all nodes run a later version;
                    `NotAccepted` and below (`NotLeader`, `Busy`, `Unavailable`): safe to retry
the caller, careful `Indeterminate`: the command may have been applied
the caller, named   `Unauthenticated`, `Forbidden`: certainly not done; sign in, or have the right granted
the connection      `PeerError` and below: close it, count it, go on
the operator        `NodeStopped` and below: this node must not go on; the text says what to do
=================  ==============================================================================

Errors of other libraries are translated at one boundary each (`raise … from exc`).
"""

from __future__ import annotations

from typing import Any

import msgspec

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are no message: the last two for text that is not UTF-8, and for bytes
that only open arrays. A stranger can send either, so code that decodes bytes from outside catches all three."""


class RaftKVError(Exception):
    """The base of all exceptions that raftkv raises on purpose."""


class InvalidArgument(RaftKVError, ValueError):
    """An argument is of the wrong type, too large or out of range; nothing was sent."""


class ConfigError(InvalidArgument):
    """A setting is wrong; the text names the setting, what it is, and what it may be."""


class MissingExtra(RaftKVError, ImportError):
    """A library is not installed that this part of raftkv needs; the text says how to get it."""


class WrongLoop(RaftKVError, RuntimeError):
    """A client or server was used on another event loop than its own; the text says what to do instead."""


class MachineError(RaftKVError, TypeError):
    """A state machine's class is wrong (an unannotated argument, two commands of one name, …)."""


class Rejected(RaftKVError):
    """The command itself raised: the same on every node, and without any effect.

    `error_type` is the name of the exception's class, `message` its text. An error that the state machine declares
    arrives as its own class, a subclass of `Rejection`, which is one of this.
    """

    def __init__(self, error_type: str, message: str, fields: bytes = b"") -> None:
        """`fields` are the encoded fields of a declared error."""
        super().__init__(f"{error_type}: {message}" if message else error_type)
        self.error_type = error_type
        self.message = message
        self.fields = fields


class NotActive(Rejected):
    """The active version of the application has no such command (or argument): it had no effect, and was not logged.

    It works once that version is active: when every node can run it (see `raftkv upgrade`).
    """

    def __init__(self, message: str) -> None:
        super().__init__("NotActive", message)


class AccessRejected(Rejected):
    """A change of users and roles is not possible as they are: nothing was changed.

    `error_type` says why: `UnknownUser`, `UserExists`, `UnknownRole`, `RoleExists`, `RoleInUse`, `NotGranted`,
    `UnknownToken`, `TokenExists`, `CertificateTaken`, `TooMany`, `LastRoot`, `NoRoot`, or `InvalidArgument`.
    """


class TooMuchWork(RaftKVError):
    """A query read more keys, or took longer, than a node allows; it would do so again, on any node.

    Ask for less at once: a smaller range, a page. In a query's own code `position` tells how far its scan had come.
    """

    def __init__(self, message: str, position: bytes | None = None) -> None:
        super().__init__(message)
        self.position = position
        """The encoded key (in a table of bytes, the key) from which the scan would go on; in reverse, it would go on
        below that key. None when no scan was under way, and outside of the query."""


class NotRunning(RaftKVError):
    """A `Server` was asked for something while it does not run: it was not started yet, or is stopped."""


class AlreadyStarted(RaftKVError):
    """A `Server` can be started only once: it runs already, or was stopped. To go on, make another one."""


class ViewExpired(RaftKVError):
    """The state at one index that was being read is not held any more: begin anew, with another view."""


class TimedOut(RaftKVError, TimeoutError):
    """What was waited for has not come to be in time: wait again, or do without it."""


class SessionExpired(RaftKVError):
    """The session was closed or pushed out of the table, so exactly-once can't be promised any more."""


class NotAccepted(RaftKVError):
    """The command is certainly not in the log: it is safe to try again."""


class NotLeader(NotAccepted):
    """This node is not the leader; `leader` is the node that may be, if it is known."""

    def __init__(self, leader: int | None = None, address: str | None = None) -> None:
        where = "it knows of no leader" if leader is None else f"the leader may be node {leader}"
        super().__init__(f"this node is not the leader; {where}" + (f" at {address}" if address else ""))
        self.leader = leader
        self.address = address


class Busy(NotAccepted):
    """A bound is reached (uncommitted bytes, waiting requests, a leadership transfer): try again soon."""


class Unavailable(NotAccepted):
    """No leader or no quorum answered in time, and the command was not accepted by anyone."""


class DiskLow(Busy):
    """Free disk space is below the reserve; writes are refused until there is space again."""


class ChangeRefused(NotAccepted):
    """A membership change or leadership transfer is not possible now; the text says why."""


class NotCaughtUp(ChangeRefused):
    """A learner is too far behind the log to become a voter."""


class Indeterminate(RaftKVError):
    """The command may or may not have been applied, and there is no way left to find out."""


class Unauthenticated(RaftKVError):
    """Nobody has signed in, or not as a user who is known here; nothing was done. The text says what was wrong.

    A client does not try again by itself: it would be refused again.
    """


class Forbidden(RaftKVError):
    """Whoever asked has no right to; nothing was done. The text says who it is, what was refused, and what is missing.

    A client does not try again by itself: it would be refused again.
    """


class PeerError(RaftKVError):
    """The other side of a connection misbehaved: close the connection, nothing else happens."""


class FrameError(PeerError):
    """A frame is too long, cut short, fails its checksum or cannot be decoded."""


class HandshakeRefused(PeerError):
    """The other side is of another cluster, version, node or data directory; the text says what to do."""


class WrongCluster(HandshakeRefused):
    """A node belongs to another cluster than the one that this client has met; it is not used."""


class WrongCertificate(HandshakeRefused):
    """The one who dials has a certificate of the authority, but not one of a node; the text says whose it should be."""


class WrongSecret(HandshakeRefused):
    """The other side does not prove that it knows the cluster secret, or knows another one, or has none set."""


class PeerRemoved(HandshakeRefused):
    """The node that dials was removed from the cluster, by the committed entry `index` or one before it. The node that
    says so is in `term`, and `leads` it or not."""

    def __init__(self, text: str, *, index: int, term: int, leads: bool) -> None:
        super().__init__(text)
        self.index = index
        self.term = term
        self.leads = leads


class NodeStopped(RaftKVError):
    """This node has stopped serving and voting. The text says why, and what to do."""


class Corruption(NodeStopped):
    """Data on disk is not what was written."""


class CorruptRecord(Corruption):
    """One record of the log is cut short or fails its checksum."""


class StateCorruption(Corruption):
    """The applied state (RocksDB) is damaged; it can be rebuilt from a snapshot."""


class SnapshotCorruption(Corruption):
    """A snapshot's file or manifest is damaged; another one, or a peer's, must be used."""


class FormatError(NodeStopped):
    """Files of another version of raftkv; the text names both versions."""


class DiskError(NodeStopped):
    """A write, sync or rename failed. It is never retried: what is on disk is no longer known."""


class DiskFull(DiskError):
    """The disk is full; start the node again when there is space."""


class WrongProcess(NodeStopped):
    """The node runs in the process that started it, and this one is a child made by fork: it must start its own."""


class DataDirLocked(NodeStopped):
    """Another process uses this data directory."""


class WrongDataDir(NodeStopped):
    """The data directory belongs to another node or cluster."""


class NodeRemoved(NodeStopped):
    """The cluster has removed this node for good. Nothing is wrong, and starting it again is of no use."""


class Diverged(NodeStopped):
    """This replica's state is not what the others have at the same index."""


class NoAgreement(Diverged):
    """The replicas' states differ and none has a majority: no node serves until an operator has seen to it."""

    def __init__(self, text: str, agreed_index: int = 0) -> None:
        super().__init__(text)
        self.agreed_index = agreed_index
        """The last log index at which a majority is known to have agreed."""


class UnknownCommand(NodeStopped):
    """The log holds a command that this version of the state machine does not know."""


class WrongVersion(NodeStopped):
    """This node's class can't run the version of the application that is active: it is older, or newer by too much."""


class SchemaChanged(NodeStopped):
    """This node's class declares the active version otherwise than the cluster does; going on would lose data, or
    make this node's state differ from the others'."""


class MachineFailed(NodeStopped):
    """A command failed for a reason that other nodes need not have: it is not the command's own exception."""


class SafetyViolation(NodeStopped):
    """An invariant of Raft does not hold; going on would lose data. Keep the files and report it."""


def unreachable(value: Any) -> SafetyViolation:
    """For the last arm of a match that the type checker knows to be complete."""
    return SafetyViolation(f"no case for {value!r}")
