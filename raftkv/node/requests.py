"""What clients ask of a node: commands, queries, and views that are read page by page."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.errors import InvalidArgument, NotLeader, Unavailable
from raftkv.machine import CommandDone, QueryDone
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.engine import Engine
from raftkv.node.peers.removal import Ending
from raftkv.node.scans import Scans
from raftkv.node.views import Views
from raftkv.node.waiting import Query


class Requests:
    """Takes requests in, where they can be answered, and refuses them at once where they can't.

    Each takes a callback instead of giving a future, because it is on the way of everything that is asked; the
    callback is called exactly once, unless the method raises.
    """

    def __init__(
        self, body: Body, engine: Engine, applier: Applier, scans: Scans, views: Views, ending: Ending
    ) -> None:
        self._body = body
        self._engine = engine
        self._applier = applier
        self._scans = scans
        self._views = views
        self._ending = ending

    def submit(self, payload: bytes, done: CommandDone) -> None:
        """Propose a command; `done` is called exactly once, when it is durable on a majority and applied here,
        or with an error. Raises `NotAccepted` (safe to retry) when it is refused at once."""
        if self._body.failure is not None:
            raise self._refusal()
        if self._body.raft.is_leader:
            # Here, at the edge: what no node could apply must never get into the log.
            bytes_max = self._body.config.command_bytes_max
            if len(payload) > bytes_max:
                raise InvalidArgument(f"a command of {len(payload)} bytes: must be at most {bytes_max}")
            self._applier.runner.check(payload)
        self._engine.submit(payload, done)

    def query(
        self,
        payload: bytes,
        stale: bool,
        done: QueryDone,
        deadline_s: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> None:
        """Run a query: linearizable, or at once on whatever is applied here when `stale`.

        One that is not done within its slice of the loop goes on beside it, until the deadline, or `gone` is true.
        """
        if self._body.failure is not None:
            raise self._refusal()
        if not stale:
            self._engine.query(Query(payload, done, deadline_s, gone))
            return
        if self._ending.is_near:
            raise Unavailable(f"node {self._body.node_id} was removed from the cluster")
        raft = self._body.raft
        if raft.wants_snapshot or raft.installing is not None:
            raise Unavailable("this node's state is being rebuilt from a snapshot")
        self._applier.answer_stale(Query(payload, done, deadline_s, gone))

    def open_view(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        """Hold the state as it is when a linearizable query would be answered; the answer is the view's number.

        Only the leader does, as it is with the leader that clients stay. Raises `NotLeader` elsewhere.
        """
        if self._body.failure is not None:
            raise self._refusal()
        if not self._body.raft.is_leader:
            raise NotLeader(self._body.raft.leader)

        def opened() -> bytes:
            if gone():
                raise Unavailable("its client has gone")
            return msgspec.msgpack.encode(self._views.open(self._applier.runner.store.view))

        self._engine.query(Query(b"", done, deadline_s, gone, opened))

    def query_view(
        self, number: int, payload: bytes, done: QueryDone, deadline_s: float, gone: Callable[[], bool]
    ) -> None:
        """Run a query on a state that is held here, whoever leads now. Raises `ViewExpired`."""
        if self._body.failure is not None:
            raise self._refusal()
        self._scans.begin(Query(payload, done, deadline_s, gone, held=self._views.find(number)))

    def close_view(self, number: int) -> None:
        """Let go of a state that is held here."""
        self._views.close(number)

    def _refusal(self) -> Unavailable:
        return Unavailable(f"node {self._body.node_id} has stopped: {self._body.failure}")
