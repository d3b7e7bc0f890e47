"""All that a node does with snapshots, as one: messages go to the right end, and the end waits for everything."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from raftkv.model import LogStart
from raftkv.node.snapshots import Snapshotter
from raftkv.snapshot import SnapshotDone, SnapshotOffer
from raftkv.testing.world.loop import elapse
from tests.node.parts import tell
from tests.node.test_taking import Node
from tests.snapshot.worlds import CLUSTER, Ends


class Whole(Node):
    """A node with all its parts for snapshots, led by node 2 in term 1."""

    def __init__(self, start=0):
        super().__init__()
        raft = self.body.raft
        raft.term, raft.leader, raft.commit_index, raft.durable_index = 1, 2, 0, 0
        raft.snapshot_sent = lambda to, ok: self.reports.append((to, ok))
        self.reports = []
        log = SimpleNamespace(compact=self.cuts.append)
        opened = SimpleNamespace(
            snapshots=self.store, snapshot=None, view=SimpleNamespace(start=LogStart(start)), log=log, vote=None
        )
        recovered = SimpleNamespace(opened=opened, host=SimpleNamespace(before_checkpoint=self.before), new_runner=None)
        self.snapshots = Snapshotter(
            self.body,
            recovered,
            applier=self.applier,
            scans=None,
            writer=None,
            cluster_id=lambda: CLUSTER,
            take_in=print,
        )


def test_each_message_goes_to_its_end_until_the_node_has_ended():
    """Offers to the receiving one, answers to the sending one; a node that has ended hears of neither."""

    async def story():
        node = Whole()
        await node.taking.take()
        node.body.sent.clear()
        node.snapshots.send(3, node.store.latest())
        (offer,) = node.body.take_sent()
        assert isinstance(offer, SnapshotOffer)
        done = SnapshotDone(3, 1, 1, node.store.manifest(node.store.latest()).digest)
        their_offer = Ends().sender().poll(0.0)
        their_offer.sender = 2
        node.body.has_ended = True
        for message in (done, their_offer):
            node.snapshots.on_message(message)
        await elapse(0.1)
        assert (node.reports, node.body.sent) == ([], [])
        node.body.has_ended = False
        for message in (done, their_offer):
            node.snapshots.on_message(message)
        await elapse(0.1)
        assert node.reports == [(3, True)]
        assert [to for to, _ in node.body.sent] == [2] * len(node.body.sent) != []

    tell(story)


def test_a_log_that_begins_behind_the_newest_snapshot_needs_another_at_once():
    """A follower that lags could not be helped; otherwise the first one waits for its interval."""

    async def story():
        for start, taken in ((0, 0), (1, 1)):
            node = Whole(start)
            node.snapshots.look()
            await elapse(1)
            assert node.snapshots.taken == taken

    tell(story)


def test_the_end_waits_for_a_snapshot_and_for_a_transfer_that_are_under_way():
    """The workers are closed behind it: nothing may be given to them any more, and no file is open."""

    async def story():
        node = Whole()
        node.body.world.background_worker.eager = False
        taking = asyncio.ensure_future(node.snapshots.take())
        await elapse(0)
        node.snapshots.stop()
        waiting = asyncio.ensure_future(node.snapshots.wait())
        await elapse(10)
        assert not waiting.done()
        node.body.world.background_worker.eager = True
        await node.body.world.background_worker.work_off()
        await waiting
        assert taking.done()
        assert node.state.steps[-1] == "thaw"
        assert node.disk.open_files() == []

    tell(story)


def test_the_end_lets_go_of_a_transfer_to_this_node():
    """Its files stay; none of them is open."""

    async def story():
        node = Whole()
        offer = Ends().sender().poll(0.0)
        offer.sender = 2
        node.snapshots.on_message(offer)
        await elapse(0.1)
        assert node.snapshots.receiving() is not None
        await node.snapshots.wait()
        assert node.snapshots.receiving() is None

    tell(story)
