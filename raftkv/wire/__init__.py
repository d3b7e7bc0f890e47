"""Messages ↔ bytes, without any input or output: frames, what nodes say to each other, what clients ask.

Everything is msgpack of typed structs, and nothing is unpickled. Bytes that don't decode raise a `FrameError`, which
closes the connection.
"""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.wire.client import (
        NOTICE_ID,
        BackupAsk,
        BackupRead,
        ClientHello,
        Members,
        Poll,
        Request,
        RequestKind,
        Response,
        ServerHello,
        SignIn,
        Status,
        ViewQuery,
        Watching,
        decode_client_hello,
        decode_members,
        decode_request,
        decode_response,
        decode_server_hello,
        encode_client_hello,
        encode_members,
        encode_request,
        encode_response,
        encode_server_hello,
    )
    from raftkv.wire.frame import FRAME_HEAD_BYTES, NO_VERSION, PROTOCOL_VERSION, FrameDecoder, encode_frame
    from raftkv.wire.peer import (
        Acquaintance,
        Acquaintances,
        Challenge,
        DigestReport,
        DigestRequest,
        DivergedNotice,
        Hello,
        HelloReply,
        NoAgreementNotice,
        PeerMessage,
        Ping,
        Pong,
        Proven,
        Removal,
        decode_message,
        encode_message,
    )
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.wire.client": (
                "NOTICE_ID BackupAsk BackupRead ClientHello Members Poll Request RequestKind Response ServerHello "
                "SignIn Status ViewQuery Watching decode_client_hello decode_members decode_request decode_response "
                "decode_server_hello encode_client_hello encode_members encode_request encode_response "
                "encode_server_hello"
            ),
            "raftkv.wire.frame": "FRAME_HEAD_BYTES NO_VERSION PROTOCOL_VERSION FrameDecoder encode_frame",
            "raftkv.wire.peer": (
                "Acquaintance Acquaintances Challenge DigestReport DigestRequest DivergedNotice Hello HelloReply "
                "NoAgreementNotice PeerMessage Ping Pong Proven Removal decode_message encode_message"
            ),
        },
    )

__all__ = [
    "FRAME_HEAD_BYTES",
    "NOTICE_ID",
    "NO_VERSION",
    "PROTOCOL_VERSION",
    "Acquaintance",
    "Acquaintances",
    "BackupAsk",
    "BackupRead",
    "Challenge",
    "ClientHello",
    "DigestReport",
    "DigestRequest",
    "DivergedNotice",
    "FrameDecoder",
    "Hello",
    "HelloReply",
    "Members",
    "NoAgreementNotice",
    "PeerMessage",
    "Ping",
    "Poll",
    "Pong",
    "Proven",
    "Removal",
    "Request",
    "RequestKind",
    "Response",
    "ServerHello",
    "SignIn",
    "Status",
    "ViewQuery",
    "Watching",
    "decode_client_hello",
    "decode_members",
    "decode_message",
    "decode_request",
    "decode_response",
    "decode_server_hello",
    "encode_client_hello",
    "encode_frame",
    "encode_members",
    "encode_message",
    "encode_request",
    "encode_response",
    "encode_server_hello",
]
