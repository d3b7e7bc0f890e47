"""Models of queues, rate limits and keys: plain dicts, looked through from the beginning each time."""

from __future__ import annotations

import dataclasses

from raftkv.recipes import (
    DeadLetter,
    JobLost,
    KeyLost,
    KeyReused,
    KeyState,
    Pace,
    Seen,
    Sizes,
    TakenJob,
    TooFast,
)


@dataclasses.dataclass
class Entered:
    """A job; `since` orders those that are ready."""

    queue: str
    data: str
    priority: int
    attempts_max: int
    backoff_ms: int
    keep_ms: int
    state: str = "ready"
    since: int = 0
    until_ms: int = 0
    receipt: int = 0
    worker: str = ""
    attempts: int = 0
    error: str = ""


class QueuesModel:
    """Of `Queues`."""

    def __init__(self) -> None:
        self.jobs: dict[int, Entered] = {}
        self.done: dict[int, tuple[Seen, int]] = {}
        self.last_job = 0
        self.last_receipt = 0
        self.changes = 0

    def put(self, queue, data, priority, delay_s, attempts, backoff_s, keep_s, now_ms) -> int:
        self.last_job += 1
        spans = round(backoff_s * 1000), round(keep_s * 1000)
        job = self.jobs[self.last_job] = Entered(queue, data, priority, attempts, *spans)
        self.begin(job, round(delay_s * 1000), now_ms)
        return self.last_job

    def begin(self, job: Entered, delay_ms: int, now_ms: int) -> None:
        self.changes += 1
        job.state, job.since, job.until_ms = ("delayed" if delay_ms else "ready"), self.changes, now_ms + delay_ms

    def fail(self, job: Entered, error: str, delay_ms: int | None, now_ms: int) -> str:
        job.error = error
        if job.attempts >= job.attempts_max:
            job.state = "dead"
        else:
            backoff_ms = min(job.backoff_ms * 2 ** (job.attempts - 1), 3_600_000)
            self.begin(job, backoff_ms if delay_ms is None else delay_ms, now_ms)
        return job.state

    def own(self, receipt: int, now_ms: int) -> int:
        for number, job in self.jobs.items():
            if job.state == "taken" and job.receipt == receipt and job.until_ms > now_ms:
                return number
        raise JobLost(receipt=receipt)

    def take(self, queue, worker, visibility_s, now_ms) -> TakenJob | None:
        ready = [(-job.priority, job.since, number) for number, job in self.jobs.items() if job.state == "ready"]
        for _, _, number in sorted(each for each in ready if self.jobs[each[2]].queue == queue):
            job = self.jobs[number]
            self.last_receipt += 1
            job.state, job.receipt, job.attempts = "taken", self.last_receipt, job.attempts + 1
            job.worker, job.until_ms = worker, now_ms + round(visibility_s * 1000)
            return TakenJob(number, job.receipt, job.data, job.attempts)
        return None

    def extend(self, receipt, visibility_s, now_ms) -> None:
        self.jobs[self.own(receipt, now_ms)].until_ms = now_ms + round(visibility_s * 1000)

    def ack(self, receipt, result, now_ms) -> None:
        number = self.own(receipt, now_ms)
        job = self.jobs.pop(number)
        if job.keep_ms:
            self.done[number] = Seen(job.queue, "done", job.attempts, job.worker, result), now_ms + job.keep_ms

    def nack(self, receipt, error, delay_s, now_ms) -> str:
        job = self.jobs[self.own(receipt, now_ms)]
        return self.fail(job, error, None if delay_s is None else round(delay_s * 1000), now_ms)

    def hand_back(self, receipt, now_ms) -> bool:
        for job in self.jobs.values():
            if job.state == "taken" and job.receipt == receipt and job.until_ms > now_ms:
                job.attempts -= 1
                self.begin(job, 0, now_ms)
                return True
        return False

    def remove(self, number) -> bool:
        if number not in self.jobs or self.jobs[number].state == "taken":
            return False
        del self.jobs[number]
        return True

    def revive(self, number, now_ms) -> bool:
        if number not in self.jobs or self.jobs[number].state != "dead":
            return False
        self.jobs[number].attempts = 0
        self.begin(self.jobs[number], 0, now_ms)
        return True

    def delay_is_over(self, number, queue, now_ms) -> None:
        job = self.jobs.get(number)
        if job is not None and job.state == "delayed" and job.until_ms <= now_ms:
            self.begin(job, 0, now_ms)

    def visibility_is_over(self, receipt, number, now_ms) -> None:
        job = self.jobs.get(number)
        if job is not None and job.state == "taken" and job.receipt == receipt and job.until_ms <= now_ms:
            self.fail(job, "not acknowledged in time", None, now_ms)

    def look(self, number, now_ms) -> Seen | None:
        if number in self.jobs:
            job = self.jobs[number]
            return Seen(job.queue, job.state, job.attempts, job.worker, "", job.error)
        seen, until_ms = self.done.get(number, (None, 0))
        return seen if until_ms > now_ms else None

    def sizes(self, queue) -> Sizes:
        states = [job.state for job in self.jobs.values() if job.queue == queue]
        return Sizes(*[states.count(state) for state in ("ready", "delayed", "taken", "dead")])

    def dead_letters(self, queue, after) -> list[DeadLetter]:
        return [
            DeadLetter(number, job.data, job.attempts, job.error)
            for number, job in self.jobs.items()
            if job.queue == queue and job.state == "dead" and number > after
        ]


class RatesModel:
    """Of `RateLimits`, for one setting: tokens that were spent, and are not back yet, in milliseconds of time."""

    def __init__(self) -> None:
        self.empty_until: dict[str, int] = {}
        """A bucket of 3 tokens, of which one comes every 400 ms, is full again then."""

    def ask(self, name, limit, per_s, burst, cost, now_ms) -> Pace:
        full_at = max(self.empty_until.get(name, 0), now_ms)
        missing_ms = full_at - now_ms
        if missing_ms + cost * 400 > 3 * 400:
            return Pace(False, (1200 - missing_ms) // 400, (missing_ms + cost * 400 - 1200) / 1000)
        self.empty_until[name] = full_at + cost * 400
        return Pace(True, (1200 - missing_ms - cost * 400) // 400)

    def spend(self, name, limit, per_s, burst, cost, now_ms) -> int:
        pace = self.ask(name, limit, per_s, burst, cost, now_ms)
        if not pace.is_allowed:
            raise TooFast(name=name, wait_s=pace.wait_s)
        return pace.left

    def refill(self, name, now_ms) -> bool:
        return self.empty_until.pop(name, 0) > now_ms


class KeysModel:
    """Of `IdempotencyKeys`: by key the request, the token, the answer, and until when that is kept."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, int, str, int]] = {}
        self.last = 0

    def find(self, key, now_ms):
        found = self.known.get(key)
        return found if found is not None and found[3] > now_ms else None

    def begin(self, key, request, hold_s, now_ms) -> KeyState:
        found = self.find(key, now_ms)
        if found is None:
            self.last += 1
            self.known[key] = request, self.last, "", now_ms + round(hold_s * 1000)
            return KeyState(False, "", self.last)
        if found[0] != request:
            raise KeyReused(key=key)
        return KeyState(bool(found[2]), found[2])

    def require(self, key, token, now_ms):
        found = self.find(key, now_ms)
        if found is None or found[1] != token or found[2]:
            raise KeyLost(key=key, token=token)
        return found

    def hold(self, key, token, hold_s, now_ms) -> None:
        request, _, _, _ = self.require(key, token, now_ms)
        self.known[key] = request, token, "", now_ms + round(hold_s * 1000)

    def finish(self, key, token, answer, keep_s, now_ms) -> None:
        request, _, _, _ = self.require(key, token, now_ms)
        self.known[key] = request, 0, answer, now_ms + round(keep_s * 1000)

    def abandon(self, key, token, now_ms) -> bool:
        try:
            self.require(key, token, now_ms)
        except KeyLost:
            return False
        del self.known[key]
        return True

    def state_of(self, key, now_ms) -> KeyState | None:
        found = self.find(key, now_ms)
        return None if found is None else KeyState(bool(found[2]), found[2])
