"""raftkv: subclass a state machine; raftkv runs it on several nodes as if on one that never fails.

What an application needs is here; the packages below are for those who go deeper: `raftkv.kv` (a ready-made
key-value service), `raftkv.testing` (simulated clusters), `raftkv.core` (Raft itself, with a tutorial).
"""

from raftkv.client import Admin, BlockingClient, Client, ClientOptions, StaleRead
from raftkv.config import Config
from raftkv.errors import (
    Busy,
    ChangeRefused,
    ConfigError,
    Indeterminate,
    InvalidArgument,
    MachineError,
    NodeStopped,
    NotAccepted,
    NotActive,
    NotLeader,
    RaftKVError,
    Rejected,
    SessionExpired,
    TooMuchWork,
    Unavailable,
    ViewExpired,
)
from raftkv.machine import (
    Limits,
    LocalMachine,
    Rejection,
    StateMachine,
    Table,
    TooLarge,
    Value,
    command,
    query,
    upgrade,
)
from raftkv.model import Member, Membership
from raftkv.node import NodeStatus
from raftkv.server import Listen, Server, Tls

__all__ = [
    "Admin",
    "BlockingClient",
    "Busy",
    "ChangeRefused",
    "Client",
    "ClientOptions",
    "Config",
    "ConfigError",
    "Indeterminate",
    "InvalidArgument",
    "Limits",
    "Listen",
    "LocalMachine",
    "MachineError",
    "Member",
    "Membership",
    "NodeStatus",
    "NodeStopped",
    "NotAccepted",
    "NotActive",
    "NotLeader",
    "RaftKVError",
    "Rejected",
    "Rejection",
    "Server",
    "SessionExpired",
    "StaleRead",
    "StateMachine",
    "Table",
    "Tls",
    "TooLarge",
    "TooMuchWork",
    "Unavailable",
    "Value",
    "ViewExpired",
    "command",
    "query",
    "upgrade",
]
