"""A node of one, without consensus: the machine's runner on a store in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from raftkv.access import Access, AccessAsk, AccessOrder, AccessShown, NewToken
from raftkv.client.methods import OPEN_SESSION_PAYLOAD
from raftkv.errors import ChangeRefused, RaftKVError, ViewExpired
from raftkv.listener import CommandDone, QueryDone
from raftkv.machine import LocalMachine, Outcome, StateMachine
from raftkv.model import Index, Member, Membership, NodeId
from raftkv.wire import Members, Watching


class Log:
    """Applies one payload after the other, as the entries of a log."""

    def __init__(self, machine: type[StateMachine]) -> None:
        self._local = LocalMachine(machine)

    @property
    def index(self) -> Index:
        return self._local.index

    def apply(self, payload: bytes) -> tuple[Index, Outcome]:
        """Append a command and apply it."""
        outcome = self._local.apply(payload)
        return self.index, outcome

    def query(self, payload: bytes) -> bytes:
        return self._local.query_raw(payload)

    def expire_sessions(self) -> None:
        """Let the log's time pass until every session is forgotten."""
        self._local.now_ms += 2 * 3_600_000

    def sessions(self) -> int:
        return self._local.sessions


class FakePoll:
    """A request that waits until the test answers it."""

    def __init__(self, done: QueryDone, wait_s: float, *, is_over: bool = False) -> None:
        self.done, self.wait_s, self.is_over = done, wait_s, is_over

    def cancel(self) -> None:
        self.is_over = True


class FakeService:
    """A node as the listener sees it. It answers at once, or holds answers back until `release`."""

    def __init__(self, machine: type[StateMachine]) -> None:
        self.machine = machine
        self.log = Log(machine)
        self.node_id: NodeId = 1
        self.cluster_id = "cluster"
        self.leader: Member | None = None
        self.members = Members()
        self.refuse: RaftKVError | None = None
        """Raised by every request."""
        self.fail: RaftKVError | None = None
        """Given to every request in place of its outcome."""
        self.holding = False
        self.held: list[tuple[bytes, CommandDone]] = []
        self.calls: list[tuple[str, Any]] = []
        self.polls: list[FakePoll] = []
        self.requests = self.orders = self
        self.access = Access()
        self.now_ms = 1_600_000_000_000
        self.knows_all = True
        self.confirmed = 0
        self.confirming: Callable[[QueryDone], None] = lambda done: done(self.log.index, b"")
        self.owners: dict[int, str] = {}
        """Of sessions."""

    @property
    def fingerprint(self) -> str:
        return self.machine.fingerprint()

    def watch_members(self, changed: Callable[[], None]) -> None:
        self.members_changed = changed

    def watch_access(self, changed: Callable[[], None]) -> None:
        self.access_changed = changed

    def present_ms(self) -> int:
        return self.now_ms

    @property
    def applied_index(self) -> Index:
        return self.log.index

    def confirm(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        self.confirmed += 1
        self.confirming(done)

    def session_owner(self, session_id: int) -> str | None:
        return self.owners.get(session_id)

    def open_session(self, owner: str, done: CommandDone) -> None:
        def opened(index: Index, outcome: Outcome | RaftKVError) -> None:
            self.owners[index] = owner
            done(index, outcome)

        self.submit(OPEN_SESSION_PAYLOAD, opened)

    def submit(self, payload: bytes, done: CommandDone) -> None:
        if self.refuse is not None:
            raise self.refuse
        if self.fail is not None:
            done(0, self.fail)
        elif self.holding:
            self.held.append((payload, done))
        else:
            done(*self.log.apply(payload))

    def release(self) -> None:
        """Apply what was held back."""
        held, self.held = self.held, []
        for payload, done in held:
            done(*self.log.apply(payload))

    def query(
        self,
        payload: bytes,
        stale: bool,
        done: QueryDone,
        deadline_s: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> None:
        if self.refuse is not None and not stale:
            raise self.refuse
        try:
            result: bytes | RaftKVError = self.log.query(payload)
        except RaftKVError as exc:
            result = exc
        done(self.log.index, result)

    def poll(
        self, payload: bytes, known: int | None, done: QueryDone, wait_s: float, gone: Callable[[], bool]
    ) -> FakePoll:
        if known is None:
            self.query(payload, False, done)
            return FakePoll(done, wait_s, is_over=True)
        self.polls.append(FakePoll(done, wait_s))
        return self.polls[-1]

    def watch(self, asked: Watching, done: QueryDone, wait_s: float, gone: Callable[[], bool]) -> FakePoll:
        self.polls.append(FakePoll(done, wait_s))
        return self.polls[-1]

    def open_view(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        self.calls.append(("open_view", None))
        done(self.log.index, b"\x07")

    def query_view(
        self, number: int, payload: bytes, done: QueryDone, deadline_s: float, gone: Callable[[], bool]
    ) -> None:
        if number != 7:
            raise ViewExpired(f"no view {number}")
        self.query(payload, False, done)

    def close_view(self, number: int) -> None:
        self.calls.append(("close_view", number))

    def status(self) -> Member:
        return Member(self.node_id, "peer", "client")

    async def add_learner(self, member: Member, deadline_s: float) -> Membership:
        self.calls.append(("add_learner", member))
        return Membership.of((1,), (member.node_id,))

    async def update_member(self, member: Member, deadline_s: float, *, force: bool) -> Membership:
        self.calls.append(("update_member", member, force))
        return Membership.of((1,), (member.node_id,))

    async def promote(self, node_id: NodeId, deadline_s: float) -> Membership:
        self.calls.append(("promote", node_id))
        return Membership.of((1, node_id))

    async def remove(self, node_id: NodeId, deadline_s: float) -> Membership:
        raise ChangeRefused("a change is under way")

    async def transfer_leadership(self, to: NodeId | None, deadline_s: float) -> NodeId:
        self.calls.append(("transfer_leadership", to))
        return to or 2

    async def reset_clock(self, deadline_s: float) -> Member:
        self.calls.append(("reset_clock", deadline_s))
        return Member(self.node_id)

    async def upgrade(self, version: int | None, deadline_s: float) -> int:
        self.calls.append(("upgrade", version))
        return version or 3

    async def take_snapshot(self) -> Index:
        return self.log.index

    async def change_access(self, order: AccessOrder, by: str | None, deadline_s: float) -> str:
        self.calls.append(("change_access", (order, by)))
        return "token" if isinstance(order, NewToken) else ""

    async def show_access(self, ask: AccessAsk, deadline_s: float) -> bytes:
        self.calls.append(("show_access", ask))
        return msgspec.msgpack.encode(AccessShown(False, 0, 0, 0))
