"""What each request demands of whoever sends it: to call something by name, to touch keys, or to give an order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from raftkv.access import Touch
from raftkv.errors import Forbidden, InvalidArgument
from raftkv.listener.admin import read_argument
from raftkv.logs import EventLog
from raftkv.machine import (
    CLOSE_SESSION,
    NO_SESSION,
    OPEN_SESSION,
    ROWS,
    SCHEMA,
    Method,
    StateMachine,
    decode_command,
    decode_query,
)
from raftkv.wire import Poll, Request, RequestKind, ViewQuery, Watching

logger = EventLog(__name__)

ORDERS: dict[RequestKind, str] = {
    RequestKind.STATUS: "status",
    RequestKind.ADD_LEARNER: "member",
    RequestKind.UPDATE: "member",
    RequestKind.PROMOTE: "member",
    RequestKind.REMOVE: "member",
    RequestKind.TRANSFER: "transfer",
    RequestKind.SNAPSHOT: "snapshot",
    RequestKind.CLOCK_RESET: "clock",
    RequestKind.UPGRADE: "upgrade",
    RequestKind.CONFIGURE: "configure",
    RequestKind.BACKUP_OFFER: "backup",
    RequestKind.BACKUP_READ: "backup",
    RequestKind.ACCESS: "access",
    RequestKind.ACCESS_SHOW: "access",
}
"""Which right each order needs."""

LEADERS = frozenset(
    {
        RequestKind.COMMAND,
        RequestKind.POLL,
        RequestKind.MEMBERS,
        RequestKind.VIEW_OPEN,
        RequestKind.ADD_LEARNER,
        RequestKind.UPDATE,
        RequestKind.PROMOTE,
        RequestKind.REMOVE,
        RequestKind.TRANSFER,
        RequestKind.CLOCK_RESET,
        RequestKind.UPGRADE,
        RequestKind.ACCESS,
    }
)
"""What only a leader does; of queries, those that are not stale as well."""

NAME_SHOWN = 100
"""Characters of a name that somebody has made up."""

WATCH = "watch."
"""Watching a table or stream is a right of queries: `query watch.orders`."""

_LOOKS: dict[str, Method] = {SCHEMA.name: SCHEMA, ROWS.name: ROWS}


class Demand(NamedTuple):
    """A right that is needed; "user": only that somebody is a user; "any command" and "any query": some right of that
    kind, whatever it is for."""

    what: Literal["command", "query", "admin", "user", "any command", "any query"]
    name: str
    touches: tuple[Touch, ...] | None = None
    """All keys that the call reads and writes; None where nobody can say."""
    session: int = NO_SESSION
    """The session that it uses."""

    def describe(self) -> str:
        """For errors and logs; never what keys or values are."""
        if self.what in ("any command", "any query"):
            return self.what
        return f"{self.what} {self.name[:NAME_SHOWN]}"


def is_for_leaders(request: Request) -> bool:
    """Whether another node than the leader would not do it anyway."""
    return request.kind in LEADERS or (request.kind is RequestKind.QUERY and not request.stale)


def demand_of(request: Request, machine: type[StateMachine]) -> Demand:
    """What it needs. Raises `InvalidArgument` for what can't be read, and `Forbidden` for what nobody may send."""
    kind = request.kind
    match kind:
        case RequestKind.COMMAND:
            return _command(request.payload, machine)
        case RequestKind.QUERY:
            return _query(request.payload, machine)
        case RequestKind.POLL:
            return _query(read_argument(request, Poll).query, machine)
        case RequestKind.VIEW_QUERY:
            return _query(read_argument(request, ViewQuery).query, machine)
        case RequestKind.WATCH:
            return _watch(read_argument(request, Watching), machine)
        case RequestKind.VIEW_OPEN:
            return Demand("any query", kind.name.lower())  # there are few at once, for those who may read in them
        case RequestKind.VIEW_CLOSE | RequestKind.MEMBERS | RequestKind.CANCEL:
            return Demand("user", kind.name.lower())
        case _:
            return Demand("admin", ORDERS.get(kind, kind.name.lower()))


def _command(payload: bytes, machine: type[StateMachine]) -> Demand:
    command = decode_command(payload)
    name, session = command.name, command.session_id
    if name in (OPEN_SESSION, CLOSE_SESSION):
        # Each is an entry in the log, and one that is opened may end the session of somebody else.
        return Demand("any command", name, session=session)
    if name.startswith("*"):
        raise Forbidden(f"{name[:NAME_SHOWN]!r} is no command of the application: nodes write it themselves")
    return Demand("command", name, _touches(machine, machine.methods.get(name), command.args), session)


def _query(payload: bytes, machine: type[StateMachine]) -> Demand:
    query = decode_query(payload)
    name = query.name
    if name == SCHEMA.name:
        return Demand("user", name)  # it tells what a class declares, and nothing of the data
    return Demand("query", name, _touches(machine, machine.methods.get(name, _LOOKS.get(name)), query.args))


def _watch(asked: Watching, machine: type[StateMachine]) -> Demand:
    if asked.after is None:
        return Demand("user", WATCH + asked.source)  # it tells only where one begins
    name = WATCH + asked.source
    return Demand("query", name, _say(machine, name, (asked.start, asked.end)))


@lru_cache(maxsize=16)
def _tells(machine: type[StateMachine]) -> bool:
    """Whether a class says of its calls what they touch."""
    own = next(base for base in machine.__mro__ if "touches" in vars(base))
    return own is not StateMachine


def _touches(machine: type[StateMachine], method: Method | None, args: msgspec.Raw) -> tuple[Touch, ...] | None:
    """What is touched; None for arguments that can't be read, too: the node says what is wrong with them."""
    if method is None or not _tells(machine):
        return None
    try:
        decoded = method.decode_args(args)
    except InvalidArgument:
        return None
    return _say(machine, method.name, decoded)


def _say(machine: type[StateMachine], name: str, args: tuple[Any, ...]) -> tuple[Touch, ...] | None:
    """What a class says that it touches; nothing where it raises. That is a mistake of the class, and none of the
    connection's: it goes on, and whoever has a right to the name has it."""
    try:
        return machine.touches(name, args)
    except Exception as exc:  # noqa: BLE001 (it is the application's code, and arguments are what a client makes up)
        _tell_once(machine, name, type(exc).__name__)
        return None


@lru_cache(maxsize=256)
def _tell_once(machine: type[StateMachine], name: str, error: str) -> None:
    """Without the error's text, in which there may be keys."""
    logger.error(
        "touches_raised",
        machine=machine.__qualname__,
        call=name[:NAME_SHOWN],
        error=error,
        hint="mend `touches` of this class; until then only rights by name count for such a call",
    )
