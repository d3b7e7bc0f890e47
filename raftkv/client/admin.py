"""The operator's client: status, membership, leadership, snapshots, versions of the application."""

from __future__ import annotations

import random
import ssl as tls
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Unpack

import msgspec

from raftkv.access import AccessAsk, AccessOrder, AccessShown
from raftkv.client.backups import Backup, BackupPlan, back_up, free_path
from raftkv.client.channel import Channel
from raftkv.client.dial import Dial
from raftkv.client.options import ClientOptions, SignInShort
from raftkv.errors import (
    UNREADABLE,
    AccessRejected,
    Forbidden,
    FrameError,
    NotAccepted,
    RaftKVError,
    Rejected,
    Unavailable,
    ViewExpired,
)
from raftkv.model import Index, Member, Membership, NodeId
from raftkv.snapshot.backup import BackupHead
from raftkv.wire import BackupAsk, BackupRead, RequestKind

ANSWERS_S = 3.0
"""A node that does not even tell its status for so long is passed over, if there are others."""


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
    possible, `Unavailable` when it was not done, `Unauthenticated` or `Forbidden` when nodes ask who one is and one may
    not do it, and `Indeterminate` when it may have been done: look at the status, then try again.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        options: ClientOptions | None = None,
        ssl: tls.SSLContext | None = None,
        dial: Dial | None = None,
        chance: random.Random | None = None,
        **short: Unpack[SignInShort],
    ) -> None:
        """`user` and `password`, or `token`, are short for the same fields of `options`. Raises as `Client` does."""
        options = (options if options is not None else ClientOptions()).with_short(short)
        self._addresses = tuple(addresses)
        self._to_one = partial(Channel, options=options, ssl=ssl, dial=dial, chance=chance, learns=False)
        self._channel = Channel(addresses, options, ssl=ssl, dial=dial, chance=chance)
        self._one = self._channel
        """The way to a certain node, if one is meant."""
        if len(addresses) == 1:
            self._one = self._to_one(addresses)

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

    async def settings(
        self, values: Mapping[str, bool | int | float | None] | None = None, deadline_s: float = 10.0
    ) -> list[dict[str, Any]]:
        """The settings of a node that may change while it runs, after those in `values` were changed (None: back to
        what its start says). Each has its `name`, `value`, `source`, and the value `at_start`.

        A change counts at once, on this node only, and at its next starts unless those say something else
        (`wins_at_start`).
        """
        answer = await self._ask(RequestKind.CONFIGURE, dict(values or {}), deadline_s, list[Any], changes_state=False)
        assert isinstance(answer, list)
        return answer

    async def change_access(self, order: AccessOrder, deadline_s: float = 10.0) -> str:
        """Change users and roles: `NewUser`, `GrantRight`, `Enable` and the others of `raftkv.access`. It is applied on
        return, and in force on each node once that has applied it. Returns the token that was made, if one was ordered.

        Raises `AccessRejected` when it is not possible as users and roles are.
        """
        try:
            token = await self._ask(RequestKind.ACCESS, order, deadline_s, str, changes_state=True)
        except Rejected as exc:
            raise AccessRejected(exc.error_type, exc.message) from exc
        assert isinstance(token, str)
        return token

    async def show_access(self, ask: AccessAsk = AccessAsk(), deadline_s: float = 10.0) -> AccessShown:
        """Some users, or roles, in the order of their names, and whether they count; go on behind the last name while
        there are more. No secret is in it, nor a hash of one."""
        answer = await self._ask(RequestKind.ACCESS_SHOW, ask, deadline_s, AccessShown, changes_state=False)
        assert isinstance(answer, AccessShown)
        return answer

    async def backup(
        self,
        path: str | Path,
        *,
        deadline_s: float = 300.0,
        rate_bytes_s: int = 0,
        age_s: float = 0.0,
        stale: bool = False,
        progress: Callable[[Backup], None] = lambda _: None,
    ) -> Backup:
        """Make a backup of the whole state, as it is at one index, in a file at `path`, which must not exist.

        It has everything that was acknowledged before the call; with `age_s`, a snapshot that a node took so long ago
        will do; with `stale`, whatever the node has applied, which is for when there is no leader. Writers are not
        stopped. The addresses are tried one after the other, and the node that offers a snapshot first is the only one
        that is read. A try that was cut off is taken up where it ended, as long as its node has the same snapshot.

        `progress` is called again and again. Raises `Unavailable` when no node could be read to the end, and
        `DiskError`; what is there already stays as `path` + `.part`.
        """
        plan = BackupPlan(
            path=free_path(path), deadline_s=deadline_s, rate_bytes_s=rate_bytes_s, age_s=age_s, stale=stale
        )
        errors: list[RaftKVError] = []
        waiting = deque((address, len(self._addresses) > 1) for address in self._addresses)
        while waiting:
            address, has_others = waiting.popleft()
            source = _OneNode(self._to_one([address]))
            try:
                # A node that is down, or cut off from the leader, must not use up the time of those that come after it.
                if has_others and not await source.may_offer(plan):
                    waiting.append((address, False))
                    continue
                return await back_up(source, plan, progress)
            except (NotAccepted, ViewExpired) as exc:
                errors.append(exc)
            finally:
                await source.channel.close()
        if len(errors) == 1:
            raise errors[0]
        raise Unavailable("; ".join(str(error) for error in errors)) from errors[-1]

    async def _change(self, kind: RequestKind, argument: Any, deadline_s: float) -> Membership:
        membership = await self._ask(kind, argument, deadline_s, Membership, changes_state=True)
        assert isinstance(membership, Membership)
        return membership

    async def _ask(
        self, kind: RequestKind, argument: Any, deadline_s: float, result: Any, *, changes_state: bool
    ) -> object:
        payload = msgspec.msgpack.encode(argument)
        channel = self._channel if changes_state else self._one
        return decode_answer(await _asked(channel, kind, payload, deadline_s, changes_state=changes_state), result)


class _OneNode:
    """One node, as a backup reads it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def may_offer(self, plan: BackupPlan) -> bool:
        """Whether the node answers and knows a leader, who tells it up to where a backup must reach; one that may be
        older needs none. Raises what the node or the way to it raises."""
        try:
            payload = await _asked(self.channel, RequestKind.STATUS, b"\xc0", min(ANSWERS_S, plan.deadline_s))
        except Forbidden:
            return True  # that is an answer, too: not everybody may see the status
        status = decode_answer(payload, dict[str, Any])
        return plan.stale or plan.age_s > 0 or not isinstance(status, dict) or status.get("leader") is not None

    async def offer_backup(self, ask: BackupAsk, deadline_s: float) -> BackupHead:
        payload = await _asked(self.channel, RequestKind.BACKUP_OFFER, msgspec.msgpack.encode(ask), deadline_s)
        head = decode_answer(payload, BackupHead)
        assert isinstance(head, BackupHead)
        return head

    async def read_backup(self, asked: BackupRead, deadline_s: float) -> bytes:
        return await _asked(self.channel, RequestKind.BACKUP_READ, msgspec.msgpack.encode(asked), deadline_s)


async def _asked(
    channel: Channel, kind: RequestKind, payload: bytes, deadline_s: float, *, changes_state: bool = False
) -> bytes:
    call = channel.new_call(kind, payload, deadline_s, changes_state=changes_state, repeatable=not changes_state)
    # Some operations take long, so silence is no sign of a dead node here.
    call.patient = True
    return (await channel.perform(call)).payload


def decode_answer(payload: bytes, kind: Any) -> object:
    """Decode a node's answer as a `kind`. Raises `FrameError` when it is something else."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except UNREADABLE as exc:
        raise FrameError(f"an answer that can't be read: {exc}") from exc
