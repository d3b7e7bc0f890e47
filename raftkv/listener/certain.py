"""What a leader does before it refuses a client: it makes sure that it leads."""

from __future__ import annotations

from collections.abc import Callable

from raftkv.errors import RaftKVError, Unavailable
from raftkv.listener.interface import RequestPort
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
