"""Snapshots lent to whoever makes a backup: which one, how many, how long, and what becomes of a read."""

from __future__ import annotations

import asyncio

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.errors import Busy, DiskError, InvalidArgument, Unavailable, ViewExpired
from raftkv.node.snapshots.lending import LOAN_S, LOANS_MAX, READ_BYTES_MAX, READS_MAX, TRIES_MAX, Lending
from raftkv.testing.world.loop import elapse
from tests.node.parts import Body, tell
from tests.snapshot.worlds import contents, meta, open_store, publish, read_files


class Lender:
    """A node with these snapshots; when it is told to take one, the next index of `takes` is what it comes to."""

    def __init__(self, *indexes, takes=(), eager=True):
        self.disk = SimDisk()
        self.store = open_store(self.disk, "/s")
        self.body = Body({"node_id": 1})
        self.worker = self.body.world.transfer_worker
        self.worker.eager = eager
        self.takes, self.rotten = list(takes), []
        for index in indexes:
            self._publish(index)
        self.lending = Lending(self.body, self.store, self)

    def _publish(self, index):
        publish(self.store, meta(index), contents(index, (10, 1_000, 3_000)))

    async def take(self):
        """Take a snapshot, or none where nothing was ever applied."""
        index = self.takes.pop(0)
        if index:
            self._publish(index)
        return index

    def damaged(self, snapshot, error):
        """Note that a snapshot proved damaged."""
        self.rotten.append(snapshot.index)
        self.store.mark_damaged(snapshot, str(error))

    async def lend(self, *, digest=b"", newer_than_ms=1 << 60, index_min=0):
        """Lend one; a new one, but for what is said."""
        return await self.lending.lend(digest, newer_than_ms, index_min)

    def held(self):
        """The snapshots that stay, however old: all others go but for the newest."""
        self.store.prune(self.store.retire(1))
        return [each.index for each in self.store.list()]


def index_of(sealed):
    """Of the snapshot that was lent."""
    return sealed.manifest.snapshot.index


def test_the_snapshot_that_is_asked_for_by_its_digest_is_lent():
    """An older one too, without a new one being taken: a backup that was cut off goes on."""

    async def story():
        lender = Lender(10, 20)
        sealed = lender.store.manifest(meta(10))
        assert await lender.lend(digest=sealed.digest) == sealed
        assert lender.held() == [10, 20] and len(lender.lending) == 1

    tell(story)


def test_the_newest_will_do_up_to_the_time_that_is_said():
    """To the millisecond; for one that is not there any more as well. An older one is not lent, but a new one taken."""

    async def story():
        lender = Lender(10, 20, takes=[30])
        at = meta(20).time_ms
        assert index_of(await lender.lend(newer_than_ms=at)) == 20
        assert index_of(await lender.lend(digest=b"gone", newer_than_ms=at)) == 20
        assert index_of(await lender.lend(newer_than_ms=at + 1)) == 30

    tell(story)


def test_a_snapshot_that_was_begun_too_early_is_followed_by_another():
    """As one that was under way may be; the first that has everything is lent, also if it ends with just that."""

    async def story():
        lender = Lender(takes=[10, 20, 30])
        assert index_of(await lender.lend(index_min=20)) == 20
        assert lender.takes == [30]

    tell(story)


def test_who_never_gets_a_snapshot_is_told_after_some_tries():
    """Each was damaged at once, or too early: that is for the operator to look at."""

    async def story():
        lender = Lender(takes=[10] * TRIES_MAX)
        with pytest.raises(Unavailable, match="look at its log and its disk"):
            await lender.lend(index_min=11)
        assert lender.takes == [] and len(lender.lending) == 0

    tell(story)


def test_of_nothing_there_is_no_backup():
    """Said at once, and not tried again."""

    async def story():
        lender = Lender(takes=[0, 10])
        with pytest.raises(InvalidArgument, match="nothing to make a backup of"):
            await lender.lend(index_min=1)
        assert lender.takes == [10]

    tell(story)


def test_any_number_may_have_the_same_loan_and_so_many_snapshots_are_held():
    """One more is refused until one of them was let go, which happens by itself."""

    async def story():
        indexes = [10 * each for each in range(1, LOANS_MAX + 2)]
        lender = Lender(*indexes)
        digests = [lender.store.manifest(meta(index)).digest for index in indexes]
        for digest in digests[:-1]:
            await lender.lend(digest=digest)
        await elapse(LOAN_S / 2)
        for digest in digests[1:-1]:
            await lender.lend(digest=digest)
        assert len(lender.lending) == LOANS_MAX
        with pytest.raises(Busy, match=f"^{LOANS_MAX} snapshots are held"):
            await lender.lend(digest=digests[-1])
        await elapse(LOAN_S / 2)
        await lender.lend(digest=digests[-1])
        assert len(lender.lending) == LOANS_MAX and lender.held() == indexes[1:]

    tell(story)


def test_one_that_was_read_to_its_end_makes_room():
    """To the last byte, and by everybody who has it; the others stay."""

    async def story():
        indexes = [10 * each for each in range(1, LOANS_MAX + 2)]
        lender = Lender(*indexes)
        digests = [lender.store.manifest(meta(index)).digest for index in indexes]
        for digest in digests[:-1]:
            await lender.lend(digest=digest)
        total = lender.store.manifest(meta(20)).manifest.total_bytes
        await lender.lending.read(digests[1], 0, total - 1)
        with pytest.raises(Busy):
            await lender.lend(digest=digests[-1])
        await lender.lend(digest=digests[1])
        await lender.lending.read(digests[1], total - 1, 1)
        with pytest.raises(Busy):
            await lender.lend(digest=digests[-1])
        await lender.lending.read(digests[1], 0, total)
        await lender.lend(digest=digests[-1])
        assert len(lender.lending) == LOANS_MAX and lender.held() == [10, *indexes[2:]]

    tell(story)


def test_one_that_is_read_again_makes_no_room():
    """Until that is over."""

    async def story():
        indexes = [10 * each for each in range(1, LOANS_MAX + 2)]
        lender = Lender(*indexes, eager=False)
        digests = [lender.store.manifest(meta(index)).digest for index in indexes]
        for digest in digests[:-1]:
            await lender.lend(digest=digest)
        for size in (lender.store.manifest(meta(10)).manifest.total_bytes, 5):
            read = asyncio.ensure_future(lender.lending.read(digests[0], 0, size))
            await elapse(0)
            with pytest.raises(Busy):
                await lender.lend(digest=digests[-1])
            await lender.worker.work_off()
            assert len(await read) == size
        await lender.lend(digest=digests[-1])

    tell(story)


def test_a_loan_ends_when_nobody_has_read_for_so_long():
    """Counted from the last read's end; the snapshot may go then, and its file is closed."""

    async def story():
        lender = Lender(10, 20)
        digest = (await lender.lend(digest=lender.store.manifest(meta(10)).digest)).digest
        await elapse(LOAN_S - 1)
        assert len(await lender.lending.read(digest, 0, 5)) == 5
        await elapse(LOAN_S - 1)
        lender.lending.sweep()
        assert lender.held() == [10, 20] and lender.disk.open_files()
        await elapse(1)
        lender.lending.sweep()
        await elapse(0)
        assert lender.held() == [20] and lender.disk.open_files() == [] and len(lender.lending) == 0
        with pytest.raises(ViewExpired, match="does not hold that snapshot any more"):
            await lender.lending.read(digest, 0, 5)

    tell(story)


def test_a_loan_does_not_end_under_a_read():
    """However long the disk takes; the time begins anew when it is done."""

    async def story():
        lender = Lender(10, eager=False)
        digest = (await lender.lend(newer_than_ms=0)).digest
        read = asyncio.ensure_future(lender.lending.read(digest, 0, 5))
        await elapse(2 * LOAN_S)
        lender.lending.sweep()
        assert len(lender.lending) == 1
        await lender.worker.work_off()
        assert len(await read) == 5
        lender.lending.sweep()
        assert len(lender.lending) == 1, "the read has just ended"
        await elapse(LOAN_S)
        lender.lending.sweep()
        assert len(lender.lending) == 0

    tell(story)


def test_what_is_read_is_the_files_one_behind_the_other():
    """To the last byte, and not one further; a read has a size."""

    async def story():
        lender = Lender(10)
        sealed = await lender.lend(newer_than_ms=0)
        total = sealed.manifest.total_bytes
        files = read_files(lender.store, meta(10))
        data = b"".join(files[each.name] for each in sealed.manifest.files)
        assert await lender.lending.read(sealed.digest, 0, total) == data
        assert await lender.lending.read(sealed.digest, total - 1, 1) == data[-1:]
        for offset, size in ((0, 0), (-1, 1), (total, 1), (1, total), (0, READ_BYTES_MAX + 1)):
            with pytest.raises(InvalidArgument, match=f"{size} bytes at {offset} of {total}"):
                await lender.lending.read(sealed.digest, offset, size)

    tell(story)


def test_reads_at_once_are_bounded():
    """Each holds its bytes in memory; when one is done, there is room for another."""

    async def story():
        lender = Lender(10, eager=False)
        digest = (await lender.lend(newer_than_ms=0)).digest
        reads = [asyncio.ensure_future(lender.lending.read(digest, 0, 5)) for _ in range(READS_MAX)]
        await elapse(0)
        with pytest.raises(Busy, match=f"^{READS_MAX} reads"):
            await lender.lending.read(digest, 0, 5)
        lender.worker.work()
        await elapse(0)
        reads.append(asyncio.ensure_future(lender.lending.read(digest, 0, 5)))
        await elapse(0)
        await lender.worker.work_off()
        assert [len(each) for each in await asyncio.gather(*reads)] == [5] * (READS_MAX + 1)

    tell(story)


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_snapshot_that_is_read_damaged_is_told_of_once(has_ended):
    """All readers begin again, and the node uses it no more; one that has ended does nothing about it."""

    async def story():
        lender = Lender(10, eager=False)
        sealed = await lender.lend(newer_than_ms=0)
        for each in sealed.manifest.files:
            lender.disk.cut_short(f"{lender.store.path(meta(10))}/{each.name}", 0)
        lender.body.has_ended = has_ended
        reads = [asyncio.ensure_future(lender.lending.read(sealed.digest, 0, 5)) for _ in range(2)]
        await elapse(0)
        await lender.worker.work_off()
        for each in reads:
            with pytest.raises(ViewExpired, match="is damaged here"):
                await each
        assert lender.rotten == ([] if has_ended else [10]) and lender.body.failures == []
        if not has_ended:
            with pytest.raises(ViewExpired, match="it was damaged"):
                await lender.lending.read(sealed.digest, 0, 5)

    tell(story)


def test_a_disk_that_fails_under_a_read_stops_the_node():
    """Whoever reads is told the same; so it is when the reader has gone."""

    async def story():
        lender = Lender(10, eager=False)
        digest = (await lender.lend(newer_than_ms=0)).digest
        reads = [asyncio.ensure_future(lender.lending.read(digest, 0, 5)) for _ in range(2)]
        await elapse(0)

        def fault(kind, path):
            raise DiskError("the disk is gone")

        lender.disk.read_fault = fault
        reads[1].cancel()
        await lender.worker.work_off()
        with pytest.raises(DiskError, match="the disk is gone"):
            await reads[0]
        assert len(lender.body.failures) == 2 and lender.rotten == []

    tell(story)


def test_a_node_that_stops_waits_for_reads_and_lets_everything_go():
    """Whoever reads gets it yet; then every file is closed, and nothing is held."""

    async def story():
        lender = Lender(10, 20, eager=False)
        digest = (await lender.lend(digest=lender.store.manifest(meta(10)).digest)).digest
        read = asyncio.ensure_future(lender.lending.read(digest, 0, 5))
        await elapse(0)
        closing = asyncio.ensure_future(lender.lending.close())
        await elapse(0)
        assert len(lender.lending) == 1 and not closing.done()
        lender.worker.work()
        await elapse(1)
        assert len(lender.lending) == 0 and not closing.done(), "its file is not closed yet"
        await lender.worker.work_off()
        await closing
        assert len(await read) == 5 and lender.held() == [20] and lender.disk.open_files() == []

    tell(story)


def test_a_read_that_fails_while_the_node_stops_holds_nothing_up():
    """The others are waited for all the same, and everything is let go."""

    async def story():
        lender = Lender(10, eager=False)
        sealed = await lender.lend(newer_than_ms=0)
        for each in sealed.manifest.files:
            lender.disk.cut_short(f"{lender.store.path(meta(10))}/{each.name}", 0)
        read = asyncio.ensure_future(lender.lending.read(sealed.digest, 0, 5))
        await elapse(0)
        closing = asyncio.ensure_future(lender.lending.close())
        await elapse(0)
        lender.worker.work()
        await elapse(1)
        await lender.worker.work_off()
        await closing
        assert len(lender.lending) == 0
        with pytest.raises(ViewExpired, match="is damaged here"):
            await read

    tell(story)


def test_the_failpoint_stands_before_the_read(monkeypatch):
    """Nothing was handed to the worker by then."""

    async def story():
        lender, passed = Lender(10, eager=False), []
        digest = (await lender.lend(newer_than_ms=0)).digest
        monkeypatch.setattr(failpoints, "reach", lambda name: passed.append((name, len(lender.worker.queue))))
        read = asyncio.ensure_future(lender.lending.read(digest, 0, 5))
        await elapse(0)
        assert passed == [("backup.before_read", 0)] and len(lender.worker.queue) == 1
        await lender.worker.work_off()
        await read

    tell(story)
