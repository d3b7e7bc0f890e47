"""What the listener for clients needs of a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from raftkv.machine import CommandDone, QueryDone
from raftkv.model import Index, Member, Membership, NodeId
from raftkv.wire import Members


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

    def status(self) -> msgspec.Struct:
        """Everything that an operator may ask; sent as MessagePack."""
