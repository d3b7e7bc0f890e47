"""Snapshots that are held for a time, so that whoever makes a backup of one can read it piece by piece."""

from __future__ import annotations

import asyncio

import msgspec

from raftkv import failpoints
from raftkv.errors import Busy, InvalidArgument, SnapshotCorruption, Unavailable, ViewExpired
from raftkv.node.body import Body
from raftkv.node.snapshots.taking import Taking
from raftkv.node.workers import error_of
from raftkv.snapshot import SealedManifest, SnapshotStore
from raftkv.snapshot.backup import pieces
from raftkv.snapshot.reader import ChunkReader

LOANS_MAX = 4
"""Snapshots held at once: each keeps files on the disk that would be removed otherwise. Any number may read one."""
LOAN_S = 60.0
"""A snapshot that nobody has read for so long is let go."""
READS_MAX = 32
"""Reads under way at once; each holds its bytes in memory until they are sent."""
READ_BYTES_MAX = 1 << 20
TRIES_MAX = 3

failpoints.declare(
    __name__,
    {
        "backup.before_read": "a part of a snapshot is about to be read for a backup",
    },
)


class Loan(msgspec.Struct):
    """One snapshot that is held."""

    sealed: SealedManifest
    reader: ChunkReader
    used_at: float
    lent: int = 1
    """To how many, one after the other or at once."""
    reads: int = 0
    """How many are under way."""
    read_bytes: int = 0

    @property
    def is_done(self) -> bool:
        """Whether it has been read as often as it was lent, so that nobody is expected to read on."""
        return not self.reads and self.read_bytes >= self.lent * self.sealed.manifest.total_bytes


class Lending:
    """Holds snapshots by the digests of their manifests. All methods are called on the loop's thread.

    Invariants: each loan has pinned its snapshot once; none ends while a read of it is under way.
    """

    def __init__(self, body: Body, store: SnapshotStore, taking: Taking) -> None:
        self._body = body
        self._store = store
        self._taking = taking
        self._loans: dict[bytes, Loan] = {}
        self._reads: set[asyncio.Future[bytes]] = set()
        self._closing: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._loans)

    def has(self, digest: bytes) -> bool:
        """Whether the snapshot with this digest is still here."""
        return self._store.find(digest) is not None

    async def lend(self, digest: bytes, newer_than_ms: int, index_min: int) -> SealedManifest:
        """Hold a snapshot from now on: the one with this digest, if it is still here, else one that is newer than
        `newer_than_ms` by its log time, else one that is taken now and has everything up to `index_min`.

        Raises `Busy` when too many are held; `Unavailable` and the like when none can be taken.
        """
        found = self._store.find(digest)
        newest = self._store.latest()
        if found is None and newest is not None and newest.time_ms >= newer_than_ms:
            found = newest
        for _ in range(TRIES_MAX if found is None else 0):
            # One that was under way already may have begun before that index.
            taken = await self._taking.take()
            newest = self._store.latest()
            if newest is not None and newest.index >= index_min:
                found = newest
                break
            if taken == 0:
                raise InvalidArgument("there is nothing to make a backup of: nothing was ever committed here")
        if found is None:
            raise Unavailable("the snapshots that this node takes are damaged at once: look at its log and its disk")
        sealed = self._store.manifest(found)
        loan = self._loans.get(sealed.digest)
        if loan is not None:
            loan.used_at = self._now()
            loan.lent += 1
            return sealed
        self.sweep()
        self._make_room()
        if len(self._loans) >= LOANS_MAX:
            raise Busy(f"{len(self._loans)} snapshots are held for backups already: wait until one is done")
        reader = ChunkReader(self._store.disk, self._store.path(found), sealed.manifest.files)
        self._loans[sealed.digest] = Loan(sealed=sealed, reader=reader, used_at=self._now())
        self._store.pin(found)
        return sealed

    async def read(self, digest: bytes, offset: int, size: int) -> bytes:
        """Read a part of a snapshot that is held. Raises `ViewExpired` when it is not held any more, `Busy`,
        `InvalidArgument` for a part that there is not."""
        loan = self._loans.get(digest)
        if loan is None or self._store.find(digest) is None:
            raise ViewExpired(
                f"this node does not hold that snapshot any more: nobody has read it for {LOAN_S:g} s, it was damaged, "
                "or the node was started anew. Begin the backup again"
            )
        if not (0 < size <= READ_BYTES_MAX and 0 <= offset <= loan.sealed.manifest.total_bytes - size):
            raise InvalidArgument(
                f"{size} bytes at {offset} of {loan.sealed.manifest.total_bytes}: ask for 1 to {READ_BYTES_MAX} of them"
            )
        if len(self._reads) >= READS_MAX:
            raise Busy(f"{len(self._reads)} reads for backups are under way already")
        failpoints.reach("backup.before_read")
        loan.reads += 1
        loan.used_at = self._now()
        future = self._body.world.transfer_worker.run(loan.reader.read, pieces(loan.sealed.manifest, offset, size))
        self._reads.add(future)
        future.add_done_callback(lambda done: self._have_read(loan, size, done))
        try:
            return await asyncio.shield(future)
        except SnapshotCorruption as exc:
            raise ViewExpired(f"that snapshot is damaged here: {exc}. Begin the backup again") from exc

    def _have_read(self, loan: Loan, size: int, future: asyncio.Future[bytes]) -> None:
        self._reads.discard(future)
        loan.reads -= 1
        loan.used_at = self._now()
        error = error_of(future)
        if error is None:
            loan.read_bytes += size
        if self._body.has_ended or error is None:
            return
        if not isinstance(error, SnapshotCorruption):
            self._body.fail(error)
        elif self._store.find(loan.sealed.digest) is not None:
            self._taking.damaged(loan.sealed.manifest.snapshot, error)

    def sweep(self) -> None:
        """Let go of the snapshots that nobody reads."""
        for digest, loan in list(self._loans.items()):
            if not loan.reads and self._now() - loan.used_at >= LOAN_S:
                self._end(digest)

    def _make_room(self) -> None:
        """If there are too many, let go of one that was read to its end.

        Else a few backups in a minute, each soon done, would have the next one wait for the end of that minute. Until
        then it stays, as who has read all of it may find that a part came wrong, and read that again.
        """
        done = next((digest for digest, loan in self._loans.items() if loan.is_done), None)
        if len(self._loans) >= LOANS_MAX and done is not None:
            self._end(done)

    def _end(self, digest: bytes) -> None:
        loan = self._loans.pop(digest)
        self._store.unpin(loan.sealed.manifest.snapshot)
        closed = self._body.world.transfer_worker.run(loan.reader.close)
        self._closing.add(closed)
        closed.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Wait for the reads that are under way, and let go of everything."""
        await asyncio.gather(*self._reads, return_exceptions=True)
        for digest in list(self._loans):
            self._end(digest)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
