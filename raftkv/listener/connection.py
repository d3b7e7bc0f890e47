"""One client's connection: requests in, answers out, bounds kept."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, cast

from raftkv.errors import Busy, FrameError, NotLeader, RaftKVError, Unauthenticated, Unavailable
from raftkv.forks import let_go_of
from raftkv.listener.admin import ANSWER_S, read_argument
from raftkv.listener.answers import error_response, members_response, outcome_response, result_response
from raftkv.listener.certain import when_certain
from raftkv.listener.crowd import Crowd
from raftkv.listener.demands import Demand
from raftkv.listener.gate import SignInAnew, Unconfirmed
from raftkv.listener.greeting import answer_hello, unfit
from raftkv.listener.interface import Parked, Service
from raftkv.listener.keepalive import keep_alive
from raftkv.listener.limits import ANSWER_BYTES_LARGE
from raftkv.listener.parked import ParkedRequests
from raftkv.listener.standing import Standing
from raftkv.machine import OPEN_SESSION, OutcomeKind
from raftkv.transport import address_text
from raftkv.wire import (
    NOTICE_ID,
    FrameDecoder,
    Members,
    Poll,
    Request,
    RequestKind,
    Response,
    Status,
    ViewQuery,
    Watching,
    decode_client_hello,
    decode_request,
    encode_members,
    encode_response,
    encode_server_hello,
)

if TYPE_CHECKING:
    from raftkv.machine import Outcome
    from raftkv.model import Index


class Connection(asyncio.Protocol):
    """A client's connection, as a protocol of asyncio.

    Whatever a client does wrong closes its connection, is counted, and has no other effect. While it
    has `requests_max` requests waiting, or doesn't read its answers, it isn't read.

    Invariants: `waiting` is the number of requests taken and not answered, without those in `_parked`, which wait
    until something happens; `_backlog` holds frames only while reading is paused.
    """

    def __init__(self, service: Service, crowd: Crowd[Connection], standing: Standing) -> None:
        self._service = service
        self.standing = standing
        self._address = "unknown"
        self._crowd = crowd
        self._limits, self._stats = crowd.limits, crowd.stats
        self._loop = asyncio.get_running_loop()
        self._decoder = FrameDecoder(crowd.limits.frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._greeted = False
        self._backlog: deque[bytes | memoryview] = deque()
        self._out: list[bytes] = []
        self._out_bytes = self._unread_bytes = 0
        self._paused = self._unread = self._resting = False
        self._ending: RaftKVError | None = None
        """Why it takes no more requests."""
        self._arrived = 0.0
        """When the newest data came."""
        self.told: tuple[str, ...] = ()
        """The addresses of the members that the client has heard of."""
        self._gone = self.is_gone  # once, not for each query
        self.waiting = 0
        self._parked = ParkedRequests(crowd.limits.parked_max)
        self.held_bytes = 0
        """What all together were told that this connection keeps in memory."""
        self.closed = False
        self.incomplete_since: float | None = None
        """Since when the handshake or a frame is awaited whose beginning has arrived."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called when a client has connected; its hello must come within a bounded time."""
        transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, but not the base class
        self._transport = transport
        self._address = address_text(transport.get_extra_info("peername"))
        if not self._crowd.admit(self):
            self._stats.connections_refused += 1
            self.closed = True
            transport.abort()
            self.refuse("connections", self._crowd.full_text())
            return
        if (sock := transport.get_extra_info("socket")) is not None:
            keep_alive(sock)
        transport.set_write_buffer_limits(self._limits.write_pause_bytes)
        self.incomplete_since = self._loop.time()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone; what it asked for goes on, and its answers are dropped."""
        self.closed = True
        self._crowd.release(self)
        self._backlog.clear()
        self._out.clear()
        self._drop_parked()

    def is_gone(self) -> bool:
        """Whether nobody waits for answers here any more; asked on any thread."""
        return self.closed

    def abort(self) -> None:
        """Close at once, without sending what waits."""
        self.closed = True
        self._decoder = FrameDecoder(0)
        self._backlog.clear()
        self._out.clear()
        self._out_bytes = self._unread_bytes = 0
        self._drop_parked()
        self._tell_held()
        if self._transport is not None:
            self._transport.abort()

    def after_fork(self) -> None:
        """In a child: the client is the parent's."""
        self.closed = True
        let_go_of(self._transport)

    def end(self) -> None:
        """Take no more requests; close when those that were taken are answered."""
        self.tell_members()  # its client needs the others now
        self._take_no_more(Unavailable(f"node {self._service.node_id} is closing"))

    def _take_no_more(self, why: RaftKVError) -> None:
        self._ending = why
        for request_id in self._parked:
            self._fetch(request_id)[0].cancel()
            self._query_done(request_id, 0, why)
        if self.waiting == 0:
            self._finish()

    def check_standing(self) -> None:
        """Tell the client when it is not its user any more, and end; called when that may be so."""
        if not self._greeted or self.closed or self._ending is not None:
            return
        self.standing.renew()
        if why := self.standing.lost:
            self._dismiss(Unauthenticated(why))

    def _dismiss(self, why: RaftKVError) -> None:
        """Have the client sign in anew: no more is taken here."""
        self._write(encode_response(Response(NOTICE_ID, Status.UNAUTHENTICATED, str(why).encode())))
        self._take_no_more(why)
        self.refuse("user", str(why))

    def tell_members(self) -> bool:
        """Tell the client of the members if they have changed since it heard of them; returns whether they had."""
        members = self._service.members
        if not self._greeted or self.closed or members.addresses == self.told or not self.standing.may_know_members:
            return False
        self.told = members.addresses
        self._write(encode_response(Response(NOTICE_ID, Status.OK, encode_members(members), members.index)))
        return True

    def _finish(self) -> None:
        """Close when what is queued has left."""
        self.flush()
        if self.closed:
            return
        self.closed = True
        self._backlog.clear()
        if self._transport is not None:
            self._transport.close()

    def check_time(self, now: float) -> None:
        """Close when the handshake or a frame has taken too long to arrive (slow loris)."""
        if self.incomplete_since is None or self.closed or self._paused:
            return
        allowed = self._limits.frame_timeout_s if self._greeted else self._limits.hello_timeout_s
        if now - self.incomplete_since >= allowed:
            self._stats.closed_slow += 1
            what = "a frame whose beginning has arrived" if self._greeted else "its hello"
            self.abort()
            self.refuse("slow", f"{what} took longer than {allowed:g} s")

    def data_received(self, data: bytes) -> None:
        """Take in the requests that are complete."""
        if self.closed:
            return
        self._arrived = self._loop.time()
        try:
            frames = self._decoder.feed(data)
        except FrameError as exc:
            self._garbage(exc)
            return
        self._backlog.extend(frames)
        self._drain()
        self._tell_held()
        if self._greeted and not self.closed and (frames or self.incomplete_since is None):
            self._await_rest()

    def _await_rest(self) -> None:
        """The rest of a frame must come within a bounded time from now on, if its beginning has arrived."""
        self.incomplete_since = self._loop.time() if self._decoder.has_partial else None

    def eof_received(self) -> bool:
        """The client sends no more; one that wants its answers keeps its side open, so this is the end."""
        return False

    def _drain(self) -> None:
        """Take what has arrived while there is room, and read on exactly while there is room."""
        backlog = self._backlog
        try:
            while backlog and not self.closed and not self.is_full:
                frame = backlog.popleft()
                if not self._greeted:
                    self._greet(frame)
                elif (request := decode_request(frame)).kind is RequestKind.CANCEL:
                    self._forget(request.id)
                else:
                    self.waiting += 1
                    self._stats.requests += 1
                    self._stats.requests_waiting += 1
                    self._take(request)
        except FrameError as exc:
            self._garbage(exc)
        transport = self._transport
        if self.closed or transport is None or self.is_full == self._paused:
            return
        self._paused = not self._paused
        if self._paused:
            self._stats.paused += 1
            transport.pause_reading()
        else:
            if self.incomplete_since is not None:
                self.incomplete_since = self._loop.time()  # the rest of the frame could not arrive meanwhile
            transport.resume_reading()

    @property
    def is_full(self) -> bool:
        """Whether the client has to wait: it is not known yet who it is, it asked for too much, now or in all, or
        doesn't read its answers."""
        return self._unread or self._resting or self.waiting >= self._limits.requests_max

    def _garbage(self, error: FrameError) -> None:
        self._stats.closed_garbage += 1
        self.abort()
        self.refuse("garbage", str(error))

    def refuse(self, kind: str, reason: str) -> None:
        """Say in the log what it is closed for."""
        self._crowd.refuse(kind, reason, self._address)

    def weigh(self) -> int:
        """What it keeps in memory, now that somebody asks; all together are told of less, never of more."""
        transport = self._transport
        if not self.closed and transport is not None:
            self._unread_bytes = min(self._unread_bytes, transport.get_write_buffer_size())
        self._tell_held()
        return self.held_bytes

    def _tell_held(self) -> None:
        """Tell all together of what has changed."""
        held = self._decoder.partial_bytes + self._out_bytes + self._unread_bytes + self._parked.held_bytes
        more, self.held_bytes = held - self.held_bytes, held
        if more:
            self._crowd.hold(more)

    def _greet(self, frame: bytes | memoryview) -> None:
        """The hello has come: find out who it is, which may take a moment, and answer."""
        hello = decode_client_hello(frame)
        if refused := unfit(hello, self._service):
            self._welcome(refused)
            return
        assert self._transport is not None
        self._resting, self.incomplete_since = True, None  # it is the client that waits now
        try:
            self.standing.sign_in(hello.sign_in, self._transport, self._signed_in)
        except Busy as exc:
            self._resting = False
            self._welcome(str(exc))

    def _signed_in(self) -> None:
        if not self.closed and self._ending is None:
            self._welcome()
            self._await_rest()
            self.go_on()

    def _welcome(self, refused: str = "") -> None:
        """Answer the hello; unless `refused` is empty, it says why the connection ends."""
        members = self._service.members if self.standing.may_know_members else Members()
        self.told = members.addresses
        answer = answer_hello(self._service, self.standing, members, refused)
        self._write(encode_server_hello(answer))
        if refused:
            self._stats.handshakes_refused += 1
            self._finish()
            self.refuse("handshake", refused)
            return
        self._greeted = True
        self.incomplete_since = None

    def _take(self, request: Request, *, is_sure: bool = False) -> None:
        try:
            if self._ending is not None:
                raise self._ending
            demand = None
            if self.standing.is_asked:
                demand = self.standing.demand(request, self._address, is_sure=is_sure)
            self._hand_on(request, demand)
        except Unconfirmed:
            when_certain(self._service.requests, request, self._gone, partial(self._take, is_sure=True), self._refused)
        except RaftKVError as exc:
            self._refused(request, exc)

    def _refused(self, request: Request, error: RaftKVError) -> None:
        self._stats.refused += 1
        self._stats.ended(request.kind.name.lower(), type(error).__name__)
        if isinstance(error, NotLeader):
            self.tell_members()  # who is sent elsewhere should know where that is
        self._fail(request.id, error)

    def _hand_on(self, request: Request, demand: Demand | None) -> None:
        """Have the node do what a request asks for. Raises what the node refuses at once."""
        requests = self._service.requests
        match request.kind:
            case RequestKind.COMMAND:
                self._crowd.check_share(self)
                done = partial(self._command_done, self._arrived, request.id)
                if demand is not None and demand.name == OPEN_SESSION and (user := self.standing.user):
                    requests.open_session(user, done)
                else:
                    requests.submit(request.payload, done)
            case RequestKind.QUERY:
                self._crowd.check_share(self)
                answered = partial(self._answered_query, self._arrived, request, demand)
                requests.query(request.payload, request.stale, answered, request.deadline_ms / 1000, self._gone)
            case RequestKind.POLL | RequestKind.WATCH:
                self._crowd.check_share(self)
                self._park(request, demand)
            case RequestKind.VIEW_OPEN | RequestKind.VIEW_QUERY | RequestKind.VIEW_CLOSE:
                self._crowd.check_share(self)
                self._take_view(request)
            case RequestKind.MEMBERS:
                self._answer(members_response(self._service, request.id))
            case _:
                self._crowd.spawn(self._admin(request))

    def _park(self, request: Request, demand: Demand | None) -> None:
        """Have a request answered when something happens; its answer has time for its way until the deadline."""
        self._parked.check(request)
        requests, given_s = self._service.requests, request.deadline_ms / 1000
        wait_s, done = given_s - min(ANSWER_S, given_s / 4), partial(self._poll_done, request.id)
        if request.kind is RequestKind.POLL:
            asked = read_argument(request, Poll)
            parked = requests.poll(asked.query, asked.known, done, wait_s, self._gone)
        else:
            parked = requests.watch(read_argument(request, Watching), done, wait_s, self._gone)
        if not parked.is_over:
            self._parked.add(request, parked, demand)
            self._stats.requests_parked += 1
            self.waiting -= 1
            self._stats.requests_waiting -= 1
            self._resting = not self._crowd.park(self)

    def go_on(self) -> None:
        """Take more requests: others had their turn."""
        self._resting = False
        self._drain()
        self._tell_held()

    def _fetch(self, request_id: int) -> tuple[Parked, Demand | None]:
        """A parked request is about to be answered: it is one of those that wait."""
        self._stats.requests_parked -= 1
        self.waiting += 1
        self._stats.requests_waiting += 1
        return self._parked.take(request_id)

    def _drop_parked(self) -> None:
        for request_id in self._parked:
            self._forget(request_id)

    def _forget(self, request_id: int) -> None:
        """Nobody waits for this any more; unless it is parked, its answer is on its way already."""
        if request_id in self._parked:
            self._fetch(request_id)[0].cancel()
            self._answered()

    def _poll_done(self, request_id: int, index: Index, result: bytes | RaftKVError) -> None:
        if request_id in self._parked:
            _, demand = self._fetch(request_id)
            try:
                self.standing.check_still(demand)
            except RaftKVError as exc:
                index, result = 0, exc
        self._query_done(request_id, index, result)

    def _take_view(self, request: Request) -> None:
        service, done, deadline_s = self._service, partial(self._query_done, request.id), request.deadline_ms / 1000
        match request.kind:
            case RequestKind.VIEW_OPEN:
                service.requests.open_view(done, deadline_s, self._gone)
            case RequestKind.VIEW_QUERY:
                asked = read_argument(request, ViewQuery)
                service.requests.query_view(asked.view, asked.query, done, deadline_s, self._gone)
            case _:
                service.requests.close_view(read_argument(request, int))
                self._answer(Response(request.id, Status.OK))

    async def _admin(self, request: Request) -> None:
        try:
            self._answer(await self.standing.order(self._service, request, self._address))
        except RaftKVError as exc:
            self._fail(request.id, exc)

    def _command_done(self, arrived: float, request_id: int, index: Index, outcome: Outcome | RaftKVError) -> None:
        if isinstance(outcome, RaftKVError):
            self._stats.ended("command", type(outcome).__name__)
            self._fail(request_id, outcome)
        else:
            self._stats.commands.note(self._loop.time() - arrived)
            if outcome.kind is not OutcomeKind.APPLIED:
                self._stats.ended("command", outcome.kind.name.lower())
            self._answer(outcome_response(request_id, index, outcome))

    def _answered_query(
        self, arrived: float, request: Request, demand: Demand | None, index: Index, result: bytes | RaftKVError
    ) -> None:
        if self.standing.is_asked and not request.stale and not isinstance(result, RaftKVError):
            result = self.standing.refusal_by_now(request, demand, self._address) or result
        if isinstance(result, RaftKVError):
            self._stats.ended("query", type(result).__name__)
        else:
            self._stats.queries.note(self._loop.time() - arrived)
        self._query_done(request.id, index, result)

    def _query_done(self, request_id: int, index: Index, result: bytes | RaftKVError) -> None:
        if isinstance(result, RaftKVError):
            self._fail(request_id, result)
        else:
            self._answer(result_response(request_id, index, result))

    def _answered(self) -> None:
        self.waiting -= 1
        self._stats.requests_waiting -= 1

    def _fail(self, request_id: int, error: RaftKVError) -> None:
        if isinstance(error, SignInAnew) and self._ending is None:
            self._dismiss(error)
        self._answer(error_response(request_id, error, self._service.leader))

    def _answer(self, response: Response) -> None:
        self._answered()
        self._stats.answered += 1
        if not self.closed:
            self._write(encode_response(response))

    def _write(self, frame: bytes) -> None:
        if not self._out:
            self._crowd.flush_later(self)
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes > ANSWER_BYTES_LARGE:
            self._tell_held()

    def flush(self) -> None:
        """Send what was answered in this turn of the loop, in one write."""
        out, self._out = self._out, []
        self._out_bytes = 0
        transport = self._transport
        if not out or self.closed or transport is None:
            return
        transport.write(b"".join(out))
        self._unread_bytes = transport.get_write_buffer_size()
        self._tell_held()
        if self._unread_bytes > self._limits.write_bytes_max:
            self._stats.closed_unread += 1
            unread = self._unread_bytes
            self.abort()
            self.refuse("unread", f"it left {unread} bytes of answers unread")
        elif self._ending is not None and self.waiting == 0:
            self._finish()
        elif self._paused:
            self._drain()

    def pause_writing(self) -> None:
        """The client doesn't read its answers: take no more requests."""
        self._unread = True
        self._drain()

    def resume_writing(self) -> None:
        """It reads again."""
        self._unread = False
        self._drain()
