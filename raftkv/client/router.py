"""Finds the leader and gets requests to it: redirects, lost connections, back-off, deadlines."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Sequence

from raftkv.client.address import parse_address
from raftkv.client.call import Answer, Call
from raftkv.client.link import Dial, Link
from raftkv.client.options import ClientOptions
from raftkv.client.outcome import Verdict, read_response
from raftkv.errors import Busy, FrameError, HandshakeRefused, NotLeader, RaftKVError, Unavailable
from raftkv.wire import Response

ADDRESSES_MAX = 64
"""Addresses known at once: more than any cluster has, and a bound on what wrong hints can make us try."""

PASS_OVER_S = 2.0
"""How long a node that gave no sign of life is passed over, whoever names it: those that name it may not
have noticed yet, and waiting for it again would take longer than electing another."""

HINTS_MAX = 2
"""Hints that are followed one after the other before the next address of the round is tried."""


class Router:
    """Sends calls to the node believed to lead, and sends them again where that is safe.

    One search for the leader serves all calls: it follows the hints of those who are not, goes round
    the known addresses when there is none, and waits longer after each failure, so that a cluster
    that elects is not flooded. Old connections stay open, since they may still answer.

    Invariants: a call is in `_waiting`, or outstanding on exactly one link, or done. A call is sent
    again only when it is certain that it was not accepted, or when it is repeatable.
    """

    def __init__(self, addresses: Sequence[str], options: ClientOptions, dial: Dial, chance: random.Random) -> None:
        self._options = options
        self._dial = dial
        self._chance = chance
        self._loop = asyncio.get_running_loop()
        self._seeds = tuple(dict.fromkeys(addresses))
        self._addresses = list(self._seeds)
        self._position = -1
        self._links: dict[str, Link] = {}
        self._current: Link | None = None
        self._calls: dict[Call, None] = {}
        self._waiting: OrderedDict[Call, None] = OrderedDict()
        self._suggested: str | None = None
        self._hints = 0
        self._failures = 0
        self._search: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._silent_until: dict[str, float] = {}
        """Nodes that gave no sign of life, and until when they are passed over."""
        self._problems: dict[str, str] = {}
        """What went wrong at each address since the last answer."""
        self._cluster_id: str | None = None
        self._closed = False
        self.redirects = 0
        self.reconnects = 0
        self.retries = 0

    # ------------------------------------------------------------------------------ calls

    def submit(self, call: Call) -> None:
        """Take a new call; its future gets the answer, or an error, at the latest at its deadline.

        Raises `Busy` when too many calls wait already, `Unavailable` when the client is closed.
        """
        if self._closed:
            raise Unavailable("the client is closed")
        if len(self._calls) >= self._options.waiting_max:
            raise Busy(f"{len(self._calls)} calls of this client wait already")
        self._calls[call] = None
        call.timer = self._loop.call_at(call.deadline, self._expire, call)
        self._place(call)

    def finish(self, call: Call) -> None:
        """The caller has its answer, or has gone: forget the call, whatever becomes of it."""
        self._calls.pop(call, None)
        if call.timer is not None:
            call.timer.cancel()
        if call.link is not None:
            call.link.forget(call)
        elif self._waiting:
            self._waiting.pop(call, None)

    def _expire(self, call: Call) -> None:
        if self._current is None and self._problems:
            call.last_error = Unavailable(self.problems)  # it waits for the search, so this is the reason
        if call.link is not None:
            # It was sent and not answered.
            call.maybe_applied |= call.changes_state
        call.give_up(f"no answer within {call.deadline_s:g} s")

    def _place(self, call: Call) -> None:
        link = self._current
        if link is not None and link.has_room:
            link.send(call)
        else:
            self._waiting[call] = None
            if link is None:
                self._seek()

    def _again(self, call: Call, error: RaftKVError) -> None:
        """`call` was not answered, and may be sent again."""
        call.last_error = error
        if call.done:
            return
        call.tries += 1
        self.retries += 1
        self._place(call)

    def _flush(self) -> None:
        """Send what waits, as far as there is room."""
        link, waiting = self._current, self._waiting
        while waiting and link is not None and link.has_room:
            call, _ = waiting.popitem(last=False)
            if not call.done:
                link.send(call)

    # ------------------------------------------------------------------------------ what links report

    def on_room(self, link: Link) -> None:
        """`link` has come up, or can take more calls again."""
        if link is self._current and self._waiting:
            self._flush()

    def on_response(self, link: Link, call: Call, response: Response) -> None:
        """`call` was answered over `link`. Raises `FrameError` when the answer makes no sense."""
        try:
            verdict, result = read_response(response)
        except FrameError as exc:
            call.maybe_applied |= call.changes_state
            self._repeat(call, exc)
            raise
        match verdict:
            case Verdict.DONE:
                if not call.stale:  # anybody answers those, so they say nothing about the leader
                    self._found()
                assert isinstance(result, Answer)
                call.succeed(result)
            case Verdict.FINAL:
                self._found()
                assert isinstance(result, RaftKVError)
                call.fail(result)
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

    def on_lost(self, link: Link, error: RaftKVError, calls: Sequence[Call]) -> None:
        """`link` is gone; `calls` were sent over it and not answered."""
        if self._links.get(link.address) is link:
            del self._links[link.address]
        if link.fell_silent:
            self._pass_over(link.address)
        if self._closed:
            return
        self._leave(link, None, error)
        for call in calls:
            call.maybe_applied |= call.changes_state
            self._repeat(call, error)

    def _repeat(self, call: Call, error: RaftKVError) -> None:
        """Nobody knows what became of `call`: send it again if that does no harm."""
        if call.repeatable:
            self._again(call, error)
        elif not call.done:
            call.last_error = error
            call.give_up("the answer was lost")

    def _later(self, link: Link, call: Call, error: RaftKVError) -> None:
        """The node is busy: the same again, after a while that grows."""
        call.last_error = error
        self._problems[link.address] = str(error)
        if not call.done:
            delay = self._backoff(call.tries + 1, self._options.busy_backoff_max_s)
            self._loop.call_later(delay, self._again, call, error)

    # ------------------------------------------------------------------------------ the search for the leader

    def _leave(self, link: Link, hint: str | None, error: RaftKVError) -> None:
        """`link` does not lead to the leader (any more)."""
        if link is not self._current:
            return
        self._current = None
        self._problems[link.address] = _describe(error)
        self._failures += 1
        if hint is not None and hint != link.address:
            self.redirects += 1
            self._suggested = hint
        self._seek()

    def _found(self) -> None:
        """Somebody answered who could: the search is over."""
        self._failures = 0
        if self._problems:
            self._problems.clear()

    @property
    def problems(self) -> str:
        """What went wrong in the search for the leader, address by address."""
        return "; ".join(f"{address}: {problem}" for address, problem in list(self._problems.items())[:8])

    def _seek(self) -> None:
        """See to it that somebody else is tried, if anything waits for it (it will be called again else)."""
        if self._closed or self._search is not None or self._connecting is not None:
            return
        # The first redirect is followed at once; after that somebody is confused, or there is no leader yet.
        failures = self._failures - 1 if self._suggested is not None else self._failures
        delay = self._backoff(failures, self._options.backoff_max_s) if failures > 0 else 0.0
        self._search = self._loop.call_later(delay, self._try_next)

    def _backoff(self, failures: int, longest_s: float) -> float:
        longest = min(longest_s, self._options.backoff_min_s * 2.0 ** min(failures - 1, 16))
        return float(longest * (0.5 + self._chance.random() / 2))

    def _next_address(self) -> str:
        suggested, self._suggested = self._suggested, None
        if suggested is not None and self._hints < HINTS_MAX and not self._is_silent(suggested):
            if suggested not in self._addresses and len(self._addresses) < ADDRESSES_MAX:
                self._addresses.append(suggested)
            if suggested in self._addresses:
                # The round goes on where it was: removed nodes name each other, and would be all that is ever asked.
                self._hints += 1
                return suggested
        self._hints = 0
        for _ in self._addresses:
            self._position = (self._position + 1) % len(self._addresses)
            if not self._is_silent(self._addresses[self._position]):
                break
        return self._addresses[self._position]

    def _pass_over(self, address: str) -> None:
        now = self._loop.time()
        self._silent_until = {each: until for each, until in self._silent_until.items() if until > now}
        self._silent_until[address] = now + PASS_OVER_S

    def _is_silent(self, address: str) -> bool:
        return self._silent_until.get(address, 0.0) > self._loop.time()

    def _try_next(self) -> None:
        self._search = None
        if self._closed or self._current is not None or not self._waiting:
            return
        address = self._next_address()
        link = self._links.get(address)
        if link is not None and link.is_ready:
            self._use(link)
        else:
            self._connecting = self._loop.create_task(self._connect(address))

    async def _connect(self, address: str) -> None:
        link = Link(address, self, self._options)
        problem = ""
        try:
            host, port = parse_address(address)
            async with asyncio.timeout(self._options.connect_timeout_s):
                await self._dial(lambda: link, host, port)
                await link.ready
            self._check_cluster(link)
        except (OSError, RaftKVError) as exc:  # TimeoutError is an OSError
            problem = str(exc) or "no answer in time"
            if isinstance(exc, TimeoutError):
                self._pass_over(address)
        finally:
            self._connecting = None
            if problem or not link.is_ready:
                link.close()
        if link.is_ready:
            self.reconnects += 1
            self._links[address] = link
            self._use(link)
        else:
            self._unreachable(address, problem)

    def _check_cluster(self, link: Link) -> None:
        """A session number means something in one cluster only, so a client never crosses over to another."""
        if self._cluster_id is None:
            self._cluster_id = link.cluster_id
        elif link.cluster_id != self._cluster_id:
            raise HandshakeRefused(f"it belongs to cluster {link.cluster_id!r}, not to {self._cluster_id!r}")

    def _unreachable(self, address: str, problem: str) -> None:
        self._failures += 1
        self._problems[address] = problem
        if address not in self._seeds:
            self._addresses.remove(address)  # a hint may name it again
        self._seek()

    def _use(self, link: Link) -> None:
        self._current = link
        self._flush()

    # ------------------------------------------------------------------------------ the end

    async def close(self) -> None:
        """Close every connection; calls that still wait end with `Unavailable` or `Indeterminate`."""
        self._closed = True
        if self._search is not None:
            self._search.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        self._waiting.clear()
        for link in list(self._links.values()):
            for call in link.close():
                call.maybe_applied |= call.changes_state
        for call in self._calls:
            call.give_up("the client was closed")

    @property
    def leader_address(self) -> str | None:
        """Where calls go at the moment."""
        return self._current.address if self._current is not None else None


def _describe(error: RaftKVError) -> str:
    if isinstance(error, NotLeader):
        return f"not the leader, which may be {error.address}" if error.address else "not the leader, and knows of none"
    return str(error)
