"""Raises the active version of the application: when every member can run the next one, as soon as the leader knows.

Each node says in its handshakes which versions its class can run. The leader makes the highest version active that all
members can run, by an entry of its own (see `raftkv.machine.versions`), and asks for the pieces of an upgrade one after
the other. With `auto_upgrade` off, an operator says when (`raftkv upgrade`); the program around a machine may as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from raftkv import failpoints
from raftkv.errors import (
    ChangeRefused,
    Indeterminate,
    InvalidArgument,
    NodeStopped,
    NotAccepted,
    NotActive,
    RaftKVError,
    Unavailable,
)
from raftkv.logs import EventLog
from raftkv.machine import (
    Activation,
    Active,
    Founding,
    Kept,
    QueryDone,
    StateMachine,
    Step,
    VersionChange,
    encode_change,
    encode_schema,
    runs,
)
from raftkv.model import Index, NodeId, Term
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.peers.told import Told
from raftkv.node.proposing import OwnEntries
from raftkv.node.status import UpgradeStatus
from raftkv.node.waiters import Waiters

logger = EventLog(__name__)

failpoints.declare(
    __name__,
    {
        "upgrade.before_append": "another version, or the next piece of an upgrade, is about to be proposed",
        "upgrade.after_append": "that is in the leader's log in memory only",
    },
)


class Upgrades:
    """Looks, at every tick, whether there is something to propose; and carries out the operator's order."""

    def __init__(
        self,
        body: Body,
        machine: type[StateMachine],
        applier: Applier,
        waiters: Waiters,
        told: Mapping[NodeId, Told],
        *,
        hold: Callable[[bool], None],
    ) -> None:
        """`told` is what peers have said in their handshakes. `hold` lets no further command into the log, or again."""
        self._body = body
        self._machine = machine
        self._applier = applier
        self._waiters = waiters
        self._told = told
        self._hold = hold
        self._orders = 0
        """How many wait for the moment at which all that is in the log is applied."""
        self._entries = OwnEntries(body, applier)
        self._seen: Kept | None = None
        self._offered = 0
        self._is_mixed = False

    @property
    def _active(self) -> Active:
        return self._applier.runner.active

    def look(self) -> None:
        """Propose what is due, if this node leads and knows what is active."""
        kept = self._active.kept
        if kept is not None:
            self._say(kept)
        versions = {self._active.version, self._machine.version, *(told.newest for told in self._told.values())}
        self._is_mixed = len(versions) > 1
        self._offer(self._common_version() if self._is_new() else 0)
        change = self._due(kept) if self._entries.may_follow() else None
        if change is not None and (self._is_quiet() or not self._may_raise(change, kept)):
            with suppress(NotAccepted):  # then it is due at the next tick as well
                self._propose(change)
            change = None
        self._hold(change is not None or self._orders > 0)

    def _may_raise(self, change: VersionChange, kept: Kept | None) -> bool:
        """Whether it has to be tried on the very state that it will find."""
        if kept is None or not isinstance(change, Activation):
            return isinstance(change, Step)
        return any(kept.version < each.to <= change.version for each in self._machine.upgrades.values())

    def _is_quiet(self) -> bool:
        """Whether this leader has applied all that is in its log, so that the next entry will find that state."""
        return self._body.raft.log.last_index == self._applier.runner.applied.index

    def _is_new(self) -> bool:
        """Whether there is no state yet, and no node is known that could not read which version it is to begin with."""
        is_empty = self._active.kept is None and self._body.raft.log.last_index == 0
        return is_empty and all(told.newest for told in self._told.values())

    def _offer(self, version: int) -> None:
        """Have this node's first entry as a leader say which version a new state begins with; 0: it says nothing."""
        if self._offered != version:
            self._offered = version
            self._body.raft.opening = b""
            if version:
                declared = self._declared(version)
                self._body.raft.opening = encode_change(Founding(*declared))
                self._applier.runner.expect(*declared)

    def _due(self, kept: Kept | None) -> VersionChange | None:
        """What a leader that has applied everything is to propose."""
        if kept is None:
            # The state was begun by a raftkv that knew of no versions. Nodes that still run it could not read this.
            version = self._common_version()
            return None if self.behind(version) else Activation(*self._declared(version))
        if kept.failed_version == kept.version:
            return None  # its next piece has failed: an operator says when to try again
        if kept.left:
            return Step(kept.version, kept.steps)
        if not self._is_automatic:
            return None
        target = self._reachable(kept.version)
        return Activation(*self._declared(target)) if target not in (kept.version, kept.failed_version) else None

    @property
    def _is_automatic(self) -> bool:
        return self._body.config.auto_upgrade and not self._machine._host_decides

    def _say(self, kept: Kept) -> None:
        if self._seen is not None and self._seen == kept:
            return
        before, self._seen = self._seen, kept
        if before is None or before.version != kept.version:
            logger.info("version_active", node=self._body.node_id, version=kept.version, newest=self._machine.version)
        if kept.failed and (before is None or before.failed != kept.failed or before.steps != kept.steps):
            logger.error("upgrade_failed", node=self._body.node_id, version=kept.failed_version, error=kept.failed)

    def _propose(self, change: VersionChange) -> None:
        """Try it, and append it at once, so that nothing gets in between."""
        raft = self._body.raft
        try:
            change = self._applier.runner.tried(change)
        except NodeStopped as exc:
            self._body.fail(exc)
            return
        failpoints.reach("upgrade.before_append")
        raft.observe(self._body.world.now_ms(), self._body.world.monotonic_ms())
        self._entries.proposed(raft.propose_upgrade(encode_change(change)))
        failpoints.reach("upgrade.after_append")
        self._body.wake()

    def _declared(self, version: int) -> tuple[int, bytes]:
        """A version with its schema, as a class of that version declares it. A later one would not do: it has the
        arguments and fields that came since."""
        if version != self._machine.version:
            for told in self._told.values():
                if told.newest == version:
                    return version, told.declared
        return version, encode_schema(self._machine.schema(version))  # there is no such class in the cluster any more

    def _common_version(self) -> int:
        """What a new state begins with: the highest version that this node, and all whom it has met and with whom it
        has any in common, can run; the oldest, if the program around the machine decides about later ones."""
        if self._machine._host_decides:
            return self._machine.oldest_version
        known = [told.newest for told in self._told.values() if told.newest >= self._machine.oldest_version]
        return min([self._machine.version, *known])

    def _reachable(self, active: int) -> int:
        """The highest version that every member can run, as far as it has said so; `active` when there is none."""
        newest = [self._told[node].newest for node in self._members() if node in self._told]
        version = min([self._machine.version, *newest])
        return active if version <= active or self.behind(version) else version

    def behind(self, version: int) -> str:
        """Who can't run `version`, or is not known to, in words; empty when everybody can."""
        links, words = self._body.transport.links(), []
        for member in self._body.raft.membership.members:
            node, told = member.node_id, self._told.get(member.node_id)
            if node == self._body.node_id:
                continue
            link = links.get(node)
            if told is None or link is None or not link.connected:
                words.append(f"node {node} is not connected")
            elif not told.newest:
                words.append(f"node {node} runs an older raftkv, which knows of no versions")
            elif not told.oldest <= version <= told.newest:
                words.append(f"node {node} runs {runs(told.oldest, told.newest)}")
        return ", ".join(words)

    def explained(
        self, error: NotActive | InvalidArgument, request: bytes, kind: str = "command"
    ) -> NotActive | InvalidArgument:
        """Why this node refuses an encoded command or query (`kind`), with what it takes for that to go away: what
        this class does not know may be of a later version, which others run."""
        version, newest = self._active.version, self._machine.version
        if isinstance(error, InvalidArgument):
            theirs = [(node, self._told[node]) for node in self._members() if node in self._told]
            later = [node for node, told in theirs if told.newest > newest and told.takes(request, kind)]
            if not later:
                return error
            leads = ", which leads," if self._body.raft.is_leader else ""
            behind = f"node {self._body.node_id}{leads} runs {runs(self._machine.oldest_version, newest)}"
            text = f"nothing was done; version {version} is active: node {later[0]} runs a later one, but {behind}"
            return NotActive(f"{error}: {text}")
        if newest <= version:
            return error
        why = self.behind(version + 1)
        if not why:
            why = "raftkv upgrade makes the next one active" if not self._body.config.auto_upgrade else "it is about to"
        return NotActive(f"{error.message}: nothing was done; version {version + 1} is not active yet: {why}")

    def _members(self) -> list[NodeId]:
        return [member.node_id for member in self._body.raft.membership.members]

    def explaining(self, done: QueryDone, request: bytes) -> QueryDone:
        """`done` of a query, which then is given refusals as `explained`; itself when all known classes are of one
        version."""
        if not self._is_mixed:
            return done

        def explain(index: Index, result: bytes | RaftKVError) -> None:
            if isinstance(result, NotActive | InvalidArgument):
                result = self.explained(result, request, "query")
            done(index, result)

        return explain

    async def upgrade(self, version: int | None, deadline_s: float) -> int:
        """Make `version` (the leader's newest) active and wait until its upgrades are done; returns it.

        What has failed before is tried again. Raises `NotLeader`, `Busy`, `InvalidArgument`, `ChangeRefused` when a
        member can't run it, or the upgrade fails; `Indeterminate` after the deadline (it may still happen).
        """
        raft, newest = self._body.raft, self._machine.version
        raft.require_leader()
        target = newest if version is None else version
        if not self._machine.oldest_version <= target <= newest:
            raise InvalidArgument(
                f"the leader's class runs {runs(self._machine.oldest_version, newest)}: install version {target} on "
                "all nodes first"
            )
        try:
            await self._until_quiet(deadline_s)
            kept = self._active.kept
            if kept is not None and target < kept.version:
                raise InvalidArgument(f"version {kept.version} is active already: there is no way back to {target}")
            if kept is not None and version is None and target == kept.version and (why := self._waits_for(kept)):
                raise ChangeRefused(f"version {target + 1} can't be made active: {why}")
            if kept is None or target > kept.version:
                if why := self.behind(target):
                    raise ChangeRefused(f"version {target} can't be made active: {why}")
                if kept is not None and kept.left:
                    raise ChangeRefused(f"the upgrade to version {kept.version} is not done: {', '.join(kept.left)}")
                self._propose(Activation(*self._declared(target)))
            elif kept.left:
                self._propose(Step(kept.version, kept.steps))
            term = raft.term
            await self._waiters.until(lambda: self._is_over(target, term), deadline_s, "the upgrade is not done")
        except Unavailable as exc:
            raise Indeterminate(f"{exc}; it may still be: look at the status") from exc
        kept = self._active.kept
        if kept is not None and kept.failed:
            raise ChangeRefused(_failure(kept))
        if kept is None or kept.version < target or kept.left:
            raise Indeterminate("leadership was lost during the upgrade: look at the status, then try again")
        return kept.version

    async def _until_quiet(self, deadline_s: float) -> None:
        """Wait until this leader may propose, and the entry will find the state that is here now."""
        self._orders += 1
        try:
            while not (self._entries.may_follow() and self._is_quiet()):
                self._hold(self._body.raft.is_leader)
                await self._waiters.until(
                    lambda: self._entries.may_follow() and self._is_quiet(),
                    deadline_s,
                    "the leader has not applied what was before",
                )
                self._body.raft.require_leader()
        finally:
            self._orders -= 1

    def _is_over(self, target: int, term: Term) -> bool:
        kept, raft = self._active.kept, self._body.raft
        if raft.term != term or not raft.is_leader:
            return True
        if kept is None or not self._entries.may_follow():
            return False
        return bool(kept.failed) or (kept.version >= target and not kept.left)

    def status(self) -> UpgradeStatus:
        """For the node's status."""
        machine, kept = self._machine, self._active.kept
        if kept is None:
            return UpgradeStatus(0, machine.oldest_version, machine.version)
        waits_for = self._waits_for(kept) if self._body.raft.is_leader else None
        failed = _failure(kept) if kept.failed else None
        return UpgradeStatus(
            kept.version, machine.oldest_version, machine.version, kept.left, kept.steps, failed, waits_for
        )

    def _waits_for(self, kept: Kept) -> str | None:
        """Why the version after the active one is not active, if any node's class has it."""
        own, target = self._machine, kept.version + 1
        theirs = [self._told[node].newest for node in self._members() if node in self._told]
        if own._host_decides or target > max([own.version, *theirs]):
            return None
        if target > own.version:
            return f"node {self._body.node_id}, which leads, runs {runs(own.oldest_version, own.version)}"
        if why := self.behind(target):
            return why
        return None if self._body.config.auto_upgrade else "all nodes run it, and raftkv upgrade makes it active"


def _failure(kept: Kept) -> str:
    """What has failed, in words: all of an upgrade, or the next piece of one that has begun."""
    if kept.failed_version == kept.version:
        return (
            f"version {kept.version} is active, and the upgrade to it stands still: its next piece raised what undid "
            f"that piece: {kept.failed}"
        )
    return f"the upgrade to version {kept.failed_version} was undone by what it raised: {kept.failed}"
