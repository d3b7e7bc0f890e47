"""Who may look at a node's pages: those who sign in as a user with the right `status`, once users have to sign in."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raftkv.errors import Busy, Forbidden, Unauthenticated
from raftkv.listener.demands import ORDERS, Demand
from raftkv.listener.gate import Gate
from raftkv.listener.identity import NOBODY, Identity, certificate_names, host_of
from raftkv.wire import RequestKind, SignIn

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

CERTIFICATE = "raftkv.certificate"
"""In the environment of a request: the certificate that was shown, as `ssl` tells it, or None."""

LOOKING = Demand("admin", ORDERS[RequestKind.STATUS])
"""What it needs to see how a node is."""

ANSWER_S = 15.0
"""How long it may take to find out who somebody is: passwords of many may have to be tried."""

ASKS = [("WWW-Authenticate", 'Basic realm="raftkv", charset="UTF-8"'), ("WWW-Authenticate", "Bearer")]
"""What an answer has to say beside the code 401."""


class Visitors:
    """Asks the node's loop who somebody is; all methods but the constructor may be called on any thread."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._loop = asyncio.get_running_loop()

    def admit(self, environ: WSGIEnvironment) -> Callable[[], bool]:
        """Whoever sends this request may see how the node is; what is returned says whether that is still so.

        Raises `Unauthenticated` or `Forbidden`, and `Busy` when it could not be found out now.
        """
        if not self._gate.access.is_on:
            return lambda: self._is_allowed(NOBODY)
        shown = read_authorization(environ.get("HTTP_AUTHORIZATION", ""))
        names = certificate_names(environ.get(CERTIFICATE))
        address = str(environ.get("REMOTE_ADDR", ""))
        identity = self._on_loop(self._identify(shown, names, address))
        return lambda: self._is_allowed(identity)

    def _is_allowed(self, identity: Identity) -> bool:
        async def look() -> None:
            self._gate.check(self._gate.now(identity), LOOKING)

        try:
            self._on_loop(look())
        except (Unauthenticated, Forbidden, Busy):
            return False
        return True

    def _on_loop(self, work: Any) -> Any:
        try:
            asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as exc:
            work.close()
            raise Busy("the event loop is closed") from exc
        try:
            return asked.result(ANSWER_S)
        except TimeoutError as exc:
            asked.cancel()
            raise Busy("the event loop does not answer") from exc

    async def _identify(self, shown: SignIn | None, names: tuple[str, ...], address: str) -> Identity:
        gate = self._gate
        found: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()

        def done(identity: Identity) -> None:
            if not found.done():
                found.set_result(identity)

        gate.sign_ins.begin(shown, names, host_of((address, 0)), done)
        identity = gate.now(await found)
        try:
            gate.check(identity, LOOKING)
        except (Unauthenticated, Forbidden) as exc:
            gate.refused(identity, RequestKind.STATUS, address, exc)
            raise
        return identity


def read_authorization(header: str) -> SignIn | None:
    """What a request shows: a user and password (Basic), or a token (Bearer); None for nothing, and for what can't be
    read."""
    scheme, _, given = header.strip().partition(" ")
    given = given.strip()
    if scheme.lower() == "bearer" and given:
        return SignIn(token=given)
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return SignIn(user, password) if colon else None
