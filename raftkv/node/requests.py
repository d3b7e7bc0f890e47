"""Clients' requests to a node: commands, queries, and views that are read page by page."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.core.roles import Leader
from raftkv.errors import InvalidArgument, NotActive, NotLeader, Unavailable
from raftkv.machine import CommandDone, QueryDone, StateMachine, open_owned_session
from raftkv.model import Index
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.engine import Engine
from raftkv.node.peers.removal import Ending
from raftkv.node.polls import Poll, Polls
from raftkv.node.scans import Scans
from raftkv.node.views import Views
from raftkv.node.waiting import Query
from raftkv.node.watches import Watcher, Watches
from raftkv.wire import Watching


class Requests:
    """Takes in requests that this node can answer, and refuses all others at once.

    Each method takes a callback instead of returning a future, to save time on the path of every request. The callback
    is called exactly once, unless the method raises.
    """

    def __init__(
        self,
        body: Body,
        engine: Engine,
        applier: Applier,
        scans: Scans,
        views: Views,
        ending: Ending,
        polls: Polls,
        watches: Watches,
        *,
        explain: Callable[[NotActive | InvalidArgument, bytes], NotActive | InvalidArgument],
        explaining: Callable[[QueryDone, bytes], QueryDone],
    ) -> None:
        """`explain` adds to an error of the active version what it takes for it to go away; `explaining` has it done
        to the errors of a query."""
        self._body = body
        self._engine = engine
        self._applier = applier
        self._scans = scans
        self._views = views
        self._ending = ending
        self._polls = polls
        self._watches = watches
        self._explain = explain
        self._explaining = explaining

    def submit(self, payload: bytes, done: CommandDone) -> None:
        """Propose a command; `done` is called exactly once, when it is durable on a majority and applied here,
        or with an error.

        Raises `NotAccepted` (safe to retry) when it is refused at once, `NotActive` for a command that the active
        version of the application lacks, `InvalidArgument` for one that no version has.
        """
        self._body.check_answers()
        if self._body.raft.is_leader:
            # Checked here, before it gets into the log: an entry that no node can apply would stop all of them.
            bytes_max = self._body.config.command_bytes_max
            if len(payload) > bytes_max:
                raise InvalidArgument(f"a command of {len(payload)} bytes: must be at most {bytes_max}")
            try:
                self._applier.runner.check(payload)
            except (NotActive, InvalidArgument) as exc:
                raise self._explain(exc, payload) from None
        self._engine.submit(payload, done)

    def open_session(self, owner: str, done: CommandDone) -> None:
        """Open a session that only this user may use; as `submit`."""
        self._body.check_answers()
        self._engine.submit(open_owned_session(owner), done)

    def session_owner(self, session_id: int) -> str | None:
        """Who may use a session, by the state that is applied here; empty for one that is nobody's, None when there is
        none."""
        return self._applier.runner.session_owner(session_id)

    @property
    def applied_index(self) -> Index:
        """The last entry that is applied here."""
        return self._applier.applied_index

    @property
    def knows_all(self) -> bool:
        """Whether a leader has applied all that the leaders before it have acknowledged; true where none leads."""
        role = self._body.raft.role
        return not isinstance(role, Leader) or self._applier.applied_index >= role.term_start

    def confirm(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        """Call `done`, with nothing, when all that was acknowledged before is applied here. Raises as `query`."""
        self._body.check_answers()
        self._engine.query(Query(b"", done, deadline_s, gone, lambda: b""))

    @property
    def machine(self) -> type[StateMachine]:
        """What it runs."""
        return self._applier.runner.machine

    def present_ms(self) -> int:
        """What time it is, in milliseconds since the epoch: the leader's where this is it, else this node's clock's,
        but never before the last entry."""
        runner = self._applier.runner
        return max(self._applier.present_ms() or self._body.world.now_ms(), runner.applied.time_ms)

    def query(
        self,
        payload: bytes,
        stale: bool,
        done: QueryDone,
        deadline_s: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> None:
        """Run a linearizable query, or a `stale` one, which reads at once whatever is applied here.

        A query that is not done within its slice of the loop goes on in a thread, until its deadline, or until `gone`
        says that its client has left.
        """
        if self._body.failure is not None:
            raise self._body.refusal()
        if self._body.doubt is not None and not stale:
            raise self._body.refusal()
        done = self._explaining(done, payload)
        if not stale:
            self._engine.query(Query(payload, done, deadline_s, gone))
            return
        self._check_state()
        self._applier.answer_stale(Query(payload, done, deadline_s, gone))

    def poll(self, payload: bytes, known: int | None, done: QueryDone, wait_s: float, gone: Callable[[], bool]) -> Poll:
        """Answer a linearizable query when the xxh3-64 of its result is not `known`, or after `wait_s` seconds with
        nothing; what this returns may be cancelled. Raises `NotAccepted` when it is refused at once."""
        self._body.check_answers()
        return self._polls.ask(Query(payload, done, wait_s, gone), known, self._explaining(done, payload), wait_s)

    def watch(self, asked: Watching, done: QueryDone, wait_s: float, gone: Callable[[], bool]) -> Watcher:
        """Answer with the changes behind a cursor, as a `Found`, when there are some, or after `wait_s` seconds; what
        this returns may be cancelled. Raises `NotAccepted` when it is refused at once."""
        self._body.check_answers()
        self._check_state()
        return self._watches.ask(asked, done, wait_s, gone)

    def _check_state(self) -> None:
        """Raises `Unavailable` where the state is no state of the cluster's."""
        if self._ending.is_near:
            raise Unavailable(f"node {self._body.node_id} was removed from the cluster")
        raft = self._body.raft
        if raft.wants_snapshot or raft.installing is not None:
            raise Unavailable("this node's state is being rebuilt from a snapshot")

    def open_view(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        """Hold the state that a linearizable query would see; the answer is the view's number.

        Only the leader does that, because clients keep their connection to the leader. Raises `NotLeader` elsewhere.
        """
        self._body.check_answers()
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
        """Run a query on a view that is held here, even if another node leads by now. Raises `ViewExpired`."""
        if self._body.failure is not None:
            raise self._body.refusal()
        self._scans.begin(Query(payload, done, deadline_s, gone, held=self._views.find(number)))

    def close_view(self, number: int) -> None:
        """Close a view, if it is still held here."""
        self._views.close(number)
