"""What a fuzzer calls: each takes any bytes, and ends without an exception, or has found a mistake of ours.

`tools/fuzz` gives them bytes that coverage guides, tests those of hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from raftkv.disk.simulated import SimDisk
from raftkv.entry import make_entry
from raftkv.errors import FrameError, InvalidArgument, Rejected
from raftkv.machine import NO_SESSION, Runner, encode_command, encode_query
from raftkv.machine.depth import with_less_room
from raftkv.model import EntryKind
from raftkv.state import MemoryStore
from raftkv.wire import (
    PROTOCOL_VERSION,
    ClientHello,
    DigestReport,
    FrameDecoder,
    Hello,
    HelloReply,
    Ping,
    Request,
    RequestKind,
    decode_client_hello,
    decode_message,
    decode_request,
    decode_response,
    decode_server_hello,
    encode_client_hello,
    encode_frame,
    encode_message,
    encode_request,
)
from raftkv.worlds.workload import Workload

Target = Callable[[bytes], None]

FRAME_BYTES_MAX = 64 * 1024


def peer_stream(data: bytes) -> None:
    """A connection between nodes, in pieces of whatever size the first byte says."""
    decoder, size = FrameDecoder(FRAME_BYTES_MAX), 1 + (data[0] if data else 0)
    try:
        for at in range(1, len(data), size):
            for payload in decoder.feed(data[at : at + size]):
                decode_message(payload)
    except FrameError:
        return


def peer_message(data: bytes) -> None:
    """What is in a frame between nodes: what can be read can be written, and is the same again."""
    try:
        message = decode_message(data)
    except FrameError:
        return
    (payload,) = FrameDecoder(1 << 30).feed(encode_message(message))
    assert decode_message(payload) == message, f"{message} is another message when it is sent on"


def client_frames(data: bytes) -> None:
    """What is in the frames between clients and nodes, both ways."""
    for decode in (decode_client_hello, decode_server_hello, decode_request, decode_response):
        try:
            decode(data)
        except FrameError:
            continue


def commands(data: bytes) -> None:
    """A command that passes the leader's check can be applied, also where there is less room on the stack (F75)."""
    runner = Runner(Workload, MemoryStore.open(SimDisk(), "/fuzz"))
    try:
        runner.check(data)
    except InvalidArgument:
        return
    entry = make_entry(1, 1, 1, EntryKind.COMMAND, data, 0)
    with_less_room(runner.apply, [entry], 100)


def queries(data: bytes) -> None:
    """A query has a result, or is refused."""
    try:
        Runner(Workload, MemoryStore.open(SimDisk(), "/fuzz")).query(data)
    except (InvalidArgument, Rejected):
        return


TARGETS: dict[str, Target] = {
    each.__name__: each for each in (peer_stream, peer_message, client_frames, commands, queries)
}


def seeds(name: str) -> Iterator[bytes]:
    """True ones to begin with."""
    hello = Hello(PROTOCOL_VERSION, "c", 1, "i", 1, "n", "f", False, 0, "h:1", {}, [(1, "n")])
    messages = [encode_message(each) for each in (hello, HelloReply(hello, ""), Ping(1), DigestReport(1, 1))]
    request = encode_request(Request(1, RequestKind.COMMAND, b"\x01", False, 1000))
    head = len(encode_frame(b""))
    put = Workload.methods["put"]
    get = Workload.methods["get"]
    command = put.encode_args((b"k", b"v"), {})
    match name:
        case "peer_stream":
            yield from (b"\xff" + each for each in (*messages, b"".join(messages)))
        case "peer_message":
            yield from (each[head:] for each in messages)
        case "client_frames":
            yield from (each[head:] for each in (request, encode_client_hello(ClientHello(PROTOCOL_VERSION, "c"))))
        case "commands":
            yield encode_command(NO_SESSION, 0, 0, "put", command)
            yield encode_command(7, 1, 1, "*close", b"\x90")
        case "queries":
            yield encode_query("get", get.encode_args((b"k",), {}))
        case _:
            yield b""
