"""What the listener for clients needs of a node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from raftkv.access import Access, AccessAsk, AccessOrder
from raftkv.machine import CommandDone, QueryDone, StateMachine
from raftkv.model import Index, Member, Membership, NodeId
from raftkv.snapshot.backup import BackupHead
from raftkv.wire import BackupAsk, BackupRead, Members, Watching


class Parked(Protocol):
    """A request that waits at the node until something happens."""

    @property
    def is_over(self) -> bool:
        """Whether it was answered, or is about to be."""

    def cancel(self) -> None:
        """Its client has gone: it is not answered any more."""


class RequestPort(Protocol):
    """What clients ask of a node.

    These take callbacks, not futures, because they are on the way of every request. A callback may be called before
    the method returns.
    """

    def submit(self, payload: bytes, done: CommandDone) -> None:
        """Propose a command; it is durable on a majority and applied when `done` gets an outcome.

        Raises `NotAccepted` when it is refused at once. An error given to `done` that is neither
        `NotAccepted` nor `InvalidArgument` means that the command may still be applied.
        """

    def open_session(self, owner: str, done: CommandDone) -> None:
        """Open a session that only this user may use; as `submit`."""

    def session_owner(self, session_id: int) -> str | None:
        """Who has opened a session, by the state that is applied here; empty for one that is nobody's, None when there
        is none."""

    @property
    def applied_index(self) -> Index:
        """The last entry that is applied here."""

    @property
    def knows_all(self) -> bool:
        """Whether this node, if it leads, has applied all that the leaders before it have acknowledged."""

    def confirm(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        """Call `done`, with nothing, when all that was acknowledged before is applied here, as linearizable queries
        want it. Raises as `query`."""

    @property
    def machine(self) -> type[StateMachine]:
        """What it runs."""

    def present_ms(self) -> int:
        """What time it is, in milliseconds since the epoch: the leader's time where that is known."""

    def query(
        self,
        payload: bytes,
        stale: bool,
        done: QueryDone,
        deadline_s: float | None = None,
        gone: Callable[[], bool] | None = None,
    ) -> None:
        """Run a query: linearizable, or at once on what is applied here when `stale`.

        One that has to read much is given up after `deadline_s` seconds, and when `gone` says that nobody waits for
        it any more; `gone` is called on any thread.

        Raises `NotAccepted` when it is refused at once.
        """

    def poll(
        self, payload: bytes, known: int | None, done: QueryDone, wait_s: float, gone: Callable[[], bool]
    ) -> Parked:
        """Answer a linearizable query when the xxh3-64 of its result is not `known`, or after `wait_s` seconds with
        nothing. Raises as `query`."""

    def watch(self, asked: Watching, done: QueryDone, wait_s: float, gone: Callable[[], bool]) -> Parked:
        """Answer with a `Found` when there are changes, or after `wait_s` seconds. Raises as `query`."""

    def open_view(self, done: QueryDone, deadline_s: float, gone: Callable[[], bool]) -> None:
        """Hold the state at one index, which is the answer's; the result is the view's number. Raises as `query`."""

    def query_view(
        self, number: int, payload: bytes, done: QueryDone, deadline_s: float, gone: Callable[[], bool]
    ) -> None:
        """Run a query on a state that is held here. Raises `ViewExpired`, and what `query` raises."""

    def close_view(self, number: int) -> None:
        """Let go of a state that is held here; nothing happens when there is none."""


class OrderPort(Protocol):
    """What operators order. Each returns when it is done."""

    async def add_learner(self, member: Member, deadline_s: float) -> Membership:
        """Add a node that gets the log but has no vote."""

    async def update_member(self, member: Member, deadline_s: float, *, force: bool) -> Membership:
        """Change a member's addresses."""

    async def promote(self, node_id: NodeId, deadline_s: float) -> Membership:
        """Make a learner a voter as soon as it has caught up."""

    async def remove(self, node_id: NodeId, deadline_s: float) -> Membership:
        """Remove a node; its id never comes back."""

    async def transfer_leadership(self, to: NodeId | None, deadline_s: float) -> NodeId:
        """Hand leadership over; returns the new leader."""

    async def reset_clock(self, deadline_s: float) -> msgspec.Struct:
        """Let log time begin anew at what the clocks say."""

    async def upgrade(self, version: int | None, deadline_s: float) -> int:
        """Make a version of the application active, and wait until its upgrades are done; returns the version."""

    async def take_snapshot(self) -> Index:
        """Take a snapshot now; returns its index."""

    async def configure(self, values: dict[str, bool | int | float | None]) -> Sequence[msgspec.Struct]:
        """Change settings of this node, durably; returns all that may change."""

    async def offer_backup(self, ask: BackupAsk, deadline_s: float) -> BackupHead:
        """Hold a snapshot, so that it can be read; returns the head of its backup."""

    async def read_backup(self, asked: BackupRead) -> bytes:
        """Read a part of a snapshot that is held."""

    async def change_access(self, order: AccessOrder, by: str | None, deadline_s: float) -> str:
        """Change users and roles, as the user `by` (None: who has not signed in); returns the token that was made."""

    async def show_access(self, ask: AccessAsk, deadline_s: float) -> bytes:
        """Some of the users or roles, as an encoded `AccessShown`."""


class Service(Protocol):
    """A node as its listener sees it. Everything is called on the event loop's thread."""

    @property
    def node_id(self) -> NodeId:
        """The id that the node has in the membership."""

    @property
    def cluster_id(self) -> str:
        """Empty before the node has joined a cluster."""

    @property
    def fingerprint(self) -> str:
        """Its state machine's fingerprint."""

    @property
    def leader(self) -> Member | None:
        """The leader as far as this node knows, with its addresses."""

    @property
    def members(self) -> Members:
        """Where the members listen for clients, by the newest membership that this node knows to be committed."""

    def watch_members(self, changed: Callable[[], None]) -> None:
        """Call `changed` when `members` may be others; for one listener."""

    @property
    def requests(self) -> RequestPort:
        """What clients ask of it."""

    @property
    def orders(self) -> OrderPort:
        """What operators order it to do."""

    @property
    def access(self) -> Access:
        """Users and roles, as they are in the state that is applied here."""

    def watch_access(self, changed: Callable[[], None]) -> None:
        """Call `changed` when `access` is otherwise; for one listener."""

    def status(self) -> msgspec.Struct:
        """Everything that an operator may ask; sent as MessagePack."""
