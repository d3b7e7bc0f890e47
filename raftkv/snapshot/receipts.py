"""Which snapshots are this node's: a record, beside the vote file, of those that it took or received itself.

A snapshot holds a state and a membership that no entry of the log repeats: a node that believed one that was merely
copied into its directory might lead a cluster that does not exist. So a snapshot counts only with a receipt, which is
durable before the snapshot gets its name.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import Corruption, DiskError
from raftkv.log import Identity, load_own, save_owned

_MAGIC = b"RKVrcpt\n"

failpoints.declare(
    __name__,
    {
        "receipts.before_save": "a snapshot is durable, and has no receipt",
        "receipts.after_save": "a snapshot has a receipt, and no name",
    },
    raises=DiskError,
)


class _Body(msgspec.Struct, frozen=True, array_like=True):
    accepted: tuple[bytes, ...]
    arrived: bytes | None


class Receipts:
    """Digests of the manifests that count. Methods that change them are durable on return, and for the *worker*.

    `arrived` is the snapshot that came from a leader and may not be installed yet: only it may be ahead of the log.
    """

    def __init__(self, disk: Disk, path: str, owner: Identity, body: _Body | None) -> None:
        self.is_missing = body is None
        """There was no record, so the node believes a snapshot only if the log confirms it."""
        self._disk = disk
        self._path = path
        self._owner = owner
        self._body = body if body is not None else _Body((), None)

    @classmethod
    def open(cls, disk: Disk, path: str, owner: Identity) -> Receipts:
        """Read the record. Raises `Corruption`, `WrongDataDir`, `FormatError`, `DiskError`."""
        try:
            return cls(disk, path, owner, load_own(disk, path, _MAGIC, owner, _Body))
        except Corruption as exc:
            raise Corruption(
                f"{exc}: remove the file, then snapshots count as far as the log confirms them, and it is written anew"
            ) from exc

    @property
    def arrived(self) -> bytes | None:
        return self._body.arrived

    def has(self, digest: bytes) -> bool:
        """Whether the snapshot with this manifest is this node's. *Loop.*"""
        return digest in self._body.accepted

    def accept(self, digest: bytes, *, from_leader: bool) -> None:
        """Count a snapshot from now on; called before it gets its name. Raises `DiskError`."""
        accepted = self._body.accepted if self.has(digest) else (*self._body.accepted, digest)
        failpoints.reach("receipts.before_save")
        self._save(_Body(accepted, digest if from_leader else self._body.arrived))
        failpoints.reach("receipts.after_save")

    def settle(self) -> None:
        """The snapshot that arrived is installed, or of no use: from now on it may not be ahead of the log."""
        if self._body.arrived is not None:
            self._save(_Body(self._body.accepted, None))

    def keep(self, digests: Iterable[bytes]) -> None:
        """Forget the receipts of all other snapshots."""
        kept = set(digests)
        accepted = tuple(digest for digest in self._body.accepted if digest in kept)
        if accepted != self._body.accepted:
            self._save(_Body(accepted, self._body.arrived if self._body.arrived in kept else None))

    def begin(self) -> None:
        """Write the record of a node that has none."""
        self._save(self._body)
        self.is_missing = False

    def _save(self, body: _Body) -> None:
        save_owned(self._disk, self._path, _MAGIC, self._owner, body)
        self._body = body
