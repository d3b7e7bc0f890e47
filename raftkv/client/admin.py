"""The operator's client: status, membership, leadership, snapshots, versions of the application."""

from __future__ import annotations

import random
import ssl as tls
from collections.abc import Sequence
from types import TracebackType
from typing import Any

import msgspec

from raftkv.client.channel import Channel
from raftkv.client.dial import Dial
from raftkv.client.options import ClientOptions
from raftkv.errors import UNREADABLE, FrameError
from raftkv.model import Index, Member, Membership, NodeId
from raftkv.wire import RequestKind


class Admin:
    """A client with the calls that operators need.

    ```python
    async with Admin(["127.0.0.1:7001"]) as admin:
        await admin.add_learner(Member(4, "10.0.0.4:8001", "10.0.0.4:7001"))
        await admin.promote(4)
    ```

    Changes go to the leader. Like every client, this one learns the members' addresses, and finds them even if all of
    `addresses` are gone. `status` and `take_snapshot` are answered by the node that is reached first; with one address
    only the node there is asked. Each method raises `ChangeRefused` or `InvalidArgument` when the change isn't
    possible, `Unavailable` when it was not done, and `Indeterminate` when it may have been done: look at the status,
    then try again.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        options: ClientOptions | None = None,
        ssl: tls.SSLContext | None = None,
        dial: Dial | None = None,
        chance: random.Random | None = None,
    ) -> None:
        options = options if options is not None else ClientOptions()
        self._channel = Channel(addresses, options, ssl=ssl, dial=dial, chance=chance)
        self._one = self._channel
        """The way to a certain node, if one is meant."""
        if len(addresses) == 1:
            self._one = Channel(addresses, options, ssl=ssl, dial=dial, chance=chance, learns=False)

    async def __aenter__(self) -> Admin:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; calls that still wait fail."""
        await self._channel.close()
        await self._one.close()

    async def status(self, deadline_s: float = 5.0) -> dict[str, Any]:
        """A node's status; the fields are those of `NodeStatus`."""
        answer = await self._ask(RequestKind.STATUS, None, deadline_s, dict[str, Any], changes_state=False)
        assert isinstance(answer, dict)
        return answer

    async def add_learner(self, member: Member, deadline_s: float = 30.0) -> Membership:
        """Add a node that gets the log but has no vote; the change is committed on return."""
        return await self._change(RequestKind.ADD_LEARNER, member, deadline_s)

    async def update_member(self, member: Member, deadline_s: float = 30.0, *, force: bool = False) -> Membership:
        """Change a member's addresses; the change is committed on return.

        The node must answer there already, unless you `force` it. Raises `Unavailable` when it does not.
        """
        return await self._change(RequestKind.UPDATE, (member, force), deadline_s)

    async def promote(self, node_id: NodeId, deadline_s: float = 300.0) -> Membership:
        """Make a learner a voter as soon as it has caught up; the change is committed on return."""
        return await self._change(RequestKind.PROMOTE, node_id, deadline_s)

    async def remove(self, node_id: NodeId, deadline_s: float = 30.0) -> Membership:
        """Remove a node, whose id never comes back; the change is committed on return."""
        return await self._change(RequestKind.REMOVE, node_id, deadline_s)

    async def transfer_leadership(self, to: NodeId | None = None, deadline_s: float = 10.0) -> NodeId:
        """Hand leadership to a voter (None: the most advanced); returns the new leader."""
        leader = await self._ask(RequestKind.TRANSFER, to, deadline_s, NodeId, changes_state=True)
        assert isinstance(leader, int)
        return leader

    async def reset_clock(self, deadline_s: float = 10.0) -> dict[str, int]:
        """Set log time to what the clocks say, even if that is earlier; for after a clock was wrong.

        May be repeated. Returns the entry's `index`, and log time before it (`before_ms`) and at it (`log_time_ms`).
        """
        answer = await self._ask(RequestKind.CLOCK_RESET, None, deadline_s, dict[str, int], changes_state=True)
        assert isinstance(answer, dict)
        return answer

    async def upgrade(self, version: int | None = None, deadline_s: float = 300.0) -> int:
        """Make `version` of the application active (None: the newest of the leader's class), and return it when its
        upgrades are done. What has failed before is tried again.

        Raises `ChangeRefused` while a member can't run it, and when an upgrade raises; `InvalidArgument` for a version
        that the leader can't run, or one that was active before; `Indeterminate` after the deadline: it may go on.
        """
        active = await self._ask(RequestKind.UPGRADE, version, deadline_s, int, changes_state=True)
        assert isinstance(active, int)
        return active

    async def take_snapshot(self, deadline_s: float = 300.0) -> Index:
        """Make a node take a snapshot; returns its index. It is durable and verified on return."""
        index = await self._ask(RequestKind.SNAPSHOT, None, deadline_s, Index, changes_state=False)
        assert isinstance(index, int)
        return index

    async def _change(self, kind: RequestKind, argument: Any, deadline_s: float) -> Membership:
        membership = await self._ask(kind, argument, deadline_s, Membership, changes_state=True)
        assert isinstance(membership, Membership)
        return membership

    async def _ask(
        self, kind: RequestKind, argument: Any, deadline_s: float, result: Any, *, changes_state: bool
    ) -> object:
        payload = msgspec.msgpack.encode(argument)
        channel = self._channel if changes_state else self._one
        call = channel.new_call(kind, payload, deadline_s, changes_state=changes_state, repeatable=not changes_state)
        # Some operations take long, so silence is no sign of a dead node here.
        call.patient = True
        answer = await channel.perform(call)
        return decode_answer(answer.payload, result)


def decode_answer(payload: bytes, kind: Any) -> object:
    """Decode a node's answer as a `kind`. Raises `FrameError` when it is something else."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except UNREADABLE as exc:
        raise FrameError(f"an answer that can't be read: {exc}") from exc
