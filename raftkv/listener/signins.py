"""Finds out who clients are: looks tokens and certificates up, and has passwords tried beside the event loop.

Trying a password takes tens of milliseconds on purpose. What came of it is remembered for a while, under a keyed hash
that is of use to nobody else, so that thousands of clients who come back at once are not tried one after the other,
and one who sends the same wrong password again and again costs nothing, and does not count as one who guesses.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from raftkv.access import Access, digest_of
from raftkv.access.model import NAME_MAX
from raftkv.errors import Busy
from raftkv.listener.failures import Failures
from raftkv.listener.identity import Identity, of_certificate
from raftkv.listener.limits import ServerStats
from raftkv.listener.memory import Memory
from raftkv.logs import EventLog
from raftkv.wire import SignIn

logger = EventLog(__name__)

REMEMBERED_MAX = 4_096
REMEMBERED_S = 600.0
"""How long a password that was right is not tried again. It is at once when another one is set."""
WRONG_REMEMBERED_S = 60.0

TRIED_MAX = 256
"""Passwords that are tried or wait for it; more are refused for now. Two at once take about five seconds for them."""

TRIED_OF_KNOWN_MAX = 512
"""The same for who came in from there before: a crowd of strangers takes no place of theirs."""

TRIED_FROM_ONE_MAX = 16
"""Of them from one place, so that it does not keep others out."""

TEXT_MAX = 1_024
"""Characters of a name, password or token; what is longer is none."""

Done: TypeAlias = Callable[[Identity], None]
"""Called with who it is, at once or later."""

Verify: TypeAlias = Callable[[str, str], bool]
"""Whether a password (the second) is that of which the first is kept; takes as long if nothing is kept."""


def verify(kept: str, password: str) -> bool:
    """As `raftkv.access.passwords` does; needs its library only when somebody signs in by a password."""
    from raftkv.access.passwords import verify_password

    return verify_password(kept, password)


def _as_of(generation: int, done: Done) -> Done:
    """Have it said of nobody by which state of users and roles that is so."""

    def told(identity: Identity) -> None:
        done(identity if identity.user is not None else msgspec.structs.replace(identity, as_of=generation))

    return told


Run: TypeAlias = Callable[[Callable[[], bool]], asyncio.Future[bool]]
"""Begins work beside the loop, when all that was given before is done."""


class SignIns:
    """Signs clients in. All methods are called on the event loop's thread."""

    def __init__(
        self,
        access: Callable[[], Access],
        stats: ServerStats,
        workers: Sequence[Run],
        *,
        clock: Callable[[], float],
        now_ms: Callable[[], int],
        verify: Verify = verify,
    ) -> None:
        """`clock` gives seconds that only go on, `now_ms` the time by which tokens are over. Without `workers`, nobody
        gets in by a password."""
        self._access = access
        self._stats = stats
        self._workers = list(workers)
        self._clock = clock
        self._now_ms = now_ms
        self._verify = verify
        self._key = secrets.token_bytes(32)
        self._right: Memory[bytes] = Memory(REMEMBERED_MAX, REMEMBERED_S, clock)
        self._wrong: Memory[bytes] = Memory(REMEMBERED_MAX, WRONG_REMEMBERED_S, clock)
        self._tried: dict[bytes, list[Done]] = {}
        self._tried_from: Counter[str] = Counter()
        self._turn = 0
        self.failures = Failures(clock)

    def begin(self, shown: SignIn | None, names: tuple[str, ...], host: str, done: Done) -> None:
        """Find out who comes from `host` with a certificate of these `names`, and has `shown` this.

        Raises `Busy` when too many passwords are being tried.
        """
        if shown is None:
            done(of_certificate(names, self._access()))
        elif shown.token:
            done(self._by_token(shown.token, host))
        else:
            self._by_password(shown.user, shown.password, host, _as_of(self._access().generation, done))

    def _by_token(self, token: str, host: str) -> Identity:
        digest = digest_of(token[: TEXT_MAX + 1])
        user = self._access().user_of_token(digest, self._now_ms())
        if user is not None:
            self._stats.sign_ins += 1
            return Identity(user, "token", digest)
        self._stats.sign_ins_failed += 1
        if digest not in self._wrong:
            self._wrong.add(digest)
            self.failures.failed("", host)
        return Identity(None, "token", digest, why="the token is of no user here, or over")

    def _by_password(self, user: str, password: str, host: str, done: Done) -> None:
        user, password = user[: NAME_MAX + 1], password[: TEXT_MAX + 1]  # what is longer is nobody's
        found = self._access().users.get(user)
        kept = found.password if found is not None else ""
        mark = self._mark(user, kept, password)
        if mark in self._right or mark in self._wrong:
            done(self._decided(user, kept, mark in self._right))
        elif (wait_s := self.failures.wait_s(user, host)) > 0:
            self._stats.sign_ins_delayed += 1
            why = f"too many wrong passwords were tried: try again in {wait_s:.1f} s"
            done(Identity(None, "password", why=why))
        elif mark in self._tried:
            self._tried[mark].append(done)
        else:
            self._try(mark, (user, kept, password), host)
            self._tried[mark] = [done]

    def _try(self, mark: bytes, shown: tuple[str, str, str], host: str) -> None:
        user, kept, password = shown
        most = TRIED_OF_KNOWN_MAX if self.failures.is_known(user, host) else TRIED_MAX
        if len(self._tried) >= most or self._tried_from[host] >= TRIED_FROM_ONE_MAX or not self._workers:
            raise Busy(f"{len(self._tried)} passwords are being tried: sign in again soon")
        self._tried_from[host] += 1
        self._turn += 1
        run = self._workers[self._turn % len(self._workers)]
        tried = run(lambda: self._verify(kept, password))
        tried.add_done_callback(lambda future: self._was_tried(future, mark, user, kept, host))

    def _was_tried(self, tried: asyncio.Future[bool], mark: bytes, user: str, kept: str, host: str) -> None:
        self._tried_from[host] -= 1
        if not self._tried_from[host]:
            del self._tried_from[host]
        waiting = self._tried.pop(mark, ())
        if tried.cancelled() or (error := tried.exception()) is not None:
            why = "the node is closing" if tried.cancelled() else f"passwords can't be tried here: {error}"
            logger.error("password_not_tried", reason=why)
            for done in waiting:
                done(Identity(None, "password", why=why))
            return
        is_right = bool(kept) and tried.result()
        if is_right:
            self._right.add(mark)
            self.failures.succeeded(user, host)
        else:
            self._wrong.add(mark)
            self.failures.failed(user, host)
        for done in waiting:
            done(self._decided(user, kept, is_right))

    def _decided(self, user: str, kept: str, is_right: bool) -> Identity:
        if is_right:
            self._stats.sign_ins += 1
            return Identity(user, "password", kept)
        self._stats.sign_ins_failed += 1
        return Identity(None, "password", why="there is no user of this name with this password")

    def _mark(self, user: str, kept: str, password: str) -> bytes:
        """What a trial is remembered by. With another password set, it is another one."""
        parts = [part.encode("utf-8", "surrogatepass") for part in (user, kept, password)]
        sized = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        return hashlib.blake2b(sized, key=self._key, digest_size=32).digest()
