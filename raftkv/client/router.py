"""Finds the leader and sends it requests: redirects, lost connections, back-off, deadlines."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import OrderedDict
from collections.abc import Sequence

from raftkv.client.book import AddressBook
from raftkv.client.call import Answer, PendingCall
from raftkv.client.dial import Dialler
from raftkv.client.link import Link, wrong_cluster
from raftkv.client.options import ClientOptions
from raftkv.client.outcome import Verdict, read_response
from raftkv.errors import (
    Busy,
    Forbidden,
    FrameError,
    NotAccepted,
    NotLeader,
    RaftKVError,
    Unauthenticated,
    Unavailable,
    WrongCluster,
)
from raftkv.wire import Members, RequestKind, Response, decode_members

DIALS_MAX = 8
"""How many addresses are tried at once; each has a head start before the next, so mostly it is one or two."""

REFRESH_WITHIN_S = 3.0
"""How long an idle client tries to find a node that tells it the members, before it waits again."""

REFRESH_SOON_S = 1.0
"""How long after the loss of its node an idle client looks for another one."""

REFRESH_RARELY_S = 600.0
"""How often an idle client asks when no node has answered for long: the cluster may be gone for good."""

REFRESH_BACKOFF_MAX_S = 1.0
"""The longest pause between two tries while no call waits, only the refresh, which is not urgent."""


class Router:
    """Sends calls to the node that seems to lead, and sends them again where that is safe.

    One search for the leader serves all calls. It follows the hints of nodes that don't lead, goes round the known
    addresses when there is no hint, and waits longer after each failure, so that a cluster is not flooded during an
    election. A silent address doesn't hold up the next one, which is tried at the same time. Old connections stay open,
    because answers may still come on them.

    Every node sends the members' addresses in its hello and when they change, and an idle client asks for them now and
    then. So it finds the cluster even when all nodes are gone whose addresses it was given.

    Invariants: a call is in `_waiting`, or outstanding on exactly one link, or done. A call is sent again only when it
    is certain that it was not accepted, or when it is repeatable.
    """

    def __init__(self, book: AddressBook, options: ClientOptions, dialler: Dialler, chance: random.Random) -> None:
        self._book = book
        self._options = options
        self._dialler = dialler
        self._chance = chance
        self.loop = self._loop = asyncio.get_running_loop()
        self._links: dict[str, Link] = {}
        self._renounced: dict[Link, None] = {}
        """Over these nothing more is sent."""
        self._births = itertools.count()
        self._current: Link | None = None
        self._calls: dict[PendingCall, None] = {}
        self._waiting: OrderedDict[PendingCall, None] = OrderedDict()
        self._failures = 0
        self._search: asyncio.Handle | None = None
        self._search_at = 0.0
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._problems: dict[str, str] = {}
        """What went wrong at each address since the last answer."""
        self._stranger: WrongCluster | None = None
        """The error of a node of another cluster, if one was met since the last answer."""
        self.cluster_id = ""
        """The cluster of the first node that was met; empty before."""
        self._heard = False
        """Whether a leader has answered since the last time that a refresh was due."""
        self._refresh_s = options.refresh_s
        self._refresh: asyncio.TimerHandle | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._closed = False

    def submit(self, call: PendingCall) -> None:
        """Take a new call. Its future gets the answer or an error, at its deadline at the latest.

        Raises `Busy` when too many calls wait already, `Unavailable` when the client is closed.
        """
        if self._closed:
            raise Unavailable("the client is closed")
        if len(self._calls) >= self._options.waiting_max:
            raise Busy(f"{len(self._calls)} calls of this client wait already")
        call.born = next(self._births)
        self._calls[call] = None
        call.timer = self._loop.call_at(call.deadline, self._expire, call)
        self._place(call)

    def finish(self, call: PendingCall) -> None:
        """Forget the call: its caller has the answer, or has gone."""
        self._calls.pop(call, None)
        if call.timer is not None:
            call.timer.cancel()
        if call.link is not None:
            call.link.forget(call)
        elif self._waiting:
            self._waiting.pop(call, None)

    def _expire(self, call: PendingCall) -> None:
        if self._current is None and self._problems:
            call.last_error = Unavailable(self.problems)  # it waits for the search, so its failures are the reason
            call.last_error.__cause__ = self._stranger
        if call.link is not None:
            # It was sent and not answered.
            call.maybe_applied |= call.changes_state
        call.give_up(f"no answer within {call.deadline_s:g} s")

    def _place(self, call: PendingCall) -> None:
        link = self._current
        if link is not None and link.has_room:
            link.send(call)
        else:
            self._waiting[call] = None
            if link is None:
                self._seek()

    def _again(self, call: PendingCall, error: RaftKVError) -> None:
        """Send `call` again: it was not answered, and that is safe."""
        call.last_error = error
        if call.done:
            return
        call.tries += 1
        self._place(call)

    def _flush(self) -> None:
        """Send what waits, as far as there is room."""
        link, waiting = self._current, self._waiting
        while waiting and link is not None and link.has_room:
            call, _ = waiting.popitem(last=False)
            if not call.done:
                link.send(call)

    def on_room(self, link: Link) -> None:
        """`link` has come up, or can take more calls again."""
        if link is self._current and self._waiting:
            self._flush()

    def on_response(self, link: Link, call: PendingCall, response: Response) -> None:
        """`call` was answered over `link`. Raises `FrameError` when the answer makes no sense."""
        try:
            verdict, result = read_response(response)
        except FrameError as exc:
            call.maybe_applied |= call.changes_state
            self._repeat(call, exc)
            raise
        match verdict:
            case Verdict.DONE:
                if not call.stale:  # any node answers stale queries, so this says nothing about the leader
                    self._found(link)
                assert isinstance(result, Answer)
                call.succeed(result)
            case Verdict.FINAL if isinstance(result, NotAccepted) and call.maybe_applied:
                # It was not accepted now, but it may have been accepted before; only its answer can tell.
                self._later(link, call, result)
            case Verdict.FINAL if isinstance(result, Unauthenticated | Forbidden) and call.maybe_applied:
                call.last_error = result  # this try was refused; it does not say what became of those before
                call.give_up("it was refused when it was sent again")
            case Verdict.FINAL if isinstance(result, Unauthenticated) and link.born < call.born:
                # Who one is was found out before this was asked: by now there may be such a user, or password.
                self._renounce(link, result)
                self._again(call, result)
            case Verdict.FINAL:
                self._found(link)
                assert isinstance(result, RaftKVError)
                call.fail(result)
                if isinstance(result, Unauthenticated):
                    self._renounce(link, result)
            case Verdict.ELSEWHERE:
                assert isinstance(result, RaftKVError)
                self._leave(link, result.address if isinstance(result, NotLeader) else None, result)
                self._again(call, result)
            case Verdict.LATER:
                assert isinstance(result, RaftKVError)
                self._later(link, call, result)
            case Verdict.UNKNOWN:
                assert isinstance(result, RaftKVError)
                call.maybe_applied |= call.changes_state
                self._leave(link, None, result)
                self._repeat(call, result)
        if self._waiting and link is self._current:
            self._flush()

    def on_members(self, link: Link, members: Members) -> None:
        """The members have changed. News on a link that was not accepted yet is ignored."""
        if link.cluster_id == self.cluster_id:
            self._book.learn(members)

    def on_dismissed(self, link: Link, error: Unauthenticated) -> None:
        """Who signed in on `link` is no user any more."""
        self._renounce(link, error)

    def on_lost(self, link: Link, error: RaftKVError, calls: Sequence[PendingCall]) -> None:
        """`link` is gone; `calls` were sent over it and not answered."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
        self._renounced.pop(link, None)
        if link.fell_silent:
            self._book.pass_over(link.address, self._loop.time())
        if self._closed:
            return
        if not self._calls:
            self._refresh_later(soon=True)  # it may have been the last node that the client knew
        self._leave(link, None, error)
        for call in calls:
            call.maybe_applied |= call.changes_state
            self._repeat(call, error)

    def _repeat(self, call: PendingCall, error: RaftKVError) -> None:
        """`call` may have been applied or not: send it again if that does no harm."""
        if call.repeatable:
            self._again(call, error)
        elif not call.done:
            call.last_error = error
            call.give_up("the answer was lost")

    def _later(self, link: Link, call: PendingCall, error: RaftKVError) -> None:
        """The node is busy: send the call again after a pause, which grows with each try."""
        call.last_error = error
        self._problems[link.address] = str(error)
        if not call.done:
            delay = self._backoff(call.tries + 1, self._options.busy_backoff_max_s)
            self._loop.call_later(delay, self._again, call, error)

    def _renounce(self, link: Link, error: RaftKVError) -> None:
        """Sign in anew for the next call: its user may be there by then, or its password may have been changed back.
        What was sent over this link is answered over it."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
            self._renounced[link] = None
        self._leave(link, None, error)
        if not link.outstanding:
            self._renounced.pop(link, None)
            link.close()

    def _leave(self, link: Link, hint: str | None, error: RaftKVError) -> None:
        """The node at the other end of `link` is not the leader, or not any more: search for it."""
        if link is not self._current:
            return
        self._current = None
        self._problems[link.address] = _describe(error)
        self._book.in_vain(link.address)
        self._failures += 1
        if hint is not None and hint != link.address:
            self._book.suggest(hint)
        self._seek()

    def _found(self, link: Link) -> None:
        """The leader has answered on `link`: the search is over."""
        self._failures = 0
        self._heard = True
        if self._problems:
            self._problems.clear()
            self._stranger = None
            self._book.found(link.address)

    @property
    def problems(self) -> str:
        """What went wrong in the search for the leader, address by address."""
        return "; ".join(f"{address}: {problem}" for address, problem in list(self._problems.items())[:8])

    def _seek(self) -> None:
        """Try the next address soon. Nothing happens while enough are being tried; this is called again after them."""
        if self._closed or self._current is not None or len(self._dialling) >= DIALS_MAX:
            return
        # The first redirect is followed at once. If that fails, the hint was wrong, or there is no leader yet.
        failures = self._failures - 1 if self._book.has_hint else self._failures
        longest_s = REFRESH_BACKOFF_MAX_S if self._is_idle else self._options.backoff_max_s
        self._try_in(self._backoff(failures, longest_s) if failures > 0 else 0.0)

    def _try_in(self, delay_s: float) -> None:
        """Try the next address after `delay_s` seconds, unless one is to be tried sooner."""
        at = self._loop.time() + delay_s
        if self._search is not None:
            if self._search_at <= at:
                return
            self._search.cancel()
        self._search_at = at  # uvloop's handle doesn't say when it is due, if that is at once
        self._search = self._loop.call_later(delay_s, self._try_next)

    def _backoff(self, failures: int, longest_s: float) -> float:
        longest = min(longest_s, self._options.backoff_min_s * 2.0 ** min(failures - 1, 16))
        return float(longest * (0.5 + self._chance.random() / 2))

    def _try_next(self) -> None:
        self._search = None
        if self._closed or self._current is not None or not self._waiting:
            return
        address = self._book.next(self._loop.time(), self._dialling)
        if address is None:
            return  # all are being tried; when one fails, this is called again
        link = self._links.get(address)
        if link is not None and link.is_ready:
            self._use(link)
            return
        self._dialling[address] = self._loop.create_task(self._connect(address))
        if len(self._dialling) < DIALS_MAX:
            self._try_in(self._options.head_start_s)

    async def _connect(self, address: str) -> None:
        def make() -> Link:
            return Link(address, self, self._options, self.cluster_id, born=next(self._births))

        link: Link | None = None
        problem = ""
        try:
            link = await self._dialler.connect(address, make, self._accept)
        except (OSError, RaftKVError) as exc:  # TimeoutError is an OSError
            problem = str(exc) or "no answer in time"
            if isinstance(exc, TimeoutError):
                self._book.pass_over(address, self._loop.time())
            if isinstance(exc, WrongCluster):
                self._stranger = exc
        finally:
            del self._dialling[address]
        if link is not None and link.is_ready:
            self._links[address] = link
            if self._current is None:
                self._use(link)
        else:
            self._unreachable(address, problem or "the connection was lost")

    def _accept(self, link: Link) -> None:
        """Check that the node belongs to the cluster that was met first: a session's number is good there only.

        Raises `WrongCluster`. A node that has not joined a cluster yet passes; it may be asked for its status.
        """
        if self.cluster_id and link.cluster_id != self.cluster_id:
            raise wrong_cluster(link.cluster_id, self.cluster_id)
        self.cluster_id = link.cluster_id
        members = link.ready.result().members
        if members is not None:
            self._book.learn(members)
            self._refresh_later()

    def _unreachable(self, address: str, problem: str) -> None:
        self._failures += 1
        self._problems[address] = problem
        self._book.in_vain(address, unreachable=True)
        self._seek()

    def _use(self, link: Link) -> None:
        self._current = link
        self._flush()

    @property
    def _is_idle(self) -> bool:
        """Whether no call waits but the refresh."""
        return self._refreshing is not None and len(self._calls) <= 1

    def _refresh_later(self, *, soon: bool = False) -> None:
        if self._refreshing is not None or self._closed or (self._refresh is None) == soon:
            return  # under way, or due already; `soon` is for whoever was told of members, so it has a timer
        if self._refresh is not None:
            self._refresh.cancel()
            self._heard = False
        # Not all at once: the clients of a cluster often begin together, and lose a node together.
        delay_s = min(self._refresh_s, REFRESH_SOON_S if soon else self._refresh_s) * (0.75 + self._chance.random() / 2)
        self._refresh = self._loop.call_later(delay_s, self._maybe_refresh)

    def _maybe_refresh(self) -> None:
        """Ask for the members, if no leader has answered for a while. A busy client is told of each change anyway."""
        self._refresh = None
        if self._heard or self._closed:
            self._heard = False
            self._refresh_later()
        else:
            self._refreshing = self._loop.create_task(self._ask_for_members())

    async def _ask_for_members(self) -> None:
        deadline = self._loop.time() + REFRESH_WITHIN_S
        call = PendingCall(
            RequestKind.MEMBERS,
            b"",
            self._loop.create_future(),
            deadline=deadline,
            deadline_s=REFRESH_WITHIN_S,
            changes_state=False,
            repeatable=True,
            stale=False,
        )
        self._refresh_s = min(2 * self._refresh_s, REFRESH_RARELY_S)
        try:
            with contextlib.suppress(RaftKVError):
                self.submit(call)
                self._book.learn(decode_members((await call.future).payload))
                self._refresh_s = self._options.refresh_s
                self._heard = False  # that was the leader, but nobody is using the client
        finally:
            self.finish(call)
            self._refreshing = None
            self._refresh_later()

    async def close(self) -> None:
        """Close every connection; calls that still wait end with `Unavailable` or `Indeterminate`."""
        self._closed = True
        if self._search is not None:
            self._search.cancel()
        if self._refresh is not None:
            self._refresh.cancel()
        tasks = [*self._dialling.values(), *([self._refreshing] if self._refreshing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._waiting.clear()
        for link in (*self._links.values(), *self._renounced):
            for call in link.close():
                call.maybe_applied |= call.changes_state
        for call in self._calls:
            call.give_up("the client was closed")

    def after_fork(self) -> None:
        """In a child, drop everything without closing it: it is the parent's."""
        self._closed = True
        for link in (*self._links.values(), *self._renounced):
            link.after_fork()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it looks for the cluster."""
        return self._book.known

    @property
    def leader_address(self) -> str | None:
        """Where calls go at the moment."""
        return self._current.address if self._current is not None else None


def _describe(error: RaftKVError) -> str:
    if isinstance(error, NotLeader):
        return f"not the leader, which may be {error.address}" if error.address else "not the leader, and knows of none"
    return str(error)
