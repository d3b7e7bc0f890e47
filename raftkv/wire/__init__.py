"""Messages ↔ bytes, without any input or output: frames, what nodes say to each other, what clients ask.

Everything is msgpack of typed structs; nothing is unpickled, and nothing that doesn't decode gets any
further than to a `FrameError`, which closes the connection.
"""

from raftkv.wire.client import (
    ClientHello,
    Request,
    RequestKind,
    Response,
    ServerHello,
    Status,
    decode_client_hello,
    decode_request,
    decode_response,
    decode_server_hello,
    encode_client_hello,
    encode_request,
    encode_response,
    encode_server_hello,
)
from raftkv.wire.frame import FRAME_HEAD_BYTES, PROTOCOL_VERSION, FrameDecoder, encode_frame
from raftkv.wire.peer import (
    Acquaintance,
    Acquaintances,
    DigestReport,
    DivergedNotice,
    Hello,
    HelloReply,
    PeerMessage,
    Ping,
    Pong,
    decode_message,
    encode_message,
)
from raftkv.wire.refusals import NO_TLS, Refusals, address_text

__all__ = [
    "FRAME_HEAD_BYTES",
    "NO_TLS",
    "PROTOCOL_VERSION",
    "Acquaintance",
    "Acquaintances",
    "ClientHello",
    "DigestReport",
    "DivergedNotice",
    "FrameDecoder",
    "Hello",
    "HelloReply",
    "PeerMessage",
    "Ping",
    "Pong",
    "Refusals",
    "Request",
    "RequestKind",
    "Response",
    "ServerHello",
    "Status",
    "address_text",
    "decode_client_hello",
    "decode_message",
    "decode_request",
    "decode_response",
    "decode_server_hello",
    "encode_client_hello",
    "encode_frame",
    "encode_message",
    "encode_request",
    "encode_response",
    "encode_server_hello",
]
