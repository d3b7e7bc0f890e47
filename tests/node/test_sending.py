"""The leader's transfers of snapshots: how many at once, what the core is told of each, and what becomes of trouble."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.errors import DiskError
from raftkv.node.snapshots.sending import Sending
from raftkv.snapshot import Refusal, SnapshotChunk, SnapshotDone, SnapshotNeed, SnapshotOffer, SnapshotRefused
from raftkv.testing.world.loop import elapse
from tests.node.parts import Body, tell
from tests.snapshot.worlds import contents, meta, open_store, publish

OLD, NEW = meta(10), meta(20)


class Leader:
    """Node 1 in term 1, with two snapshots, and what it says to its peers."""

    def __init__(self, **config):
        self.disk = SimDisk()
        self.store = open_store(self.disk, "/s")
        for snapshot in (OLD, NEW):
            publish(self.store, snapshot, contents(snapshot.index))
        self.reports, self.damaged = [], []
        raft = {"node_id": 1, "term": 1, "snapshot_sent": lambda to, ok: self.reports.append((to, ok))}
        self.body = Body(raft, **config)
        self.sending = Sending(self.body, self.store, on_damaged=self.mark)

    def mark(self, snapshot, error):
        """As the node does."""
        self.damaged.append(snapshot)
        self.store.mark_damaged(snapshot, str(error))

    def digest(self, snapshot=NEW):
        """What a reply names the snapshot by."""
        return self.store.manifest(snapshot).digest

    def need(self, peer, attempt=1, number=1, snapshot=NEW):
        """The peer asks for the large file."""
        self.sending.on_reply(SnapshotNeed(peer, 1, 1, self.digest(snapshot), attempt, number, [(1, 0)]))

    def refuse(self, peer, reason, snapshot=NEW):
        """The peer does not want it."""
        self.sending.on_reply(SnapshotRefused(peer, 1, 1, self.digest(snapshot), reason, "no"))

    def done(self, peer, snapshot=NEW):
        """The peer has it."""
        self.sending.on_reply(SnapshotDone(peer, 1, 1, self.digest(snapshot)))

    def offered(self):
        """To whom something was offered since the last question."""
        sent, self.body.sent = self.body.sent, []
        return [to for to, message in sent if isinstance(message, SnapshotOffer)]


def test_a_transfer_goes_its_way_and_the_core_is_told_once():
    """Offered, asked for, sent in chunks, done; then the snapshot may be pruned, and another one sent."""

    async def story():
        leader = Leader()
        leader.sending.begin(2, NEW)
        assert leader.offered() == [2]
        leader.need(2)
        await elapse(0.5)
        chunks = leader.body.take_sent()
        assert chunks and all(isinstance(chunk, SnapshotChunk) for chunk in chunks)
        assert b"".join(chunk.data for chunk in chunks) == contents(20)["000011.sst"]
        assert leader.sending.progress(2).total_bytes == 35_001
        turns = leader.body.turns
        leader.done(2)
        assert (leader.reports, leader.body.turns) == ([(2, True)], turns + 1)
        assert leader.sending.progress(2) is None
        leader.done(2)
        leader.store.prune(leader.store.retire(1))
        leader.sending.begin(2, NEW)
        leader.refuse(2, Refusal.BUSY)
        assert leader.reports == [(2, True), (2, False)]

    tell(story)


def test_an_offer_that_nobody_answers_is_repeated_and_then_given_up():
    """By the clock, though nothing arrives; the core is told."""

    async def story():
        leader = Leader(snapshot_stall_s=10.0)
        leader.sending.begin(2, NEW)
        await elapse(9)
        assert leader.offered() == [2] * 4
        await elapse(2)
        assert leader.reports == [(2, False)]
        assert leader.offered() == []

    tell(story)


def test_two_transfers_go_on_at_a_time():
    """The third begins when one of them ends, however it ends."""

    async def story():
        leader = Leader(snapshot_transfers_max=2)
        for peer in (2, 3, 4, 5):
            leader.sending.begin(peer, NEW)
        assert leader.offered() == [2, 3]
        leader.done(3)
        assert leader.offered() == [4]
        leader.refuse(2, Refusal.DISK_FULL)
        assert leader.offered() == [5]
        assert leader.reports == [(3, True), (2, False)]

    tell(story)


def test_a_leader_of_another_term_begins_nothing_that_was_asked_of_it_before():
    """What waited for its turn is forgotten with what was under way; nobody is told of its end."""

    async def story():
        leader = Leader(snapshot_transfers_max=1)
        for peer in (2, 3):
            leader.sending.begin(peer, NEW)
        leader.sending.cancel()
        assert leader.offered() == [2]
        leader.sending.begin(4, NEW)
        leader.done(4)
        await elapse(100)
        assert leader.offered() == [4]
        assert leader.reports == [(4, True)]

    tell(story)


def test_what_is_on_its_way_goes_on_and_a_newer_one_takes_its_place():
    """The core asks for the same again at each turn of its own; that does not begin anew."""

    async def story():
        leader = Leader()
        leader.sending.begin(2, OLD)
        leader.need(2, snapshot=OLD)
        for _ in range(3):
            leader.sending.begin(2, OLD)
        assert leader.offered() == [2]
        leader.sending.begin(2, NEW)
        assert leader.sending.progress(2).index == NEW.index
        assert leader.offered() == [2]
        await elapse(0.5)
        leader.body.raft.term = 2
        leader.sending.begin(2, NEW)
        assert leader.offered() == [2], "it is another leader's now"
        assert leader.reports == []

    tell(story)


def test_a_chunk_that_the_network_does_not_take_is_sent_a_moment_later():
    """It is full, or the link is down: nothing is left out, and nothing is tried without a pause."""

    async def story():
        leader = Leader()
        leader.sending.begin(2, NEW)
        leader.body.takes_messages = False
        leader.need(2)
        await elapse(0.4)
        reads = leader.body.world.transfer_worker.done
        assert 2 <= reads <= 10
        leader.body.takes_messages = True
        leader.body.sent.clear()
        await elapse(0.5)
        assert b"".join(chunk.data for chunk in leader.body.take_sent()) == contents(20)["000011.sst"]

    tell(story)


def test_a_snapshot_that_is_gone_is_told_to_the_core_later():
    """The core is in the middle of a turn when it asks. It is told that it failed, once, and another one is taken."""

    async def story():
        leader = Leader()
        leader.store.mark_damaged(NEW, "rot")
        leader.sending.begin(2, NEW)
        assert (leader.damaged, leader.reports) == ([NEW], [])
        await elapse(0)
        assert leader.reports == [(2, False)]

    tell(story)


def test_a_file_that_came_wrong_is_looked_at_here():
    """The peer got it twice and it was not what the manifest says: then the snapshot here is damaged. A sound one that
    was refused for anything else is not read again."""

    async def story():
        leader = Leader()
        for reason in (Refusal.DISK_FULL, Refusal.BAD_FILE):
            leader.sending.begin(2, NEW)
            leader.refuse(2, reason)
            await elapse(0.1)
            assert leader.body.world.background_worker.done == (reason is Refusal.BAD_FILE)
        assert leader.damaged == []
        leader.disk.flip(f"{leader.store.path(NEW)}/000011.sst", 100)
        leader.sending.begin(2, NEW)
        leader.refuse(2, Refusal.BAD_FILE)
        await elapse(0.1)
        assert leader.damaged == [NEW]
        assert leader.body.failures == []

    tell(story)


@pytest.mark.parametrize("where", ["a chunk", "the check"])
def test_a_disk_that_fails_stops_the_node(where):
    """An unreadable disk is no damaged snapshot: nobody knows what else it has lost."""

    async def story():
        leader = Leader()

        def fault(kind, path):
            raise DiskError("the disk is broken")

        leader.disk.read_fault = fault
        leader.sending.begin(2, NEW)
        leader.need(2) if where == "a chunk" else leader.refuse(2, Refusal.BAD_FILE)
        await elapse(0.1)
        assert [str(error) for error in leader.body.failures] == ["the disk is broken"]
        assert leader.damaged == []
        await leader.sending.close()

    tell(story)


def test_closing_waits_for_the_read_that_is_under_way_whatever_comes_of_it():
    """The file is closed then, and the snapshot may go."""

    async def story():
        leader = Leader()
        worker = leader.body.world.transfer_worker
        worker.eager = False
        for error in (None, DiskError("broken"), ValueError("a mistake")):
            leader.sending.begin(2, OLD)
            leader.need(2, snapshot=OLD)
            closing = asyncio.ensure_future(leader.sending.close())
            await elapse(1)
            assert not closing.done()
            if error is None:
                worker.work()
            else:
                worker.queue.popleft()[0].set_exception(error)
            await closing
        assert leader.disk.open_files() == []
        leader.store.prune(leader.store.retire(1))
        assert leader.store.list() == [NEW]
        assert leader.body.failures == []

    tell(story)


def test_chunks_that_were_sent_are_forgotten():
    """A snapshot of any size takes as much memory as the chunks under way."""

    async def story():
        leader = Leader()
        leader.sending.begin(2, NEW)
        worker, reads = leader.body.world.transfer_worker, []
        worker.run, run = lambda *args: reads.append(run(*args)) or reads[-1], worker.run
        leader.need(2)
        await elapse(0.5)
        assert reads
        seen = [weakref.ref(read) for read in reads]
        reads.clear()
        await elapse(0)
        gc.collect()
        assert [ref() for ref in seen] == [None] * len(seen)

    tell(story)


def test_the_failpoints_stand_before_what_they_name(monkeypatch):
    """Nothing is offered or read yet; and a transfer that failed is not one that is done."""

    async def story():
        leader = Leader()
        worker, found = leader.body.world.transfer_worker, []
        monkeypatch.setattr(
            failpoints, "reach", lambda name: found.append((name, len(leader.body.sent), len(worker.queue)))
        )
        leader.sending.begin(2, NEW)
        leader.need(2)
        await elapse(0.1)
        leader.refuse(2, Refusal.BUSY)
        assert found == [("transfer.before_offer", 0, 0), ("transfer.before_read", 1, 0)]
        leader.sending.begin(2, NEW)
        leader.done(2)
        assert found[-1][0] == "transfer.done"

    tell(story)
