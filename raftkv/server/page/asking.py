"""The other nodes, asked where they listen for clients, for as long as somebody looks at the page."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable

import msgspec

from raftkv.client import Admin
from raftkv.client.book import is_usable
from raftkv.doctor import ClusterView, Silent, stranger
from raftkv.errors import UNREADABLE, RaftKVError, Unavailable
from raftkv.model import NodeId
from raftkv.node.status import NodeStatus

ANSWER_S = 1.5
"""How long a node may take to say how it is before it counts as silent."""

ROUND_S = 0.4
"""How long a picture waits for answers; a node that takes longer is shown as it was."""

MEMBERS_MAX = 64
"""Nodes that are asked; a cluster has a handful."""


class _Asked:
    """One node: the way to it, the question that is under way, and what it said last."""

    def __init__(self, ask: Callable[[], Awaitable[NodeStatus]], close: Callable[[], Awaitable[None]]) -> None:
        self._ask = ask
        self.close = close
        self.answer: NodeStatus | str | None = None
        """What it said last, or why it says nothing."""
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> asyncio.Task[None]:
        """Ask, unless it has not answered yet."""
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._run())
        return self.task

    async def _run(self) -> None:
        try:
            self.answer = await self._ask()
        except (RaftKVError, *UNREADABLE) as exc:
            self.answer = str(exc)


class Cluster:
    """All nodes, as this one knows the members; belongs to one event loop, which need not be the node's."""

    def __init__(self, own: Callable[[], Awaitable[NodeStatus]], context: ssl.SSLContext | None) -> None:
        """`own` gives this node's status; `context` is for asking the others, None where they speak no TLS."""
        self.own_id: NodeId | None = None
        """None before this node has answered for the first time."""
        self._own_cluster = ""
        self._context = context
        self._own = _Asked(own, _nothing)
        self._others: dict[str, _Asked] = {}

    async def look(self) -> tuple[ClusterView, set[NodeId]]:
        """The cluster now, and which of its nodes have answered just now."""
        addresses = self._members()
        for address in [each for each in self._others if each not in addresses]:
            await self._leave(self._others.pop(address))
        for address in addresses:
            if address not in self._others:
                self._others[address] = self._reach(address)
        every = [self._own, *self._others.values()]
        done, _ = await asyncio.wait([each.begin() for each in every], timeout=ROUND_S)
        for task in done:
            task.result()  # raises what nobody has foreseen
        fresh = {
            each.answer.node_id
            for each in every
            if isinstance(each.answer, NodeStatus) and each.task is not None and each.task.done()
        }
        if isinstance(self._own.answer, NodeStatus):
            self.own_id, self._own_cluster = self._own.answer.node_id, self._own.answer.cluster_id
        return self._view(addresses), fresh

    def _members(self) -> dict[str, NodeId]:
        """The others by their addresses, by the newest membership that is known."""
        answers = [each.answer for each in (self._own, *self._others.values())]
        nodes = [answer for answer in answers if isinstance(answer, NodeStatus)]
        newest = max(nodes, key=lambda node: (node.commit_index, node.term), default=None)
        if newest is None:
            return {}
        members = [each for each in newest.membership.members if is_usable(each.client_address)]
        return {each.client_address: each.node_id for each in members[:MEMBERS_MAX] if each.node_id != self.own_id}

    def _reach(self, address: str) -> _Asked:
        admin = Admin([address], ssl=self._context)

        async def ask() -> NodeStatus:
            status = msgspec.convert(await admin.status(ANSWER_S), NodeStatus)
            if status.cluster_id not in ("", self._own_cluster):
                raise Unavailable(stranger(address, status).reason)
            return status

        return _Asked(ask, admin.close)

    def _view(self, addresses: dict[str, NodeId]) -> ClusterView:
        nodes: dict[NodeId, NodeStatus] = {}
        silent = []
        if isinstance(self._own.answer, NodeStatus):
            nodes[self._own.answer.node_id] = self._own.answer
        elif self._own.answer is not None:
            silent.append(Silent("this node", self._own.answer, self.own_id))
        for address, asked in self._others.items():
            if isinstance(asked.answer, NodeStatus):
                nodes.setdefault(asked.answer.node_id, asked.answer)
            elif asked.answer is not None:
                silent.append(Silent(address, asked.answer, addresses[address]))
        return ClusterView([nodes[each] for each in sorted(nodes)], silent)

    async def close(self) -> None:
        """End all questions and connections."""
        for asked in (self._own, *self._others.values()):
            await self._leave(asked)

    @staticmethod
    async def _leave(asked: _Asked) -> None:
        if asked.task is not None:
            asked.task.cancel()
            await asyncio.wait([asked.task])
        await asked.close()


async def _nothing() -> None:
    """There is nothing to close."""
