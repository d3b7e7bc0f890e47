"""A node's options, and the paths in its data directory."""

from __future__ import annotations

import posixpath

import msgspec

from raftkv.config import Config
from raftkv.model import Member, NodeId


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A node's id, its data directory, and what else an operator says about it."""

    node_id: NodeId
    data_dir: str
    members: tuple[Member, ...] = ()
    """The founders of a new cluster, the same on each of them; empty for a node that joins one."""
    cluster_name: str = ""
    """Empty: as in the directory, and `DEFAULT_NAME` for a new cluster."""
    peer_address: str = ""
    """Where other nodes reach this one. A node that joins sends it in its hello, so that others can dial it."""
    client_address: str = ""
    """Where this node listens for clients; empty when that is not known."""
    machine: str = ""
    """The name of the state machine's class, which must be the one that the directory was made for. Empty: any."""
    rebuild: bool = False
    """Rebuild a damaged state from a peer's snapshot, if there is no sound snapshot here."""
    config: Config = Config()
    given: dict[str, str] = {}
    """Where each setting of `config` was given that somebody has given; it wins over what the directory has kept."""


class Paths:
    """The paths of a data directory's files; `raftkv.node.directory` says what each file is good for."""

    def __init__(self, data_dir: str) -> None:
        self.root = data_dir
        self.lock = posixpath.join(data_dir, "LOCK")
        self.founding = posixpath.join(data_dir, "cluster")
        self.vote = posixpath.join(data_dir, "vote")
        self.peers = posixpath.join(data_dir, "peers")
        self.starts = posixpath.join(data_dir, "starts")
        self.receipts = posixpath.join(data_dir, "receipts")
        self.addresses = posixpath.join(data_dir, "addresses")
        self.settings = posixpath.join(data_dir, "settings")
        self.log = posixpath.join(data_dir, "log")
        self.snapshots = posixpath.join(data_dir, "snapshots")
        self.state = posixpath.join(data_dir, "state")
        self.new_state = posixpath.join(data_dir, "state.new")
        self.old_state = posixpath.join(data_dir, "state.old")
        self.recovering = posixpath.join(data_dir, "recovering")
        self.recovered = posixpath.join(data_dir, "recovered.new")
        self.unfit_state = posixpath.join(data_dir, "state.unfit")
