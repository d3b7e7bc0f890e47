"""What a lane does to frames, one condition after the other."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from raftkv.errors import FrameError
from raftkv.wire import FrameDecoder, encode_frame
from tests.chaos.lane import CALM, REMEMBERED, Conditions, FrameCutter, Lane

FRAMES = [encode_frame(b"frame %03d" % number) for number in range(200)]


def sent(conditions: Conditions, *, seed: int = 1, gap_s: float = 0.001) -> tuple[list[bytes], Counter[str]]:
    """What leaves, in its order, when `FRAMES` come in with `gap_s` between them."""
    counts: Counter[str] = Counter()
    lane = Lane(random.Random(seed), counts)
    lane.conditions = conditions
    leaving, last_at = [], 0.0
    for number, frame in enumerate(FRAMES):
        for at, in_turn, data in lane.pass_on(frame, number * gap_s):
            last_at = max(at, last_at) if in_turn else last_at
            leaving.append((last_at if in_turn else at, len(leaving), data))
        lane.remember(frame)
    return [data for _, _, data in sorted(leaving)], counts


def test_a_calm_lane_changes_nothing() -> None:
    """What comes in leaves, at once and in order."""
    assert sent(CALM) == (FRAMES, Counter(frames=200))


def test_a_cut_lane_is_silent() -> None:
    """Nothing leaves, and each frame is counted (F40)."""
    assert sent(Conditions(cut=True)) == ([], Counter(frames=200, cut=200))


@pytest.mark.parametrize("name", ["drop", "duplicate", "reorder", "replay", "flip"])
def test_each_condition_does_what_it_says_and_counts_it(name: str) -> None:
    """A fifth of the frames is met, more or less; the count is exact (F28)."""
    found, counts = sent(Conditions(**{name: 0.2}))
    met = counts[name]
    assert 20 < met < 70
    lost, extra = Counter(FRAMES) - Counter(found), Counter(found) - Counter(FRAMES)
    assert lost.total() == (met if name in ("drop", "flip") else 0)
    assert extra.total() == (met if name in ("duplicate", "replay", "flip") else 0)
    if name == "reorder":
        assert found != FRAMES
    if name == "replay":
        assert all(frame in FRAMES for frame in found)


def test_a_flipped_frame_is_one_that_its_receiver_refuses() -> None:
    """The checksum tells (F61); a wrong length is too long, or waits for more."""
    found, counts = sent(Conditions(flip=1.0))
    assert counts["flip"] == len(FRAMES)
    for frame in found:
        decoder = FrameDecoder(1024)
        try:
            assert decoder.feed(frame) == [] and decoder.has_partial
        except FrameError:
            continue


def test_delay_and_jitter_keep_the_order() -> None:
    """Frames are late, never overtaken."""
    counts: Counter[str] = Counter()
    lane = Lane(random.Random(1), counts)
    lane.conditions = Conditions(delay_ms=50, jitter_ms=10)
    ((at, in_turn, data),) = lane.pass_on(FRAMES[0], 1.0)
    assert 1.05 <= at <= 1.06 and in_turn and data == FRAMES[0]
    assert sent(lane.conditions)[0] == FRAMES


def test_a_throttled_lane_lets_so_many_bytes_through() -> None:
    """The last of 200 frames waits for all before it."""
    lane = Lane(random.Random(1), Counter())
    lane.conditions = Conditions(bytes_s=10 * len(FRAMES[0]))
    times = [lane.pass_on(frame, 0.0)[0][0] for frame in FRAMES]
    assert times[-1] == pytest.approx(20.0)


def test_a_seed_is_a_fate() -> None:
    """The same seed meets the same frames; another one others."""
    rough = Conditions(drop=0.1, duplicate=0.1, reorder=0.1, flip=0.1, replay=0.1, jitter_ms=5)
    assert sent(rough, seed=3) == sent(rough, seed=3)
    assert sent(rough, seed=3) != sent(rough, seed=4)


def test_what_a_lane_remembers_is_bounded() -> None:
    """A long run must not fill the memory of the proxy."""
    lane = Lane(random.Random(1), Counter())
    for number in range(3 * REMEMBERED):
        lane.remember(b"%d" % number)
    lane.remember(bytes(1 << 20))
    assert lane.past() == [b"%d" % number for number in range(2 * REMEMBERED, 3 * REMEMBERED)]


def test_a_cutter_finds_frames_in_any_pieces() -> None:
    """How the network cuts the stream makes no difference; what is no stream of frames is handed on as it is."""
    cutter = FrameCutter(1024)
    stream = b"".join(FRAMES)
    assert [frame for at in range(0, len(stream), 7) for frame in cutter.feed(stream[at : at + 7])] == FRAMES
    assert cutter.feed(FRAMES[0][:5]) == []
    assert cutter.rest() == FRAMES[0][:5]
    assert cutter.feed(b"GET / HTTP/1.1\r\n") == [b"GET / HTTP/1.1\r\n"]
    assert cutter.feed(b"\r\n") == [b"\r\n"]
    assert not cutter.is_framed
