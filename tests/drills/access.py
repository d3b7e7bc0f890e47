"""Drills of users: who may do what."""

from __future__ import annotations

from tests.drills.drill import Drill
from tests.drills.etcds import EtcdNodes
from tests.drills.nodes import Nodes
from tests.drills.ours import OurNodes
from tests.drills.terminal import DrillFailed

PASSWORD = "only for this drill"
FILE = "password"
"""Where it is kept, for its owner alone."""

TRY_S = 5.0

IN_A_FILE = "raftkv reads the password from a file, which is there already; etcd has it on the command line"


def _password_kept(nodes: Nodes) -> None:
    path = nodes.terminal.directory / FILE
    path.touch(0o600)
    path.write_text(PASSWORD)


def _refused_to_strangers(nodes: Nodes) -> None:
    if nodes.takes("stranger", "1", TRY_S):
        raise DrillFailed("who does not sign in may still write")
    nodes.terminal.relief()


def our_access(nodes: OurNodes) -> None:
    """With somebody who may turn it off again."""
    nodes.found()
    _password_kept(nodes)
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "user", "add", "boss", "--role", "root", "--new-password-file", FILE)
    nodes.terminal.type("raftkv", "auth", "on", "--user", "boss", "--password-file", FILE)
    _refused_to_strangers(nodes)


def etcds_access(nodes: EtcdNodes) -> None:
    """The user must be called root."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.type("etcdctl", "user", "add", f"root:{PASSWORD}")
    nodes.terminal.type("etcdctl", "auth", "enable")
    _refused_to_strangers(nodes)


def our_user(nodes: OurNodes) -> None:
    """One role with one grant."""
    nodes.found()
    _password_kept(nodes)
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "role", "add", "clerk")
    nodes.terminal.type("raftkv", "role", "grant", "clerk", "write", "orders/")
    nodes.terminal.type("raftkv", "user", "add", "ann", "--role", "clerk", "--new-password-file", FILE)
    nodes.terminal.relief()
    if "clerk" not in nodes.terminal.type("raftkv", "user", "list"):
        raise DrillFailed("the new user has no role")


def etcds_user(nodes: EtcdNodes) -> None:
    """The same."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.type("etcdctl", "role", "add", "clerk")
    nodes.terminal.type("etcdctl", "role", "grant-permission", "clerk", "write", "orders/", "--prefix=true")
    nodes.terminal.type("etcdctl", "user", "add", f"ann:{PASSWORD}")
    nodes.terminal.type("etcdctl", "user", "grant-role", "ann", "clerk")
    nodes.terminal.relief()


DRILLS = (
    Drill("access-on", "nobody shall do anything without signing in", our_access, etcds_access, note=IN_A_FILE),
    Drill("user-added", "a user shall write below one prefix", our_user, etcds_user, note=IN_A_FILE),
)
