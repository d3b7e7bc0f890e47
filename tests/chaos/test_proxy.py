"""The proxy between a listener and those who connect to it, over real sockets."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import msgspec
import pytest

from raftkv.processes.ports import free_ports
from raftkv.wire import FrameDecoder, HelloReply, decode_message, encode_frame, encode_message
from tests.chaos.lane import Conditions
from tests.chaos.proxy import LinkProxy
from tests.chaos.relay import CLIENTS, Door
from tests.transport.raw import hello
from tests.waiting import until

DEADLINE_S = 20.0
CUT = Conditions(cut=True)


class Echo:
    """A node of sorts: says everything that it hears back, and counts its connections."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.accepted: list[socket.socket] = []
        self.ended = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return self.listener.getsockname()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.listener.accept()
                self.accepted.append(peer)
                threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := peer.recv(65536):
                peer.sendall(data)
        peer.close()
        self.ended.release()

    def close(self) -> None:
        """Its threads end with their sockets."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for peer in self.accepted:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()


class Caller:
    """Who connects to a door of the proxy."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, DEADLINE_S)
        self._decoder = FrameDecoder(1 << 20)
        self._heard: list[bytes] = []

    def say(self, *payloads: bytes) -> None:
        self.socket.sendall(b"".join(encode_frame(payload) for payload in payloads))

    def hear(self) -> bytes:
        """The next payload; EOFError at the end."""
        while not self._heard:
            if not (data := self.socket.recv(65536)):
                raise EOFError
            self._heard += self._decoder.feed(data)
        return self._heard.pop(0)

    def hears_nothing_for(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.hear()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(DEADLINE_S)
        return False


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A listener behind the proxy."""
    found = Echo()
    yield found
    found.close()


@pytest.fixture
def fronts() -> list[tuple[str, int]]:
    """Where the proxy stands: for clients, and for nodes."""
    return [("127.0.0.1", port) for port in free_ports(2)]


@pytest.fixture
def proxy(echo: Echo, fronts: list[tuple[str, int]]) -> Iterator[LinkProxy]:
    """A proxy in front of node 1."""
    doors = [Door(1, fronts[0], echo.address, CLIENTS), Door(1, fronts[1], echo.address, None)]
    with LinkProxy(doors, seed=1) as running:
        yield running


Call = Callable[[int], Caller]


@pytest.fixture
def call(proxy: LinkProxy, fronts: list[tuple[str, int]]) -> Iterator[Call]:
    """Connects to a door: 0 as a client, 1 as a node."""
    with contextlib.ExitStack() as callers:

        def connect(door: int) -> Caller:
            caller = Caller(fronts[door])
            callers.enter_context(caller.socket)
            return caller

        yield connect


def test_frames_go_both_ways(proxy: LinkProxy, call: Call) -> None:
    """Many frames in one piece, a large one, and the end of the connection."""
    caller = call(0)
    payloads = [b"%d" % number for number in range(100)] + [bytes(500_000)]
    caller.say(*payloads)
    assert [caller.hear() for _ in payloads] == payloads
    assert proxy.connections() == {(CLIENTS, 1): 1}
    caller.socket.close()
    until(lambda: not proxy.connections())


def test_a_node_listens_where_others_were_told(proxy: LinkProxy, call: Call, fronts: list[tuple[str, int]]) -> None:
    """In its hello and in the answer to one, or others would dial it past the proxy; a stranger's is as it is."""
    told = "{}:{}".format(*fronts[1])
    own = msgspec.structs.replace(hello(1), address="127.0.0.1:9")
    stranger = msgspec.structs.replace(hello(7), address="127.0.0.1:9")
    heard = []
    for said in (own, HelloReply(own, ""), stranger, HelloReply(None, "no")):
        caller = call(1)
        caller.socket.sendall(encode_message(said))
        heard.append(decode_message(caller.hear()))
    met = msgspec.structs.replace(own, address=told)
    assert heard == [met, HelloReply(met, ""), stranger, HelloReply(None, "no")]


def test_a_node_is_known_by_its_hello(proxy: LinkProxy, call: Call) -> None:
    """What is done to the way from node 2 is not done to node 3 (one listener serves all peers)."""
    two, three = call(1), call(1)
    for node_id, caller in ((2, two), (3, three)):
        caller.socket.sendall(encode_message(hello(node_id)))
        caller.hear()
    proxy.put([(2, 1)], CUT)
    two.say(b"two")
    three.say(b"three")
    assert three.hear() == b"three"
    assert two.hears_nothing_for(0.2)
    assert proxy.counts["cut"] == 1
    proxy.heal()
    two.say(b"again")
    assert two.hear() == b"again"


def test_a_cut_is_of_one_way_only(proxy: LinkProxy, call: Call, echo: Echo) -> None:
    """Requests arrive, answers don't; nobody hears of the other's end until the link is whole (F40)."""
    caller = call(0)
    caller.say(b"before")
    assert caller.hear() == b"before"
    proxy.put([(1, CLIENTS)], CUT)
    caller.say(b"into the dark")
    until(lambda: proxy.counts["cut"] == 1)
    echo.accepted[0].shutdown(socket.SHUT_RDWR)
    assert caller.hears_nothing_for(0.2)
    proxy.heal()
    with pytest.raises(EOFError):
        caller.hear()


def test_a_reset_is_a_reset(proxy: LinkProxy, call: Call, echo: Echo) -> None:
    """Both ends get a RST, and are counted."""
    caller = call(0)
    caller.say(b"x")
    caller.hear()
    assert proxy.reset([(2, 1)]) == 0
    assert proxy.reset([(CLIENTS, 1)]) == 1
    with pytest.raises(ConnectionResetError):
        caller.hear()
    assert echo.ended.acquire(timeout=DEADLINE_S)
    assert proxy.counts["reset"] == 1


def test_half_open_is_half_open(proxy: LinkProxy, call: Call, echo: Echo) -> None:
    """The node's side is gone, and the caller hears nothing of it until the link is healed."""
    caller = call(0)
    caller.say(b"x")
    caller.hear()
    assert proxy.open_half([(CLIENTS, 1)], at_target=True) == 1
    assert echo.ended.acquire(timeout=DEADLINE_S)
    caller.say(b"is anybody there?")
    assert caller.hears_nothing_for(0.2)
    proxy.heal()
    with pytest.raises(EOFError):
        caller.hear()


def test_nobody_behind_the_door_is_nobody_there(proxy: LinkProxy, call: Call, echo: Echo) -> None:
    """A dead node's door ends connections at once, as its host would."""
    echo.listener.shutdown(socket.SHUT_RDWR)
    echo.listener.close()
    with pytest.raises((ConnectionError, EOFError)):
        call(0).hear()
    until(lambda: not proxy.connections())


def test_old_frames_come_again_on_a_new_connection(proxy: LinkProxy, call: Call) -> None:
    """What node 2 said on a connection long gone arrives behind what it says now (F28)."""
    first = call(1)
    first.socket.sendall(encode_message(hello(2)))
    first.hear()
    first.say(b"old")
    assert first.hear() == b"old"
    first.socket.close()
    proxy.put([(2, 1)], Conditions(replay=1.0))
    second = call(1)
    second.socket.sendall(encode_message(hello(2)))
    second.hear()
    assert second.hear() == b"old"
    assert proxy.counts["replay"] >= 1


def test_throttle_and_delay_are_slow_but_true(proxy: LinkProxy, call: Call) -> None:
    """A slow link delivers everything in its order, and the sender is held back meanwhile."""
    proxy.put([(CLIENTS, 1)], Conditions(bytes_s=8_000_000, delay_ms=5, jitter_ms=5))
    caller = call(0)
    payloads = [b"%06d" % number * 10_000 for number in range(30)]
    sender = threading.Thread(target=caller.say, args=payloads)
    sender.start()
    assert [caller.hear() for _ in payloads] == payloads
    sender.join()
    assert proxy.counts["throttle"] == proxy.counts["delay"] == 30
