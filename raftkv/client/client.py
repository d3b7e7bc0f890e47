"""The asyncio client: calls a state machine's methods as if the machine were local."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl as tls
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

import msgspec

from raftkv.client.call import Answer
from raftkv.client.channel import Channel
from raftkv.client.dial import Dial
from raftkv.client.methods import OPEN_SESSION_PAYLOAD, UnknownMethod, close_session_payload, read_session_id
from raftkv.client.options import ClientOptions
from raftkv.client.reads import Read, StaleRead
from raftkv.client.remote import Remote
from raftkv.client.session import Session
from raftkv.client.view import View, open_view
from raftkv.errors import DiskLow, Indeterminate, NotAccepted, RaftKVError, Rejected, SessionExpired, Unavailable
from raftkv.forks import leave, tell_of_fork
from raftkv.machine import NO_SESSION, Method, StateMachine, as_declared
from raftkv.wire import RequestKind

CLOSE_DEADLINE_S = 1.0
"""How long the end of a client may be held up by telling the cluster that its session is over."""

M = TypeVar("M", bound=StateMachine)


def _hear(task: asyncio.Task[None]) -> None:
    """Take note of a task's error, so that asyncio does not warn of it when its caller has gone."""
    if not task.cancelled():
        task.exception()


class Client(Generic[M]):
    """A client of a cluster that runs the state machine `machine`.

    ```python
    async with Client(Inventory, ["127.0.0.1:7001", "127.0.0.1:7002"]) as inventory:
        await inventory.receive("apple", 3)
        await inventory.receive.within(0.5)("apple", 3)        # a deadline of its own, in seconds
        await inventory.on_hand("apple")                       # linearizable
        await inventory.on_hand.stale("apple")                 # StaleRead(value=6, index=17)
    ```

    A call ends in one of these ways:

    - with the result, which is durable on a majority;
    - `Rejected`: the command has raised this exception itself; a `Rejection` that its machine declares, as that;
    - `NotActive`, a `Rejected` too: the active version of the application has no such command, argument or field. It
      was certainly not done, and works on the same client once every node runs a version that has it;
    - `NotAccepted` (`NotLeader`, `Busy`, `Unavailable`): it was certainly not done;
    - `Indeterminate`: it is not known whether it was done;
    - `SessionExpired`: the same, because the cluster has forgotten the session;
    - `InvalidArgument`: nothing was sent.

    With sessions (the default) a command whose answer was lost is sent again under the same number until the deadline,
    and is applied once (thesis §6.3). Without sessions it ends with `Indeterminate` at once.

    A client belongs to one event loop, and any number of its tasks may use it. A call may be cancelled at any time;
    then it is not known whether its command is applied. In a child made by fork the client begins anew: on the
    child's loop, with its own connections and session.
    """

    def __init__(
        self,
        machine: type[M],
        addresses: Sequence[str],
        *,
        sessions: bool | None = None,
        deadline_s: float | None = None,
        options: ClientOptions | None = None,
        ssl: tls.SSLContext | None = None,
        dial: Dial | None = None,
        chance: random.Random | None = None,
    ) -> None:
        """`addresses` are client addresses of some of the nodes; the client learns the others from them.

        `sessions` and `deadline_s` are short for the same fields of `options`. `dial` and `chance`
        replace the network and the dice in simulated worlds.
        Raises `InvalidArgument` or `ConfigError`.
        """
        options = options if options is not None else ClientOptions()
        if sessions is not None:
            options = msgspec.structs.replace(options, sessions=sessions)
        if deadline_s is not None:
            options = msgspec.structs.replace(options, deadline_s=deadline_s)
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

    async def close(self, *, end_session: bool = True) -> None:
        """Close the session, if there is one and the leader can be reached, then the connections.

        Without `end_session` nothing is waited for, and the cluster forgets the session by itself after some time.
        Calls that still wait end with `Indeterminate` or `Unavailable`.
        """
        if self._closed:
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

    async def call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a command or query by name, with the default deadline."""
        return await self.invoke(self.method(name), args, kwargs, self.options.deadline_s)

    def method(self, name: str) -> Method:
        """The command or query of this name; raises `UnknownMethod`."""
        method = self.methods.get(name)
        if method is None:
            known = ", ".join(self.methods)
            raise UnknownMethod(f"{self.machine.__name__} has no command or query {name!r}; it has {known}")
        return method

    async def invoke(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any], deadline_s: float) -> Any:
        """Call a command or query; the methods of `remote` end here. Raises as the class says."""
        return method.decode_result((await self._perform(method, args, kwargs, deadline_s)).payload)

    async def read(self, name: str, /, *args: Any, **kwargs: Any) -> Read[Any]:
        """Call a linearizable query by name, with the default deadline; returns its result and the index it was read
        at."""
        method = self.method(name)
        if not method.is_query:
            raise UnknownMethod(f"{name!r} is a command of {self.machine.__name__}: call it")
        answer = await self._perform(method, args, kwargs, self.options.deadline_s)
        return Read(method.decode_result(answer.payload), answer.index)

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
        payload = method.query_payload(method.encode_args(args, kwargs))
        try:
            answer = await self._request(RequestKind.QUERY, payload, deadline_s, stale=True)
        except Rejected as rejected:
            raise as_declared(rejected, method) from None
        return StaleRead(method.decode_result(answer.payload), answer.index)

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
