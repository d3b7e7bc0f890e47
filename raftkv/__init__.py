"""raftkv: subclass a state machine; raftkv runs it on several nodes as if on one that never fails.

What an application needs is here; the packages below are for those who go deeper: `raftkv.kv` (a ready-made
key-value service), `raftkv.testing` (simulated clusters), `raftkv.core` (Raft itself, with a tutorial).
"""

import typing

from raftkv.lazy import exports as _exports
from raftkv.version import __version__ as __version__

if typing.TYPE_CHECKING:
    from raftkv.client import Admin, BlockingAdmin, BlockingClient, Client, ClientOptions, StaleRead
    from raftkv.config import Config
    from raftkv.errors import (
        AccessRejected,
        Busy,
        ChangeRefused,
        ConfigError,
        Forbidden,
        Indeterminate,
        InvalidArgument,
        MachineError,
        MissingExtra,
        NodeStopped,
        NotAccepted,
        NotActive,
        NotLeader,
        RaftKVError,
        Rejected,
        SessionExpired,
        TimedOut,
        TooMuchWork,
        Unauthenticated,
        Unavailable,
        ViewExpired,
        WrongLoop,
    )
    from raftkv.history import Compacted, Cursor, OtherLineage
    from raftkv.logs import log_to_structlog
    from raftkv.machine import (
        Change,
        Component,
        Events,
        History,
        Limits,
        LocalMachine,
        Page,
        Part,
        Rejection,
        Set,
        SetView,
        StateMachine,
        Table,
        TooLarge,
        TooManyRows,
        TooManyTimers,
        Value,
        View,
        command,
        every,
        on_expire,
        query,
        upgrade,
    )
    from raftkv.model import Member, Membership
    from raftkv.node import NodeStatus, Role
    from raftkv.server import Listen, Server, Tls
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.client": "Admin BlockingAdmin BlockingClient Client ClientOptions StaleRead",
            "raftkv.config": "Config",
            "raftkv.errors": (
                "AccessRejected Busy ChangeRefused ConfigError Forbidden Indeterminate InvalidArgument MachineError "
                "MissingExtra NodeStopped NotAccepted NotActive NotLeader RaftKVError Rejected SessionExpired "
                "TimedOut TooMuchWork Unauthenticated Unavailable ViewExpired WrongLoop"
            ),
            "raftkv.history": "Compacted Cursor OtherLineage",
            "raftkv.logs": "log_to_structlog",
            "raftkv.machine": (
                "Change Component Events History Limits LocalMachine Page Part Rejection Set SetView StateMachine "
                "Table TooLarge TooManyRows TooManyTimers Value View command every on_expire query upgrade"
            ),
            "raftkv.model": "Member Membership",
            "raftkv.node": "NodeStatus Role",
            "raftkv.server": "Listen Server Tls",
        },
    )

__all__ = [
    "AccessRejected",
    "Admin",
    "BlockingAdmin",
    "BlockingClient",
    "Busy",
    "Change",
    "ChangeRefused",
    "Client",
    "ClientOptions",
    "Compacted",
    "Component",
    "Config",
    "ConfigError",
    "Cursor",
    "Events",
    "Forbidden",
    "History",
    "Indeterminate",
    "InvalidArgument",
    "Limits",
    "Listen",
    "LocalMachine",
    "MachineError",
    "Member",
    "Membership",
    "MissingExtra",
    "NodeStatus",
    "NodeStopped",
    "NotAccepted",
    "NotActive",
    "NotLeader",
    "OtherLineage",
    "Page",
    "Part",
    "RaftKVError",
    "Rejected",
    "Rejection",
    "Role",
    "Server",
    "SessionExpired",
    "Set",
    "SetView",
    "StaleRead",
    "StateMachine",
    "Table",
    "TimedOut",
    "Tls",
    "TooLarge",
    "TooManyRows",
    "TooManyTimers",
    "TooMuchWork",
    "Unauthenticated",
    "Unavailable",
    "Value",
    "View",
    "ViewExpired",
    "WrongLoop",
    "command",
    "every",
    "log_to_structlog",
    "on_expire",
    "query",
    "upgrade",
]
