"""`Claim`: something that a process holds for a time, and that a task of its client keeps up as long as it is wanted.

For how long it is sure that it is held, see `Upkeep`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from raftkv.client import BlockingClient, Client
from raftkv.client.remote import BlockingRemote, Remote, caller_of
from raftkv.errors import InvalidArgument, RaftKVError
from raftkv.recipes.turns import LockLost, check_ttl
from raftkv.recipes.upkeep import RENEWED_AT, Upkeep
from raftkv.recipes.waiting import until

LEAVE_S = 2.0
"""How long the end of a claim may be held up by telling the cluster; else its time ends it."""

T = TypeVar("T")
M = TypeVar("M")


class NotAcquired(RaftKVError, TimeoutError):
    """What was asked for was not to be had in time; nothing is held, and nobody waits any more."""


class Kept(Protocol):
    """What a claim uses of the machine that it is about, by the functions of its class."""

    renew: Any
    release: Any
    leave: Any
    token_of: Any


class Claim:
    """A claim for one name. `async with claim:` has it from the beginning to the end of the block, or raises
    `NotAcquired`; at the end it raises `LockLost` if it was lost on the way and nothing else was raised.

    It may be used again when it was released, but is no reentrant lock: a second `acquire` raises `InvalidArgument`.
    """

    def __init__(
        self,
        client: Client[Any],
        kept: Kept,
        name: str,
        ttl_s: float,
        ask: Callable[[str, float], Awaitable[int]],
        timeout_s: float | None = None,
        owner: str = "",
    ) -> None:
        """`ask` asks for it, with the owner and for how many seconds to wait in the queue (0: not at all)."""
        try:
            check_ttl(ttl_s)
        except ValueError as exc:
            raise InvalidArgument(str(exc)) from None
        self.name = name
        self.owner = owner
        self.ttl_s = ttl_s
        self.token = 0
        """0 when it is not held."""
        self._upkeep = Upkeep(ttl_s, self._renew, LockLost)
        self.lost = self._upkeep.lost
        """Set when it is not sure any more that it is held, though nobody has released it."""
        self._client = client
        self._kept = kept
        self._ask = ask
        self._timeout_s = timeout_s
        self._is_fixed = bool(owner)

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Have `callback` called on the client's loop when the claim is lost."""
        self._upkeep.on_lost(callback)

    @property
    def is_sure(self) -> bool:
        """Whether it is held, as far as this process can know."""
        return self.token > 0 and self._upkeep.is_sure

    def check(self) -> None:
        """Raises `LockLost` unless it is sure: before each step that only the holder may do."""
        if not self.is_sure:
            if self.token:
                self._upkeep.lose()
            raise LockLost(name=self.name, token=self.token)

    async def try_acquire(self) -> bool:
        """Have it at once, or not at all."""
        self._begin()
        async with self._given_back():
            asked_at = self._upkeep.now()
            token = await self._ask(self.owner, 0.0)
        if token:
            self._got(token, asked_at)
        return token > 0

    async def acquire(self, timeout_s: float | None = None) -> Self:
        """Have it when it is one's turn. Raises `NotAcquired` after `timeout_s` (default: that of the claim), and what
        a call raises."""
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        self._begin()
        end = None if timeout_s is None else self._upkeep.now() + timeout_s
        async with self._given_back():
            token, asked_at = await self._wait(end)
            if not token:
                raise NotAcquired(f"{self.name!r} was not to be had within {timeout_s:g} s")
        self._got(token, asked_at)
        return self

    def _begin(self) -> None:
        if self.token and not self.lost.is_set():
            raise InvalidArgument(f"{self.name!r} is held by this claim already: make another claim, or release it")
        self._upkeep.stop()
        self.lost.clear()
        self.token = 0
        if not self._is_fixed:
            self.owner = secrets.token_hex(12)

    @contextlib.asynccontextmanager
    async def _given_back(self) -> Any:
        """Whatever goes wrong, it is not held, and nobody waits any more."""
        try:
            yield
        except BaseException:
            await asyncio.shield(self._leave())
            raise

    async def _leave(self) -> None:
        with contextlib.suppress(RaftKVError):  # else its time ends it
            await self._client.within(LEAVE_S).call(self._kept.leave, self.name, self.owner)

    async def _wait(self, end: float | None) -> tuple[int, float]:
        """The token, and when it was asked for that has it for sure; 0 after `end`."""
        has_waited = False
        while True:
            asked_at = self._upkeep.now()
            token = await self._ask(self.owner, self.ttl_s)
            if token and not has_waited:
                return token, asked_at
            if not token:
                has_waited = True
                left = self.ttl_s / RENEWED_AT if end is None else min(self.ttl_s / RENEWED_AT, end - asked_at)
                if left <= 0:
                    return 0, asked_at
                token = await until(self._client, self._kept.token_of, self.name, self.owner, timeout_s=left)
            if token:
                # Nobody knows for how long it is held by now, however it was heard of: from here on it is.
                asked_at = self._upkeep.now()
                with contextlib.suppress(LockLost):
                    await self._client.call(self._kept.renew, self.name, token)
                    return token, asked_at

    def _got(self, token: int, asked_at: float) -> None:
        self.token = token
        self._upkeep.start(asked_at)

    async def _renew(self) -> None:
        await self._client.within(self.ttl_s / RENEWED_AT).call(self._kept.renew, self.name, self.token)

    async def release(self) -> bool:
        """Hold it no longer; False when it was not held any more. What is not held is released without harm."""
        self._upkeep.stop()
        token, self.token = self.token, 0
        if not token:
            return False
        return bool(await self._client.call(self._kept.release, self.name, token))

    async def __aenter__(self) -> Self:
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        token = self.token
        was_sure = self.is_sure
        self._upkeep.stop()
        self.token = 0
        with contextlib.suppress(RaftKVError):  # else its time ends it
            await self._client.within(LEAVE_S).call(self._kept.release, self.name, token)
        if kind is None and not was_sure and token:
            raise LockLost(name=self.name, token=token)


class BlockingClaim:
    """A `Claim` for code without asyncio; it is kept up on the client's own thread."""

    def __init__(self, client: BlockingClient[Any], claim: Claim) -> None:
        self._client = client
        self.claim = claim
        """What it is in asyncio."""
        self.lost = threading.Event()
        """As that of the claim."""
        claim.on_lost(self.lost.set)

    @property
    def name(self) -> str:
        return self.claim.name

    @property
    def token(self) -> int:
        """0 when it is not held."""
        return self.claim.token

    def check(self) -> None:
        """Raises `LockLost` unless it is sure that it is held."""
        self._client.run(_called(self.claim.check))

    def try_acquire(self) -> bool:
        """Have it at once, or not at all."""
        self.lost.clear()
        return self._client.run(self.claim.try_acquire())

    def acquire(self, timeout_s: float | None = None) -> Self:
        """As `Claim.acquire`."""
        self.lost.clear()
        self._client.run(self.claim.acquire(timeout_s))
        return self

    def release(self) -> bool:
        """As `Claim.release`."""
        return self._client.run(self.claim.release())

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.run(self.claim.__aexit__(kind, error, trace))


async def _called(function: Callable[[], T]) -> T:
    return function()


class Awaited(Generic[M]):
    """The face of a recipe: through a client, of the machine itself or of one of its parts."""

    _recipe: type

    def __init__(self, client: Client[Any] | Remote[Any], part: type[M] | None = None) -> None:
        """`client` is a client, or what `async with` gives of it. `part` is where in its machine it is, like
        `App.locks`; by default it is the machine, or one of its base classes. Raises `InvalidArgument`."""
        client = cast("Client[Any]", caller_of(client)) if isinstance(client, Remote) else client
        machine: Any = client.machine if part is None else part
        if not (isinstance(machine, type) and issubclass(machine, self._recipe)):
            found = getattr(machine, "__name__", repr(machine))
            own = self._recipe.__name__
            raise InvalidArgument(
                f"{type(self).__name__}: {found} is no {own}: name the part that is one, as in "
                f"{type(self).__name__}(client, {client.machine.__name__}.{own.lower()})"
            )
        self._client = client
        self._at: Any = machine

    def _claim(
        self, command: Any, name: str, ttl_s: float, timeout_s: float | None, settings: tuple[Any, ...]
    ) -> Claim:
        """One that asks with `command`, which takes name, owner, `settings`, and how long to wait."""

        async def ask(owner: str, wait_s: float) -> int:
            return int(await self._client.call(command, name, owner, *settings, wait_s))

        return Claim(self._client, self._at, name, ttl_s, ask, timeout_s)


class Blocking(Generic[M]):
    """The same through a blocking client."""

    _awaited: Any

    def __init__(self, client: BlockingClient[Any] | BlockingRemote[Any], part: type[M] | None = None) -> None:
        """As the one for asyncio."""
        client = cast("BlockingClient[Any]", caller_of(client)) if isinstance(client, BlockingRemote) else client
        self._client = client
        self._face = self._awaited(client.inner, part)

    def _claim(self, claim: Claim) -> BlockingClaim:
        return BlockingClaim(self._client, claim)
