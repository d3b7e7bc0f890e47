"""The leader's end alone: what it sends next, by the answers that it gets and the time."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.config import MIB
from raftkv.snapshot import ChunkPlan, SenderStage, SnapshotAck, SnapshotNeed, SnapshotOffer, SnapshotPreparing
from raftkv.snapshot.sender import CHUNK_BYTES_FIRST, CHUNK_BYTES_MIN
from tests.snapshot.worlds import SETTINGS, Ends

ONE_AT_A_TIME = msgspec.structs.replace(SETTINGS, chunk_bytes=MIB, window_chunks=1)
"""Each chunk waits for the answer to the one before."""


class Talk:
    """A sender, and its peer's answers, word by word."""

    def __init__(self, files=None, *, settings=SETTINGS):
        self.ends = Ends(files, settings=settings)
        self.sender = self.ends.sender()
        self.digest = self.ends.source.manifest(self.ends.snapshot).digest
        self.total = sum(map(len, self.ends.files.values()))
        self.attempt = self.sender.poll(0.0).attempt

    def need(self, now, missing, *, number=1, attempt=None):
        """The peer begins a round."""
        self.sender.step(SnapshotNeed(2, 1, 1, self.digest, attempt or self.attempt, number, missing), now)

    def need_all(self, now, **which):
        """The peer has nothing."""
        sizes = [file.size for file in self.ends.source.manifest(self.ends.snapshot).manifest.files]
        self.need(now, [(number, 0) for number, size in enumerate(sizes) if size], **which)

    def ack(self, now, sequence, *, number=1):
        """The peer has written every chunk up to this one."""
        self.sender.step(SnapshotAck(2, 1, 1, self.digest, number, sequence), now)

    def plans(self, now):
        """What may be sent now."""
        found = []
        while isinstance(plan := self.sender.poll(now), ChunkPlan):
            found.append(plan)
        return found


def test_chunks_grow_while_answers_are_quick_and_shrink_while_they_are_slow():
    """A line of 256 kbit/s shows a sign of life every second or so, and a fast one is used well."""
    talk = Talk({"000001.sst": bytes(8 * MIB)}, settings=ONE_AT_A_TIME)
    talk.need_all(0.0)
    now, sizes = 0.0, []
    for sequence, seconds in enumerate([0.1] * 5 + [0.25, 0.5, 1.0] + [2.0] * 8):
        (plan,) = talk.plans(now)
        sizes.append(plan.size)
        now += seconds
        if now >= talk.sender.wake_at(now):
            assert isinstance(talk.sender.poll(now), SnapshotOffer)  # so slow that it asks whether anybody is there
        talk.ack(now, sequence)
    quick = [CHUNK_BYTES_FIRST, 2 * CHUNK_BYTES_FIRST, 4 * CHUNK_BYTES_FIRST, 8 * CHUNK_BYTES_FIRST, MIB]
    slow = [MIB >> 1, MIB >> 2, MIB >> 3, MIB >> 4, MIB >> 5, CHUNK_BYTES_MIN, CHUNK_BYTES_MIN]
    assert sizes == [*quick, MIB, MIB, MIB, MIB, *slow]


def test_an_answer_just_at_the_bound_changes_nothing():
    """Only one that comes faster lets chunks grow."""
    talk = Talk({"000001.sst": bytes(MIB)}, settings=ONE_AT_A_TIME)
    talk.need_all(0.0)
    first = talk.plans(0.0)
    talk.ack(0.25, 0)
    assert [plan.size for plan in first + talk.plans(0.25)] == [CHUNK_BYTES_FIRST] * 2


def test_a_chunk_takes_half_a_second_of_the_rate():
    """However quick the answers are: so a limited transfer is felt as an even one."""
    slow = msgspec.structs.replace(ONE_AT_A_TIME, rate_bytes_s=100_000, stall_s=100.0)
    talk = Talk({"000001.sst": bytes(MIB)}, settings=slow)
    talk.need_all(0.0)
    sizes = []
    for sequence in range(4):
        (plan,) = talk.plans(0.7 * sequence)
        sizes.append(plan.size)
        talk.ack(0.7 * sequence, sequence)
    assert sizes == [50_000] * 4


def test_a_chunk_that_was_not_taken_is_the_next_again():
    """Its bytes, its number and its credit: nothing is skipped. It is tried again after a moment, not at once."""
    settings = msgspec.structs.replace(SETTINGS, rate_bytes_s=1_000_000)
    talk = Talk({"000001.sst": bytes(40_000)}, settings=settings)
    talk.need_all(0.0)
    plans = [talk.sender.poll(at) for at in (0.0, 0.1)]
    talk.sender.not_sent(plans[-1], 0.1)
    assert talk.sender.poll(0.1) is None
    at = talk.sender.wake_at(0.1)
    assert 0.1 < at <= 0.2
    assert talk.sender.poll(at) == plans[-1]
    talk.sender.not_sent(plans[0], at)
    assert talk.sender.poll(talk.sender.wake_at(at)).sequence == 2, "only the newest can be taken back"


def test_answers_open_the_window():
    """Each makes room for another chunk, also one for several at once; repeated and late ones for none."""
    talk = Talk({"000001.sst": bytes(9 * SETTINGS.chunk_bytes)})
    talk.need_all(0.0)
    assert [plan.sequence for plan in talk.plans(0.0)] == [0, 1, 2, 3]
    talk.ack(0.1, 0)
    talk.ack(0.1, 0)
    talk.ack(0.1, 4, number=7)
    assert [plan.sequence for plan in talk.plans(0.1)] == [4]
    talk.ack(0.2, 3)
    talk.ack(0.2, 2)
    assert [plan.sequence for plan in talk.plans(0.2)] == [5, 6, 7]
    talk.ack(0.3, 7)
    assert [plan.sequence for plan in talk.plans(0.3)] == [8]
    assert talk.sender.progress.sent_bytes == 8 * SETTINGS.chunk_bytes
    talk.ack(0.4, 8)
    talk.ack(0.4, 8)
    assert talk.sender.progress.sent_bytes == talk.total
    assert talk.plans(0.4) == []


def test_a_late_answer_goes_on_with_the_round():
    """When nothing was heard the offer is repeated; an answer to a chunk then shows that the peer is still there."""
    talk = Talk({"000001.sst": bytes(9 * SETTINGS.chunk_bytes)})
    talk.need_all(0.0)
    talk.plans(0.0)
    assert isinstance(talk.sender.poll(SETTINGS.retry_s), SnapshotOffer)
    assert talk.plans(SETTINGS.retry_s) == []
    talk.ack(SETTINGS.retry_s, 1)
    assert [plan.sequence for plan in talk.plans(SETTINGS.retry_s)] == [4, 5]


def test_an_overtaken_need_is_no_news():
    """Of two answers to one offer the newer counts, in whatever order they come. An answer to a newer offer begins
    anew, even if its peer has: its rounds are counted from 1 again."""
    talk = Talk({"000001.sst": bytes(9 * SETTINGS.chunk_bytes)})
    talk.need(0.0, [(0, 5_000)], number=3)
    talk.need(0.0, [(0, 0)], number=2)
    assert talk.plans(0.0)[0].pieces[0][1] == 5_000
    offer = talk.sender.poll(SETTINGS.retry_s)
    assert isinstance(offer, SnapshotOffer)
    talk.need(SETTINGS.retry_s, [(0, 7_000)], number=1)
    assert talk.plans(SETTINGS.retry_s) == [], "that answers the first offer"
    talk.need(SETTINGS.retry_s, [(0, 0)], number=1, attempt=offer.attempt)
    again = talk.plans(SETTINGS.retry_s)
    assert (again[0].round, again[0].sequence, again[0].pieces[0][1]) == (1, 0, 0)


def test_what_the_peer_has_already_counts_as_sent():
    """It says so when it begins: progress is told by what is left."""
    talk = Talk()
    sizes = [file.size for file in talk.ends.source.manifest(talk.ends.snapshot).manifest.files]
    talk.need(0.0, [(1, 10_000)])
    assert talk.sender.progress.sent_bytes == talk.total - (sizes[1] - 10_000)
    assert talk.sender.progress.files_done == 3


@pytest.mark.parametrize("what", ["it looks for files", "it says what it needs"])
def test_a_sign_of_progress_is_waited_on_for_the_whole_time(what):
    """A peer that looks through its disk, or begins only then, is not given up for that; one that is stuck is."""
    talk = Talk()
    late = SETTINGS.stall_s - 1
    if what == "it looks for files":
        talk.sender.step(SnapshotPreparing(2, 1, 1, talk.digest, 0), late)
        assert talk.sender.stage is SenderStage.OFFERING
    else:
        talk.need_all(late)
    talk.sender.poll(late + SETTINGS.stall_s - 0.5)
    assert not talk.sender.is_over
    if what == "it looks for files":
        talk.sender.step(SnapshotPreparing(2, 1, 1, talk.digest, 0), late + SETTINGS.stall_s - 0.5)
    talk.sender.poll(late + SETTINGS.stall_s)
    assert talk.sender.stage is SenderStage.FAILED


def test_a_sender_that_ends_leaves_no_file_open():
    """Thousands of transfers run in a node's life. While it sends, each file is opened once."""
    ends = Ends()
    sender = ends.sender()
    offer = sender.poll(0.0)
    sender.step(SnapshotNeed(2, 1, 1, ends.source.manifest(ends.snapshot).digest, offer.attempt, 1, [(1, 0)]), 0.0)
    opened = []
    ends.source.disk.open, wrapped = lambda path: opened.append(path) or wrapped(path), ends.source.disk.open
    for _ in range(3):
        sender.read(sender.poll(0.0))
    assert opened == ends.source.disk.open_files()
    assert len(opened) == 1
    sender.close()
    assert ends.source.disk.open_files() == []
