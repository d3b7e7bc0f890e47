"""The operator's client for code without asyncio: the same calls, blocking."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from raftkv.access import AccessAsk, AccessOrder, AccessShown
from raftkv.client.admin import Admin
from raftkv.client.backups import Backup
from raftkv.errors import WrongLoop
from raftkv.model import Index, Member, Membership, NodeId

T = TypeVar("T")


class BlockingAdmin:
    """An `Admin` whose calls block; each makes connections of its own, so that threads and forks need not care.

    ```python
    admin = BlockingAdmin(["127.0.0.1:7001"])
    admin.backup("shop.backup")
    ```

    Arguments, results and errors are those of `Admin`. It holds nothing between its calls, so that `with` is for those
    who write the same for every client; it may be used behind that, too.
    """

    def __init__(self, addresses: Sequence[str], **settings: Any) -> None:
        """`settings` are those of `Admin`. Raises as `Admin` does."""
        self._new: Callable[[], Admin] = partial(Admin, addresses, **settings)
        self._new()  # raises at once what is wrong with these

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Does nothing: each call has closed its connections."""

    def _run(self, work: Callable[[Admin], Awaitable[T]]) -> T:
        async def done() -> T:
            async with self._new() as admin:
                return await work(admin)

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(done())
        raise WrongLoop("an event loop runs in this thread, which a blocking call would stop: use Admin there")

    def status(self, deadline_s: float = 5.0) -> dict[str, Any]:
        """A node's status; the fields are those of `NodeStatus`."""
        return self._run(lambda admin: admin.status(deadline_s))

    def add_learner(self, member: Member, deadline_s: float = 30.0) -> Membership:
        """Add a node that gets the log but has no vote."""
        return self._run(lambda admin: admin.add_learner(member, deadline_s))

    def update_member(self, member: Member, deadline_s: float = 30.0, *, force: bool = False) -> Membership:
        """Change a member's addresses."""
        return self._run(lambda admin: admin.update_member(member, deadline_s, force=force))

    def promote(self, node_id: NodeId, deadline_s: float = 300.0) -> Membership:
        """Make a learner a voter as soon as it has caught up."""
        return self._run(lambda admin: admin.promote(node_id, deadline_s))

    def remove(self, node_id: NodeId, deadline_s: float = 30.0) -> Membership:
        """Remove a node, whose id never comes back."""
        return self._run(lambda admin: admin.remove(node_id, deadline_s))

    def transfer_leadership(self, to: NodeId | None = None, deadline_s: float = 10.0) -> NodeId:
        """Hand leadership to a voter (None: the most advanced); returns the new leader."""
        return self._run(lambda admin: admin.transfer_leadership(to, deadline_s))

    def reset_clock(self, deadline_s: float = 10.0) -> dict[str, int]:
        """Set log time to what the clocks say."""
        return self._run(lambda admin: admin.reset_clock(deadline_s))

    def upgrade(self, version: int | None = None, deadline_s: float = 300.0) -> int:
        """Make a version of the application active."""
        return self._run(lambda admin: admin.upgrade(version, deadline_s))

    def take_snapshot(self, deadline_s: float = 300.0) -> Index:
        """Make a node take a snapshot; returns its index."""
        return self._run(lambda admin: admin.take_snapshot(deadline_s))

    def settings(
        self, values: Mapping[str, bool | int | float | None] | None = None, deadline_s: float = 10.0
    ) -> list[dict[str, Any]]:
        """The settings of a node that may change while it runs, after those in `values` were changed."""
        return self._run(lambda admin: admin.settings(values, deadline_s))

    def change_access(self, order: AccessOrder, deadline_s: float = 10.0) -> str:
        """Change users and roles; returns the token that was made, if one was ordered."""
        return self._run(lambda admin: admin.change_access(order, deadline_s))

    def show_access(self, ask: AccessAsk = AccessAsk(), deadline_s: float = 10.0) -> AccessShown:
        """Some users, or roles, in the order of their names, and whether they count."""
        return self._run(lambda admin: admin.show_access(ask, deadline_s))

    def backup(self, path: str | Path, **settings: Any) -> Backup:
        """Make a backup of the whole state in a file; `settings` are those of `Admin.backup`."""
        return self._run(lambda admin: admin.backup(path, **settings))
