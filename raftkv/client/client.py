"""The asyncio client: calls a state machine's methods as if the machine were local."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl as tls
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar, Unpack

from raftkv.client.call import Answer
from raftkv.client.calls import AsyncPath, Calls
from raftkv.client.channel import Channel
from raftkv.client.dial import Dial
from raftkv.client.methods import OPEN_SESSION_PAYLOAD, close_session_payload, read_session_id
from raftkv.client.options import ClientOptions, Short
from raftkv.client.reads import Read, StaleRead
from raftkv.client.remote import Remote
from raftkv.client.session import Session
from raftkv.client.view import View, open_view
from raftkv.client.waiting import Wait
from raftkv.client.watching import Pages, Watches, source_of
from raftkv.errors import DiskLow, Indeterminate, NotAccepted, RaftKVError, Rejected, SessionExpired, Unavailable
from raftkv.forks import leave, tell_of_fork
from raftkv.history import BEGINNING, Asked, Cursor, Recorded
from raftkv.machine import (
    NO_SESSION,
    Change,
    Method,
    Source,
    StateMachine,
    UnknownMethod,
    as_declared,
    asked,
    check_machine,
    find_method,
    read_change,
)
from raftkv.wire import RequestKind

CLOSE_DEADLINE_S = 1.0
"""How long the end of a client may be held up by telling the cluster that its session is over."""

M = TypeVar("M", bound=StateMachine)
K = TypeVar("K")
V = TypeVar("V")


def _hear(task: asyncio.Task[None]) -> None:
    """Take note of a task's error, so that asyncio does not warn of it when its caller has gone."""
    if not task.cancelled():
        task.exception()


class Client(Calls[M], Watches):
    """A client of a cluster that runs the state machine `machine`.

    ```python
    async with Client(Inventory, ["127.0.0.1:7001", "127.0.0.1:7002"]) as inventory:
        await inventory.receive("apple", 3)
        await inventory.receive.within(0.5)("apple", 3)        # a deadline of its own, in seconds
        await inventory.on_hand("apple")                       # linearizable
        await inventory.on_hand.stale("apple")                 # StaleRead(value=6, index=17)
        await inventory.call(Inventory.receive, "apple", 3)    # the same as the first, with types
    ```

    A call ends in one of these ways:

    - with the result, which is durable on a majority;
    - `Rejected`: the command has raised this exception itself; a `Rejection` that its machine declares, as that;
    - `NotActive`, a `Rejected` too: the active version of the application has no such command, argument or field. It
      was certainly not done, and works on the same client once every node runs a version that has it;
    - `NotAccepted` (`NotLeader`, `Busy`, `Unavailable`): it was certainly not done;
    - `Indeterminate`: it is not known whether it was done;
    - `SessionExpired`: the same, because the cluster has forgotten the session;
    - `Unauthenticated` and `Forbidden`, where nodes ask who one is: it was certainly not done, and is not tried again;
    - `InvalidArgument`: nothing was sent;
    - `TimedOut`, of what waits for something: it has not come to be in time.

    With sessions (the default) a command whose answer was lost is sent again under the same number until the deadline,
    and is applied once (thesis §6.3). Without sessions it ends with `Indeterminate` at once.

    A client belongs to the event loop of its first call, and any number of its tasks may use it; on another loop it
    raises `WrongLoop`. A call may be cancelled at any time;
    then it is not known whether its command is applied. In a child made by fork the client begins anew: on the
    child's loop, with its own connections and session.
    """

    def __init__(
        self,
        machine: type[M],
        addresses: Sequence[str],
        *,
        options: ClientOptions | None = None,
        ssl: tls.SSLContext | None = None,
        dial: Dial | None = None,
        chance: random.Random | None = None,
        **short: Unpack[Short],
    ) -> None:
        """`addresses` are client addresses of some of the nodes; the client learns the others from them.

        `sessions`, `deadline_s`, and what one signs in by where nodes ask for it (`user` and `password`, or `token`),
        are short for the same fields of `options`. `dial` and `chance` replace the network and the dice in simulated
        worlds.
        Raises `InvalidArgument` or `ConfigError`, and `MachineError` for what is no class of a state machine.
        """
        check_machine(machine, "Client")
        options = (options if options is not None else ClientOptions()).with_short(short)
        self.machine = machine
        self.options = options
        self.methods = machine.methods
        self._channel = Channel(addresses, options, ssl=ssl, dial=dial, chance=chance)
        self._session: Session | None = None
        self._opening: asyncio.Task[None] | None = None
        self._closed = False
        self.remote: Remote[M] = Remote(self)
        """The machine's methods."""
        tell_of_fork(self)

    def after_fork(self) -> None:
        """In a child, drop the session: the parent goes on counting its commands. The next command opens another."""
        leave(self._session, self._opening)
        self._session = self._opening = None

    async def __aenter__(self) -> Remote[M]:
        return self.remote

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called: no call will succeed any more."""
        return self._closed

    async def close(self, *, end_session: bool = True) -> None:
        """Close the session, if there is one and the leader can be reached, then the connections.

        Without `end_session` nothing is waited for, and the cluster forgets the session by itself after some time.
        Calls that still wait end with `Indeterminate` or `Unavailable`.
        """
        if self._closed:
            return
        if not self._channel.is_on_this_loop(closing=True):
            self._closed = True
            return
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        session, self._session = self._session, None
        if end_session and session is not None and self._channel.connected_to is not None:
            # If this fails, the cluster forgets the session by itself, after an hour of log time.
            with contextlib.suppress(RaftKVError):
                await self._request(RequestKind.COMMAND, close_session_payload(session.id), CLOSE_DEADLINE_S)
        await self._channel.close()

    @property
    def connected_to(self) -> str | None:
        """The address that calls go to at the moment."""
        return self._channel.connected_to

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it looks for the cluster: the members that it has learned, then the addresses it was made with."""
        return self._channel.addresses

    @property
    def session(self) -> Session | None:
        """The open session; None before the first command, and without sessions."""
        return self._session

    def _way(self) -> tuple[AsyncPath, float]:
        return self, self.options.deadline_s

    def method(self, asked: object) -> Method:
        """The command or query of this name, or whose function this is; raises `UnknownMethod`."""
        return find_method(self.machine, asked)

    async def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> Any:
        """Call a command or query; the methods of `remote` end here. Raises as the class says."""
        return method.decode_result((await self._perform(method, args, kwargs, deadline_s)).payload)

    async def invoke_read(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> Read[Any]:
        """Ask a linearizable query; returns its result and the index it was read at. Raises as the class says."""
        self._require_query(method)
        answer = await self._perform(method, args, kwargs, deadline_s)
        return Read(method.decode_result(answer.payload), answer.index, self._channel.lineage)

    def _require_query(self, method: Method) -> None:
        if not method.is_query:
            raise UnknownMethod(f"{method.name!r} is a command of {self.machine.__name__}: call it")

    async def _perform(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> Answer:
        if self._closed:
            raise Unavailable("the client is closed")
        values = method.encode_args(args, kwargs)
        self._channel.check(len(values), deadline_s)
        try:
            if method.is_query:
                return await self._request(RequestKind.QUERY, method.query_payload(values), deadline_s)
            if self.options.sessions:
                return await self._invoke_once(method, values, deadline_s)
            payload = method.command_payload(NO_SESSION, 0, 0, values)
            call = self._channel.new_call(
                RequestKind.COMMAND, payload, deadline_s, changes_state=True, repeatable=False
            )
            return await self._channel.perform(call)
        except Rejected as rejected:
            raise as_declared(rejected, method) from None

    async def invoke_stale(
        self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float
    ) -> StaleRead[Any]:
        """Ask any node a stale query. Raises as the class says."""
        self._require_query(method)
        payload = method.query_payload(method.encode_args(args, kwargs))
        try:
            answer = await self._request(RequestKind.QUERY, payload, deadline_s, stale=True)
        except Rejected as rejected:
            raise as_declared(rejected, method) from None
        return StaleRead(method.decode_result(answer.payload), answer.index, self._channel.lineage)

    def wait(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], timeout_s: float) -> Wait:
        """The results of a query, one after the other. Raises `UnknownMethod`, and what the class says."""
        self._require_query(method)
        if self._closed:
            raise Unavailable("the client is closed")
        self._channel.check(0, timeout_s)
        return Wait(self._poll, method, method.encode_args(args, kwargs), timeout_s)

    async def invoke_wait(
        self,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        until: Callable[[Any], object],
        timeout_s: float,
    ) -> Any:
        """Ask a query until `until` holds for its result, and return that. Raises as the class says, and `TimedOut`."""
        wait = self.wait(method, args, kwargs, timeout_s)
        while not until(result := await wait.next()):
            pass
        return result

    def _pages_of(self, source: Source, after: Cursor | None, wanted: dict[str, Any]) -> Pages[Any, Any]:
        own = source_of(self.machine, source)
        return self.pages(asked(own, BEGINNING, **wanted), after, lambda recorded: read_change(own, recorded))

    def pages(self, rows: Asked, after: Cursor | None, read: Callable[[Recorded], Change[K, V]]) -> Pages[K, V]:
        """The changes of rows, for a caller that reads them itself, a page at a time."""
        return Pages(self._watch, rows, after, self.options.deadline_s, read, lambda: self._channel.lineage)

    async def _watch(self, payload: bytes, deadline_s: float) -> Answer:
        if self._closed:
            raise Unavailable("the client is closed")
        call = self._channel.new_call(RequestKind.WATCH, payload, deadline_s, stale=True, parks=True)
        return await self._channel.perform(call)

    async def _poll(self, payload: bytes, deadline_s: float) -> Answer:
        return await self._channel.perform(self._channel.new_call(RequestKind.POLL, payload, deadline_s, parks=True))

    async def open_view(self, deadline_s: float | None = None) -> View:
        """Have the leader hold its state as it is now, for queries that must all see the same. Close the view soon.

        Raises as the class says, and `Busy` when too many views are held until the deadline.
        """
        if self._closed:
            raise Unavailable("the client is closed")
        return await open_view(self._request, self.options.deadline_s if deadline_s is None else deadline_s)

    async def _request(self, kind: RequestKind, payload: bytes, deadline_s: float, *, stale: bool = False) -> Answer:
        """Send a request that does no harm when it is done twice."""
        return await self._channel.perform(self._channel.new_call(kind, payload, deadline_s, stale=stale))

    async def _invoke_once(self, method: Method, values: bytes, deadline_s: float) -> Answer:
        channel = self._channel
        end = asyncio.get_running_loop().time() + deadline_s
        while True:
            session = self._session if self._session is not None else await self._open_session(end, deadline_s)
            sequence = session.begin()
            try:
                payload = method.command_payload(session.id, sequence, session.acked_below, values)
                call = channel.new_call(RequestKind.COMMAND, payload, deadline_s, changes_state=True)
                call.deadline = end
                return await channel.perform(call)
            except SessionExpired:
                if self._session is session:
                    self._session = None
                if call.maybe_applied:
                    raise
                # No earlier attempt can have got into the log, so nothing was applied, and a new session does no harm.
            finally:
                session.end(sequence)

    async def _open_session(self, end: float, deadline_s: float) -> Session:
        """Open the session, once for all commands that wait for it."""
        loop = asyncio.get_running_loop()
        while self._session is None:
            if self._opening is None:
                self._opening = loop.create_task(self._open(max(deadline_s, self.options.deadline_s)))
                self._opening.add_done_callback(_hear)
            opening = self._opening
            done, _ = await asyncio.wait([opening], timeout=max(0.0, end - loop.time()))
            if self._closed:
                raise Unavailable("the client is closed")
            if done:
                opening.result()
            if not done or (loop.time() >= end and self._session is None):
                problems = self._channel.router.problems
                last = f" ({problems})" if problems else ""
                raise Unavailable(f"no session could be opened within {deadline_s:g} s{last}")
        return self._session

    async def _open(self, deadline_s: float) -> None:
        try:
            answer = await self._request(RequestKind.COMMAND, OPEN_SESSION_PAYLOAD, deadline_s)
            self._session = Session(read_session_id(answer.payload))
        except DiskLow:
            raise  # whoever waits is told at once
        except (NotAccepted, Indeterminate):
            self._session = None  # those who wait have their own deadlines, and try again
        finally:
            self._opening = None
