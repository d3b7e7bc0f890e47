"""Listening with TLS, so that address and reason of failed handshakes are known."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from functools import partial

from raftkv.transport.reasons import error_text
from raftkv.transport.refusals import NO_TLS, address_text
from raftkv.transport.streams import ProtocolFactory, Refused
from raftkv.transport.tls import SOCKET

TIRED_S = 1.0
"""How long to wait when descriptors or memory run out; other connections may be closed meanwhile."""


def _close(sock: socket.socket, _task: asyncio.Task[None]) -> None:
    sock.close()


def _peer_of(sock: socket.socket) -> object:
    try:
        return sock.getpeername()
    except OSError:
        return None


class TlsServer:
    """Accepts connections, and gives those whose TLS handshake succeeds a protocol of `factory`.

    asyncio's own server reports failed handshakes to nobody, and has no bound for those that are under way.
    """

    def __init__(
        self,
        factory: ProtocolFactory,
        context: ssl.SSLContext,
        *,
        handshake_s: float,
        handshakes_max: int,
        refused: Refused,
        patience_s: float,
    ) -> None:
        """Over `handshakes_max` the one that has taken longest has to go, if it has taken `patience_s` by then; else
        the next is refused."""
        self._factory = factory
        self._context = context
        self._handshake_s = handshake_s
        self._handshakes_max = handshakes_max
        self._refused = refused
        self._patience_s = patience_s
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._shaking: dict[asyncio.Task[None], tuple[socket.socket, float]] = {}
        """With the time at which they were begun; the oldest first."""

    def listen(self, hosts: Sequence[str], port: int, backlog: int) -> tuple[str, int]:
        """Listen at numeric hosts; returns the first address, with the port that was chosen. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        try:
            for host in hosts:
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                self._sockets.append(socket.create_server((host, port), family=family, backlog=backlog))
        except OSError:
            self.close()
            raise
        for each in self._sockets:
            each.setblocking(False)
            task = loop.create_task(self._accept(each), name="raftkv-tls")
            # Only after the task has ended: until then the loop watches the socket's descriptor.
            task.add_done_callback(partial(_close, each))
            self._accepting.append(task)
        address = self._sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except ConnectionError:
                continue  # the other side left before it was accepted
            except OSError as exc:
                self._refused("accept", error_text(exc), "unknown")
                await asyncio.sleep(TIRED_S)
                continue
            if len(self._shaking) >= self._handshakes_max:
                under_way = f"{len(self._shaking)} handshakes are under way"
                oldest, (goes, since) = next(iter(self._shaking.items()))
                if loop.time() - since < self._patience_s:
                    self._refused("handshakes", under_way, address_text(address))
                    sock.close()
                    continue
                self._refused("handshakes", f"{under_way}, and it is the oldest", address_text(_peer_of(goes)))
                del self._shaking[oldest]
                oldest.cancel()
            task = loop.create_task(self._shake(sock, address_text(address)), name="raftkv-tls-handshake")
            self._shaking[task] = sock, loop.time()
            task.add_done_callback(self._gone)
            await asyncio.sleep(0)  # it begins, and so closes its socket when it has to go

    def _gone(self, task: asyncio.Task[None]) -> None:
        self._shaking.pop(task, None)

    async def _shake(self, sock: socket.socket, address: str) -> None:
        SOCKET.set(sock.fileno())  # in this task's context, which is its own
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._factory, sock, ssl=self._context, ssl_handshake_timeout=self._handshake_s
            )
        except ssl.SSLError as exc:
            self._refused("tls", error_text(exc), address)
        except OSError:
            # It was closed or timed out, and nothing here says why: the other side's alert may.
            self._refused("tls", NO_TLS, address)
        finally:
            SOCKET.set(None)

    @property
    def listening(self) -> list[socket.socket]:
        """Listening sockets alone."""
        return list(self._sockets)

    @property
    def sockets(self) -> list[socket.socket]:
        """Listening sockets, and those in their handshake."""
        return [*self._sockets, *(sock for sock, _ in self._shaking.values())]

    def close(self) -> None:
        """Stop listening, and break off handshakes; established connections stay as they are."""
        for task in [*self._accepting, *self._shaking]:
            task.cancel()
        for each in self._sockets:
            with contextlib.suppress(OSError):  # not all systems can
                each.shutdown(socket.SHUT_RDWR)  # it is closed some turns later, but the address is free now
        for each in self._sockets[len(self._accepting) :]:
            each.close()
