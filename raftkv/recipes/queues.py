"""`Queues`: jobs for workers, by queue: the machine. See `raftkv.recipes.workers` for its faces, and an example.

A job waits until a worker takes it, with a *receipt*; then nobody else gets it for the time of its visibility, which
the worker may extend. By the receipt the worker says that the job is done (`ack`) or has failed (`nack`). When it has
said neither in time, it is held to be dead, and the job has failed. A job that has failed is tried again after a while,
twice as long each time; when it has had all its attempts, it is kept as a dead letter, until somebody revives or
removes it. No job is ever dropped by itself.

**A job may be begun twice**, as no queue can know whether a worker that is silent still works; but it is *done* once:
of all who took it, one is acknowledged, and every other one is refused with `JobLost`. What a job does elsewhere can
carry the receipt along, which rises with each attempt (see `Fences`).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, TypeAlias

import msgspec

from raftkv.machine import Component, Rejection, Set, Table, Value, command, on_expire, query
from raftkv.recipes.turns import TTL_S_MAX, check_ttl

PRIORITIES = 10
"""From 0 to 9; the highest is taken first, and within one the first that came."""
JOBS_MAX = 1_000_000
"""In one machine, dead letters counted: each costs three rows."""
ATTEMPTS_MAX = 1_000
DONE_MAX = 100_000
"""Jobs that are done and known still, in one machine: the last ones."""
BACKOFF_MS_MAX = 3_600_000
"""However often a job has failed, it is tried again within the hour."""
LISTED_MAX = 100
"""Of dead letters that a query tells."""
NOT_ACKNOWLEDGED = "not acknowledged in time"

State: TypeAlias = Literal["ready", "delayed", "taken", "dead", "done"]


class JobLost(Rejection):
    """The job is not this receipt's any more: its time was over, or it is done. Somebody else may have it by now."""

    receipt: int

    def __str__(self) -> str:
        return f"receipt {self.receipt} has no job any more: leave it"


class TooManyJobs(Rejection):
    """So many jobs are there already that no more may come: some must be done, or dead letters removed, before."""

    limit: int


class TakenJob(msgspec.Struct, frozen=True):
    """A job as a worker gets it."""

    job: int
    receipt: int
    data: str
    attempt: int
    """1 for the first."""


class Seen(msgspec.Struct, frozen=True):
    """How a job is."""

    queue: str
    state: State
    attempts: int = 0
    """How often it was taken."""
    worker: str = ""
    """Who has, or had, taken it last."""
    result: str = ""
    """What the worker has said, when it is done."""
    error: str = ""
    """Why it has failed last."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A job that has failed for good."""

    job: int
    data: str
    attempts: int
    error: str


class Sizes(msgspec.Struct, frozen=True):
    """How many jobs of a queue are how."""

    ready: int = 0
    delayed: int = 0
    taken: int = 0
    dead: int = 0


class Job(msgspec.Struct, frozen=True):
    """What is kept of a job, its data aside."""

    queue: str
    priority: int
    attempts_max: int
    backoff_ms: int
    keep_ms: int
    state: State = "ready"
    place: int = 0
    """In its lane while it is ready; its receipt while it is taken."""
    attempts: int = 0
    worker: str = ""
    error: str = ""


class Lane(msgspec.Struct, frozen=True):
    """The jobs of one priority that are ready: no place before `first` has one, nor has `end`."""

    first: int = 0
    end: int = 0
    count: int = 0


class Line(msgspec.Struct, frozen=True):
    """A queue; there is none without jobs."""

    lanes: tuple[Lane, ...] = (Lane(),) * PRIORITIES
    """By priority."""
    delayed: int = 0
    taken: int = 0
    dead: int = 0


class Queues(Component):
    """Jobs by queue, with priority, delay, attempts and dead letters.

    Invariants: a job is in `ready`, `delayed`, `taken` or `dead` as its state says, but for the moment between its
    time and the entry that notices it; lines have the numbers of each.
    """

    jobs = Table(int, Job)
    payloads = Table(int, str)
    """Apart, as they may be large, and stay as they are."""
    lines = Table(str, Line)
    ready = Table(tuple[str, int, int], int)
    """By queue, priority and place."""
    delayed = Table(int, str, expires=True)
    """The queues of jobs, until they are ready."""
    taken = Table(int, int, expires=True)
    """Jobs by receipt."""
    dead = Set(tuple[str, int])
    done = Table(int, Seen, expires=True)
    done_places = Table(int, int, expires=True)
    """The jobs that are in `done`, each at the place of its turn: there are as many places as may be known."""
    last_job = Value(int, 0)
    last_receipt = Value(int, 0)
    last_done = Value(int, 0)

    # What others may call.

    @command
    def put(
        self,
        queue: str,
        data: str,
        priority: int = 0,
        delay_s: float = 0.0,
        attempts: int = 5,
        backoff_s: float = 1.0,
        keep_s: float = 3600.0,
    ) -> int:
        """Add a job; returns its number.

        It is there after `delay_s`, is tried `attempts` times, `backoff_s` after it has failed first and twice as long
        each time after that; how it was done is known for `keep_s`, unless 100,000 others were done since. Raises
        `TooManyJobs`.
        """
        _check_put(priority, attempts)
        if len(self.jobs) >= JOBS_MAX:
            raise TooManyJobs(limit=JOBS_MAX)
        delay_ms, backoff_ms = _milliseconds(delay_s, "delay_s"), _milliseconds(backoff_s, "backoff_s")
        job = Job(queue, priority, attempts, backoff_ms, _milliseconds(keep_s, "keep_s"))
        number = self.last_job = self._moment.next_number(self.last_job)
        self.payloads[number] = data
        self._begin_job(number, job, delay_ms)
        return number

    @command
    def take(self, queue: str, worker: str = "", visibility_s: float = 30.0) -> TakenJob | None:
        """The next job, for so many seconds; None when none is ready. `worker` is for people who look on."""
        check_ttl(visibility_s, "visibility_s")
        number = self._next_job(queue)
        if number is None:
            return None
        job = self.jobs[number]
        self._leave_state(number, job)
        attempts, receipt = job.attempts + 1, self._moment.next_number(self.last_receipt)
        self.last_receipt = receipt
        job = msgspec.structs.replace(job, state="taken", place=receipt, attempts=attempts, worker=worker)
        self._enter_state(number, job)
        self.taken.put(receipt, number, ttl_s=visibility_s)
        return TakenJob(number, receipt, self.payloads[number], attempts)

    @command
    def extend(self, receipt: int, visibility_s: float = 30.0) -> None:
        """Have the job for so many seconds from now on. Raises `JobLost`."""
        check_ttl(visibility_s, "visibility_s")
        self.job_of(receipt)
        self.taken.touch(receipt, visibility_s)

    @command
    def ack(self, receipt: int, result: str = "") -> None:
        """The job is done. Raises `JobLost`: then it was not done by this."""
        number = self.job_of(receipt)
        job = self.jobs[number]
        self._forget_job(number, job)
        if job.keep_ms:
            seen = Seen(job.queue, "done", job.attempts, job.worker, result)
            self.done.put(number, seen, ttl_s=timedelta(milliseconds=job.keep_ms))
            self._keep_last(number, job.keep_ms)

    def _keep_last(self, number: int, keep_ms: int) -> None:
        """Of all that are known to be done this one is the last; there is no room for the one that has its place."""
        place = self.last_done % DONE_MAX
        before = self.done_places.get(place)
        if before is not None:
            self.done.pop(before, None)
        self.done_places.put(place, number, ttl_s=timedelta(milliseconds=keep_ms))
        self.last_done += 1

    @command
    def nack(self, receipt: int, error: str = "", delay_s: float | None = None) -> State:
        """The job has failed: it is tried again after `delay_s` (None: as was said when it came), unless this was the
        last attempt. How it is now. Raises `JobLost`."""
        delay_ms = None if delay_s is None else _milliseconds(delay_s, "delay_s")
        number = self.job_of(receipt)
        return self._job_failed(number, self.jobs[number], error, delay_ms)

    @command
    def hand_back(self, receipt: int) -> bool:
        """The job was not begun: it is ready again, behind the others of its priority, and this was no attempt. False
        when it is not this receipt's any more."""
        number = self.taken.get(receipt)
        if number is None:
            return False
        job = self.jobs[number]
        self._leave_state(number, job)
        self._begin_job(number, msgspec.structs.replace(job, attempts=job.attempts - 1), 0)
        return True

    @command
    def remove(self, job: int) -> bool:
        """Forget a job that waits, or is dead; False when it is taken, or there is none."""
        found = self.jobs.get(job)
        if found is None or found.state == "taken":
            return False
        self._forget_job(job, found)
        return True

    @command
    def revive(self, job: int) -> bool:
        """Try a dead letter again, as often as at first; False when it is none."""
        found = self.jobs.get(job)
        if found is None or found.state != "dead":
            return False
        self._leave_state(job, found)
        self._begin_job(job, msgspec.structs.replace(found, attempts=0), 0)
        return True

    @query
    def look(self, job: int) -> Seen | None:
        """How a job is; None when there is none, or it was done and is known no more."""
        found = self.jobs.get(job)
        if found is None:
            return self.done.get(job)
        return Seen(found.queue, found.state, found.attempts, found.worker, "", found.error)

    @query
    def sizes(self, queue: str) -> Sizes:
        """How many jobs of a queue are how. A job whose time has just come may be counted as it was."""
        line = self.lines.get(queue, Line())
        return Sizes(sum(lane.count for lane in line.lanes), line.delayed, line.taken, line.dead)

    @query
    def count_ready(self, queue: str) -> int:
        """How many jobs could be taken now."""
        return self.sizes(queue).ready

    @query
    def dead_letters(self, queue: str, after: int = 0) -> list[DeadLetter]:
        """The first 100 dead letters whose number is higher than `after`."""
        found = []
        for _, number in self.dead.range((queue, after + 1), (queue + "\0", 0), limit=LISTED_MAX):
            job = self.jobs[number]
            found.append(DeadLetter(number, self.payloads[number], job.attempts, job.error))
        return found

    # For commands of the same machine.

    def job_of(self, receipt: int) -> int:
        """The job that `receipt` has now: for commands that do a job's work, and `ack` it. Raises `JobLost`."""
        job = self.taken.get(receipt)
        if job is None:
            raise JobLost(receipt=receipt)
        return job

    # What runs when a time has come.

    @command
    @on_expire("delayed")
    def delay_is_over(self, job: int, queue: str) -> None:
        """Runs by itself."""
        found = self.jobs.get(job)
        if found is not None and found.state == "delayed" and job not in self.delayed:
            self._leave_state(job, found)
            self._begin_job(job, found, 0)

    @command
    @on_expire("taken")
    def visibility_is_over(self, receipt: int, job: int) -> None:
        """Runs by itself."""
        found = self.jobs.get(job)
        if found is not None and found.state == "taken" and found.place == receipt and receipt not in self.taken:
            self._job_failed(job, found, NOT_ACKNOWLEDGED, None)

    # How a job goes from one state to the next.

    def _next_job(self, queue: str) -> int | None:
        """The job that is taken next."""
        line = self.lines.get(queue)
        for priority in reversed(range(PRIORITIES)):
            if line is not None and (lane := line.lanes[priority]).count:
                number = self.ready.get((queue, priority, lane.first))
                return number if number is not None else self._pass_removed(queue, priority, lane)
        return None

    def _pass_removed(self, queue: str, priority: int, lane: Lane) -> int:
        """The first job of a lane, which begins there from now on: nobody looks again at places of removed ones."""
        rows = self.ready.range((queue, priority, lane.first), (queue, priority, lane.end), limit=1)
        (_, _, place), number = next(rows)
        self._set_lane(queue, priority, Lane(place, lane.end, lane.count))
        return number

    def _set_lane(self, queue: str, priority: int, lane: Lane) -> None:
        line = self.lines.get(queue, Line())
        lanes = (*line.lanes[:priority], lane, *line.lanes[priority + 1 :])
        self.lines[queue] = msgspec.structs.replace(line, lanes=lanes)

    def _begin_job(self, number: int, job: Job, delay_ms: int) -> None:
        """It is ready after so long."""
        if delay_ms:
            self._enter_state(number, msgspec.structs.replace(job, state="delayed"))
            self.delayed.put(number, job.queue, ttl_s=timedelta(milliseconds=delay_ms))
        else:
            place = self.lines.get(job.queue, Line()).lanes[job.priority].end
            self._enter_state(number, msgspec.structs.replace(job, state="ready", place=place))

    def _job_failed(self, number: int, job: Job, error: str, delay_ms: int | None) -> State:
        """It is tried again, or is dead."""
        self._leave_state(number, job)
        job = msgspec.structs.replace(job, error=error)
        if job.attempts >= job.attempts_max:
            self._enter_state(number, msgspec.structs.replace(job, state="dead"))
            return "dead"
        if delay_ms is None:
            doubled = min(job.attempts - 1, 32)  # more would be above the limit anyhow
            delay_ms = min(job.backoff_ms << doubled, max(BACKOFF_MS_MAX, job.backoff_ms))
        self._begin_job(number, job, delay_ms)
        return "delayed" if delay_ms else "ready"

    def _forget_job(self, number: int, job: Job) -> None:
        self._leave_state(number, job)
        del self.jobs[number]
        del self.payloads[number]

    def _enter_state(self, number: int, job: Job) -> None:
        """It is in its state now."""
        self.jobs[number] = job
        if job.state == "ready":
            self.ready[job.queue, job.priority, job.place] = number
        elif job.state == "dead":
            self.dead.add((job.queue, number))
        self._count_job(job, 1)

    def _leave_state(self, number: int, job: Job) -> None:
        """It is no longer in its state."""
        if job.state == "ready":
            del self.ready[job.queue, job.priority, job.place]
        elif job.state == "dead":
            self.dead.discard((job.queue, number))
        elif job.state == "delayed":
            self.delayed.pop(number, None)
        else:
            self.taken.pop(job.place, None)
        self._count_job(job, -1)

    def _count_job(self, job: Job, change: int) -> None:
        """One more, or one less, of the queue is in the job's state."""
        if job.state == "ready":
            lane = self.lines.get(job.queue, Line()).lanes[job.priority]
            self._set_lane(job.queue, job.priority, _changed(lane, job.place, change))
            line = self.lines[job.queue]
        else:
            line = self.lines.get(job.queue, Line())
            line = msgspec.structs.replace(line, **{job.state: getattr(line, job.state) + change})
            self.lines[job.queue] = line
        if not (line.delayed or line.taken or line.dead or any(lane.count for lane in line.lanes)):
            del self.lines[job.queue]


def _changed(lane: Lane, place: int, change: int) -> Lane:
    """The lane with a job at its end, or without the one at `place`."""
    if change > 0:
        return Lane(lane.first, lane.end + 1, lane.count + 1)
    return Lane(lane.first + (place == lane.first), lane.end, lane.count - 1)


def _check_put(priority: int, attempts: int) -> None:
    if not 0 <= priority < PRIORITIES:
        raise ValueError(f"priority must be 0 to {PRIORITIES - 1}, not {priority}")
    if not 1 <= attempts <= ATTEMPTS_MAX:
        raise ValueError(f"attempts must be 1 to {ATTEMPTS_MAX}, not {attempts}")


def _milliseconds(span_s: float, what: str) -> int:
    """A span in whole milliseconds. Raises `ValueError`."""
    if not 0 <= span_s <= TTL_S_MAX:
        raise ValueError(f"{what} must be 0 to {TTL_S_MAX:g} seconds, not {span_s!r}")
    return round(span_s * 1000)
