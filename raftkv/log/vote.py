"""The vote file: who this node is, its term and vote, and how much of its log was durable.

The same slot is written twice, one copy after the other, each synced. So after a completed write
one damaged copy is harmless, whichever it is; were the copies used in turn, damage to the newer one
would look like a torn write, and the vote would silently go back to the older one.
"""

from __future__ import annotations

import posixpath

import msgspec

from raftkv import failpoints
from raftkv.disk import Disk, File
from raftkv.errors import Corruption, DiskError, SafetyViolation
from raftkv.log.owned import Identity
from raftkv.log.sealed import seal, unseal
from raftkv.logs import EventLog
from raftkv.model import HardState, Index

logger = EventLog(__name__)

_MAGIC = b"RKVvote\n"
_SLOT_BYTES = 4096  # a block for each copy, so that no torn write can reach both
_ADVICE = "Remove it from the cluster and add it again under a new id."

failpoints.declare(
    __name__,
    {
        "vote.before_write": "a new term or vote is known in memory only",
        "vote.between_copies": "one of the two copies of the vote is new",
        "vote.after_sync": "both copies of the vote are new and durable, and nobody was told",
    },
    raises=DiskError,
)


class _Slot(msgspec.Struct, frozen=True, array_like=True):
    generation: int
    identity: Identity
    boot: int
    hard_state: HardState
    durable_index: Index


class VoteSeen(msgspec.Struct, frozen=True):
    """What a vote file says, before the node believes it."""

    identity: Identity
    boot: int
    hard_state: HardState
    durable_index: Index


class VoteFile:
    """Term, vote and a lower bound of the durable log, on disk.

    Used by one thread at a time: the one that opens the node, then the disk worker.

    Invariants: the term never goes down, and a vote never changes within its term (§5.2);
    `durable_index` is never above what the log holds durably.
    """

    def __init__(self, file: File, path: str, slot: _Slot) -> None:
        self._file = file
        self._path = path
        self._slot = slot

    @classmethod
    def create(cls, disk: Disk, path: str, identity: Identity, hard_state: HardState) -> VoteFile:
        """Make the file; it and its name are durable on return. Raises `DiskError`."""
        slot = _Slot(generation=1, identity=identity, boot=0, hard_state=hard_state, durable_index=0)
        disk.write_atomic(path, _encode(slot) * 2)
        return cls(disk.open(path), path, slot)

    @classmethod
    def open(cls, disk: Disk, path: str) -> VoteFile:
        """Read the file, and mend one damaged copy from the other. Its content is durable on return.

        Raises `FileNotFoundError`, `Corruption` when both copies are damaged, `FormatError`, `DiskError`.
        """
        file = disk.open(path)
        try:
            newest, damaged = _newest(file, path)
            vote = cls(file, path, newest)
            # Written anew before this node tells anybody its vote. Damage to an only copy would take the vote back; and
            # what was read may be in memory alone, when the process that wrote it was killed before its sync, or the
            # sync failed.
            disk.sync_dir(posixpath.dirname(path) or ".")
            vote._store(vote._slot)
            if damaged is not None:
                logger.warning(
                    "vote_file_mended",
                    path=path,
                    copy=damaged + 1,
                    reason="one of the two copies was damaged, by the disk or by a crash in the middle of a write; "
                    "nothing is lost: the other one has what was told to anybody",
                )
        except BaseException:
            file.close()
            raise
        return vote

    @classmethod
    def look(cls, disk: Disk, path: str) -> VoteSeen | None:
        """Whose file it is, and how often that node was started; None when there is no file. Changes nothing.

        Raises as `open` does.
        """
        try:
            file = disk.open(path)
        except FileNotFoundError:
            return None
        try:
            slot, _ = _newest(file, path)
        finally:
            file.close()
        return VoteSeen(
            identity=slot.identity, boot=slot.boot, hard_state=slot.hard_state, durable_index=slot.durable_index
        )

    @property
    def identity(self) -> Identity:
        return self._slot.identity

    @property
    def boot(self) -> int:
        """How often this node was started."""
        return self._slot.boot

    @property
    def hard_state(self) -> HardState:
        return self._slot.hard_state

    @property
    def durable_index(self) -> Index:
        """The log's entries up to here were durable when this was written; there may be more."""
        return self._slot.durable_index

    def write(self, hard_state: HardState, durable_index: Index) -> None:
        """Replace both; durable on return. Raises `DiskError`; `SafetyViolation` if term or vote would go back."""
        old = self._slot.hard_state
        if hard_state.term < old.term or (
            hard_state.term == old.term and old.vote is not None and hard_state.vote != old.vote
        ):
            raise SafetyViolation(f"the vote would go back from {old} to {hard_state}")
        self._change(msgspec.structs.replace(self._slot, hard_state=hard_state, durable_index=durable_index))

    def join(self, cluster_id: str) -> None:
        """Note the cluster of a node that was in none so far; durable on return. Raises `DiskError`."""
        identity = self._slot.identity
        if identity.cluster_id not in ("", cluster_id):
            raise SafetyViolation(f"{self._path} is of the cluster {identity.cluster_id}, it can't join {cluster_id}")
        if identity.cluster_id != cluster_id:
            self._change(
                msgspec.structs.replace(self._slot, identity=msgspec.structs.replace(identity, cluster_id=cluster_id))
            )

    def new_boot(self) -> int:
        """Count a start of this node; durable on return. Raises `DiskError`."""
        self._change(msgspec.structs.replace(self._slot, boot=self._slot.boot + 1))
        return self._slot.boot

    def close(self) -> None:
        """Close the file; everything in it is durable."""
        self._file.close()

    def _change(self, slot: _Slot) -> None:
        slot = msgspec.structs.replace(slot, generation=slot.generation + 1)
        self._store(slot)
        self._slot = slot

    def _store(self, slot: _Slot) -> None:
        data = _encode(slot)
        failpoints.reach("vote.before_write")
        self._file.pwrite([data], 0, sync=True)
        failpoints.reach("vote.between_copies")
        self._file.pwrite([data], _SLOT_BYTES, sync=True)
        failpoints.reach("vote.after_sync")


def _newest(file: File, path: str) -> tuple[_Slot, int | None]:
    """The newer copy, and the number of the damaged one, if one is."""
    data = file.pread(2 * _SLOT_BYTES, 0)
    copies = [_decode(data[at : at + _SLOT_BYTES], path) for at in (0, _SLOT_BYTES)]
    found = [copy for copy in copies if copy is not None]
    if not found:
        raise Corruption(
            f"both copies in {path} are damaged, so this node no longer knows for whom it voted. {_ADVICE}"
        )
    return max(found, key=lambda slot: slot.generation), copies.index(None) if None in copies else None


def _encode(slot: _Slot) -> bytes:
    body = msgspec.msgpack.encode(slot)
    data = seal(_MAGIC, body)
    assert len(data) <= _SLOT_BYTES, f"a vote of {len(body)} bytes does not fit its slot"
    return data.ljust(_SLOT_BYTES, b"\0")


def _decode(data: bytes, path: str) -> _Slot | None:
    """The slot in a copy, None when the copy is damaged."""
    try:
        return msgspec.msgpack.decode(unseal(_MAGIC, data, path), type=_Slot)
    except Corruption:
        return None
    except msgspec.DecodeError as exc:
        # Its checksum holds, so this is no damage: somebody else wrote it.
        raise Corruption(f"{path} holds something that no version of raftkv writes ({exc}). {_ADVICE}") from exc
