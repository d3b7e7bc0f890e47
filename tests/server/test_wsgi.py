"""The HTTP port against clients that are slow, many, rude or no HTTP clients at all."""

from __future__ import annotations

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.simple_server import make_server

import pytest

from raftkv.errors import FrameError
from raftkv.server import wsgi
from raftkv.server.wsgi import REQUESTS_MAX, BoundedServer, QuietHandler
from raftkv.wire import ClientHello, FrameDecoder, SignIn, encode_client_hello
from tests.logged import capture_logs

DEADLINE_S = 20.0


def hello(environ: Any, start_response: Any) -> list[bytes]:
    """The one page that there is."""
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """A server on loopback."""
    with make_server("127.0.0.1", 0, hello, server_class=BoundedServer, handler_class=QuietHandler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[0], server.server_port
        server.shutdown()
        thread.join()


def ask(address: tuple[str, int]) -> bytes:
    """An honest request."""
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/", timeout=DEADLINE_S) as answer:
        return answer.read()


@contextlib.contextmanager
def saying(address: tuple[str, int], data: bytes) -> Iterator[socket.socket]:
    """A connection on which something was said."""
    with socket.create_connection(address, DEADLINE_S) as stranger:
        stranger.sendall(data)
        yield stranger


def hears_the_end(stranger: socket.socket) -> bool:
    """Whether the server ends the connection, with or without a word before."""
    with contextlib.suppress(ConnectionError):
        while stranger.recv(65536):
            pass
    return True


def kinds(lines: list[Any], condition: Callable[[list[str]], bool]) -> list[str]:
    """The kinds of refusals in the log, as soon as they are what they should be."""
    waiting = threading.Event()
    found: list[str] = []
    for _ in range(int(DEADLINE_S / 0.01)):
        found = [line["kind"] for line in lines if line["event"] == "http_refused"]
        if condition(found):
            break
        waiting.wait(0.01)
    return found


def test_slow_clients_hold_up_nobody(address: tuple[str, int]) -> None:
    """Twice as many as there are threads, none of which ever ends its request: the next one is served at once."""
    with contextlib.ExitStack() as slow, capture_logs() as lines:
        strangers = [slow.enter_context(saying(address, b"GET / HTT")) for _ in range(2 * REQUESTS_MAX)]
        assert ask(address) == b"hello"
        assert all(hears_the_end(stranger) for stranger in strangers[:REQUESTS_MAX])
        assert "connections" in kinds(lines, bool)


def test_a_request_has_an_end(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never finishes is closed when its time is up, and the log says so."""
    monkeypatch.setattr(wsgi, "REQUEST_S", 0.1)
    with capture_logs() as lines, saying(address, b"GET / HTTP/1.1\r\nHost:") as stranger:
        assert hears_the_end(stranger)
        assert kinds(lines, bool)[0] == "slow"


@pytest.mark.parametrize("said", [b"\x00\x01\x02\xff\n\n", b"x" * 70_000 + b"\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_request_is_refused(address: tuple[str, int], said: bytes) -> None:
    """Bytes, a line without end and another version are answered or closed, and in the log; others are served."""
    with capture_logs() as lines, saying(address, said) as stranger:
        assert hears_the_end(stranger)
        assert ask(address) == b"hello"
        assert kinds(lines, bool) == ["garbage"]


def test_a_client_of_nodes_hears_at_once_that_this_is_another_port(address: tuple[str, int]) -> None:
    """It waits for a hello, which never comes: what it gets instead it knows to name."""
    hello = encode_client_hello(ClientHello(1, "", SignIn("somebody", "a long password of this length")))
    with capture_logs() as lines, saying(address, hello) as stranger:
        stranger.settimeout(wsgi.SILENCE_S / 2)
        answer = stranger.recv(65536)
        assert answer.startswith(b"HTTP/1.0 400 HTTP is spoken here")
        with pytest.raises(FrameError, match="HTTP is spoken there"):
            FrameDecoder(1 << 20).feed(answer)
        assert kinds(lines, bool) == ["garbage"]


def test_a_client_that_hangs_up_leaves_no_stack_trace(
    address: tuple[str, int], capfd: pytest.CaptureFixture[str]
) -> None:
    """A RST in the middle of a request is a line, not a page."""
    with capture_logs() as lines, saying(address, b"GET / HT") as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        stranger.close()
        assert kinds(lines, bool) == ["broken"]
    assert ask(address) == b"hello"
    assert "Traceback" not in capfd.readouterr().err
