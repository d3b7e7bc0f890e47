"""Workers: they take jobs from `Queues` one after the other, and keep each up as long as they work on it.

```python
queues = AwaitedQueues(client, App.work)
number = await queues.put("mail", "to ann", priority=5, delay_s=60)

async with queues.take("mail", visibility_s=30) as job:     # waits until there is one
    job.result = send(job.data)                             # done at the end of the block; failed if it raises
async for job in queues.jobs("mail"):                       # until the client is closed
    async with job:
        ...
await queues.run("mail", send_it, at_once=10)               # the same with ten at a time, and failures borne

seen = await queues.finished(number, timeout_s=60)          # Seen(state="done", result=…), or "dead"
```

`BlockingQueues` has the same for threads. While a worker is at a job, a task extends its visibility; so that may be
short, and a job whose worker has died is soon tried again. A worker that is paused for longer may come too late:
`job.check()` says so before a step that must not be done twice, and the end of the block raises `JobLost`. A job that a
command of the machine has done, and acknowledged, is the block's no more: `job.let_go()` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Self

from raftkv.client import BlockingClient, Client
from raftkv.errors import Indeterminate, NotAccepted, RaftKVError, TimedOut, Unavailable
from raftkv.recipes.claims import LEAVE_S, Awaited, Blocking, NotAcquired
from raftkv.recipes.queues import JobLost, Queues, Seen, TakenJob
from raftkv.recipes.upkeep import RENEWED_AT, Upkeep
from raftkv.recipes.waiting import until

VISIBILITY_S = 30.0
POLLED_S = 30.0
"""How long one look for a job waits for one."""
PAUSE_S = 0.5
"""Before a worker tries again when there is no cluster."""
DONE_WITHIN = "if a command of the machine has done this job itself, call `let_go()` behind it, in the block"
ERROR_MAX = 1_000
"""Characters that are kept of why a job has failed."""


class Work:
    """A job that this worker has. `async with work:` says at the end that it is done, with `result`, or that it has
    failed, with what the block raised; then it raises that."""

    def __init__(self, client: Client[Any], at: Any, taken: TakenJob, visibility_s: float, asked_at: float) -> None:
        self.job = taken.job
        self.receipt = taken.receipt
        self.data = taken.data
        self.attempt = taken.attempt
        """1 for the first."""
        self.result = ""
        """What others shall find when it is done."""
        self._client = client
        self._at = at
        self._visibility_s = visibility_s
        self._is_left = False
        self._upkeep = Upkeep(visibility_s, self._extend, JobLost)
        self.lost = self._upkeep.lost
        """Set when it is not sure any more that nobody else has the job."""
        self._upkeep.start(asked_at)

    async def _extend(self) -> None:
        client = self._client.within(self._visibility_s / RENEWED_AT)
        await client.call(self._at.extend, self.receipt, self._visibility_s)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have `callback` called on the client's loop when the job is lost."""
        self._upkeep.on_lost(callback)

    def check(self) -> None:
        """Raises `JobLost` unless it is sure that nobody else has the job: before a step that only one may do."""
        if not self._upkeep.is_sure:
            self._upkeep.lose()
            raise JobLost(receipt=self.receipt)

    async def ack(self, result: str = "") -> None:
        """It is done. Raises `JobLost` when it was not done by this worker, and what a call raises."""
        self._upkeep.stop()
        await self._client.call(self._at.ack, self.receipt, result)

    async def nack(self, error: str = "", delay_s: float | None = None) -> None:
        """It has failed, and is tried again after `delay_s`, or as was said when it came. Raises as `ack`."""
        self._upkeep.stop()
        await self._client.call(self._at.nack, self.receipt, error[:ERROR_MAX], delay_s)

    def let_go(self) -> None:
        """Extend it no longer, and say nothing at the end of the block: a command of the machine itself has done it."""
        self._upkeep.stop()
        self._is_left = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_left:
            return
        if kind is None:
            try:
                await self.ack(self.result)
            except JobLost as exc:
                exc.add_note(DONE_WITHIN)
                raise
        else:
            await asyncio.shield(self._give_up(f"{kind.__name__}: {error}"))

    async def _give_up(self, error: str) -> None:
        self._upkeep.stop()
        with contextlib.suppress(RaftKVError):  # else its time ends it
            client = self._client.within(LEAVE_S)
            await client.call(self._at.nack, self.receipt, error[:ERROR_MAX], None)


class AwaitedQueues(Awaited[Queues]):
    """Queues through a `Client`."""

    _recipe = Queues

    async def put(
        self,
        queue: str,
        data: str,
        *,
        priority: int = 0,
        delay_s: float = 0.0,
        attempts: int = 5,
        backoff_s: float = 1.0,
        keep_s: float = 3600.0,
    ) -> int:
        """As `Queues.put`."""
        settings = (priority, delay_s, attempts, backoff_s, keep_s)
        return int(await self._client.call(self._at.put, queue, data, *settings))

    @contextlib.asynccontextmanager
    async def take(
        self, queue: str, *, visibility_s: float = VISIBILITY_S, timeout_s: float | None = None, worker: str = ""
    ) -> AsyncIterator[Work]:
        """The next job, for the block. Raises `NotAcquired` when there is none within `timeout_s`."""
        async with await self.next_job(queue, visibility_s, timeout_s, worker) as work:
            yield work

    async def next_job(
        self, queue: str, visibility_s: float = VISIBILITY_S, timeout_s: float | None = None, worker: str = ""
    ) -> Work:
        """The next job, to be used with `async with`, or until its `ack` or `nack`. Raises as `take`."""
        end = None if timeout_s is None else Upkeep.now() + timeout_s
        while True:
            asked_at = Upkeep.now()
            taken = await self._take(queue, worker or _here(), visibility_s)
            if taken is not None:
                return Work(self._client, self._at, taken, visibility_s, asked_at)
            left_s = POLLED_S if end is None else min(POLLED_S, end - asked_at)
            if left_s <= 0:
                raise NotAcquired(f"{queue!r} had no job within {timeout_s:g} s")
            await until(self._client, self._at.count_ready, queue, timeout_s=left_s)

    async def _take(self, queue: str, worker: str, visibility_s: float) -> TakenJob | None:
        """The next job, if one is ready. One that nobody wants any more, as this was cancelled meanwhile, goes back."""
        taking = asyncio.ensure_future(self._client.call(self._at.take, queue, worker, visibility_s))
        try:
            found: TakenJob | None = await asyncio.shield(taking)
        except asyncio.CancelledError:
            await asyncio.shield(self._hand_back(taking))
            raise
        return found

    async def _hand_back(self, taking: asyncio.Future[TakenJob | None]) -> None:
        with contextlib.suppress(RaftKVError, TimeoutError):  # else its time ends it, which costs an attempt
            taken = await asyncio.wait_for(taking, LEAVE_S)
            if taken is not None:
                await self._client.within(LEAVE_S).call(self._at.hand_back, taken.receipt)

    async def jobs(self, queue: str, *, visibility_s: float = VISIBILITY_S, worker: str = "") -> AsyncIterator[Work]:
        """Job after job until the client is closed, also when there is no cluster for a while; each to be used with
        `async with`."""
        while (work := await self.next_in_time(queue, visibility_s, worker)) is not None:
            yield work

    async def next_in_time(self, queue: str, visibility_s: float = VISIBILITY_S, worker: str = "") -> Work | None:
        """As `next_job`, whenever there is a cluster; None when the client is closed."""
        while not self._client.is_closed:
            with contextlib.suppress(NotAccepted, Indeterminate):  # one that was taken unheard comes back at its time
                return await self.next_job(queue, visibility_s, None, worker)
            await asyncio.sleep(PAUSE_S)
        return None

    async def run(
        self,
        queue: str,
        handle: Callable[[Work], Awaitable[str | None]],
        *,
        at_once: int = 1,
        visibility_s: float = VISIBILITY_S,
        worker: str = "",
    ) -> None:
        """Work until the client is closed, on so many jobs at a time. What `handle` returns is a job's result; when it
        raises, the job has failed, and it goes on with others."""

        async def work_on() -> None:
            while (work := await self.next_in_time(queue, visibility_s, worker)) is not None:
                # What a job raises is kept with it; that it could not be told is for its time to end.
                with contextlib.suppress(Exception):
                    async with work:
                        work.result = await handle(work) or ""

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work_on())

    async def finished(self, job: int, timeout_s: float | None = None) -> Seen | None:
        """How a job has ended, done or dead, when it has; None when nothing is known of it. Raises `TimedOut`."""
        end = None if timeout_s is None else Upkeep.now() + timeout_s
        seen: Seen | None = await self._client.call(self._at.look, job)
        while seen is not None and seen.state not in ("done", "dead"):
            left_s = POLLED_S if end is None else min(POLLED_S, end - Upkeep.now())
            if left_s <= 0:
                raise TimedOut(f"job {job} is {seen.state} still, after {timeout_s:g} s")
            seen = await until(self._client, self._at.look, job, timeout_s=left_s, unlike=seen)
        return seen


class BlockingWork:
    """A `Work` for code without asyncio; its visibility is extended on the client's own thread."""

    def __init__(self, client: BlockingClient[Any], work: Work) -> None:
        self._client = client
        self.work = work
        """What it is in asyncio."""
        self.job, self.receipt, self.data, self.attempt = work.job, work.receipt, work.data, work.attempt
        self.result = ""
        """As that of the work."""
        self.lost = threading.Event()
        """As that of the work."""
        work.on_lost(self.lost.set)

    def check(self) -> None:
        """As `Work.check`."""
        self._client.run(self._check())

    async def _check(self) -> None:
        self.work.check()

    def ack(self, result: str = "") -> None:
        """As `Work.ack`."""
        self._client.run(self.work.ack(result))

    def nack(self, error: str = "", delay_s: float | None = None) -> None:
        """As `Work.nack`."""
        self._client.run(self.work.nack(error, delay_s))

    def let_go(self) -> None:
        """As `Work.let_go`."""
        self._client.run(self._let_go())

    async def _let_go(self) -> None:
        self.work.let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.work.result = self.result
        self._client.run(self.work.__aexit__(kind, error, trace))


class BlockingQueues(Blocking[Queues]):
    """Queues through a `BlockingClient`."""

    _awaited = AwaitedQueues

    def put(
        self,
        queue: str,
        data: str,
        *,
        priority: int = 0,
        delay_s: float = 0.0,
        attempts: int = 5,
        backoff_s: float = 1.0,
        keep_s: float = 3600.0,
    ) -> int:
        """As `Queues.put`."""
        return int(
            self._client.run(
                self._face.put(
                    queue,
                    data,
                    priority=priority,
                    delay_s=delay_s,
                    attempts=attempts,
                    backoff_s=backoff_s,
                    keep_s=keep_s,
                )
            )
        )

    @contextlib.contextmanager
    def take(
        self, queue: str, *, visibility_s: float = VISIBILITY_S, timeout_s: float | None = None, worker: str = ""
    ) -> Iterator[BlockingWork]:
        """As `AwaitedQueues.take`, for `with`."""
        with self.next_job(queue, visibility_s, timeout_s, worker) as work:
            yield work

    def next_job(
        self, queue: str, visibility_s: float = VISIBILITY_S, timeout_s: float | None = None, worker: str = ""
    ) -> BlockingWork:
        """As `AwaitedQueues.next_job`."""
        work = self._client.run(self._face.next_job(queue, visibility_s, timeout_s, worker))
        return BlockingWork(self._client, work)

    def jobs(self, queue: str, *, visibility_s: float = VISIBILITY_S, worker: str = "") -> Iterator[BlockingWork]:
        """As `AwaitedQueues.jobs`."""
        while True:
            try:
                work = self._client.run(self._face.next_in_time(queue, visibility_s, worker))
            except Unavailable:  # nothing runs in a client that is closed
                return
            if work is None:
                return
            yield BlockingWork(self._client, work)

    def run(
        self,
        queue: str,
        handle: Callable[[BlockingWork], str | None],
        *,
        visibility_s: float = VISIBILITY_S,
        worker: str = "",
    ) -> None:
        """As `AwaitedQueues.run`, on one job at a time: for several, run it in several threads."""
        for work in self.jobs(queue, visibility_s=visibility_s, worker=worker):
            with contextlib.suppress(Exception), work:
                work.result = handle(work) or ""

    def finished(self, job: int, timeout_s: float | None = None) -> Seen | None:
        """As `AwaitedQueues.finished`."""
        seen: Seen | None = self._client.run(self._face.finished(job, timeout_s))
        return seen


def _here() -> str:
    return f"{os.uname().nodename}:{os.getpid()}"
