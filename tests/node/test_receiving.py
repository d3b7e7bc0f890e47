"""The follower's end of a transfer: from whom it takes what, how much may wait for the disk, and who is told."""

from __future__ import annotations

import asyncio

import pytest

from raftkv import failpoints
from raftkv.errors import DiskError
from raftkv.node.snapshots.receiving import QUEUE_MAX, Receiving
from raftkv.snapshot import ChunkPlan, Refusal, SnapshotAck, SnapshotDone, SnapshotNeed, SnapshotRefused
from raftkv.testing.world.loop import elapse
from tests.node.parts import Body, tell
from tests.snapshot.worlds import CLUSTER, Ends


class Follower:
    """Node 2 in term 3, whose leader is node 1; and that leader's sender."""

    def __init__(self, files=None, **config):
        self.ends = Ends(files)
        self.sender = self.ends.sender(term=3)
        raft = {"node_id": 2, "term": 3, "leader": 1, "installing": None, "commit_index": 0, "durable_index": 0}
        self.body = Body(raft, **config)
        self.worker = self.body.world.background_worker
        self.cluster_id, self.taken_in = CLUSTER, []
        self.receiving = Receiving(self.body, self.ends.target, lambda: self.cluster_id, self.taken_in.append)

    def next(self, now=0.0):
        """The sender's next message."""
        action = self.sender.poll(now)
        return self.sender.read(action) if isinstance(action, ChunkPlan) else action

    async def exchange(self):
        """Offers, chunks and answers, until neither has more to say."""
        now = 0.0
        while True:
            while (message := self.next(now)) is not None:
                self.receiving.on_message(message)
            await self.worker.work_off()
            await elapse(0)
            answers = self.body.take_sent()
            if not answers:
                return
            for answer in answers:
                self.sender.step(answer, now)


@pytest.mark.parametrize(("leader", "tells"), [(1, True), (4, True), (None, False), (2, False)])
def test_a_snapshot_that_has_arrived_is_for_the_core_to_judge(leader, tells):
    """In the name of whoever leads by now; without a leader, or when this node leads itself, it is of no use."""

    async def story():
        follower = Follower({"000001.sst": b"one chunk"})
        follower.receiving.on_message(follower.next())
        await elapse(0.1)
        (need,) = (answer for answer in follower.body.take_sent() if isinstance(answer, SnapshotNeed))
        follower.sender.step(need, 0.0)
        follower.receiving.on_message(follower.next())
        follower.body.raft.leader = leader
        await elapse(0.1)
        assert follower.ends.is_complete()
        assert isinstance(follower.body.take_sent()[-1], SnapshotDone)
        told = [(message.sender, message.to, message.term, message.snapshot) for message in follower.taken_in]
        assert told == ([(leader, 2, 3, follower.ends.snapshot)] if tells else [])

    tell(story)


def test_a_deposed_leaders_offer_is_refused_and_its_chunks_are_not_answered():
    """It hears that its term is over, and gives up (F65); a leader that nobody here knows yet offers it again soon."""

    async def story():
        follower = Follower()
        offer = follower.next()
        for changed in ({"term": 4}, {"leader": 4}, {"leader": None}, {"installing": follower.ends.snapshot}):
            before = {name: getattr(follower.body.raft, name) for name in changed}
            for name, value in changed.items():
                setattr(follower.body.raft, name, value)
            follower.receiving.on_message(offer)
            await elapse(0.1)
            assert follower.worker.done == 0
            answers = follower.body.take_sent()
            if "term" in changed:
                assert [(type(each), each.to, each.term, each.reason) for each in answers] == [
                    (SnapshotRefused, 1, 3, Refusal.STALE)
                ]
            else:
                assert answers == []
            for name, value in before.items():
                setattr(follower.body.raft, name, value)
        follower.receiving.on_message(offer)
        await elapse(0.1)
        follower.sender.step(follower.body.take_sent()[-1], 0.0)
        chunk = follower.next()
        follower.body.raft.term = 4
        follower.receiving.on_message(chunk)
        await elapse(0.1)
        assert follower.body.take_sent() == []
        follower.body.raft.term = 3
        follower.receiving.on_message(chunk)
        await elapse(0.1)
        assert isinstance(follower.body.take_sent()[-1], SnapshotAck)

    tell(story)


def test_only_so_many_messages_wait_for_the_disk():
    """What comes beyond is dropped, as a network may do; when all is done, there is room for just as many again."""

    async def story():
        follower = Follower()
        for turn in range(2):
            follower.worker.eager = False
            for _ in range(QUEUE_MAX + 9):
                follower.receiving.on_message(follower.ends.sender(term=3).poll(0.0))
            assert len(follower.worker.queue) == QUEUE_MAX, turn
            await follower.worker.work_off()
            follower.worker.eager = True
            await follower.exchange()
            assert follower.ends.is_complete()

    tell(story)


def test_a_node_that_has_joined_meanwhile_takes_its_own_clusters_only():
    """At its start it knew of no cluster, and took any."""

    async def story():
        follower = Follower()
        follower.cluster_id = ""
        follower.receiving = Receiving(follower.body, follower.ends.target, lambda: follower.cluster_id, print)
        follower.cluster_id = "another"
        follower.receiving.on_message(follower.next())
        await elapse(0.1)
        (answer,) = follower.body.take_sent()
        assert answer.reason is Refusal.WRONG_CLUSTER

    tell(story)


def test_a_disk_that_fails_stops_the_node():
    """And a node that has failed says no more."""

    async def story():
        follower = Follower()

        def fault(kind, path):
            raise DiskError("the disk is broken")

        follower.ends.disk.fault = fault
        follower.receiving.on_message(follower.next())
        await elapse(0.1)
        assert [str(error) for error in follower.body.failures] == ["the disk is broken"]
        follower.ends.disk.fault = None
        follower.body.sent.clear()
        follower.receiving.on_message(follower.ends.sender(term=3).poll(0.0))
        await elapse(0.1)
        assert follower.body.take_sent() == []

    tell(story)


def test_a_transfer_for_which_nothing_comes_is_dropped():
    """Its files stay; another snapshot may take its place on the disk."""

    async def story():
        follower = Follower(snapshot_stall_s=10.0)
        follower.receiving.on_message(follower.next())
        await elapse(0.1)
        for _ in range(11):
            follower.receiving.check_stall()
            assert follower.receiving.progress() is not None
            await elapse(1)
        follower.receiving.check_stall()
        await elapse(0.1)
        assert follower.receiving.progress() is None

    tell(story)


def test_what_the_log_has_already_is_no_snapshot_ahead_of_it():
    """Its receipt says so no more, durably: else a later start would let it be ahead of the log."""

    async def story(commit_index, ahead):
        follower = Follower()
        follower.body.raft.commit_index = follower.body.raft.durable_index = commit_index
        await follower.exchange()
        assert follower.ends.target.has_arrived(follower.ends.snapshot) == ahead

    tell(lambda: story(9, True))
    tell(lambda: story(10, False))


def test_closing_waits_for_the_disk():
    """No file is open then."""

    async def story():
        follower = Follower()
        follower.receiving.on_message(follower.next())
        await elapse(0.1)
        follower.sender.step(follower.body.take_sent()[-1], 0.0)
        follower.receiving.on_message(follower.next())
        await elapse(0.1)
        assert follower.ends.disk.open_files()
        follower.worker.eager = False
        follower.receiving.on_message(follower.ends.sender(term=3).poll(0.0))
        closing = asyncio.ensure_future(follower.receiving.close())
        await elapse(1)
        assert not closing.done()
        follower.worker.eager = True
        await follower.worker.work_off()
        await closing
        assert follower.ends.disk.open_files() == []

    tell(story)


def test_the_failpoint_stands_before_the_core_is_told(monkeypatch):
    """A node that is killed there finds a snapshot that its core never heard of."""

    async def story():
        follower = Follower()
        found = []
        monkeypatch.setattr(
            failpoints,
            "reach",
            lambda name: found.append((name, len(follower.taken_in), len(follower.ends.target.list()))),
        )
        await follower.exchange()
        assert ("receive.arrived", 0, 1) in found
        assert len(follower.taken_in) == 1

    tell(story)
