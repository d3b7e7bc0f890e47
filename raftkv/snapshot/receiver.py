"""The follower's end of a transfer, sans transport: messages in, replies out, files through `Staging`.

A node has one receiver, for one transfer at a time; an offer of another snapshot takes its place, and
makes use of the files that are there already. All methods that take a message do file work and are
called on the worker, in the order in which the messages came; the rest is cheap.

The caller checks the term before: a receiver takes every sender for the leader.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from raftkv import failpoints
from raftkv.errors import DiskError, DiskFull, FormatError, SnapshotCorruption
from raftkv.model import NodeId, SnapshotMeta, Term
from raftkv.snapshot.manifest import SealedManifest
from raftkv.snapshot.messages import (
    Refusal,
    SnapshotAck,
    SnapshotChunk,
    SnapshotDone,
    SnapshotNeed,
    SnapshotOffer,
    SnapshotPreparing,
    SnapshotRefused,
    SnapshotReply,
)
from raftkv.snapshot.staging import Staging
from raftkv.snapshot.store import SnapshotStore
from raftkv.snapshot.transfer import TransferProgress

PREPARE_BYTES = 128 << 20
"""How much one call of `prepare` examines: it takes some tenths of a second, and a sign of life follows it."""

BAD_FILES_MAX = 1
"""How often a file that came whole and wrong is asked for again: once, as a resumed part may have been torn."""

failpoints.declare(
    __name__,
    {
        "receive.offer": "another snapshot is offered",
        "receive.prepared": "what was here of an offered snapshot has been made use of",
        "receive.chunk.before_write": "a part of a snapshot is in memory only",
        "receive.chunk.after_write": "a part of a snapshot is written, and not durable",
    },
    raises=DiskError,
)


class ReceiverStep(msgspec.Struct, frozen=True):
    """The result of a call: replies to send, and the snapshot if it has arrived (published, durable)."""

    replies: tuple[SnapshotReply, ...] = ()
    snapshot: SnapshotMeta | None = None


class _Transfer:
    """The transfer under way: its sender, its round, and what has arrived."""

    def __init__(self, offer: SnapshotOffer, sealed: SealedManifest, staging: Staging, steps: Iterator[int]) -> None:
        self.sender: NodeId = offer.sender
        self.term: Term = offer.term
        self.attempt = offer.attempt
        self.sealed = sealed
        self.staging = staging
        self.preparing: Iterator[int] | None = steps
        self.examined_bytes = 0
        self.round = 0
        self.next_sequence = 0
        self.bad_files: dict[int, int] = {}


class SnapshotReceiver:
    """Receives one snapshot at a time into a store.

    `cluster_id` is "" for a node that has joined no cluster yet: it takes a snapshot of any. `reserve_bytes` is the
    free space that must be left once the snapshot is here, for the log.
    """

    def __init__(self, store: SnapshotStore, *, node_id: NodeId, cluster_id: str, reserve_bytes: int = 0) -> None:
        self.cluster_id = cluster_id
        self._store = store
        self._node_id = node_id
        self._reserve_bytes = reserve_bytes
        self._transfer: _Transfer | None = None
        self._watched: tuple[int, int, float] | None = None

    @property
    def is_preparing(self) -> bool:
        """Whether `prepare` is to be called (again). *Loop.*"""
        transfer = self._transfer
        return transfer is not None and transfer.preparing is not None

    @property
    def progress(self) -> TransferProgress | None:
        """Of the transfer under way; None when there is none. *Loop.*"""
        transfer = self._transfer
        if transfer is None:
            return None
        manifest = transfer.sealed.manifest
        return TransferProgress(
            index=manifest.snapshot.index,
            sent_bytes=transfer.staging.received_bytes,
            total_bytes=manifest.total_bytes,
            files_done=transfer.staging.complete_files,
            files=len(manifest.files),
        )

    def is_stalled(self, now: float, stall_s: float) -> bool:
        """Whether nothing has arrived for `stall_s`; if so, call `suspend`. Ask about once a second. *Loop.*"""
        transfer = self._transfer
        if transfer is None:
            self._watched = None
            return False
        count = transfer.staging.received_bytes + transfer.examined_bytes
        if self._watched is None or self._watched[:2] != (id(transfer), count):
            self._watched = (id(transfer), count, now)
        return now - self._watched[2] >= stall_s

    def on_offer(self, offer: SnapshotOffer) -> ReceiverStep:
        """A leader offers a snapshot. While `is_preparing` is true afterwards, call `prepare`. *Worker.*

        Raises `DiskError`.
        """
        try:
            sealed = SealedManifest.parse(offer.manifest, f"the manifest that node {offer.sender} sent")
        except SnapshotCorruption as exc:
            return self._refuse(offer.sender, offer.term, b"", Refusal.BAD_MANIFEST, str(exc))
        except FormatError as exc:
            return self._refuse(offer.sender, offer.term, b"", Refusal.FORMAT, str(exc))
        theirs = sealed.manifest.cluster_id
        if self.cluster_id and theirs != self.cluster_id:
            text = f"node {self._node_id} belongs to the cluster {self.cluster_id!r}, the snapshot to {theirs!r}"
            return self._refuse(offer.sender, offer.term, sealed.digest, Refusal.WRONG_CLUSTER, text)
        if (present := self._store.find(sealed.digest)) is not None:
            self.suspend()
            return ReceiverStep((self._done(offer.sender, offer.term, sealed.digest),), present)
        transfer = self._transfer
        if transfer is None or transfer.sealed.digest != sealed.digest:
            self.suspend()
            failpoints.reach("receive.offer")
            staging = self._store.stage(sealed)
            transfer = self._transfer = _Transfer(offer, sealed, staging, staging.prepare(self._store.sources()))
        transfer.sender, transfer.term, transfer.attempt = offer.sender, offer.term, offer.attempt
        if transfer.preparing is not None:
            return ReceiverStep((self._preparing(transfer),))
        return self._need_or_finish(transfer)

    def prepare(self) -> ReceiverStep:
        """Look further for what is here already; the first round begins when all was looked at. *Worker.*

        Raises `DiskError`.
        """
        transfer = self._transfer
        if transfer is None or transfer.preparing is None:
            return ReceiverStep()
        examined = 0
        try:
            for count in transfer.preparing:
                examined += count
                if examined >= PREPARE_BYTES:
                    transfer.examined_bytes += examined
                    return ReceiverStep((self._preparing(transfer),))
            transfer.preparing = None
            failpoints.reach("receive.prepared")
            self._store.drop_other_stagings()
        except DiskFull as exc:
            return self._give_up(transfer, Refusal.DISK_FULL, str(exc))
        manifest = transfer.sealed.manifest
        to_come = manifest.total_bytes - transfer.staging.received_bytes
        free = self._store.disk.free(self._store.directory).free_bytes
        if to_come and to_come + self._reserve_bytes > free:
            text = f"node {self._node_id} has {free >> 20} MiB of free disk, the snapshot needs {to_come >> 20} MiB"
            return self._give_up(transfer, Refusal.DISK_FULL, f"{text} and {self._reserve_bytes >> 20} MiB reserve")
        return self._need_or_finish(transfer)

    def on_chunk(self, chunk: SnapshotChunk) -> ReceiverStep:
        """Write what is new in a chunk. Durable only once a step has the snapshot. *Worker.*

        Raises `DiskError`.
        """
        transfer = self._transfer
        if transfer is None or transfer.preparing is not None or chunk.digest != transfer.sealed.digest:
            return ReceiverStep()  # of a transfer that is over or was interrupted; its sender offers again
        if chunk.checksum != chunk.compute_checksum() or not self._fits(transfer, chunk):
            return self._new_round(transfer)
        try:
            failpoints.reach("receive.chunk.before_write")
            spoiled = self._write(transfer, chunk)
            failpoints.reach("receive.chunk.after_write")
            if spoiled is not None:
                return self._spoiled(transfer, spoiled)
            if transfer.staging.complete_files == len(transfer.staging.files):
                return self._finish(transfer)
        except DiskFull as exc:
            return self._give_up(transfer, Refusal.DISK_FULL, str(exc))
        if chunk.round != transfer.round:
            return ReceiverStep()  # it is late, but its useful bytes are written
        if chunk.sequence > transfer.next_sequence:
            return self._new_round(transfer)  # a chunk is lost or overtaken: tell what is missing now
        if chunk.sequence == transfer.next_sequence:
            transfer.next_sequence += 1
        return ReceiverStep((self._ack(transfer),))

    def suspend(self) -> None:
        """End the transfer under way; its files stay, and the next offer resumes it. *Worker.*"""
        if self._transfer is not None:
            self._store.end_receiving(self._transfer.staging, remove=False)
            self._transfer = None

    def _fits(self, transfer: _Transfer, chunk: SnapshotChunk) -> bool:
        """Whether the chunk's pieces lie within the manifest's files and are as long as its data."""
        files = transfer.staging.files
        for number, offset, size in chunk.pieces:
            if not 0 <= number < len(files) or offset < 0 or size <= 0 or offset + size > files[number].size:
                return False
        return sum(size for _, _, size in chunk.pieces) == len(chunk.data)

    def _write(self, transfer: _Transfer, chunk: SnapshotChunk) -> int | None:
        """Write every piece that continues its file. Returns a file that is complete but wrong, if there is one."""
        staging = transfer.staging
        at = 0
        for number, offset, size in chunk.pieces:
            known = staging.position(number) - offset
            if not staging.is_complete(number) and 0 <= known < size:
                whole = known == 0 and size == len(chunk.data)
                piece = chunk.data if whole else chunk.data[at + known : at + size]
                if not staging.write(number, piece):
                    return number
            at += size
        return None

    def _spoiled(self, transfer: _Transfer, number: int) -> ReceiverStep:
        times = transfer.bad_files[number] = transfer.bad_files.get(number, 0) + 1
        if times <= BAD_FILES_MAX:
            return self._new_round(transfer)
        name = transfer.staging.files[number].name
        text = f"{name} arrived whole, {times} times, and is not what the manifest says: verify it at the sender"
        return self._give_up(transfer, Refusal.BAD_FILE, text)

    def _need_or_finish(self, transfer: _Transfer) -> ReceiverStep:
        if transfer.staging.complete_files < len(transfer.staging.files):
            return self._new_round(transfer)
        try:
            return self._finish(transfer)
        except DiskFull as exc:
            return self._give_up(transfer, Refusal.DISK_FULL, str(exc))

    def _new_round(self, transfer: _Transfer) -> ReceiverStep:
        transfer.round += 1
        transfer.next_sequence = 0
        need = SnapshotNeed(
            sender=self._node_id,
            to=transfer.sender,
            term=transfer.term,
            digest=transfer.sealed.digest,
            attempt=transfer.attempt,
            round=transfer.round,
            missing=transfer.staging.missing(),
        )
        return ReceiverStep((need,))

    def _finish(self, transfer: _Transfer) -> ReceiverStep:
        snapshot = self._store.publish_received(transfer.staging)
        self._transfer = None
        return ReceiverStep((self._done(transfer.sender, transfer.term, transfer.sealed.digest),), snapshot)

    def _give_up(self, transfer: _Transfer, reason: Refusal, text: str) -> ReceiverStep:
        """End the transfer and free its space."""
        self._transfer = None
        self._store.end_receiving(transfer.staging, remove=True)
        return self._refuse(transfer.sender, transfer.term, transfer.sealed.digest, reason, text)

    def _preparing(self, transfer: _Transfer) -> SnapshotPreparing:
        return SnapshotPreparing(
            sender=self._node_id,
            to=transfer.sender,
            term=transfer.term,
            digest=transfer.sealed.digest,
            examined_bytes=transfer.examined_bytes,
        )

    def _ack(self, transfer: _Transfer) -> SnapshotAck:
        return SnapshotAck(
            sender=self._node_id,
            to=transfer.sender,
            term=transfer.term,
            digest=transfer.sealed.digest,
            round=transfer.round,
            sequence=transfer.next_sequence - 1,
        )

    def _done(self, to: NodeId, term: Term, digest: bytes) -> SnapshotDone:
        return SnapshotDone(sender=self._node_id, to=to, term=term, digest=digest)

    def _refuse(self, to: NodeId, term: Term, digest: bytes, reason: Refusal, text: str) -> ReceiverStep:
        refused = SnapshotRefused(sender=self._node_id, to=to, term=term, digest=digest, reason=reason, text=text)
        return ReceiverStep((refused,))
