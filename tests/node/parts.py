"""What a part of a node is handed, in a test that has the part alone: a core that notes what it is told, workers that
work when a test says so, and a network that only takes messages."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace

from raftkv.config import Config
from raftkv.node.workers import error_of
from raftkv.testing.world.loop import SimLoop, elapse


class Worker:
    """Does one piece of work after the other: when it is told to, or soon if it is `eager`."""

    def __init__(self, *, eager=True):
        self.eager = eager
        self.queue = deque()
        self.done = 0
        """How many pieces were done."""

    def run(self, work, *args, **kwargs):
        future = asyncio.get_running_loop().create_future()
        self.queue.append((future, work, args, kwargs))
        if self.eager:
            asyncio.get_running_loop().call_soon(self.work)
        return future

    def work(self):
        """Do the next piece."""
        if not self.queue:
            return  # it was done already
        future, work, args, kwargs = self.queue.popleft()
        self.done += 1
        try:
            result = work(*args, **kwargs)
        except Exception as exc:  # noqa: BLE001 (it belongs to whoever waits for the work)
            if not future.cancelled():
                future.set_exception(exc)
        else:
            if not future.cancelled():
                future.set_result(result)

    async def work_off(self):
        """Do all pieces, those too that come of them."""
        while self.queue:
            self.work()
            await elapse(0)


class Body:
    """What a node's parts share, as far as they are handed it; `told` has what the core, the node and peers hear."""

    def __init__(self, raft, **config):
        self.raft = SimpleNamespace(**raft)
        self.node_id = self.raft.node_id
        self.config = Config(**config)
        self.sent, self.failures, self.turns = [], [], 0
        self.takes_messages = True
        self.transport = SimpleNamespace(send=self._send)
        self.world = SimpleNamespace(
            background_worker=Worker(), transfer_worker=Worker(), log_worker=Worker(), draw=lambda count: 0
        )
        self.failure = None
        self.has_ended = False

    def _send(self, to, message):
        if self.takes_messages:
            self.sent.append((to, message))
        return self.takes_messages

    def wake(self):
        """Count the turns that the engine is given."""
        self.turns += 1

    def fail(self, error):
        """Note why the node stops."""
        self.failure = error
        self.failures.append(error)

    def check_background(self, future):
        """As a node does: an error of work that nobody awaits stops it."""
        error = error_of(future)
        if error is not None:
            self.fail(error)

    def take_sent(self):
        """The messages since the last question."""
        sent, self.sent = self.sent, []
        return [message for _, message in sent]


def tell(story):
    """Tell a story in virtual time; nothing may fail behind its back."""
    loop = SimLoop()
    loop.run(story())
    assert loop.failures == []
