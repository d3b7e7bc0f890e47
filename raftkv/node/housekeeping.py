"""What a node checks four times a second: whether its disk hangs or is nearly full, and all else that has no event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from raftkv.disk import DiskSpace
from raftkv.errors import DiskError
from raftkv.logs import EventLog
from raftkv.node.body import Body
from raftkv.node.leaderless import Leaderless
from raftkv.node.room import DiskRoom
from raftkv.node.watchdog import DiskWatch
from raftkv.node.workers import error_of
from raftkv.node.writer import Writer

logger = EventLog(__name__)

HOUSEKEEPING_S = 0.25
"""How often disk space, snapshot triggers and stalls are looked at."""


class Housekeeping:
    """A timer that makes these checks, from `begin` until the node ends."""

    def __init__(
        self, body: Body, watch: DiskWatch, room: DiskRoom, writer: Writer, looks: Sequence[Callable[[float], None]]
    ) -> None:
        """`looks` are the other checks; they are called in this order, with the loop's time in seconds."""
        self._body = body
        self._watch = watch
        self._room = room
        self._writer = writer
        self._looks = looks
        self._leaderless = Leaderless()
        self._asking_for_space = False
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Check now, and set the timer for the next time."""
        if self._body.has_ended:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HOUSEKEEPING_S, self.begin)
        now = loop.time()
        self._check_stall(self._watch.writing_s(self._writer.started_at, now))
        self._ask_for_space()
        for look in self._looks:
            look(now)
        self._say_leaderless(self._leaderless.look(self._body.raft.leader is not None, now))

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _check_stall(self, writing_s: float) -> None:
        body = self._body
        if self._watch.is_dead(writing_s):
            body.fail(
                DiskError(f"the disk has not finished a write for {writing_s:.0f} s: check it, then start the node")
            )
        elif self._watch.is_stalled(writing_s) and body.raft.is_leader:
            body.raft.step_down()
            body.wake()
            logger.warning("disk_stalled", seconds=round(writing_s, 2), action="gave up leadership")

    def _ask_for_space(self) -> None:
        if not self._asking_for_space:
            self._asking_for_space = True
            world = self._body.world
            world.background_worker.run(world.disk.free, self._body.paths.root).add_done_callback(self._saw_space)

    def _saw_space(self, future: asyncio.Future[DiskSpace]) -> None:
        self._asking_for_space = False
        error = error_of(future)
        if future.cancelled() or self._body.is_closing:
            return
        if error is not None:
            self._body.fail(error)
            return
        self._room.saw(future.result())

    def _say_leaderless(self, seconds: float | None) -> None:
        if seconds is None:
            return
        raft = self._body.raft
        voters = list(raft.membership.voters)
        reached = [peer for peer, link in self._body.transport.links().items() if link.connected]
        hint = "start nodes until a majority of the voters can reach each other"
        if not voters:
            hint = "add this node to its cluster (raftkv member add)"
        logger.warning(
            "no_leader", node=raft.node_id, seconds=round(seconds), voters=voters, reached=reached, hint=hint
        )
