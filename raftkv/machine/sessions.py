"""Client sessions: a command takes effect once, despite retries, new leaders, restarts and snapshots (thesis §6.3).

The store has a session's record at 01 's' id, and at 01 'a' id sequence the outcome of each of its commands that the
client has not acknowledged. They change in the same batch as what the command changed.
"""

from __future__ import annotations

import struct
from collections import OrderedDict

import msgspec

from raftkv import failpoints
from raftkv.machine.outcome import SESSION_EXPIRED, STALE_DUPLICATE, Outcome
from raftkv.machine.overlay import Overlay
from raftkv.machine.payloads import CommandPayload
from raftkv.model import Index
from raftkv.state import SESSION_PREFIX

_RECORD = SESSION_PREFIX + b"s"
_ANSWER = SESSION_PREFIX + b"a"
_ID = struct.Struct(">Q")
_PLACE = struct.Struct(">QQ")
_encoder = msgspec.msgpack.Encoder()

ANSWERS_MAX = 16_384
"""Outcomes kept for one session; a client that has so many commands under way loses the oldest ones' answers."""

failpoints.declare(
    __name__,
    {
        "session.opened": "a session is open in memory only",
    },
)


def is_answer(place: bytes, data: bytes | None) -> bool:
    """Whether this change keeps a command's outcome for retries."""
    return data is not None and place.startswith(_ANSWER)


class _Record(msgspec.Struct, array_like=True):
    """What the table holds for a session; `last_index` is unique, and orders sessions by their last use."""

    last_index: Index
    last_time_ms: int
    acked_below: int


class _Owned(_Record):
    """The same of a session that only its user may use. A session of nobody stands as it did before there were users,
    so that it is the same on nodes that know of none."""

    owner: str = ""


class _Session:
    __slots__ = ("_answers_at", "answers", "id", "owner", "place", "record")

    def __init__(self, session_id: int, record: _Record) -> None:
        self.id = session_id
        self.record = record
        self.owner = record.owner if isinstance(record, _Owned) else ""
        self.answers: set[int] = set()
        self.place = _RECORD + _ID.pack(session_id)
        self._answers_at = _ANSWER + _ID.pack(session_id)

    def answer_place(self, sequence: int) -> bytes:
        return self._answers_at + sequence.to_bytes(8, "big")


def _decode_record(data: bytes) -> _Record:
    record = msgspec.msgpack.decode(data, type=_Owned)
    return record if record.owner else _Record(record.last_index, record.last_time_ms, record.acked_below)


class Sessions:
    """The table of sessions. It is bounded: when it is full, the least recently used one goes of whoever has most.

    So however many sessions somebody opens, it costs nobody any who has fewer. Those that are nobody's, as where nobody
    has to sign in, count as one user's.

    Everything here follows from the log alone, times included, so all nodes forget the same sessions at the
    same entry. `changes` collects what is to be written with the entry.
    """

    def __init__(self, overlay: Overlay, sessions_max: int, ttl_ms: int) -> None:
        self._overlay = overlay
        self._max = sessions_max
        self._ttl_ms = ttl_ms
        self._sessions: OrderedDict[int, _Session] = OrderedDict()
        """The least recently used one first …"""
        self._of: dict[str, OrderedDict[int, _Session]] = {}
        """… and so are those of each user; by name, empty for nobody."""
        self._none_ends_before_ms = 0
        """No session is silent for too long at an earlier log time."""
        self.changes: dict[bytes, bytes | None] = {}
        self._load()

    def __len__(self) -> int:
        return len(self._sessions)

    def _load(self) -> None:
        scan = self._overlay.store.scan
        found = [
            _Session(_ID.unpack_from(place, len(_RECORD))[0], _decode_record(data))
            for place, data in scan(_RECORD, _RECORD[:-1] + b"t")
        ]
        found.sort(key=lambda session: session.record.last_index)
        for session in found:
            self._add(session)
        for place, _ in scan(_ANSWER, _ANSWER[:-1] + b"b"):
            session_id, sequence = _PLACE.unpack_from(place, len(_ANSWER))
            self._sessions[session_id].answers.add(sequence)

    def begin(self, time_ms: int) -> None:
        """An entry of this time begins: forget sessions that were silent for too long."""
        self.changes = {}
        if time_ms < self._none_ends_before_ms:
            return
        last_time_ms = time_ms  # of those that are opened later, at least
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if oldest.record.last_time_ms + self._ttl_ms > time_ms:
                last_time_ms = oldest.record.last_time_ms
                break
            self.close(oldest.id)
        self._none_ends_before_ms = last_time_ms + self._ttl_ms

    def clock_reset(self, time_ms: int) -> None:
        """Log time begins anew at `time_ms`: no session counts as used later than that.

        So a session is forgotten only after a whole `session_ttl_s` of silence from now on, and none outlives the
        others because log time was ahead when it was used.
        """
        self.changes = {}
        self._none_ends_before_ms = 0
        for session in self._sessions.values():
            record = session.record
            if record.last_time_ms > time_ms:
                record.last_time_ms = time_ms
                self.changes[session.place] = _encoder.encode(record)

    def open(self, index: Index, time_ms: int, owner: str = "") -> int:
        """Open a session, which only `owner` may use unless that is empty; its id is its entry's index. Another one may
        have to go."""
        while len(self._sessions) >= self._max:
            self.close(self._first_to_go())
        record = _Owned(index, time_ms, 0, owner) if owner else _Record(index, time_ms, 0)
        session = _Session(index, record)
        self._add(session)
        failpoints.reach("session.opened")
        self.changes[session.place] = _encoder.encode(session.record)
        return index

    def _add(self, session: _Session) -> None:
        self._sessions[session.id] = session
        self._of.setdefault(session.owner, OrderedDict())[session.id] = session

    def _first_to_go(self) -> int:
        """Of two users with equally many, the one whose session was used before the other's loses it: which user came
        first into `_of` differs between nodes. Some tenths of a ms where thousands have one or two."""
        most = max(map(len, self._of.values()))
        if most * len(self._of) == len(self._sessions):
            return next(iter(self._sessions))  # all have as many, and thousands may have one each
        oldest = (next(iter(theirs.values())) for theirs in self._of.values() if len(theirs) == most)
        return min(oldest, key=lambda session: session.record.last_index).id

    def close(self, session_id: int) -> None:
        """Forget a session with all its answers; nothing happens when it is not known."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            theirs = self._of[session.owner]
            del theirs[session_id]
            if not theirs:
                del self._of[session.owner]
            self.changes[session.place] = None
            for sequence in sorted(session.answers):  # a set has its order from what was in it before
                self.changes[session.answer_place(sequence)] = None

    def close_of(self, owner: str) -> None:
        """Forget all sessions of a user who is gone: another one of that name must not be told their answers."""
        for session_id in [*self._of.get(owner, ())]:
            self.close(session_id)

    def owner_of(self, session_id: int) -> str | None:
        """Who has opened it; empty for nobody, None when there is no such session."""
        session = self._sessions.get(session_id)
        return session.owner if session is not None else None

    def known_outcome(self, command: CommandPayload) -> Outcome | None:
        """What to answer without running the command; None when it must be run."""
        session = self._sessions.get(command.session_id)
        if session is None:
            return SESSION_EXPIRED
        if command.sequence in session.answers:
            data = self._overlay.get(session.answer_place(command.sequence))
            assert data is not None, f"session {session.id} lacks the answer {command.sequence} that it lists"
            return msgspec.msgpack.decode(data, type=Outcome)
        return STALE_DUPLICATE if command.sequence < session.record.acked_below else None

    def used(self, command: CommandPayload, index: Index, time_ms: int, outcome: Outcome | None) -> None:
        """Note that the session was used: keep a new `outcome` for retries, and forget those that the client has."""
        session = self._sessions.get(command.session_id)
        if session is None:
            return
        record = session.record
        acked_below = max(record.acked_below, command.acked_below)
        if outcome is not None:
            if len(session.answers) >= ANSWERS_MAX:
                acked_below = max(acked_below, min(session.answers) + 1)
            session.answers.add(command.sequence)
            self.changes[session.answer_place(command.sequence)] = _encoder.encode(outcome)
        if acked_below > record.acked_below:
            self._forget(session, acked_below)
        record.last_index, record.last_time_ms, record.acked_below = index, time_ms, acked_below
        self._sessions.move_to_end(session.id)
        self._of[session.owner].move_to_end(session.id)
        self.changes[session.place] = _encoder.encode(record)

    def _forget(self, session: _Session, acked_below: int) -> None:
        """Drop the answers that nobody will ask for again."""
        before, answers = session.record.acked_below, session.answers
        # Mostly it is the next few answers; only when a client acknowledges many at once are all looked at.
        few = acked_below - before < len(answers)
        for sequence in range(before, acked_below) if few else sorted(answers):
            if sequence < acked_below and sequence in answers:
                answers.remove(sequence)
                self.changes[session.answer_place(sequence)] = None
