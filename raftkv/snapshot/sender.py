"""The leader's end of a transfer, sans IO: what to send next, given the answers and the time.

A transfer does not run for ever without progress: it ends by `SnapshotDone`, by `SnapshotRefused`, or when the
receiver has taken no new byte for `stall_s`. A transfer that makes progress is never given up, however long it takes.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import assert_never

import msgspec

from raftkv.model import NodeId, SnapshotMeta, Term
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
from raftkv.snapshot.reader import ChunkReader
from raftkv.snapshot.store import SnapshotStore
from raftkv.snapshot.throttle import Throttle
from raftkv.snapshot.transfer import TransferProgress, TransferSettings

CHUNK_BYTES_MIN = 16 << 10
CHUNK_BYTES_FIRST = 64 << 10
"""The first chunk of a transfer: small enough that a line of 256 kbit/s answers in two seconds."""

QUICK_S, SLOW_S = 0.25, 1.0
"""Answers that come faster than the first double the size of chunks, those slower than the second halve it. So
there is a sign of life about every second on any line, and slow lines are not given up for lack of progress."""


class SenderStage(Enum):
    """Where a transfer is."""

    OFFERING = "offering"
    """The offer is repeated until it is answered, and again when answers stop coming."""
    SENDING = "sending"
    """Chunks of the current round go out; when all are acknowledged, the sender waits for `SnapshotDone`."""
    DONE = "done"
    """The receiver has it, durably."""
    FAILED = "failed"
    """Refused, stalled, or the snapshot here is damaged; see `failure`. A late `SnapshotDone` still counts."""


class ChunkPlan(msgspec.Struct, frozen=True):
    """Which bytes the next chunk carries, as (file, offset, size). `begin` is where the queue was before."""

    round: int
    sequence: int
    pieces: list[tuple[int, int, int]]
    size: int
    begin: tuple[int, int]


class SnapshotSender:
    """One snapshot on its way to one peer, in one term.

    All methods are cheap and belong to the loop's thread, except `read`, which does file work on the
    worker. The snapshot is pinned from construction until `close`.

    Invariants: at most `window_chunks` chunks are unacknowledged; `_in_flight` holds the chunks of the
    current round, in order; what is queued, in flight and acknowledged in a round is just what its
    `SnapshotNeed` asked for.
    """

    def __init__(
        self,
        store: SnapshotStore,
        snapshot: SnapshotMeta,
        *,
        node_id: NodeId,
        to: NodeId,
        term: Term,
        settings: TransferSettings,
        now: float,
    ) -> None:
        """Pin the snapshot. Raises `SnapshotCorruption` when it is not in the store (any more)."""
        self.snapshot = snapshot
        self.to = to
        self.term = term
        self.stage = SenderStage.OFFERING
        self.failure: str | None = None
        self.refusal: Refusal | None = None
        self._sealed = store.manifest(snapshot)
        self._files = self._sealed.manifest.files
        self._total = self._sealed.manifest.total_bytes
        self._node_id = node_id
        self._settings = settings
        self._store = store
        self._reader = ChunkReader(store.disk, store.path(snapshot), self._files)
        self._throttle = Throttle(settings.rate_bytes_s, now)
        self._closed = False
        # The round that the receiver asked for.
        self._round = 0
        self._answered_attempt = 0
        self._missing: list[tuple[int, int]] = []
        self._cursor = (0, 0)
        self._sequence = 0
        self._in_flight: deque[ChunkPlan] = deque()
        self._left_bytes = self._total
        self._chunk_max = settings.chunk_bytes
        if settings.rate_bytes_s:
            self._chunk_max = min(self._chunk_max, max(4096, settings.rate_bytes_s // 2))
        self._chunk_bytes = min(CHUNK_BYTES_FIRST, self._chunk_max)
        # Time.
        self._attempt = 0
        self._offer_at = now
        self._active_at = now
        self._acked_at = now
        self._progress_at = now
        self._hold_until = now
        self._least_left = self._total + 1
        self._examined = -1
        store.pin(snapshot)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do but `close` (or to wait for a late success)."""
        return self.stage in (SenderStage.DONE, SenderStage.FAILED)

    @property
    def progress(self) -> TransferProgress:
        """By what the receiver has acknowledged."""
        left_files = len(self._missing) - self._cursor[0] if self._answered_attempt else len(self._files)
        return TransferProgress(
            index=self.snapshot.index,
            sent_bytes=self._total - self._left_bytes,
            total_bytes=self._total,
            files_done=len(self._files) - left_files,
            files=len(self._files),
        )

    def close(self) -> None:
        """Unpin the snapshot; call it when no `read` is under way. May be called twice."""
        if not self._closed:
            self._closed = True
            self._reader.close()
            self._store.unpin(self.snapshot)

    def poll(self, now: float) -> SnapshotOffer | ChunkPlan | None:
        """What to send next: an offer as it is, or a plan that `read` makes a chunk of. None: nothing before `wake_at`.

        Call it again until it is None, after every reply, and at `wake_at`.
        """
        if self.is_over:
            return None
        if now >= self._progress_at + self._settings.stall_s:
            self.fail(f"node {self.to} took nothing of the snapshot for {self._settings.stall_s:g} s")
            return None
        if self.stage is SenderStage.SENDING and now >= self._active_at + self._settings.retry_s:
            # Everything under way may be lost, even a `SnapshotDone`. The answer to an offer will tell.
            self.stage = SenderStage.OFFERING
            self._offer_at = now
        if self.stage is SenderStage.OFFERING:
            return self._offer(now) if now >= self._offer_at else None
        if now < self._hold_until or self._throttle.delay(now) > 0:
            return None
        return self._plan(now)

    def wake_at(self, now: float) -> float | None:
        """When to `poll` again if nothing arrives before; None when it is over."""
        if self.is_over:
            return None
        times = [self._progress_at + self._settings.stall_s]
        if self.stage is SenderStage.OFFERING:
            times.append(self._offer_at)
        else:
            times.append(self._active_at + self._settings.retry_s)
            if self._has_room():
                times.append(max(self._hold_until, now + self._throttle.delay(now)))
        return min(times)

    def _offer(self, now: float) -> SnapshotOffer:
        self._attempt += 1
        self._offer_at = now + self._settings.retry_s
        return SnapshotOffer(
            sender=self._node_id, to=self.to, term=self.term, attempt=self._attempt, manifest=self._sealed.data
        )

    def _has_room(self) -> bool:
        return self._cursor[0] < len(self._missing) and len(self._in_flight) < self._settings.window_chunks

    def _plan(self, now: float) -> ChunkPlan | None:
        """Take the next bytes off the queue: of one file, or of several when they are small."""
        if not self._has_room():
            return None
        begin = at, offset = self._cursor
        pieces: list[tuple[int, int, int]] = []
        room = self._chunk_bytes
        while room and at < len(self._missing):
            number, first = self._missing[at]
            start = max(offset, first)
            size = min(room, self._files[number].size - start)
            pieces.append((number, start, size))
            room -= size
            offset = start + size
            if offset == self._files[number].size:
                at, offset = at + 1, 0
        self._cursor = (at, offset)
        plan = ChunkPlan(self._round, self._sequence, pieces, self._chunk_bytes - room, begin)
        if not self._in_flight:
            self._acked_at = now
        self._sequence += 1
        self._in_flight.append(plan)
        self._throttle.take(plan.size)
        self._active_at = now
        return plan

    def read(self, plan: ChunkPlan) -> SnapshotChunk:
        """The chunk of a plan. *Worker*; one call at a time, in the order of the plans.

        Raises `SnapshotCorruption` when the snapshot here is not whole: then call `fail`, and mark it damaged.
        """
        data = self._reader.read(plan.pieces)
        chunk = SnapshotChunk(
            sender=self._node_id,
            to=self.to,
            term=self.term,
            digest=self._sealed.digest,
            round=plan.round,
            sequence=plan.sequence,
            pieces=plan.pieces,
            checksum=0,
            data=data,
        )
        chunk.checksum = chunk.compute_checksum()
        return chunk

    def not_sent(self, plan: ChunkPlan, now: float) -> None:
        """The transport did not take the newest chunk: put its bytes back into the queue, and wait a moment."""
        self._hold_until = now + min(0.05, self._settings.retry_s)
        if self._in_flight and self._in_flight[-1] is plan:
            self._in_flight.pop()
            self._cursor = plan.begin
            self._sequence = plan.sequence
            self._throttle.take(-plan.size)

    def fail(self, reason: str) -> None:
        """Give up, unless it is done; a `SnapshotDone` that comes later still counts."""
        if not self.is_over:
            self.stage = SenderStage.FAILED
            self.failure = reason

    def step(self, reply: SnapshotReply, now: float) -> None:
        """Take in an answer; those to another transfer or of another term change nothing."""
        if reply.sender != self.to or reply.term != self.term:
            return
        if reply.digest != self._sealed.digest and not (isinstance(reply, SnapshotRefused) and not reply.digest):
            return
        if isinstance(reply, SnapshotDone):
            self.stage = SenderStage.DONE
            self.failure = None
            self._left_bytes = 0
            self._cursor = (len(self._missing), 0)
            return
        if self.is_over:
            return
        self._active_at = now
        match reply:
            case SnapshotPreparing():
                if reply.examined_bytes > self._examined:
                    self._examined = reply.examined_bytes
                    self._progress_at = now
            case SnapshotNeed():
                self._on_need(reply, now)
            case SnapshotAck():
                self._on_ack(reply, now)
            case SnapshotRefused():
                self.refusal = reply.reason
                self.fail(f"node {self.to} refused the snapshot: {reply.text}")
            case _:
                assert_never(reply)

    def _on_need(self, need: SnapshotNeed, now: float) -> None:
        """Begin a round, unless the answer is to an older offer, or a newer answer has overtaken it."""
        if need.attempt != self._attempt or (need.attempt == self._answered_attempt and need.round <= self._round):
            return
        if not self._are_valid(need.missing):
            self.fail(f"node {self.to} asks for files or bytes that the snapshot does not have")
            return
        self._answered_attempt = need.attempt
        self._round = need.round
        self._missing = need.missing
        self._cursor = (0, 0)
        self._sequence = 0
        self._in_flight.clear()
        self._left_bytes = sum(self._files[number].size - first for number, first in need.missing)
        self._note_progress(now)
        self.stage = SenderStage.SENDING

    def _are_valid(self, missing: list[tuple[int, int]]) -> bool:
        return all(
            0 <= number < len(self._files) and 0 <= first < self._files[number].size for number, first in missing
        )

    def _on_ack(self, ack: SnapshotAck, now: float) -> None:
        if ack.round != self._round or not self._in_flight or ack.sequence < self._in_flight[0].sequence:
            return
        while self._in_flight and self._in_flight[0].sequence <= ack.sequence:
            self._left_bytes -= self._in_flight.popleft().size
        self._adapt(now - self._acked_at)
        self._acked_at = now
        self._note_progress(now)
        self.stage = SenderStage.SENDING

    def _adapt(self, waited_s: float) -> None:
        if waited_s < QUICK_S:
            self._chunk_bytes = min(self._chunk_bytes * 2, self._chunk_max)
        elif waited_s > SLOW_S:
            self._chunk_bytes = min(max(self._chunk_bytes // 2, CHUNK_BYTES_MIN), self._chunk_max)

    def _note_progress(self, now: float) -> None:
        """It is progress only when less is left to send than ever before: going in circles is none."""
        if self._left_bytes < self._least_left:
            self._least_left = self._left_bytes
            self._progress_at = now
