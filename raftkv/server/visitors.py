"""Who may look at what a node shows over HTTP: users with the right `status`, and for metrics the right `metrics`.

Whether they have to sign in goes by the cluster's users, and then metrics and health are for everybody; or somebody has
said that all have to, always. Then nobody sees anything while there is no such user, and health says yes or no.
"""

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

MEASURING = Demand("admin", "metrics")
"""What it needs to read metrics, where they are not for everybody."""

PAGES = {"/": LOOKING, "/events": LOOKING, "/status": LOOKING}
ALL = {**PAGES, "/metrics": MEASURING}

ANSWER_S = 15.0
"""How long it may take to find out who somebody is: passwords of many may have to be tried."""

ASKS = [("WWW-Authenticate", 'Basic realm="raftkv", charset="UTF-8"'), ("WWW-Authenticate", "Bearer")]
"""What an answer has to say beside the code 401."""


class Visitors:
    """Asks the node's loop who somebody is; all methods but the constructor may be called on any thread."""

    def __init__(self, gate: Gate, *, are_all: bool = False) -> None:
        """`are_all`: they have to sign in whether the cluster's users have to or not, and for metrics as well."""
        self._gate = gate
        self.are_all = are_all
        self._loop = asyncio.get_running_loop()

    @property
    def are_asked(self) -> bool:
        """Whether they have to sign in now, where something is demanded at all."""
        return self._gate.access.is_on or self.are_all

    def demand(self, path: str) -> Demand | None:
        """What it needs to see what is there; None where everybody may."""
        return (ALL if self.are_all else PAGES).get(path)

    def admit(self, environ: WSGIEnvironment, demand: Demand = LOOKING) -> Callable[[], bool]:
        """Whoever sends this request has what is demanded; what is returned says whether that is still so.

        Raises `Unauthenticated` or `Forbidden`, and `Busy` when it could not be found out now.
        """
        if not self.are_asked:
            return lambda: self._is_allowed(NOBODY, demand)
        shown = read_authorization(environ.get("HTTP_AUTHORIZATION", ""))
        names = certificate_names(environ.get(CERTIFICATE))
        address = str(environ.get("REMOTE_ADDR", ""))
        identity = self._on_loop(self._identify(shown, names, address, demand))
        return lambda: self._is_allowed(identity, demand)

    def _is_allowed(self, identity: Identity, demand: Demand) -> bool:
        async def look() -> None:
            self._gate.check(self._gate.now(identity), demand, always=self.are_all)

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

    async def _identify(self, shown: SignIn | None, names: tuple[str, ...], address: str, demand: Demand) -> Identity:
        gate = self._gate
        found: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()

        def done(identity: Identity) -> None:
            if not found.done():
                found.set_result(identity)

        gate.sign_ins.begin(shown, names, host_of((address, 0)), done)
        identity = gate.now(await found)
        try:
            gate.check(identity, demand, always=self.are_all)
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
