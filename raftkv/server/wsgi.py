"""An HTTP server for a handful of small pages that no client can hold up: bounded in threads and in time."""

from __future__ import annotations

import socket
import ssl
import sys
import threading
import time
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from raftkv.server.visitors import CERTIFICATE
from raftkv.transport import Refusals, address_text

REQUESTS_MAX = 32
"""Open at once; monitors have one or two. The oldest has to go for one more, as an honest one takes some ms."""

REQUEST_S = 10.0
"""From the connection to the last byte of the answer, however slowly the two sides drip."""

SILENCE_S = 5.0

GOES_ON = "raftkv.goes_on"
"""In the environment of a request: to be called by an answer that has no end, with each part of it. It raises
`ConnectionAbortedError` when the connection has to go."""


def place_of(address: tuple[str, int]) -> tuple[socket.AddressFamily, tuple[str, int]]:
    """IPv4 or IPv6, as the host that is listened on is, and the numeric host and port. Raises `OSError` for a name that
    nobody knows."""
    family, _, _, _, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    host = str(place[0])
    scope = f"%{place[3]}" if len(place) == 4 and place[3] and "%" not in host else ""
    return family, (host + scope, int(place[1]))


class QuietHandler(WSGIRequestHandler):
    """Answers one request on a connection, and says nothing of it."""

    timeout = SILENCE_S

    def handle(self) -> None:
        """Answer; at once where the client speaks something else, as it would wait for an answer in its own words."""
        if b"\0" in self.rfile.peek(8)[:8]:  # type: ignore[attr-defined]
            self.requestline = self.request_version = self.command = ""
            self.send_error(400, "HTTP is spoken here")
            return
        super().handle()

    def get_environ(self) -> dict[str, Any]:
        """What the application is told of the request."""
        server, connection = self.server, self.connection
        assert isinstance(server, BoundedServer)

        def goes_on() -> None:
            connection.settimeout(2 * REQUEST_S)  # whoever does not read is ended by the server before that
            server.go_on(connection)

        shown = connection.getpeercert() if isinstance(connection, ssl.SSLSocket) else None
        return {**super().get_environ(), GOES_ON: goes_on, CERTIFICATE: shown}

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not news."""

    def log_error(self, format: str, *args: object) -> None:
        """What was no request is told as a refusal."""
        assert isinstance(self.server, BoundedServer)
        self.server.refuse("garbage", format % args, self.client_address)


class BoundedServer(ThreadingMixIn, WSGIServer):
    """A thread for each connection, `REQUESTS_MAX` of them, each for `REQUEST_S` at most.

    With a single thread, whoever sends a byte now and then keeps everybody else from asking, and a node
    that can't be asked is taken for dead by what watches it.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], *args: Any, **more: Any) -> None:
        self.address_family, address = place_of(address)
        self.tls: ssl.SSLContext | None = None
        """What connections speak, if it is set before the first one comes."""
        self._lock = threading.Lock()
        self._open: dict[socket.socket, tuple[float, Any]] = {}  # the oldest first
        self._refusals = Refusals("http_refused")
        super().__init__(address, *args, **more)

    def get_request(self) -> tuple[socket.socket, Any]:
        """A connection; its handshake is for its own thread, as whoever connects may take long over it."""
        connection, address = super().get_request()
        if self.tls is not None:
            connection.settimeout(SILENCE_S)
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def server_bind(self) -> None:
        """Listen, without asking for the name of the address: that answer may take for ever, and nobody uses it."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own; the oldest goes when there are too many."""
        with self._lock:
            oldest = next(iter(self._open.items())) if len(self._open) >= REQUESTS_MAX else None
            if oldest is not None:
                del self._open[oldest[0]]
            self._open[request] = (time.monotonic(), client_address)
        if oldest is not None:
            self._end(oldest[0], "connections", f"{REQUESTS_MAX} requests are open, and it is the oldest", oldest[1][1])
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """A connection is at its end."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def go_on(self, request: Any) -> None:
        """The answer to `request` has just got a part out, and has all the time for the next one."""
        with self._lock:
            opened = self._open.pop(request, None)
            if opened is None:
                raise ConnectionAbortedError("this answer was ended")
            self._open[request] = (time.monotonic(), opened[1])

    def service_actions(self) -> None:
        """End what takes too long; called twice a second."""
        now = time.monotonic()
        with self._lock:
            slow = [(each, who) for each, (since, who) in self._open.items() if now - since > REQUEST_S]
            for each, _ in slow:
                del self._open[each]
            self._refusals.tick(now)
        for each, who in slow:
            self._end(each, "slow", f"its request took longer than {REQUEST_S:g} s", who)

    def _end(self, request: socket.socket, kind: str, reason: str, client_address: Any) -> None:
        """Wake up the thread that reads or writes it; that closes it."""
        self.refuse(kind, reason, client_address)
        try:
            socket.socket.shutdown(request, socket.SHUT_RDWR)  # not TLS's own: that is in use by the other thread
        except OSError:  # it has ended by itself
            return

    def refuse(self, kind: str, reason: str, client_address: Any) -> None:
        """Say so in the log, from any thread."""
        with self._lock:
            self._refusals.note(kind, reason, address_text(client_address), time.monotonic())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no reason for a stack trace; anything else has its name in the log."""
        error = sys.exception()
        self.refuse("broken", f"{type(error).__name__}: {error}", client_address)
