"""`IdempotencyKeys`: what has a key is done once, and whoever asks again with it gets the first one's answer.

A command that is sent through a client is applied once as it is. Keys are for what is asked again by somebody else: a
browser, a webhook, another service that tries again an hour later. In a machine:

```python
class Bank(StateMachine):
    keys = Part(IdempotencyKeys)

    @command
    def pay(self, key: str, account: str, cents: int) -> int:
        return self.keys.once(key, lambda: self._pay(account, cents), answer=int, request=(account, cents))
```

What the work raises undoes all, the key too: so it may be tried again. The same key with another `request` is a
mistake, and refused with `KeyReused`.

For work that is done elsewhere:

```python
keys = AwaitedIdempotencyKeys(client, App.keys)
async with keys.once("order-17", request=body) as turn:     # waits for another one that is at it
    if turn.is_first:
        turn.answer = await charge(body)
return turn.answer
```

A process that dies in the middle of the block leaves no answer, and after `hold_s` another one may try: what it had
done elsewhere by then, only that place can know.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

import msgspec
import xxhash

from raftkv.errors import RaftKVError
from raftkv.machine import Component, Rejection, Table, Value, command, query
from raftkv.recipes.claims import LEAVE_S, Awaited, Blocking, NotAcquired
from raftkv.recipes.turns import check_ttl
from raftkv.recipes.upkeep import RENEWED_AT, Upkeep
from raftkv.recipes.waiting import until

KEEP_S = 86_400.0
"""A day: whoever tries again has done so by then."""
HOLD_S = 30.0
POLLED_S = 30.0
"""How long one look at another's work waits for its end."""
KEYS_MAX = 1_000_000
"""In one machine, each with its answer; they go with their time."""

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder(order="deterministic")


class KeyReused(Rejection):
    """The key is that of another request: each request must have a key of its own."""

    key: str


class KeyInUse(Rejection):
    """Somebody is doing the work of this key elsewhere: ask again later."""

    key: str


class KeyLost(Rejection):
    """The work of this key is not this token's any more, as its time was over: somebody else may do it by now."""

    key: str
    token: int


class TooManyKeys(Rejection):
    """So many answers are kept that no more may be: keep them for less long."""

    limit: int


class KeyState(msgspec.Struct, frozen=True):
    """What there is for a key: the answer, or a token by which to do the work, or neither while somebody else does."""

    is_done: bool
    answer: str = ""
    token: int = 0


class Entry(msgspec.Struct, frozen=True):
    """What is kept for a key."""

    request: int
    """A digest of it."""
    token: int = 0
    """Of who does the work elsewhere."""
    answer: bytes = b""
    """Encoded; empty as long as there is none."""


class IdempotencyKeys(Component):
    """Answers by key, for a while."""

    entries = Table(str, Entry, expires=True)
    last_key_token = Value(int, 0)

    def once(
        self, key: str, work: Callable[[], T], *, answer: type[T], request: object = None, keep_s: float = KEEP_S
    ) -> T:
        """For commands of the same machine: do the work and keep what it returns, or return what is kept.

        `answer` is the type of that, for msgspec. A record in it or in `request` is of a type that some command takes
        or returns, and is kept as the active version knows it; so after an upgrade that gave the request's record
        another field, the same request is another one. Raises `KeyReused`, `KeyInUse` and `TooManyKeys`.
        """
        check_ttl(keep_s, "keep_s")
        entry = self._entry_for(key, request)
        if entry is None:
            result = work()
            self.entries.put(key, Entry(self._digest(request), 0, self._forms.encode(result)), ttl_s=keep_s)
            return result
        if not entry.answer:
            raise KeyInUse(key=key)
        return msgspec.msgpack.decode(entry.answer, type=answer)

    def _entry_for(self, key: str, request: object) -> Entry | None:
        entry = self.entries.get(key)
        if entry is not None and entry.request != self._digest(request):
            raise KeyReused(key=key)
        if entry is None and len(self.entries) >= KEYS_MAX:
            raise TooManyKeys(limit=KEYS_MAX)
        return entry

    @command
    def begin(self, key: str, request: str = "", hold_s: float = HOLD_S) -> KeyState:
        """The answer, or a token for `hold_s`. Raises `KeyReused` and `TooManyKeys`."""
        check_ttl(hold_s, "hold_s")
        entry = self._entry_for(key, request)
        if entry is not None:
            return KeyState(bool(entry.answer), _text(entry.answer))
        token = self.last_key_token = self._moment.next_number(self.last_key_token)
        self.entries.put(key, Entry(self._digest(request), token), ttl_s=hold_s)
        return KeyState(False, token=token)

    @command
    def hold(self, key: str, token: int, hold_s: float = HOLD_S) -> None:
        """Have the token for so many seconds from now on. Raises `KeyLost`."""
        check_ttl(hold_s, "hold_s")
        self._require_token(key, token)
        self.entries.touch(key, hold_s)

    @command
    def finish(self, key: str, token: int, answer: str, keep_s: float = KEEP_S) -> None:
        """The work is done; keep the answer for `keep_s`. Raises `KeyLost`."""
        check_ttl(keep_s, "keep_s")
        entry = self._require_token(key, token)
        self.entries.put(key, Entry(entry.request, 0, _encoder.encode(answer)), ttl_s=keep_s)

    @command
    def abandon(self, key: str, token: int) -> bool:
        """The work was not done: another one may try. False when it is not this token's any more."""
        entry = self.entries.get(key)
        if entry is None or entry.token != token or entry.answer:
            return False
        del self.entries[key]
        return True

    def _require_token(self, key: str, token: int) -> Entry:
        entry = self.entries.get(key)
        if entry is None or entry.token != token or entry.answer:
            raise KeyLost(key=key, token=token)
        return entry

    def _digest(self, request: object) -> int:
        return xxhash.xxh3_64_intdigest(self._forms.encode(request)) >> 1

    @query
    def state_of(self, key: str) -> KeyState | None:
        """The answer, or that there is none yet; None when nobody does the work, or the answer is kept no more."""
        entry = self.entries.get(key)
        return None if entry is None else KeyState(bool(entry.answer), _text(entry.answer))


def _text(answer: bytes) -> str:
    """An answer for who is elsewhere: a text as it is, all else as JSON; "" when there is none."""
    found = "" if not answer else msgspec.msgpack.decode(answer)
    return found if isinstance(found, str) else msgspec.json.encode(found).decode()


class KeyTurn:
    """One's turn at a key: to do the work, or to take the answer."""

    def __init__(self, key: str, turn: KeyState) -> None:
        self.key = key
        self.token = turn.token
        self.is_first = turn.token > 0
        """Whether this one does the work, and sets `answer`."""
        self.answer = turn.answer
        self.lost = asyncio.Event()
        """Set when it is not sure any more that nobody else does the work."""


class AwaitedIdempotencyKeys(Awaited[IdempotencyKeys]):
    """Idempotency keys through a `Client`."""

    _recipe = IdempotencyKeys

    @contextlib.asynccontextmanager
    async def once(
        self,
        key: str,
        *,
        request: str = "",
        hold_s: float = HOLD_S,
        keep_s: float = KEEP_S,
        timeout_s: float | None = None,
    ) -> AsyncIterator[KeyTurn]:
        """One's turn at a key: at the end of the block its `answer` is kept, or, if it raises, another one may try.

        Raises `NotAcquired` when somebody else is at it for all of `timeout_s`, `KeyReused` and `TooManyKeys`; and at
        the end `KeyLost` when this one took too long, so that its answer is not kept.
        """
        found, asked_at = await self._begin(key, request, hold_s, timeout_s)
        turn = KeyTurn(key, found)
        if not turn.is_first:
            yield turn
            return

        async def renew() -> None:
            await self._client.within(hold_s / RENEWED_AT).call(self._at.hold, key, turn.token, hold_s)

        upkeep = Upkeep(hold_s, renew, KeyLost)
        turn.lost = upkeep.lost
        upkeep.start(asked_at)
        try:
            yield turn
        except BaseException:
            upkeep.stop()
            await asyncio.shield(self._abandon(key, turn.token))
            raise
        upkeep.stop()
        await self._client.call(self._at.finish, key, turn.token, turn.answer, keep_s)

    async def _begin(self, key: str, request: str, hold_s: float, timeout_s: float | None) -> tuple[KeyState, float]:
        end = None if timeout_s is None else Upkeep.now() + timeout_s
        while True:
            asked_at = Upkeep.now()
            turn: KeyState = await self._client.call(self._at.begin, key, request, hold_s)
            if turn.is_done or turn.token:
                return turn, asked_at
            left_s = POLLED_S if end is None else min(POLLED_S, end - asked_at)
            if left_s <= 0:
                raise NotAcquired(f"somebody else was at the work of {key!r} for {timeout_s:g} s")
            await until(self._client, self._at.state_of, key, timeout_s=left_s, unlike=turn)

    async def _abandon(self, key: str, token: int) -> None:
        with contextlib.suppress(RaftKVError):  # else its time ends it
            await self._client.within(LEAVE_S).call(self._at.abandon, key, token)


class BlockingIdempotencyKeys(Blocking[IdempotencyKeys]):
    """Idempotency keys through a `BlockingClient`."""

    _awaited = AwaitedIdempotencyKeys

    @contextlib.contextmanager
    def once(self, key: str, **settings: Any) -> Iterator[KeyTurn]:
        """As `AwaitedIdempotencyKeys.once`, for `with`."""
        manager = self._face.once(key, **settings)
        turn: KeyTurn = self._client.run(manager.__aenter__())
        try:
            yield turn
        except BaseException as exc:
            self._client.run(manager.__aexit__(type(exc), exc, exc.__traceback__))
            raise
        self._client.run(manager.__aexit__(None, None, None))
