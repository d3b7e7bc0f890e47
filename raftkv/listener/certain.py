"""What is certain of a client's rights only once this node has applied all that was acknowledged before."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.errors import RaftKVError, Unavailable
from raftkv.listener.demands import Demand
from raftkv.listener.interface import RequestPort
from raftkv.listener.standing import Standing
from raftkv.machine import QueryDone
from raftkv.model import Index
from raftkv.wire import Request


def when_certain(
    requests: RequestPort,
    request: Request,
    gone: Callable[[], bool],
    judge: Callable[[Request], None],
    refuse: Callable[[Request, RaftKVError], None],
) -> None:
    """Judge a request once it is certain that this node leads; refuse it where it does not, or the client is gone."""

    def confirmed(_: Index, result: bytes | RaftKVError) -> None:
        if isinstance(result, RaftKVError):
            refuse(request, result)
        elif gone():
            refuse(request, Unavailable("its client has gone"))
        else:
            judge(request)

    try:
        requests.confirm(confirmed, request.deadline_ms / 1000, gone)
    except RaftKVError as exc:
        refuse(request, exc)


def judged_again(standing: Standing, request: Request, demand: Demand, address: str, answered: QueryDone) -> QueryDone:
    """Give the answer of a linearizable query to `answered`, if its user still may know it: this node may have been
    behind when it was asked."""

    def done(index: Index, result: bytes | RaftKVError) -> None:
        if not isinstance(result, RaftKVError):
            try:
                standing.check_again(request, demand, address)
            except RaftKVError as exc:
                index, result = 0, exc
        answered(index, result)

    return done
