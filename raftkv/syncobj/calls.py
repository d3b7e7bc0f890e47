"""The way of calls from any thread into the log, in order and once each, and of their results back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from pysyncobj.config import FAIL_REASON

from raftkv.client import Client
from raftkv.client.options import SECONDS_MAX
from raftkv.config import MIB
from raftkv.errors import InvalidArgument, NotAccepted, RaftKVError
from raftkv.logs import TextLog
from raftkv.model import Index
from raftkv.syncobj.machine import SyncObjMachine

logger = TextLog("raftkv.syncobj")

Callback: TypeAlias = Callable[[Any, int], Any]
"""`callback(result, failReason)`."""
Order: TypeAlias = Callable[[Callback | None], None]
"""Begins something that is no call, on the loop's thread, and calls the callback at its end."""

BATCH_CALLS_MAX = 1_024
"""Calls in one entry: enough to make its sync cheap, few enough that the loop is not held up for long."""
BATCH_BYTES_MAX = MIB
ATTEMPT_S = 30.0
"""Otherwise: how long the outcome of what was sent is waited for, through changes of leaders."""


class Calls:
    """The queue of the calls that this process makes.

    One batch is sent at a time, so that calls take effect in the order in which they were made, even when a leader
    fails. It is sent in a client's session, so that each call is applied once, however often it has to be sent. The
    result is the one from *this* process, where the call is applied too: so it can be any object, and the local state
    has the call's effect when the result is there.

    Invariants: a callback is called at most once, and exactly once unless the process ends; `_pending` holds the
    callbacks of calls that are numbered and not settled.
    """

    def __init__(
        self, *, size_max: Callable[[], int], has_leader: Callable[[], bool], wait: Callable[[], bool]
    ) -> None:
        """`wait`: whether calls wait while there is no leader."""
        self._size_max = size_max
        self._has_leader = has_leader
        self._wait = wait
        self._queue: deque[tuple[bytes | Order, Callback | None]] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client[SyncObjMachine] | None = None
        self._applied: Callable[[], Index] = lambda: 0
        self._catch_up: Callable[[], object] = lambda: None
        self._sending: asyncio.Task[None] | None = None
        self._next = 1
        self._pending: dict[int, Callback | None] = {}
        self._answered: deque[tuple[Index, range]] = deque()
        self._results: list[tuple[Callback, Any, int]] = []
        self._ended = False
        self.origin = 0
        self.delivered = 0
        """How many callbacks were called."""

    def begin(
        self,
        client: Client[SyncObjMachine],
        origin: int,
        applied: Callable[[], Index],
        catch_up: Callable[[], object],
    ) -> None:
        """Begin to send queued calls; `catch_up` asks the leader what is committed. On the loop's thread."""
        self._client, self.origin, self._applied, self._catch_up = client, origin, applied, catch_up
        self._loop = asyncio.get_running_loop()
        self._wake()

    def put(self, call: bytes | Order, callback: Callback | None) -> None:
        """Queue a call, or what is to begin when those before it are applied; calls behind it don't wait for its end.

        When the queue is full or closed, its callback is called at once, in this thread.
        """
        if self._ended:
            self._tell(callback, None, FAIL_REASON.MISSING_LEADER)
            return
        if len(self._queue) >= self._size_max():
            self._tell(callback, None, FAIL_REASON.QUEUE_FULL)
            return
        self._queue.append((call, callback))
        if self.ended():
            self._refuse_queued()  # the end has come in between, and may have looked at the queue before
        elif not self._woken and self._loop is not None:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._wake)
            except RuntimeError:  # the loop is closed: the same
                self._refuse_queued()

    def ended(self) -> bool:
        """Whether calls are refused from now on. It may become true at any moment, on another thread."""
        return self._ended

    def __len__(self) -> int:
        return len(self._queue) + len(self._pending)

    def _wake(self) -> None:
        self._woken = False
        if self._sending is not None or not self._queue or self._client is None or self._ended:
            return
        if not self._wait() and not self._has_leader():
            while self._queue:
                _, callback = self._queue.popleft()
                self._settle(callback, None, FAIL_REASON.MISSING_LEADER)
            return
        self._sending = asyncio.get_running_loop().create_task(self._send())

    def _take(self) -> tuple[range, list[bytes]]:
        """Take the next batch out of the queue, up to an order, and number its calls."""
        queue, first, size = self._queue, self._next, 0
        calls: list[bytes] = []
        while queue and len(calls) < BATCH_CALLS_MAX:
            call, callback = queue[0]
            if not isinstance(call, bytes) or (calls and size + len(call) > BATCH_BYTES_MAX):
                break
            queue.popleft()
            size += len(call)
            calls.append(call)
            if callback is not None:
                self._pending[self._next] = callback
            self._next += 1
        return range(first, self._next), calls

    async def _send(self) -> None:
        assert self._client is not None
        try:
            while self._queue and not self._ended:
                numbers, calls = self._take()
                if calls:
                    await self._send_batch(self._client, numbers, calls)
                else:
                    self._begin_order()
        finally:
            self._sending = None
        self._wake()

    def _begin_order(self) -> None:
        order, callback = self._queue.popleft()
        assert not isinstance(order, bytes), "a batch takes all calls that stand first"
        order(callback)

    async def _send_batch(self, client: Client[SyncObjMachine], numbers: range, calls: list[bytes]) -> None:
        method = client.method("call")
        # Where a call waits for a leader as long as it takes, that is the longest that a client waits.
        deadline_s = SECONDS_MAX if self._wait() else ATTEMPT_S
        try:
            index = await client.invoke(method, (self.origin, numbers.start, calls), {}, deadline_s)
        except NotAccepted:
            self._fail(numbers, FAIL_REASON.MISSING_LEADER)
        except InvalidArgument as exc:
            logger.error("a call can't be replicated: %s", exc)
            self._fail(numbers, FAIL_REASON.REQUEST_DENIED)
        except RaftKVError:
            self._fail(numbers, FAIL_REASON.UNKNOWN_OUTCOME)
        else:
            self._answered.append((index, numbers))
            self.settle_passed()
            if self._answered and not self._queue:
                # A follower hears of a commit with the next append or tick, and nothing of ours is on the way.
                self._catch_up()

    def results(self, results: list[tuple[int, Any, int]]) -> None:
        """Calls of this process were applied here. Each item is a call's number, result and fail reason."""
        for number, result, reason in results:
            self._settle(self._pending.pop(number, None), result, reason)

    def settle_passed(self) -> None:
        """End the calls that are applied, but not *here*, because a snapshot came in their place."""
        answered = self._answered
        while answered and answered[0][0] <= self._applied():
            _, numbers = answered.popleft()
            self._fail(numbers, FAIL_REASON.UNKNOWN_OUTCOME)

    def _fail(self, numbers: range, reason: int) -> None:
        for number in numbers:
            self._settle(self._pending.pop(number, None), None, reason)

    def _settle(self, callback: Callback | None, result: Any, reason: int) -> None:
        """Call the callback in a later turn of the loop, so that it does not run while an entry is being applied."""
        if callback is None:
            return
        if not self._results and self._loop is not None:
            self._loop.call_soon(self._deliver)
        self._results.append((callback, result, reason))

    def _deliver(self) -> None:
        results, self._results = self._results, []
        for callback, result, reason in results:
            self._tell(callback, result, reason)
        self.delivered += len(results)

    def _tell(self, callback: Callback | None, result: Any, reason: int) -> None:
        if callback is None:
            return
        try:
            callback(result, reason)
        except Exception:  # what an application's callback raises harms nobody else
            logger.exception("a callback of the application failed")

    def end(self) -> None:
        """Take no more calls. Those that were sent get `UNKNOWN_OUTCOME`, the others hear that nothing was done."""
        self._ended = True
        if self._sending is not None:
            self._sending.cancel()
        self._deliver()
        pending, self._pending = self._pending, {}
        for callback in pending.values():
            self._tell(callback, None, FAIL_REASON.UNKNOWN_OUTCOME)
        self._refuse_queued()

    def _refuse_queued(self) -> None:
        with contextlib.suppress(IndexError):  # empty: another thread may be at the same
            while True:
                _, callback = self._queue.popleft()
                self._tell(callback, None, FAIL_REASON.MISSING_LEADER)
