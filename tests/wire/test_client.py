"""What clients and nodes say: round trips, and `FrameError` for everything else."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.client.outcome import read_response
from raftkv.errors import (
    Busy,
    ChangeRefused,
    DiskLow,
    FrameError,
    Indeterminate,
    InvalidArgument,
    NotCaughtUp,
    NotLeader,
    SessionExpired,
    TooMuchWork,
    Unavailable,
)
from raftkv.listener.answers import error_response
from raftkv.wire import (
    ClientHello,
    FrameDecoder,
    Members,
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

PAIRS = [
    (encode_client_hello, decode_client_hello, ClientHello(1, "cluster")),
    (encode_server_hello, decode_server_hello, ServerHello(1, "cluster", 2, "machine", "refused")),
    (encode_server_hello, decode_server_hello, ServerHello(1, "cluster", 2, "machine", "", Members(3, ("a:1",)), True)),
    (encode_request, decode_request, Request(7, RequestKind.QUERY, b"payload", True, 500)),
    (encode_response, decode_response, Response(7, Status.NOT_LEADER, b"text", 9, "host:1")),
]


@pytest.mark.parametrize(("encode", "decode", "value"), PAIRS, ids=lambda part: getattr(part, "__name__", ""))
def test_what_is_sent_arrives(encode, decode, value):
    """Every kind of frame survives the way."""
    (payload,) = FrameDecoder(1000).feed(encode(value))
    assert decode(payload) == value


@pytest.mark.parametrize("decode", [pair[1] for pair in PAIRS], ids=lambda decode: decode.__name__)
@given(noise=st.binary(max_size=40))
def test_noise_is_refused(decode, noise):
    """Whatever arrives is what it should be, or a `FrameError`."""
    with contextlib.suppress(FrameError):
        decode(noise)


def test_an_unknown_kind_of_request_is_refused():
    """A newer client's request is no reason to guess."""
    payload = msgspec.msgpack.encode([1, 99, b"", False, 5])
    with pytest.raises(FrameError, match="99"):
        decode_request(payload)


def test_an_older_response_lacks_what_came_later():
    """Trailing fields have defaults, so the format can grow."""
    assert decode_response(msgspec.msgpack.encode([1, 0])) == Response(1, Status.OK)


@pytest.mark.parametrize(
    "error",
    [
        NotLeader(),
        Busy("text"),
        Unavailable("text"),
        Indeterminate("text"),
        SessionExpired("text"),
        InvalidArgument("text"),
        ChangeRefused("text"),
        NotCaughtUp("text"),
        TooMuchWork("text"),
        DiskLow("text"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_arrives_as_what_it_was(error):
    """Each has a number of its own: no client takes one for another."""
    _, arrived = read_response(error_response(1, error, None))
    assert type(arrived) is type(error)
