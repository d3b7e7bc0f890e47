"""Queries whose clients wait for another result: asked again when something was applied, or time may tell."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import xxhash

from raftkv.errors import Busy, NotAccepted, NotLeader, RaftKVError, Unavailable
from raftkv.machine import QueryDone
from raftkv.model import Index
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.engine import Engine
from raftkv.node.parking import Parked, Parking
from raftkv.node.scans import Scans
from raftkv.node.waiting import Query

PAUSE_S = 0.02
"""No query is asked again sooner than this, however fast entries are applied."""
TIMED_S = 0.25
"""A query that has asked what time it is is asked again after this long, even if nothing is applied."""
LONG_S = 1.0
"""A query that does not fit into a slice of the loop is asked again beside it, no sooner than this."""
AT_ONCE = 32
"""Queries that are asked again in one go, which takes a millisecond or two …"""
REST = 3
"""… and so many times as long as it took nothing is asked again: a quarter of the loop's time, at most."""
NO_NEWS = b""
"""The answer when the time is over and the result is the same. No encoded result is empty."""


class Poll(Parked):
    """A client that waits until a query's result is another one than it knows."""

    __slots__ = ("known", "question", "seen")

    def __init__(self, place: Parking[Poll], known: int | None, done: QueryDone) -> None:
        super().__init__(place, done)
        self.known = known
        self.seen: Index = 0
        """Where its result was the one that it knows."""
        self.question: Question | None = None
        """Set while it waits."""


class Question:
    """A query that one client or many wait for."""

    __slots__ = ("asked_at", "asked_index", "by_known", "is_long", "payload", "told_time")

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.by_known: dict[int, dict[Poll, None]] = {}
        self.asked_index: Index = 0
        self.asked_at = 0.0
        self.is_long = False
        self.told_time = False

    def is_idle(self) -> bool:
        """Whether nobody waits for it any more; may be called on any thread."""
        return not self.by_known

    def answered(self, query: Query, index: Index, now: float) -> None:
        """Note when it was asked, and what kind of query it has proved to be."""
        self.asked_index, self.asked_at = index, now
        self.is_long, self.told_time = query.is_long, query.told_time or query.is_long

    def due_at(self, applied_index: Index) -> float | None:
        """When to ask it again, if no more is applied; None: it need not be."""
        has_news = self.asked_index < applied_index
        if self.is_long:
            return self.asked_at + LONG_S  # it may have asked for the time
        if has_news:
            return self.asked_at + PAUSE_S
        return self.asked_at + TIMED_S if self.told_time else None


class Polls:
    """Keeps the clients that wait, by what they ask, and asks each question once for all of them.

    A result is linearizable whenever it was computed after the first answer: that was confirmed by a leader, and what
    is applied here later is committed later.

    Invariants: at most `polls_max` wait; each `done` is called once, unless its poll is cancelled; a question is in
    one of the three queues, in the order in which they were asked, or it is being asked.
    """

    def __init__(self, body: Body, engine: Engine, applier: Applier, scans: Scans) -> None:
        self._body = body
        self._engine = engine
        self._applier = applier
        self._scans = scans
        self._clock = body.world.clock
        self._loop = asyncio.get_running_loop()
        self._questions: dict[bytes, Question] = {}
        self._plain: OrderedDict[Question, None] = OrderedDict()
        self._timed: OrderedDict[Question, None] = OrderedDict()
        self._long: OrderedDict[Question, None] = OrderedDict()
        self._asking = 0
        """Questions that are being asked on the loop."""
        self._next: asyncio.Handle | None = None
        self._rest_until = 0.0
        self._looked_at: Index = 0
        self._parking: Parking[Poll] = Parking(self._time_over, self._left)

    def __len__(self) -> int:
        return len(self._parking)

    def ask(self, query: Query, known: int | None, done: QueryDone, wait_s: float) -> Poll:
        """Run a linearizable query, and again, until its result's xxh3-64 is not `known`, or `wait_s` is over: then
        `done` gets `NO_NEWS`. It is not called before this returns. Raises as `Engine.query`, and `Busy`."""
        if len(self) >= self._body.config.polls_max:
            raise Busy(f"{len(self)} requests wait here until something changes: polls_max allows no more")
        poll = Poll(self._parking, known, done)
        query.done = lambda index, result: self._first(poll, query, index, result)
        self._engine.query(query)
        self._parking.add(poll, wait_s)
        return poll

    def _first(self, poll: Poll, query: Query, index: Index, result: bytes | RaftKVError) -> None:
        if poll.is_over:
            return
        if poll.known is None or isinstance(result, RaftKVError) or xxhash.xxh3_64_intdigest(result) != poll.known:
            self._parking.tell(poll, index, result)
            return
        if self._is_of_leaders(query):
            self._parking.tell(poll, 0, NotLeader(self._body.raft.leader))
            return
        question = self._questions.get(query.payload)
        if question is None:
            question = self._questions[query.payload] = Question(query.payload)
            question.answered(query, index, self._clock())
            self._queue(question)
        question.by_known.setdefault(poll.known, {})[poll] = None
        poll.question, poll.seen = question, index
        self._look()

    def _is_of_leaders(self, query: Query) -> bool:
        """Whether to wait for it at the leader only: elsewhere time stands still while nothing is applied."""
        return (query.told_time or query.is_long) and not self._body.raft.is_leader

    def _time_over(self, poll: Poll) -> None:
        late = Unavailable("the query was not answered in time")
        self._parking.tell(poll, poll.seen, NO_NEWS if poll.question is not None else late)

    def _left(self, poll: Poll) -> None:
        question, poll.question = poll.question, None
        if question is None or poll.known is None:
            return
        same = question.by_known[poll.known]
        del same[poll]
        if not same:
            del question.by_known[poll.known]
            if not question.by_known:
                self._drop(question)

    def _drop(self, question: Question) -> None:
        if self._questions.get(question.payload) is question:
            del self._questions[question.payload]
        for queue in (self._plain, self._timed, self._long):
            queue.pop(question, None)

    def _queue(self, question: Question) -> None:
        queue = self._long if question.is_long else self._timed if question.told_time else self._plain
        queue[question] = None

    def look(self) -> None:
        """See to it that what waits is asked again soon, if something was applied since the last look."""
        if self._questions and self._looked_at != self._applier.applied_index:
            self._look()

    def _look(self) -> None:
        self._looked_at = self._applier.applied_index
        if self._asking < AT_ONCE:
            self._go_at(self._rest_until)

    def _go_at(self, when: float) -> None:
        if self._next is not None:
            self._next.cancel()
        delay_s = when - self._clock()
        self._next = self._loop.call_later(delay_s, self._go) if delay_s > 0 else self._loop.call_soon(self._go)

    def _go(self) -> None:
        """Ask again what is due, the longest waiting first."""
        self._next = None
        began = self._clock()
        for queue in (self._long, self._plain, self._timed):
            while queue and self._asking < AT_ONCE:
                question = next(iter(queue))
                due_at = question.due_at(self._applier.applied_index)
                if due_at is None or due_at > began:
                    break
                del queue[question]
                self._ask_again(question)
        self._rest_until = (now := self._clock()) + REST * (now - began)
        due = [self._due_at(queue) for queue in (self._long, self._plain, self._timed)]
        soonest = min((each for each in due if each is not None), default=None)
        if self._asking < AT_ONCE and (soonest is not None or self._next is not None):
            # Those that were answered at once have seen to the next time already, but for the rest.
            self._go_at(self._rest_until if soonest is None else max(soonest, self._rest_until))

    def _due_at(self, queue: OrderedDict[Question, None]) -> float | None:
        return next(iter(queue)).due_at(self._applier.applied_index) if queue else None

    def _ask_again(self, question: Question) -> None:
        def done(index: Index, result: bytes | RaftKVError) -> None:
            self._asking -= not was_long
            self._answered(question, query, index, result)

        query = Query(question.payload, done, None, question.is_idle)
        was_long = query.is_long = question.is_long
        if was_long:
            self._scans.begin(query)
        else:
            self._asking += 1
            self._applier.answer_stale(query)

    def _answered(self, question: Question, query: Query, index: Index, result: bytes | RaftKVError) -> None:
        now = self._clock()
        if isinstance(result, NotAccepted) and not self._body.has_ended:
            question.asked_at, question.is_long = now, True  # a busy node: later
        else:
            question.answered(query, index, now)
            if not isinstance(result, RaftKVError) and self._is_of_leaders(query):
                result = NotLeader(self._body.raft.leader)
            known = None if isinstance(result, RaftKVError) else xxhash.xxh3_64_intdigest(result)
            for each in [each for each in question.by_known if each != known]:
                for poll in [poll for poll in question.by_known[each] if poll.seen <= index or known is None]:
                    self._parking.tell_soon(poll, index, result)
        if question.by_known:
            self._queue(question)
        else:
            self._drop(question)
        self._look()

    def role_changed(self) -> None:
        """Another leader, or none: what waits here may wait in vain, so its clients ask again, where the leader is."""
        leader = self._body.raft.leader
        for poll in self._parking:
            self._parking.tell_soon(poll, 0, NotLeader(leader))

    def stop(self, error: RaftKVError) -> None:
        """The node stops: all that wait get `error`."""
        if self._next is not None:
            self._next.cancel()
        self._parking.stop(error)
