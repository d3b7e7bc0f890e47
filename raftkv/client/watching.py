"""Watches changes: asks nodes page by page, and goes on behind what it was told, whatever node answers."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Self, TypeAlias, TypeVar, overload

import msgspec

from raftkv.client.call import Answer
from raftkv.client.waiting import ROUND_S
from raftkv.errors import UNREADABLE, FrameError, InvalidArgument, NotAccepted, StateCorruption
from raftkv.history import Asked, Compacted, Cursor, Found, Recorded
from raftkv.machine import Change, Events, Set, Source, StateMachine, Table
from raftkv.wire import Watching

K = TypeVar("K")
V = TypeVar("V")

Ask: TypeAlias = Callable[[bytes, float], Awaitable[Answer]]
"""Sends an encoded `Watching`; the number is its deadline in seconds."""

_encoder = msgspec.msgpack.Encoder()
_found = msgspec.msgpack.Decoder(Found)


class Pages(Generic[K, V]):
    """The changes of one source, a page at a time."""

    def __init__(
        self,
        ask: Ask,
        rows: Asked,
        after: Cursor | None,
        patience_s: float,
        read: Callable[[Recorded], Change[K, V]],
        lineage: Callable[[], str],
    ) -> None:
        """`rows` are those that are wanted, behind `after`; `read` reads what was recorded of one, and `lineage` says
        of which cluster the answers are."""
        self._ask = ask
        self._lineage = lineage
        self._read = read
        self._patience_s = patience_s
        self._asked = Watching(rows.source, after, rows.start, rows.end, rows.old)
        self.left: deque[Recorded] = deque()
        """What was told and not taken."""

    @property
    def cursor(self) -> Cursor | None:
        """Behind all that is in the pages so far; None before the first one."""
        return self._asked.after

    async def more(self) -> None:
        """Ask for changes, once; there may be none. Raises `Compacted`, `OtherLineage`, and `NotAccepted` when it got
        no answer for `ROUND_S` and `patience_s`; then it may be asked again."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._patience_s
        while True:
            began = loop.time()
            try:
                answer = await self._ask(_encoder.encode(self._asked), ROUND_S)
                break
            except NotAccepted:
                if loop.time() >= give_up_at or loop.time() < began + ROUND_S:
                    raise  # or it was refused here and now, as by a client that is closed
            except Compacted as exc:
                raise Compacted(msgspec.structs.replace(exc.oldest, lineage=self._lineage())) from None
        try:
            found = _found.decode(answer.payload)
        except UNREADABLE as exc:
            raise FrameError(f"changes that can't be read: {exc}") from exc
        lineage = self._lineage()
        for each in (*[change.cursor for change in found.changes], found.after):
            msgspec.structs.force_setattr(each, "lineage", lineage)  # nodes leave it out, and nobody else has them yet
        self.left.extend(found.changes)
        self._asked = msgspec.structs.replace(self._asked, after=found.after)

    def take(self) -> Change[K, V]:
        """The first of what is left. Raises `InvalidArgument`, and leaves it there, when it is of another type: it was
        made by a later version of the class."""
        recorded = self.left[0]
        try:
            change = self._read(recorded)
        except (StateCorruption, *UNREADABLE) as exc:
            raise InvalidArgument(
                f"the change of {self._asked.source} at {recorded.cursor} is of another type ({exc}): does the cluster "
                "run another version? Go on behind it, or watch with the class of that version"
            ) from exc
        self.left.popleft()
        return change


class Watch(Generic[K, V]):
    """Changes in the order of the log, each once: `async for change in client.watch(Inventory.stock)`.

    It begins when the first change is asked for, or with `begin`. It goes on by itself through elections, restarts and
    lost connections. What it raises does not end it: the next step goes on where it was.
    """

    def __init__(self, pages: Pages[K, V]) -> None:
        self._pages = pages
        self._cursor = pages.cursor

    @property
    def cursor(self) -> Cursor | None:
        """Behind the last change that was given, or later, if nothing else was to be told; to go on with in another
        `watch`. None before the beginning."""
        return self._cursor

    async def begin(self) -> Self:
        """Have all changes told that are acknowledged from now on."""
        if self._pages.cursor is None:
            await self._pages.more()
            self._cursor = self._pages.cursor
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change[K, V]:
        """The next change.

        Raises `Compacted`, `OtherLineage` for a cursor of another cluster, or of before a restore, behind which this
        one does not go on; `Unavailable` when no node answers for half a minute or the client's deadline, if that is
        longer; and `InvalidArgument` for what the active version does not keep the changes of, for a cursor that is
        ahead of the cluster's log, and for a change that a later version of the class has made and this one can't read.
        """
        pages = self._pages
        while not pages.left:
            self._cursor = pages.cursor
            await pages.more()
        change = pages.take()
        self._cursor = change.cursor
        return change


class BlockingWatch(Generic[K, V]):
    """The same as `Watch` for `for change in client.watch(Inventory.stock)`."""

    def __init__(self, pages: Pages[K, V], run: Callable[[Any], Any]) -> None:
        """`run` runs a coroutine on the client's loop."""
        self._pages = pages
        self._run = run
        self._cursor = pages.cursor

    @property
    def cursor(self) -> Cursor | None:
        """As that of `Watch`."""
        return self._cursor

    def begin(self) -> Self:
        """Have all changes told that are acknowledged from now on."""
        if self._pages.cursor is None:
            self._run(self._pages.more())
            self._cursor = self._pages.cursor
        return self

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Change[K, V]:
        """The next change. Raises as `Watch` does."""
        pages = self._pages
        while not pages.left:
            self._cursor = pages.cursor
            self._run(pages.more())
        change = pages.take()
        self._cursor = change.cursor
        return change


def source_of(machine: type[StateMachine], source: object) -> Source:
    """The table, set or stream of events of `machine` that is meant. Raises `InvalidArgument`."""
    own = machine.parts.get(getattr(source, "name", ""))
    if not isinstance(source, Table | Set | Events) or type(own) is not type(source):
        raise InvalidArgument(
            f"{source!r} is no table, set or stream of events of {machine.__name__}: name it as the class has it, "
            f"like {machine.__name__}.stock"
        )
    assert isinstance(own, Table | Set | Events)
    return own


class Watches(ABC):
    """What a client for asyncio watches."""

    @abstractmethod
    def _pages_of(self, source: Source, after: Cursor | None, wanted: dict[str, Any]) -> Pages[Any, Any]:
        """Raises `InvalidArgument`."""

    @overload
    def watch(
        self,
        source: Table[K, V],
        after: Cursor | None = ...,
        *,
        prefix: Any = ...,
        start: Any = ...,
        end: Any = ...,
        old: bool = ...,
    ) -> Watch[K, V]: ...
    @overload
    def watch(
        self, source: Set[K], after: Cursor | None = ..., *, prefix: Any = ..., start: Any = ..., end: Any = ...
    ) -> Watch[K, None]: ...
    @overload
    def watch(self, source: Events[V], after: Cursor | None = ...) -> Watch[None, V]: ...
    def watch(self, source: Source, after: Cursor | None = None, **wanted: Any) -> Watch[Any, Any]:
        """The changes of a table or set that is watched, or events: `client.watch(Inventory.stock, prefix="a")`.

        Without `after` it begins behind all that was acknowledged before it; with a cursor, behind that: of a change
        (`change.cursor`), or of a query (`(await client.read(…)).cursor`), which leaves nothing out between the two.
        `old=True` gives the values before as well, where the table keeps them. Raises `InvalidArgument`.
        """
        return Watch(self._pages_of(source, after, wanted))


class BlockingWatches(ABC):
    """What a blocking client watches."""

    @abstractmethod
    def _blocking_watch(self, source: Source, after: Cursor | None, wanted: dict[str, Any]) -> BlockingWatch[Any, Any]:
        """Raises `InvalidArgument`."""

    @overload
    def watch(
        self,
        source: Table[K, V],
        after: Cursor | None = ...,
        *,
        prefix: Any = ...,
        start: Any = ...,
        end: Any = ...,
        old: bool = ...,
    ) -> BlockingWatch[K, V]: ...
    @overload
    def watch(
        self, source: Set[K], after: Cursor | None = ..., *, prefix: Any = ..., start: Any = ..., end: Any = ...
    ) -> BlockingWatch[K, None]: ...
    @overload
    def watch(self, source: Events[V], after: Cursor | None = ...) -> BlockingWatch[None, V]: ...
    def watch(self, source: Source, after: Cursor | None = None, **wanted: Any) -> BlockingWatch[Any, Any]:
        """As `Client.watch`: `for change in client.watch(Inventory.stock)`."""
        return self._blocking_watch(source, after, wanted)
