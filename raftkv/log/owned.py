"""Which node a file belongs to: every durable file says so, and none is used before that was checked.

That a file lies in a node's directory does not make it that node's. People copy directories, restore the wrong backup,
and mistake one volume for another; the node would then believe another cluster's membership, or use another node's
vote. So each file names the data directory that it was written in, and `check_owner` compares that with what the vote
file says.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec
import xxhash

from raftkv.disk import Disk
from raftkv.errors import Corruption, FormatError, WrongDataDir
from raftkv.log.sealed import FORMAT_VERSION, seal, unseal
from raftkv.model import NodeId

T = TypeVar("T")


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """A data directory: its cluster and node, and its `incarnation`, a new one for each directory that is made.

    `cluster_id` is empty until a node that joins a cluster has met it, and stays empty in files from before.
    """

    cluster_id: str
    node_id: NodeId
    incarnation: str

    def describe(self) -> str:
        """For errors: what an operator can compare with `raftkv status` and `raftkv log inspect`."""
        cluster = f"the cluster {self.cluster_id}" if self.cluster_id else "no cluster yet"
        return f"node {self.node_id} of {cluster}, directory {self.incarnation}"

    def is_same(self, other: Identity) -> bool:
        """Whether both are the same directory. An empty cluster fits any: a node that joins has none at first."""
        if (self.node_id, self.incarnation) != (other.node_id, other.incarnation):
            return False
        return not self.cluster_id or not other.cluster_id or self.cluster_id == other.cluster_id


class Owned(msgspec.Struct, Generic[T], frozen=True):
    """A file's content and its owner."""

    owner: Identity
    value: T


def check_owner(path: str, found: Identity, own: Identity) -> None:
    """Raises `WrongDataDir` when the file at `path` was not written in this data directory."""
    if not found.is_same(own):
        raise WrongDataDir(
            f"{path} belongs to {found.describe()}, but this directory is that of {own.describe()}: the file was "
            "brought here from elsewhere, and nothing of it was used. Put this node's own back; if that is gone, "
            "remove this node from the cluster and add it under a new id."
        )


def save_owned(disk: Disk, path: str, magic: bytes, owner: Identity, value: object) -> None:
    """Replace a small file by `value` in its envelope; durable on return. Raises `DiskError`."""
    disk.write_atomic(path, seal(magic, msgspec.msgpack.encode((owner, value))))


def load_owned(disk: Disk, path: str, magic: bytes, kind: type[T]) -> Owned[T] | None:
    """What `save_owned` wrote; None when there is no such file. Raises `Corruption`, `FormatError`, `DiskError`."""
    return decode_owned(disk.read_bytes(path), path, magic, kind) if disk.exists(path) else None


def load_own(disk: Disk, path: str, magic: bytes, owner: Identity, kind: type[T]) -> T | None:
    """What `owner` has saved; None when there is no such file. Raises as `load_owned` and `check_owner` do."""
    found = load_owned(disk, path, magic, kind)
    if found is None:
        return None
    check_owner(path, found.owner, owner)
    return found.value


def decode_owned(data: bytes, path: str, magic: bytes, kind: type[T]) -> Owned[T]:
    """The content of a file that `save_owned` wrote. Raises `Corruption`, `FormatError`."""
    if len(data) > 8 and xxhash.xxh3_64_digest(data[8:]) == data[:8]:
        raise FormatError(
            f"{path} has format version 1, which did not say whose it is; this raftkv reads version {FORMAT_VERSION}: "
            "use the raftkv that wrote it, or add nodes of this version under new ids and remove the old ones"
        )
    try:
        owner, value = msgspec.msgpack.decode(unseal(magic, data, path), type=tuple[Identity, kind])  # type: ignore[valid-type]
    except msgspec.MsgspecError as exc:
        # The checksum holds, so this is no damage: another program wrote it.
        raise Corruption(f"{path} holds something that no version of raftkv writes ({exc})") from exc
    return Owned(owner, value)
