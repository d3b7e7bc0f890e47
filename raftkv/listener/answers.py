"""Outcomes and errors as the answers that clients get."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from raftkv.errors import (
    Busy,
    ChangeRefused,
    DiskLow,
    Forbidden,
    InvalidArgument,
    NotAccepted,
    NotCaughtUp,
    NotLeader,
    RaftKVError,
    Rejected,
    SessionExpired,
    TooMuchWork,
    Unauthenticated,
    ViewExpired,
)
from raftkv.history import Compacted, OtherLineage
from raftkv.listener.interface import Service
from raftkv.machine import OutcomeKind, rejection_payload
from raftkv.model import Index, Member
from raftkv.wire import Response, Status, encode_members

if TYPE_CHECKING:
    from raftkv.machine import Outcome

_STATUSES: dict[OutcomeKind, Status] = {
    OutcomeKind.APPLIED: Status.OK,
    OutcomeKind.REJECTED: Status.REJECTED,
    OutcomeKind.SESSION_EXPIRED: Status.SESSION_EXPIRED,
    # Its first answer was acknowledged by the client, so whoever asks now is not told what it was.
    OutcomeKind.STALE_DUPLICATE: Status.INDETERMINATE,
}


def outcome_response(request_id: int, index: Index, outcome: Outcome) -> Response:
    """What became of a command that was applied, or that its session would not have applied."""
    return Response(request_id, _STATUSES[outcome.kind], outcome.payload, index)


def result_response(request_id: int, index: Index, result: bytes) -> Response:
    """What a query gave, at `index`."""
    return Response(request_id, Status.OK, result, index)


def error_response(request_id: int, error: RaftKVError, leader: Member | None) -> Response:
    """An error's name and text, with the leader's address where that helps.

    Whatever is not known to mean "nothing was done" is `INDETERMINATE`: a node that stops, a leader
    that is deposed.
    """
    text = str(error).encode()
    match error:
        case Rejected():
            return Response(request_id, Status.REJECTED, rejection_payload(error))
        case NotLeader():
            address = error.address or (leader.client_address if leader is not None else "")
            return Response(request_id, Status.NOT_LEADER, text, leader=address)
        case NotCaughtUp():
            status = Status.NOT_CAUGHT_UP
        case ChangeRefused():
            status = Status.CHANGE_REFUSED
        case DiskLow():
            status = Status.DISK_LOW
        case Busy():
            status = Status.BUSY
        case NotAccepted():
            status = Status.UNAVAILABLE
        case InvalidArgument():
            status = Status.INVALID
        case SessionExpired():
            status = Status.SESSION_EXPIRED
        case TooMuchWork():
            status = Status.TOO_MUCH_WORK
        case ViewExpired():
            status = Status.VIEW_EXPIRED
        case Unauthenticated():
            status = Status.UNAUTHENTICATED
        case Forbidden():
            status = Status.FORBIDDEN
        case Compacted():
            return Response(request_id, Status.COMPACTED, str(error.oldest).encode())
        case OtherLineage():
            parting = msgspec.msgpack.encode((error.cursor, error.common))
            return Response(request_id, Status.OTHER_LINEAGE, parting)
        case _:
            status = Status.INDETERMINATE
    return Response(request_id, status, text)


def members_response(service: Service, request_id: int) -> Response:
    """Only the leader says who the members are: another node may have been cut off for long. Raises `NotLeader`."""
    leader = service.leader
    if leader is None or leader.node_id != service.node_id:
        raise NotLeader(None if leader is None else leader.node_id)
    members = service.members
    return Response(request_id, Status.OK, encode_members(members), members.index)
