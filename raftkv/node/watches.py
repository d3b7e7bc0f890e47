"""Clients that wait for changes: told from the history in the state, which is read once for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from raftkv.config import KIB
from raftkv.errors import Busy, InvalidArgument, NotAccepted, RaftKVError, Unavailable
from raftkv.history import BEGINNING, Asked, Cursor, Found, Recorded, lineage_of
from raftkv.machine import QueryDone
from raftkv.model import Index
from raftkv.node.applier import Applier
from raftkv.node.body import Body
from raftkv.node.engine import Engine
from raftkv.node.parking import Parked, Parking
from raftkv.node.scans import Scans
from raftkv.node.telling import Telling
from raftkv.node.waiting import Query
from raftkv.wire import Watching

if TYPE_CHECKING:
    from raftkv.machine import Runner
    from raftkv.state import StateView

CHANGES_MAX, PAGE_BYTES_MAX = 500, 256 * KIB
"""Of one answer, but for one change that is larger; what is left comes with the next one."""
PAGES_BYTES_MAX = 4 * 1024 * KIB
"""Answers that are kept for others who ask the same."""
NEAR = 256
"""Entries up to which a client may be behind for its changes to be read on the loop; further back, beside it."""
FAR = 2_048
"""Entries whose changes are read on for all who wait, page by page; further back, each asks for itself."""
FOLLOWED_S = 5.0
"""A table is read on for so long when nobody waits for it: who has just got changes comes back for the next ones."""
LEADERLESS_S = 3.0
"""Who has heard of no leader for so long hears of no changes: its clients ask other nodes."""

_AHEAD = (
    "the cursor {} is of an entry that this cluster does not have, whose log goes to {}: it is of another cluster, or "
    "of before a restore. Read the table as it is, and go on behind the index at which it was read"
)

_encoder = msgspec.msgpack.Encoder()


class Watcher(Parked):
    """A client that waits for changes."""

    __slots__ = ("asked", "group", "has_begun")

    def __init__(self, place: Parking[Watcher], asked: Asked, done: QueryDone, *, has_begun: bool) -> None:
        super().__init__(place, done)
        self.asked = asked
        self.has_begun = has_begun
        """Whether it certainly has a place in this cluster to go on from; else it asks for one."""
        self.group: Group | None = None
        """Set while there is nothing for it."""


class Group:
    """Clients that wait for the same rows of a source, and have heard of everything so far."""

    __slots__ = ("asked", "found", "source", "watchers")

    def __init__(self, source: Source, asked: Asked) -> None:
        self.source = source
        self.asked = asked
        self.watchers: dict[Watcher, None] = {}
        self.found: list[Recorded] = []
        """What it is about to be told."""


class Source:
    """A table, set, or stream of events that is read on as it changes, with those who wait for it.

    Invariants: every change from behind `since` to `tail` was looked at, and the last one of them is `last`; no group
    has missed any.
    """

    def __init__(self, name: str, tail: Cursor) -> None:
        self.name = name
        self.since = self.last = self.tail = tail
        self.groups: dict[tuple[bytes, bytes | None, bool], Group] = {}
        self.rows: dict[bytes, list[Group]] = {}
        """Those that wait for one row, by its key …"""
        self.ranges: dict[Group, None] = {}
        """… and all others."""
        self.keeps_old = False
        """Whether somebody wants the values before."""
        self.is_behind = False
        """Whether there may be changes behind `tail`."""
        self.arriving: dict[Watcher, None] = {}
        """Those who know more than was looked at: they are placed when that is looked at, too."""
        self._pages: dict[Asked, bytes] = {}
        """Answers since the last change."""
        self._pages_bytes = 0
        self.idle_since: float | None = None

    def is_known_by(self, asked: Asked) -> bool:
        """Whether nothing has changed since, as can be said without reading anything."""
        if self.is_behind or asked.old > self.keeps_old:
            return False
        return self.since <= asked.after >= self.last

    def page(self, asked: Asked) -> bytes | None:
        """What somebody else was answered who has asked the same, if nothing has changed since."""
        return self._pages.get(asked)

    def keep(self, asked: Asked, page: bytes) -> None:
        """Keep an answer until something changes."""
        if self._pages_bytes > PAGES_BYTES_MAX:
            self.changed(self.last)
        self._pages[asked] = page
        self._pages_bytes += len(page)

    def changed(self, last: Cursor) -> None:
        """There are changes up to `last`."""
        self.last = last
        self._pages.clear()
        self._pages_bytes = 0

    def group(self, asked: Asked) -> Group:
        """Those who wait for these rows."""
        key = asked.start, asked.end, asked.old
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(self, asked)
            if asked.end == asked.start + b"\0":
                self.rows.setdefault(asked.start, []).append(group)
            else:
                self.ranges[group] = None
        return group

    def drop(self, group: Group) -> None:
        """Nobody is in it any more."""
        asked = group.asked
        if self.groups.pop((asked.start, asked.end, asked.old), None) is None:
            return
        if group in self.ranges:
            del self.ranges[group]
        else:
            same = self.rows[asked.start]
            same.remove(group)
            if not same:
                del self.rows[asked.start]

    def sort_in(self, changes: list[Recorded]) -> list[Group]:
        """Give each group those that it waits for; the groups that got some."""
        got: dict[Group, None] = {}
        for change in changes:
            in_range = [each for each in self.ranges if each.asked.wants(change.key)]
            for group in (*self.rows.get(change.key, ()), *in_range):
                plain = change.old is None or group.asked.old
                group.found.append(change if plain else msgspec.structs.replace(change, old=None))
                got[group] = None
        return list(got)


class Watches:
    """Keeps the clients that wait for changes, and reads on each source that somebody waits for.

    Every node can tell what is committed, so a client may ask any. A node that has heard of no leader for a while sends
    it on, and one whose state is behind the client's cursor lets it wait until it has caught up.

    Invariants: at most `polls_max` wait, and no more are to be placed, even if they wait no longer; each `done` is
    called once, unless its watcher is cancelled.
    """

    def __init__(
        self, body: Body, engine: Engine, applier: Applier, scans: Scans, cluster_id: Callable[[], str]
    ) -> None:
        self._body = body
        self._cluster_id = cluster_id
        self._knows_lineages = False
        """Whether all is applied that the cluster began with, so that the state says what it goes on from."""
        self._engine = engine
        self._applier = applier
        self._scans = scans
        self._clock = body.world.clock
        self._loop = asyncio.get_running_loop()
        self._sources: dict[str, Source] = {}
        self._parking: Parking[Watcher] = Parking(self._time_over, self._left)
        self._ahead: dict[Watcher, None] = {}
        """Those that know more than is applied here."""
        self._is_asking_how_far = False
        """Whether the leader is being asked whether there is what they know."""
        self._reading: dict[Asked, list[Watcher]] = {}
        """Those whose changes are read beside the loop."""
        self._placing = Telling()
        self._last_asked: tuple[Watching | None, Asked] = None, Asked("")
        """What was asked last, as often thousands ask the same: they share it in memory."""
        self._runner: Runner = applier.runner
        """Whose state the sources were read from."""
        self._recorded = applier.runner.active.sources
        """What was recorded then."""
        self._due: asyncio.Handle | None = None
        self._leaderless_since: float | None = None

    def __len__(self) -> int:
        return len(self._parking)

    def ask(self, asked: Watching, done: QueryDone, wait_s: float, gone: Callable[[], bool]) -> Watcher:
        """Answer with the changes behind a cursor, as soon as there are some, or after `wait_s` with where to go on.

        It is not called before this returns. Raises `Busy`, `Unavailable`, `OtherLineage`, and without a cursor of this
        cluster as `Engine.query`.
        """
        if max(len(self), len(self._placing)) >= self._body.config.polls_max:
            raise Busy(f"{len(self)} requests wait here until something changes: polls_max allows no more")
        if self._is_leaderless():
            raise self._leaderless()
        wanted = self._wanted(asked)
        after = asked.after
        watcher = Watcher(self._parking, wanted, done, has_begun=after is not None and self._is_own(after))
        if after is None:
            first = partial(self._parking.tell, watcher)
            self._engine.query(Query(b"", first, wait_s, gone, lambda: self._beginning(wanted)))
        elif watcher.has_begun:
            self._placing.soon(self._place, watcher)
        else:
            judged = partial(self._judge, watcher, after)
            self._engine.query(Query(b"", judged, wait_s, gone, lambda: b""))
        self._parking.add(watcher, wait_s)
        return watcher

    def _is_own(self, after: Cursor) -> bool:
        """Whether what is behind a cursor certainly goes on in this cluster. Raises `OtherLineage` when it does not.

        A node that is still applying what its cluster was restored or recovered with can't tell yet of cursors that
        are of before that, or do not say of which cluster they are.
        """
        cluster_id = self._cluster_id()
        if after.lineage == lineage_of(cluster_id):
            return True
        if self._knows_lineages:
            self._applier.runner.lineages.check(after, cluster_id)
        return self._knows_lineages

    def _judge(self, watcher: Watcher, after: Cursor, _: Index, result: bytes | RaftKVError) -> None:
        """All is applied that was acknowledged, and so what the cluster began with."""
        try:
            if isinstance(result, RaftKVError):
                raise result
            self._knows_lineages = True
            watcher.has_begun = self._is_own(after)
        except RaftKVError as exc:
            self._parking.tell(watcher, 0, exc)
            return
        self._place(watcher)

    def _wanted(self, asked: Watching) -> Asked:
        last, wanted = self._last_asked
        if asked != last:
            after = BEGINNING if asked.after is None else Cursor(asked.after.index, asked.after.position)
            wanted = Asked(asked.source, after, asked.start, asked.end, asked.old)
            self._last_asked = asked, wanted
        return wanted

    def _beginning(self, asked: Asked) -> bytes:
        """Where one begins to watch. Raises `InvalidArgument` for what is not recorded."""
        newest = self._applier.runner.newest
        self._applier.runner.changes(msgspec.structs.replace(asked, after=newest), 1, 1)
        return _encoder.encode(Found([], newest))

    def _place(self, watcher: Watcher) -> None:
        """Tell a client what there is for it, or have it wait."""
        if watcher.is_over:
            return
        asked, runner = watcher.asked, self._applier.runner
        if asked.after.index > runner.applied.index:
            self._ahead[watcher] = None
            return
        self._notice_snapshot()
        source = self._sources.get(asked.source)
        if source is not None and source.is_known_by(asked):
            self._join(source, watcher)
        elif source is not None and source.is_behind and asked.after > source.tail:
            source.arriving[watcher] = None
            self._go_soon()
        elif runner.applied.index - asked.after.index > NEAR:
            self._read_beside(watcher)
        else:
            self._read(watcher)

    def _ask_how_far(self) -> None:
        """Ask the leader how far the log goes: who knows of more than that has a cursor of another cluster."""
        watchers = tuple(self._ahead)

        def done(index: Index, result: bytes | RaftKVError) -> None:
            self._is_asking_how_far = False
            if isinstance(result, RaftKVError):
                return  # it is asked again at the next tick
            for each in watchers:
                if each.asked.after.index > index:
                    self._parking.tell_soon(each, 0, InvalidArgument(_AHEAD.format(each.asked.after, index)))

        with contextlib.suppress(NotAccepted):
            self._engine.query(Query(b"", done, None, None, lambda: b""))
            self._is_asking_how_far = True

    def _join(self, source: Source, watcher: Watcher) -> None:
        group = source.group(watcher.asked)
        group.watchers[watcher] = None
        watcher.group = group
        source.keeps_old |= watcher.asked.old
        source.idle_since = None

    def _read(self, watcher: Watcher) -> None:
        """Read what there is for a client that is not far behind, once for all that ask the same."""
        asked, runner = watcher.asked, self._applier.runner
        source = self._sources.get(asked.source)
        if source is not None and (page := source.page(asked)) is not None:
            self._parking.tell_soon(watcher, runner.applied.index, page)
            return
        try:
            found = runner.changes(asked, CHANGES_MAX, PAGE_BYTES_MAX)
        except RaftKVError as exc:
            self._parking.tell_soon(watcher, 0, exc)
            return
        if found.changes or found.after < runner.newest:
            page = _encoder.encode(found)
            if source is not None:
                source.keep(asked, page)
            self._parking.tell_soon(watcher, runner.applied.index, page)
            return
        if source is None:
            source = self._sources[asked.source] = Source(asked.source, runner.newest)
        self._join(source, watcher)

    def _read_beside(self, watcher: Watcher) -> None:
        """Read what there is for a client that is far behind, in a thread, once for all that ask the same."""
        asked, runner = watcher.asked, self._applier.runner
        waiting = self._reading.setdefault(asked, [])
        waiting.append(watcher)
        if len(waiting) > 1:
            return

        def read(view: StateView) -> bytes:
            return _encoder.encode(runner.changes(asked, CHANGES_MAX, PAGE_BYTES_MAX, view))

        def done(index: Index, result: bytes | RaftKVError) -> None:
            for each in self._reading.pop(asked):
                self._parking.tell_soon(each, index, result)

        query = Query(b"", done, None, lambda: all(each.is_over for each in waiting))
        query.beside = read
        self._scans.begin(query)

    def look(self) -> None:
        """Something may have been applied: tell those who wait for it, in the next turn of the loop."""
        if not self._sources and not self._ahead:
            return
        self._notice_snapshot()
        self._notice_version()
        runner = self._applier.runner
        for source in self._sources.values():
            if source.name in runner.changed:
                source.is_behind = True
            elif not source.is_behind:
                source.tail = runner.newest
        if self._ahead or any(each.is_behind for each in self._sources.values()):
            self._go_soon()

    def _go_soon(self) -> None:
        if self._due is None:
            self._due = self._loop.call_soon(self._go)

    def _notice_snapshot(self) -> None:
        """If a snapshot has come in place of entries, nobody has told what they changed."""
        if self._applier.runner is not self._runner:
            self._runner = self._applier.runner
            for source in self._sources.values():
                source.is_behind = True
            self._go_soon()

    def _notice_version(self) -> None:
        """If another version is active, it may not record what somebody waits for: reading it on will tell."""
        recorded = self._applier.runner.active.sources
        if recorded is not self._recorded:
            self._recorded = recorded
            for source in self._sources.values():
                source.is_behind = True

    def _go(self) -> None:
        self._due = None
        for source in list(self._sources.values()):
            self._read_on(source)
        if any(each.is_behind for each in self._sources.values()):
            self._go_soon()
        runner = self._applier.runner
        for watcher in [each for each in self._ahead if each.asked.after.index <= runner.applied.index]:
            del self._ahead[watcher]
            self._placing.soon(self._place, watcher)

    def _read_on(self, source: Source) -> None:
        """Look at a page of what has changed since, and tell those who wait for it: for more there is another turn."""
        runner = self._applier.runner
        if not source.is_behind:
            source.tail = runner.newest
            return
        if runner.applied.index - source.tail.index > FAR:
            self._let_go(source)  # a snapshot has come in place of them: too much to be read here
            return
        try:
            asked = Asked(source.name, source.tail, old=source.keeps_old)
            found = runner.changes(asked, CHANGES_MAX, PAGE_BYTES_MAX)
        except RaftKVError:
            self._let_go(source)  # it may concern some of them only, as one that wants old values
            return
        source.tail = found.after
        if found.changes:
            source.changed(found.changes[-1].cursor)
            self._hand_out(source, found.changes)
        source.is_behind = source.tail < runner.newest
        for watcher in [each for each in source.arriving if each.asked.after <= source.tail]:
            del source.arriving[watcher]
            self._placing.soon(self._place, watcher)

    def _hand_out(self, source: Source, changes: list[Recorded]) -> None:
        for group in source.sort_in(changes):
            page = _encoder.encode(Found(group.found, source.tail))
            for watcher in list(group.watchers):
                self._parking.tell_soon(watcher, source.tail.index, page)

    def _maybe_forget(self, source: Source) -> None:
        """Read a source no further for which nobody waits any more."""
        now = self._clock()
        if source.groups or source.arriving:
            source.idle_since = None
        elif source.idle_since is None:
            source.idle_since = now
        elif now - source.idle_since > FOLLOWED_S:
            self._sources.pop(source.name, None)

    def _let_go(self, source: Source) -> None:
        """Have each ask again by itself."""
        self._sources.pop(source.name, None)
        for watcher in source.arriving:
            self._placing.soon(self._place, watcher)
        result = _encoder.encode(Found([], source.tail))
        for group in list(source.groups.values()):
            for watcher in list(group.watchers):
                self._parking.tell_soon(watcher, source.tail.index, result)

    def _time_over(self, watcher: Watcher) -> None:
        """Nothing has happened: its client goes on from where all was looked at."""
        if not watcher.has_begun:
            self._parking.tell(watcher, 0, Unavailable("the leader was not heard in time: nobody knows where to begin"))
            return
        group, after = watcher.group, watcher.asked.after
        if group is not None:
            after = max(after, group.source.tail)
        self._parking.tell(watcher, after.index, _encoder.encode(Found([], after)))

    def _left(self, watcher: Watcher) -> None:
        self._ahead.pop(watcher, None)
        source = self._sources.get(watcher.asked.source)
        if source is not None:
            source.arriving.pop(watcher, None)
        group, watcher.group = watcher.group, None
        if group is not None:
            del group.watchers[watcher]
            if not group.watchers:
                group.source.drop(group)

    def _is_leaderless(self) -> bool:
        since = self._leaderless_since
        return since is not None and self._clock() - since > LEADERLESS_S

    def _leaderless(self) -> Unavailable:
        return Unavailable(f"node {self._body.node_id} has not heard of a leader for a while")

    def tick(self) -> None:
        """See whether a leader is heard, and whether a snapshot has taken the place of entries."""
        if self._body.raft.leader is not None:
            self._leaderless_since = None
        elif self._leaderless_since is None:
            self._leaderless_since = self._clock()
        elif self._parking and self._is_leaderless():
            self._sources.clear()
            for watcher in self._parking:
                self._parking.tell_soon(watcher, 0, self._leaderless())
        if self._ahead and not self._is_asking_how_far:
            self._ask_how_far()
        if self._applier.runner is not self._runner:
            self.look()
        for source in list(self._sources.values()):
            self._maybe_forget(source)

    def stop(self, error: RaftKVError) -> None:
        """All that wait get `error`."""
        self._sources.clear()
        self._parking.stop(error)
