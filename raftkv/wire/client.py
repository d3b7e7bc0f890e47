"""What clients and nodes say to each other: hellos, requests, responses, each a frame of its own."""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TypeVar

import msgspec

from raftkv.errors import UNREADABLE, FrameError
from raftkv.history import Cursor
from raftkv.model import Index, NodeId
from raftkv.wire.frame import encode_frame

T = TypeVar("T")

NOTICE_ID = -1
"""The number of a response that nobody asked for: the members have changed, and its payload is a `Members`. No request
has it, so a client that doesn't know it ignores it."""


@unique
class RequestKind(IntEnum):
    """What a client asks for; the payload of each is in parentheses."""

    COMMAND = 1
    """Propose a command (as `raftkv.machine` encodes it)."""
    QUERY = 2
    """Run a query (likewise)."""
    STATUS = 3
    """The node's status (nothing)."""
    ADD_LEARNER = 4
    """Add a node without a vote (a `Member`)."""
    PROMOTE = 5
    """Make a learner a voter (its id)."""
    REMOVE = 6
    """Remove a node (its id)."""
    TRANSFER = 7
    """Hand leadership over (a voter's id, or None)."""
    SNAPSHOT = 8
    """Take a snapshot (nothing)."""
    UPDATE = 9
    """Change a member's addresses (a `Member`, and whether it need not answer there yet)."""
    MEMBERS = 16
    """Where the members listen for clients, as the leader knows it (nothing); the answer is a `Members`."""
    CLOCK_RESET = 20
    """Let log time begin anew at what the clocks say (nothing)."""
    VIEW_OPEN = 24
    """Hold the state as it is now (nothing); the answer is the view's number."""
    VIEW_QUERY = 25
    """Run a query on a state that is held (a `ViewQuery`)."""
    VIEW_CLOSE = 26
    """Let go of a held state (the view's number)."""
    UPGRADE = 28
    """Make a version of the application active (the version, or None for the newest); the answer is the version."""
    BACKUP_OFFER = 32
    """Hold a snapshot, to be read (a `BackupAsk`); the answer is what it is, as the head of a backup."""
    BACKUP_READ = 33
    """Read a part of a snapshot that is held (a `BackupRead`); the answer is the bytes."""
    CONFIGURE = 34
    """Change settings of the node (names with values, or None for what its start says); the answer is all of them."""
    ACCESS = 44
    """Change users and roles (an `AccessOrder` of `raftkv.access`); the answer is the new token, or empty text."""
    ACCESS_SHOW = 45
    """Some of the users or roles (an `AccessAsk`); the answer is an `AccessShown`."""
    POLL = 36
    """Answer a query when its result is another one than the client knows (a `Poll`). An empty answer shortly before
    the deadline says that it is still the same."""
    WATCH = 37
    """Answer when there are changes behind a cursor, or shortly before the deadline (a `Watching`); the answer is a
    `Found` of `raftkv.history`. Any node does that."""
    CANCEL = 40
    """Forget the `POLL` or `WATCH` that has this number, if it waits (nothing); neither is answered. Only nodes whose
    hello says so understand it."""


@unique
class Status(IntEnum):
    """How a request ended; the errors are those of `raftkv.errors` with these names."""

    OK = 0
    REJECTED = 1
    """The command's own exception; the payload is [name, text]."""
    NOT_LEADER = 2
    BUSY = 3
    UNAVAILABLE = 4
    INDETERMINATE = 5
    SESSION_EXPIRED = 6
    INVALID = 7
    CHANGE_REFUSED = 8
    NOT_CAUGHT_UP = 9
    DISK_LOW = 10
    TOO_MUCH_WORK = 11
    VIEW_EXPIRED = 12
    COMPACTED = 13
    """The payload is the oldest cursor, as text."""
    UNAUTHENTICATED = 14
    """Nobody has signed in, or not as a user of this cluster. As a notice (`NOTICE_ID`): the user is none any more, and
    the connection ends."""
    FORBIDDEN = 15
    OTHER_LINEAGE = 16
    """The payload is [cursor, the last index in common or nothing]."""


class SignIn(msgspec.Struct, array_like=True, frozen=True):
    """How a client shows who it is: by a user's password, or by a token. Who shows neither may be known by the
    certificate of its connection."""

    user: str = ""
    password: str = ""
    token: str = ""

    def __repr__(self) -> str:
        return f"SignIn(user={self.user!r}, …)"


class ClientHello(msgspec.Struct, array_like=True, frozen=True):
    """A client's first frame. `cluster_id` may be empty: then any cluster will do."""

    version: int
    cluster_id: str = ""
    sign_in: SignIn | None = None
    """An older node ignores it, and knows of no users."""


class Members(msgspec.Struct, array_like=True, frozen=True):
    """Where the members of a cluster listen for clients. Of two lists, the one with the higher `index` is newer."""

    index: Index = 0
    """The index of the committed entry that made them members."""
    addresses: tuple[str, ...] = ()
    """Members without a client address are left out."""


class ServerHello(msgspec.Struct, array_like=True, frozen=True):
    """The node's answer; unless `refused` is empty, it says why the connection ends."""

    version: int
    cluster_id: str
    node_id: NodeId
    fingerprint: str
    refused: str = ""
    members: Members | None = None
    """None from an older node, which also doesn't understand `RequestKind.MEMBERS`."""
    cancels: bool = False
    """Whether it understands `RequestKind.CANCEL`."""
    asks_who: bool = False
    """Whether it serves only those who have signed in."""
    user: str = ""
    """Who the client is to it; empty for nobody."""


class Request(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`id` is the client's own number for it, unique on its connection; responses come in any order."""

    id: int
    kind: RequestKind
    payload: bytes
    stale: bool
    """For queries: answer from what is applied, without asking the leader."""
    deadline_ms: int
    """How long the client will wait from now."""


class ViewQuery(msgspec.Struct, array_like=True, frozen=True):
    """A query, as `raftkv.machine` encodes it, on the view of this number."""

    view: int
    query: bytes


class BackupAsk(msgspec.Struct, array_like=True, frozen=True):
    """Which snapshot a backup is to be made of."""

    digest: bytes = b""
    """The one that was begun with, if the node still has it; empty for another one."""
    age_ms: int = 0
    """A snapshot that was taken so long ago will do; 0 for one with all that was acknowledged before."""
    stale: bool = False
    """Whether to take what the node has applied, without asking the leader if that is all: when there is none."""


class BackupRead(msgspec.Struct, array_like=True, frozen=True):
    """A part of the files of a snapshot, which are read as if they lay one behind the other."""

    digest: bytes
    offset: int
    size: int


class Poll(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A query, as `raftkv.machine` encodes it, and the xxh3-64 of the encoded result that the client knows (None: it
    knows none)."""

    query: bytes
    known: int | None


class Watching(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What one wants to know of the changes of one table, set, or stream of events; as `raftkv.history.Asked`."""

    source: str
    after: Cursor | None = None
    """None: only where one begins, behind all that was acknowledged before; the answer comes at once."""
    start: bytes = b""
    end: bytes | None = None
    old: bool = False


class Response(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The answer to request `id`: a result, or (unless `OK` or `REJECTED`) an error's text."""

    id: int
    status: Status
    payload: bytes = b""
    index: Index = 0
    """The log index that the result stands for."""
    leader: str = ""
    """With `NOT_LEADER`: the client address of the node that may be the leader."""


_encoder = msgspec.msgpack.Encoder()
_client_hellos = msgspec.msgpack.Decoder(ClientHello)
_server_hellos = msgspec.msgpack.Decoder(ServerHello)
_members = msgspec.msgpack.Decoder(Members)
_requests = msgspec.msgpack.Decoder(Request)
_responses = msgspec.msgpack.Decoder(Response)


def _decode(decoder: msgspec.msgpack.Decoder[T], payload: bytes | memoryview) -> T:
    try:
        return decoder.decode(payload)
    except UNREADABLE as exc:
        raise FrameError(f"a frame that is no {decoder.type.__name__}: {exc}") from exc


def encode_client_hello(hello: ClientHello) -> bytes:
    """As a whole frame."""
    return encode_frame(_encoder.encode(hello))


def encode_server_hello(hello: ServerHello) -> bytes:
    """As a whole frame."""
    return encode_frame(_encoder.encode(hello))


def encode_members(members: Members) -> bytes:
    """As a payload."""
    return _encoder.encode(members)


def encode_request(request: Request) -> bytes:
    """As a whole frame."""
    return encode_frame(_encoder.encode(request))


def encode_response(response: Response) -> bytes:
    """As a whole frame."""
    return encode_frame(_encoder.encode(response))


def decode_client_hello(payload: bytes | memoryview) -> ClientHello:
    """Raises `FrameError`."""
    return _decode(_client_hellos, payload)


def decode_server_hello(payload: bytes | memoryview) -> ServerHello:
    """Raises `FrameError`."""
    return _decode(_server_hellos, payload)


def decode_members(payload: bytes | memoryview) -> Members:
    """Raises `FrameError`."""
    return _decode(_members, payload)


def decode_request(payload: bytes | memoryview) -> Request:
    """Raises `FrameError`."""
    return _decode(_requests, payload)


def decode_response(payload: bytes | memoryview) -> Response:
    """Raises `FrameError`."""
    return _decode(_responses, payload)
