"""Metrics, health and a page to look at over HTTP, on a port of their own and threads of their own.

To import it raises `MissingExtra` without prometheus_client.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

import msgspec

from raftkv.addresses import is_loopback
from raftkv.errors import Busy, ConfigError, Forbidden, Unauthenticated
from raftkv.extras import needs
from raftkv.forks import leave, let_go, tell_of_fork
from raftkv.listener import ServerStats
from raftkv.listener.demands import Demand
from raftkv.node.status import NodeStatus
from raftkv.server.hosts import is_foreign, refusal
from raftkv.server.page import HEADERS, Feed, Watched, page
from raftkv.server.visitors import ALL, ASKS, Visitors
from raftkv.server.wsgi import GOES_ON, BoundedServer, QuietHandler

with needs("server", "/metrics"):
    from raftkv.server.metrics import metrics_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_TEXT = "text/plain; charset=utf-8"

ANSWER_S = 5.0
"""How long the event loop may take to say how the node is, before it counts as unhealthy."""

UNWANTED_BYTES_MAX = 64 * 1024


class HttpServer:
    """Serves `/metrics`, `/health` (200 while the node serves), `/ready`, `/status`, and the page `/` with what it
    shows, `/events`.

    `/ready` is 200 when a leader is known, unless that is this node and it refuses writes, or serves nothing because
    replicas differ. All are only read: `GET` and `HEAD`, and nothing that anybody sends changes anything.
    """

    def __init__(
        self,
        host: str,
        port: int,
        status: Callable[[], NodeStatus],
        tls: ssl.SSLContext | None = None,
        *,
        pulse: Callable[[], object] = lambda: None,
        asking: ssl.SSLContext | None = None,
        requests: Callable[[], ServerStats] = ServerStats,
        visitors: Visitors | None = None,
    ) -> None:
        """With `tls` it speaks HTTPS only. `pulse`, called on any thread, gives another value when there may be another
        leader; `asking` is for connections to the other nodes, where they listen for clients; `requests` gives
        what was asked by clients of this one; `visitors` knows who may look at what (None: everybody at all).

        It listens, and answers nobody before `begin`. Raises `ConfigError` when the address can't be listened on.
        """
        self._status = status
        self._visitors = visitors
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics_of(self._ask, requests)
        try:
            self._server = make_server(host, port, self._answer, server_class=BoundedServer, handler_class=QuietHandler)
        except (OSError, UnicodeError) as exc:  # the latter for a name that is none
            raise ConfigError(f"http {host}:{port}: {getattr(exc, 'strerror', None) or exc}") from exc
        self._server.tls = tls
        self.feed = Feed(Watched(self._ask, pulse, asking))
        self.host, self.port = self._server.server_name, self._server.server_port
        """Where it listens: the numeric host, and the port that was chosen."""
        self._own_name = host
        self._is_near = tls is None and is_loopback(self.host)
        """Whether being near is all that keeps strangers out."""
        self._thread: threading.Thread | None = None
        tell_of_fork(self)

    def begin(self) -> None:
        """Answer who connects from now on."""
        self._thread = threading.Thread(target=self._server.serve_forever, name="raftkv-http", daemon=True)
        self._thread.start()

    def _ask(self) -> NodeStatus | None:
        """The status, fetched on the event loop's thread; None when the loop does not answer."""

        async def fetch() -> NodeStatus:
            return self._status()

        try:
            return asyncio.run_coroutine_threadsafe(fetch(), self._loop).result(ANSWER_S)
        except (TimeoutError, RuntimeError):
            return None

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path, method = environ.get("PATH_INFO", "/"), environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return _refuse_method(environ, start_response)
        still = _always
        demand = self._visitors.demand(path) if self._visitors is not None else None
        header = environ.get("HTTP_HOST", "")
        is_elsewhere = self._is_near and is_foreign(header, self._own_name)
        if is_elsewhere and path in ALL and not self._signs_in(demand):
            refused = _refuse("421 Misdirected Request", refusal(header), start_response)
            return refused if method == "GET" else []
        if self._visitors is not None and demand is not None:
            try:
                still = self._visitors.admit(environ, demand)
            except (Unauthenticated, Forbidden, Busy) as exc:
                refused = _refuse_visitor(exc, start_response)
                return refused if method == "GET" else []
        if path == "/events":
            start_response("200 OK", [("Content-Type", "text/event-stream"), *HEADERS])
            return self.feed.stream(_while(still, environ[GOES_ON])) if method == "GET" else []
        more = HEADERS
        if path == "/":
            (body, more), kind, code = page(), "text/html; charset=utf-8", "200 OK"
        elif path == "/metrics":
            body, kind, code = self._metrics(), "text/plain; version=0.0.4", "200 OK"
        elif path in ("/health", "/ready", "/status"):
            body, code = self._health(path, is_elsewhere)
            kind = "application/json"
        else:
            body, kind, code = b"there are /, /metrics, /health, /ready and /status\n", "text/plain", "404 Not Found"
        start_response(code, [("Content-Type", kind), ("Content-Length", str(len(body))), *more])
        return [body] if method == "GET" else []

    def _signs_in(self, demand: Demand | None) -> bool:
        """Whether nobody sees this without showing who they are, which no page of elsewhere can do for them."""
        return demand is not None and self._visitors is not None and self._visitors.are_asked

    def _health(self, path: str, is_elsewhere: bool) -> tuple[bytes, str]:
        """The body, and the code; nothing but the code for probes (`/health`, `/ready`) of who may not see more."""
        status = self._ask()
        if status is None:
            return b'{"problems":["the event loop does not answer"]}\n', "503 Service Unavailable"
        ready = status.leader is not None and status.writes_refused is None and status.doubt is None
        good = status.stopped is None and (path != "/ready" or ready)
        content: object = status if path == "/status" else _summary(status)
        are_all = self._visitors is not None and self._visitors.are_all
        if path != "/status" and (are_all or is_elsewhere):
            content = {}  # whoever may see more asks for /status
        return msgspec.json.encode(content) + b"\n", "200 OK" if good else "503 Service Unavailable"

    def after_fork(self) -> None:
        """In a child: there is no thread that serves, and the address must be free when the parent is gone."""
        let_go(self._server.fileno())
        leave(self)

    def close(self) -> None:
        """Stop serving. Blocking."""
        self.feed.close()
        if self._thread is not None:
            self._server.shutdown()
        self._server.server_close()
        if self._thread is not None:
            self._thread.join()


def _always() -> bool:
    return True


def _while(still: Callable[[], bool], goes_on: Callable[[], None]) -> Callable[[], None]:
    """`goes_on` of an answer that ends when whoever reads it may not any more."""

    def both() -> None:
        if not still():
            raise ConnectionAbortedError("who reads this has no right to it any more")
        goes_on()

    return both


def _refuse_visitor(error: Unauthenticated | Forbidden | Busy, start_response: StartResponse) -> list[bytes]:
    codes = {Unauthenticated: "401 Unauthorized", Forbidden: "403 Forbidden", Busy: "503 Service Unavailable"}
    return _refuse(codes[type(error)], str(error), start_response, ASKS if isinstance(error, Unauthenticated) else [])


def _refuse(code: str, text: str, start_response: StartResponse, more: Iterable[tuple[str, str]] = ()) -> list[bytes]:
    body = f"{text}\n".encode()
    start_response(code, [("Content-Type", _TEXT), ("Content-Length", str(len(body))), *HEADERS, *more])
    return [body]


def _refuse_method(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Nothing here is changed by asking; a body that was sent is read, else the answer would be lost with it."""
    sent = environ.get("CONTENT_LENGTH", "")
    if sent.isascii() and sent.isdigit():
        environ["wsgi.input"].read(min(int(sent), UNWANTED_BYTES_MAX))
    body = b"only GET and HEAD are answered here\n"
    start_response(
        "405 Method Not Allowed",
        [("Allow", "GET, HEAD"), ("Content-Type", "text/plain"), ("Content-Length", str(len(body)))],
    )
    return [body]


def _summary(status: NodeStatus) -> dict[str, object]:
    """What `/health` and `/ready` say besides yes or no."""
    return {
        "role": status.role,
        "problems": status.problems(),
        "disk_free_bytes": status.disk_free_bytes,
        "disk_reserve_bytes": status.disk_reserve_bytes,
        "writes_refused": status.writes_refused,
    }
