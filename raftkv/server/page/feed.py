"""What the page is told: one picture of the cluster a second, the same for all who look, and none for nobody.

The nodes are asked, and pictures made, on a thread and an event loop of their own, which exist while somebody looks:
the node's loop only has to say how it is.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from raftkv.doctor import ClusterView, Evidence
from raftkv.errors import Unavailable
from raftkv.forks import leave, tell_of_fork
from raftkv.logs import EventLog, Recent, recent
from raftkv.model import NodeId
from raftkv.node.status import NodeStatus
from raftkv.server.page.asking import Cluster
from raftkv.server.page.picture import picture_of

logger = EventLog(__name__)

PERIOD_S = 1.0
GLANCE_S = 0.05
"""How often it is looked whether the leader is another one: that is shown at once."""
AT_ONCE_S = 0.2
"""Between two pictures at least, however often that changes."""

VIEWERS_MAX = 8
"""Each has a thread and a connection."""

STILL_HERE_S = 2.0
"""Without any news a viewer is told so, to find out whether it is still there."""

COMPARED_S = 0.9
"""A picture is compared with one that is at least so old."""

FULL = b'event: full\ndata: {"viewers": %d}\n\n' % VIEWERS_MAX


class Watched(NamedTuple):
    """How the feed learns of this node; all for any thread."""

    status: Callable[[], NodeStatus | None]
    """Waits for it; None when the node's loop does not answer."""
    pulse: Callable[[], object] = lambda: None
    """Is another value when there may be another leader, and costs next to nothing."""
    context: ssl.SSLContext | None = None
    """For asking the others; None where nodes speak no TLS to clients."""


class Feed:
    """Streams of server-sent events for up to `VIEWERS_MAX` viewers.

    Invariant: the thread runs while there are viewers, and ends soon after the last one has left.
    """

    def __init__(self, watched: Watched, events: Recent = recent, period_s: float = PERIOD_S) -> None:
        self._watched = watched
        self._events = events
        self.period_s = period_s
        self._news = threading.Condition()
        self._viewers = 0
        self._thread: threading.Thread | None = None
        self._closed = False
        self._number = 0
        self._picture = b""
        self.rounds = 0
        """How often the nodes were asked so far."""
        events.keep()
        tell_of_fork(self)

    @property
    def viewers(self) -> int:
        """How many look now."""
        return self._viewers

    @property
    def is_looking(self) -> bool:
        """Whether nodes are asked now."""
        return self._thread is not None

    def stream(self, goes_on: Callable[[], None]) -> Iterator[bytes]:
        """Server-sent events, until the feed is closed or `goes_on`, called with each part, raises."""
        thread = self._enter()
        if thread is None:
            yield FULL
            return
        try:
            yield b"retry: 1000\n\n"
            seen = said = 0
            while not self._closed and self._thread is thread:
                goes_on()
                parts = []
                if events := self._events.after(said):
                    said = events[-1].number
                    parts.append(_event("log", msgspec.json.encode(events)))
                number, picture = self._wait(seen)
                if number != seen:
                    seen = number
                    parts.append(_event("picture", picture))
                yield b"".join(parts) or b": still here\n\n"
        finally:
            self._leave()

    def _wait(self, seen: int) -> tuple[int, bytes]:
        """The number of the newest picture, and it; `seen` when there is no newer one for a while."""

        def has_news() -> bool:
            return self._closed or self._thread is None or bool(self._picture and self._number != seen)

        with self._news:
            self._news.wait_for(has_news, STILL_HERE_S)
            return (self._number, self._picture) if self._picture else (seen, b"")

    def _enter(self) -> threading.Thread | None:
        """One more viewer, of the pictures of this thread; None if there are too many."""
        with self._news:
            if self._closed or self._viewers >= VIEWERS_MAX:
                return None
            self._viewers += 1
            if self._thread is None:
                self._picture = b""
                self._thread = threading.Thread(target=self._work, name="raftkv-page", daemon=True)
                self._thread.start()
            return self._thread

    def _leave(self) -> None:
        with self._news:
            self._viewers -= 1

    def _is_over(self) -> bool:
        """Whether nobody looks any more; then the next viewer starts another thread."""
        with self._news:
            if self._viewers and not self._closed:
                return False
            self._thread = None
            return True

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except Exception:
            logger.error("page_failed", exc_info=True, hint="this is a bug of raftkv: report it")
            with self._news:
                self._thread = None  # so that all streams end, and browsers ask again
                self._news.notify_all()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        cluster = Cluster(self._own_status, self._watched.context)
        views: deque[tuple[float, ClusterView]] = deque(maxlen=16)
        try:
            while not self._is_over():
                began, pulse = loop.time(), self._watched.pulse()
                view, fresh = await cluster.look()
                self.rounds += 1
                if view.nodes:
                    self._publish(self._evidence(views, view, fresh, loop.time()), cluster.own_id)
                    views.append((loop.time(), view))
                await self._pause(began, pulse)
        finally:
            await cluster.close()

    async def _own_status(self) -> NodeStatus:
        status = await asyncio.get_running_loop().run_in_executor(None, self._watched.status)
        if status is None:
            raise Unavailable("its event loop does not answer")
        return status

    def _evidence(
        self, views: deque[tuple[float, ClusterView]], view: ClusterView, fresh: set[NodeId], now: float
    ) -> Evidence:
        """With an earlier look to compare with, for those nodes that have answered just now."""
        members = [each.client_address for each in view.newest.membership.members if each.client_address]
        options = ("-a", ",".join(members)) if members else ()
        while len(views) > 1 and now - views[1][0] >= COMPARED_S:
            views.popleft()
        if not views or now - views[0][0] < COMPARED_S:
            return Evidence(view=view, options=options)
        at, before = views[0]
        compared = ClusterView([node for node in before.nodes if node.node_id in fresh], before.silent)
        return Evidence(view=view, before=compared, apart_s=now - at, options=options)

    def _publish(self, evidence: Evidence, own: NodeId | None) -> None:
        picture = msgspec.json.encode(picture_of(evidence, own, datetime.now(UTC)))
        with self._news:
            self._number += 1
            self._picture = picture
            self._news.notify_all()

    async def _pause(self, began: float, pulse: object) -> None:
        """Until the next picture is due, or there may be another leader."""
        loop = asyncio.get_running_loop()
        while not self._closed and (passed := loop.time() - began) < self.period_s:
            if passed >= AT_ONCE_S and self._watched.pulse() != pulse:
                return
            await asyncio.sleep(GLANCE_S)

    def after_fork(self) -> None:
        """In a child: the thread is the parent's."""
        self._closed = True
        leave(self)

    def close(self) -> None:
        """End all streams. Blocking."""
        with self._news:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
            self._news.notify_all()
        self._events.drop()
        if thread is not None:
            thread.join(5.0)


def _event(name: str, data: bytes) -> bytes:
    """One event of a stream; JSON has no ends of line of its own."""
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
