"""What a link does to the frames of one direction: late, twice, not at all, in another order, damaged.

Nothing here reads or writes: a lane is asked with the time of each frame, and says what leaves when.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, deque

import msgspec

from raftkv.wire import FRAME_HEAD_BYTES

REMEMBERED = 256
"""Frames of the past that a lane may send again: at the pace of a loaded link, some seconds of it."""

REMEMBERED_BYTES_MAX = 256 * 1024
"""A larger frame is not remembered, so that a lane keeps some MiB at most."""

LATE_S = (0.002, 0.08)
"""How much later than its turn a frame leaves that others overtake."""

_LENGTH = struct.Struct("<I")


Way = tuple[int, int]
"""From whom to whom: nodes' ids, or 0 for clients."""


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to frames that go one way. By default nothing does."""

    cut: bool = False
    """None arrives, and no end of a connection is heard of either."""
    delay_ms: float = 0
    jitter_ms: float = 0
    """Up to this much is added to the delay of each frame; frames stay in order unless `reorder` says otherwise."""
    drop: float = 0
    """The chance of each frame to vanish."""
    duplicate: float = 0
    reorder: float = 0
    """The chance of each frame to be overtaken by those behind it."""
    replay: float = 0
    """The chance that an old frame, perhaps of a connection long gone, arrives again behind this one."""
    flip: float = 0
    """The chance of each frame to arrive with one bit wrong."""
    bytes_s: int = 0
    """How many bytes get through in a second; 0 for any number."""

    def describe(self) -> str:
        """Those that are not off."""
        own = {name: getattr(self, name) for name in self.__struct_fields__}
        return ", ".join(f"{name}={value:g}" for name, value in own.items() if value) or "nothing"


CALM = Conditions()
"""A link as it should be."""


class FrameCutter:
    """Cuts a stream into whole frames, heads included, and looks at nothing but their lengths.

    A stream that can't be frames of at most `bytes_max` is handed on as it comes.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self.is_framed = True

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are complete now."""
        if not self.is_framed:
            return [data]
        self._buffer += data
        frames = []
        while len(self._buffer) >= FRAME_HEAD_BYTES:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > self._bytes_max:
                self.is_framed = False
                frames.append(bytes(self._buffer))
                self._buffer.clear()
                break
            end = FRAME_HEAD_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[:end]))
            del self._buffer[:end]
        return frames

    def rest(self) -> bytes:
        """The beginning of a frame whose end will not come any more."""
        data = bytes(self._buffer)
        self._buffer.clear()
        return data


class Lane:
    """One direction of a link, with the dice and the memory that all its connections share.

    Everything that was done to a frame is counted in `counts` under the name of its condition.
    """

    def __init__(self, dice: random.Random, counts: Counter[str]) -> None:
        self.conditions = CALM
        self._dice = dice
        self._counts = counts
        self._past: deque[bytes] = deque(maxlen=REMEMBERED)
        self._free_at = 0.0

    def remember(self, frame: bytes) -> None:
        """A frame that may arrive again later."""
        if len(frame) <= REMEMBERED_BYTES_MAX:
            self._past.append(frame)

    def past(self) -> list[bytes]:
        """What is remembered, the oldest first."""
        return list(self._past)

    def pass_on(self, frame: bytes, now: float) -> list[tuple[float, bool, bytes]]:
        """What leaves for a frame that comes in at `now` (s): when, whether in its turn, and which bytes."""
        rules, dice = self.conditions, self._dice
        self._counts["frames"] += 1
        if rules is CALM:
            return [(now, True, frame)]
        if rules.cut:
            self._counts["cut"] += 1
            return []
        if self._happens("drop", rules.drop):
            return []
        if self._happens("flip", rules.flip):
            frame = flipped(frame, dice)
        at = self._leaves_at(len(frame), now, rules)
        if self._happens("reorder", rules.reorder):
            leaving = [(at + dice.uniform(*LATE_S), False, frame)]
        else:
            leaving = [(at, True, frame)]
        if self._happens("duplicate", rules.duplicate):
            leaving.append((at + dice.uniform(0, LATE_S[1]), False, frame))
        if self._past and self._happens("replay", rules.replay):
            leaving.append((at, True, dice.choice(self._past)))
        return leaving

    def _happens(self, name: str, chance: float) -> bool:
        happens = chance > 0 and self._dice.random() < chance
        if happens:
            self._counts[name] += 1
        return happens

    def _leaves_at(self, size: int, now: float, rules: Conditions) -> float:
        at = now
        if rules.delay_ms or rules.jitter_ms:
            self._counts["delay"] += 1
            at += (rules.delay_ms + self._dice.uniform(0, rules.jitter_ms)) / 1000
        if rules.bytes_s:
            self._counts["throttle"] += 1
            self._free_at = max(self._free_at, now) + size / rules.bytes_s
            at = max(at, self._free_at)
        return at


class Lanes:
    """Those of all links, each made when it is first asked for, with dice of its own."""

    def __init__(self, seed: int, counts: Counter[str]) -> None:
        self._seed = seed
        self._counts = counts
        self._lanes: dict[Way, Lane] = {}

    def of(self, source: int, target: int) -> Lane:
        """What happens to frames from one to the other."""
        way = (source, target)
        if way not in self._lanes:
            self._lanes[way] = Lane(random.Random(f"{self._seed}.{source}.{target}"), self._counts)
        return self._lanes[way]

    def calm(self) -> None:
        """Every link is as it should be."""
        for lane in self._lanes.values():
            lane.conditions = CALM


def flipped(frame: bytes, dice: random.Random) -> bytes:
    """A frame with one bit wrong, anywhere: in its length too, so that its receiver waits for what never comes."""
    damaged = bytearray(frame)
    damaged[dice.randrange(len(frame))] ^= 1 << dice.randrange(8)
    return bytes(damaged)
