"""What operators ask of a node: status, membership, leadership, snapshots, versions of the application, users."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from raftkv.access import AccessAsk, AccessOrder, Enable
from raftkv.errors import UNREADABLE, FrameError, InvalidArgument
from raftkv.listener.interface import Service
from raftkv.model import Member, NodeId
from raftkv.wire import BackupAsk, BackupRead, Request, RequestKind, Response, Status

ANSWER_S = 0.5
"""For an answer's way back."""

_encoder = msgspec.msgpack.Encoder()


async def run_admin(
    service: Service, request: Request, by: str | None, prove: Callable[[Enable], Awaitable[str]]
) -> Response:
    """Do what an operator asked, who has signed in as the user `by` or not; raises what the service raises.

    `prove` finds out whose password or token an order shows, as fast as others who sign in are let; raises
    `AccessRejected`.

    The deadline is the client's; the operation is given a little less, so that its end and why is still heard.
    """
    given_s = max(0.001, request.deadline_ms / 1000)
    deadline_s = given_s - min(ANSWER_S, given_s / 4)
    result: Any
    match request.kind:
        case RequestKind.STATUS:
            result = service.status()
        case RequestKind.ADD_LEARNER:
            result = await service.orders.add_learner(read_argument(request, Member), deadline_s)
        case RequestKind.UPDATE:
            member, force = read_argument(request, tuple[Member, bool])
            result = await service.orders.update_member(member, deadline_s, force=force)
        case RequestKind.PROMOTE:
            result = await service.orders.promote(read_argument(request, NodeId), deadline_s)
        case RequestKind.REMOVE:
            result = await service.orders.remove(read_argument(request, NodeId), deadline_s)
        case RequestKind.TRANSFER:
            result = await service.orders.transfer_leadership(read_argument(request, NodeId | None), deadline_s)
        case RequestKind.SNAPSHOT:
            result = await service.orders.take_snapshot()
        case RequestKind.CLOCK_RESET:
            result = await service.orders.reset_clock(deadline_s)
        case RequestKind.UPGRADE:
            result = await service.orders.upgrade(read_argument(request, int | None), deadline_s)
        case RequestKind.CONFIGURE:
            result = await service.orders.configure(read_argument(request, dict[str, bool | int | float | None]))
        case RequestKind.ACCESS:
            order = read_argument(request, AccessOrder)
            if isinstance(order, Enable) and by is None and (order.password or order.token):
                by, order = await prove(order), Enable()
            result = await service.orders.change_access(order, by, deadline_s)
        case RequestKind.ACCESS_SHOW:
            listed = await service.orders.show_access(read_argument(request, AccessAsk), deadline_s)
            return Response(request.id, Status.OK, listed)
        case RequestKind.BACKUP_OFFER:
            result = await service.orders.offer_backup(read_argument(request, BackupAsk), deadline_s)
        case RequestKind.BACKUP_READ:
            return Response(request.id, Status.OK, await service.orders.read_backup(read_argument(request, BackupRead)))
        case _:
            raise FrameError(f"a request of kind {request.kind!r}")
    return Response(request.id, Status.OK, _encoder.encode(result))


def read_argument(request: Request, kind: Any) -> Any:
    """A request's payload, as a value of `kind`; raises `InvalidArgument`."""
    try:
        return msgspec.msgpack.decode(request.payload, type=kind)
    except UNREADABLE as exc:
        raise InvalidArgument(f"{request.kind.name.lower()}: {exc}") from exc
