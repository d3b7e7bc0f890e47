"""Who may do what: every request that is refused, on a node in memory, and that nothing of it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from raftkv.access import (
    VERBS,
    AddToken,
    AddUser,
    Enable,
    GiveRole,
    Grant,
    GrantRight,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    SetCertificates,
    SetPassword,
    TakeRole,
    TurnOff,
    TurnOn,
    digest_of,
)
from raftkv.client.methods import OPEN_SESSION_PAYLOAD, close_session_payload
from raftkv.errors import Busy, NotLeader, Unauthenticated
from raftkv.history import Cursor
from raftkv.kv import Delete, Exists, Get, Increment, KeyValue, Missing, Put, ValueIs
from raftkv.listener import ClientLimits, Listener, QueryDone
from raftkv.listener.demands import demand_of
from raftkv.listener.identity import UNKNOWN, Identity
from raftkv.listener.listener import TOLD_AT_ONCE
from raftkv.listener.standing import Standing
from raftkv.machine import ROWS, encode_command, encode_query
from raftkv.model import Member
from raftkv.server.visitors import MEASURING
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.wire import (
    NOTICE_ID,
    PROTOCOL_VERSION,
    ClientHello,
    Members,
    Poll,
    Request,
    RequestKind,
    Response,
    SignIn,
    Status,
    ViewQuery,
    Watching,
    encode_client_hello,
    encode_request,
)
from tests.client.network import Network
from tests.listener.payloads import command, query
from tests.listener.people import CALLERS, NOBODIES, USERS, hashed, make, password_of, peopled, shows
from tests.listener.raw import RawClient, connect, settle
from tests.listener.service import FakeService
from tests.logged import capture_logs

ADDRESS = "10.0.0.1:1"
NOTHING = msgspec.msgpack.encode(None)

Call = tuple[str, RequestKind, bytes, bool]
"""Who asks what of which kind, with which payload, and whether a stale answer will do."""


async def at_once(work: Callable[[], bool]) -> bool:
    """A thread's work, on the loop."""
    return work()


class World:
    """A node in memory on which users have to sign in, and which leads."""

    def __init__(self, *, on: bool = True, **limits: Any) -> None:
        self.network = Network()
        self.service = FakeService(KeyValue)
        self.service.leader = Member(1, "peer", "client")
        self.service.access = peopled(on=on)
        self.service.now_ms = 1_600_000_000_000
        self.tried = 0
        """How many passwords were."""
        self.listener = Listener(self.service, ClientLimits(**limits), workers=[self.try_one])
        self.listener.begin()
        self.network.listeners[ADDRESS] = self.listener.connection

    def try_one(self, work: Callable[[], bool]) -> asyncio.Future[bool]:
        self.tried += 1
        return asyncio.ensure_future(at_once(work))

    async def connect(self, who: str | SignIn | None = None) -> RawClient:
        """A client that signs in as one of `CALLERS`, or with that."""
        shown = CALLERS[who] if isinstance(who, str) else who
        return await connect(self.network, ADDRESS, sign_in=shown)

    def change(self, *changes: Any) -> None:
        """Apply changes of users and roles, and tell the listener as a node does."""
        make(self.service.access, *changes)
        self.service.access_changed()

    @property
    def done(self) -> tuple[object, ...]:
        """All that a request could have done."""
        return self.service.log.index, list(self.service.calls), len(self.service.polls)


def run(story: Callable[[World], Awaitable[None]], *, on: bool = True, **limits: Any) -> None:
    """Tell `story` in virtual time; nothing may fail behind its back."""
    loop = SimLoop()

    async def main() -> None:
        world = World(on=on, **limits)
        await story(world)
        await world.listener.close()
        assert world.listener.stats.requests_waiting == 0

    loop.run(main())
    assert loop.failures == []


async def answer(client: RawClient, kind: RequestKind, payload: bytes, *, stale: bool = False) -> Response:
    """What comes back for one request."""
    number = 1 + max((each.id for each in client.responses), default=0)
    client.ask(number, payload, kind, stale=stale)
    await settle()
    (found,) = [each for each in client.responses if each.id == number]
    return found


COMMANDS = {
    "put": command("put", b"other/1", b"v"),
    "delete": command("delete", b"other/1"),
    "compare_and_set": command("compare_and_set", b"other/1", None, b"v"),
    "increment": command("increment", b"other/1", 1),
    "transact": command("transact", [], [Put(b"other/1", b"v")], []),
    "no such": encode_command(0, 0, 0, "no_such", msgspec.msgpack.encode(())),
    "users": encode_command(0, 0, 0, "*access", msgspec.msgpack.encode(["TurnOff"])),
    "a session of somebody": encode_command(0, 0, 0, "*own", msgspec.msgpack.encode(["boss"])),
    "reserved": encode_command(0, 0, 0, "*", msgspec.msgpack.encode(())),
    "a session": OPEN_SESSION_PAYLOAD,
    "the end of none": close_session_payload(1),
}

OF_OTHERS = {
    "put": command("put", b"other", b"v"),
    "put above": command("put", b"ten", b"v"),
    "put before": command("put", b"ten.", b"v"),
    "put behind": command("put", b"ten0", b"v"),
    "put case": command("put", b"Ten/1", b"v"),
    "delete": command("delete", b"te"),
    "compare_and_set": command("compare_and_set", b"ton/1", b"a", None),
    "increment": command("increment", b"t", 1),
    "then": command("transact", [], [Put(b"ten/1", b"v"), Put(b"other", b"v")], []),
    "otherwise": command("transact", [], [Put(b"ten/1", b"v")], [Delete(b"other")]),
    "condition": command("transact", [Exists(b"other")], [Put(b"ten/1", b"v")], []),
    "condition missing": command("transact", [Missing(b"ten/1"), Missing(b"ten0")], [Put(b"ten/1", b"v")], []),
    "condition value": command("transact", [ValueIs(b"other", b"v")], [], []),
    "read in it": command("transact", [], [Get(b"other")], []),
    "count in it": command("transact", [], [], [Increment(b"other", 1)]),
    "nothing in it": command("transact", [], [], []),
}
"""Commands that the user tenant may not give, whose keys begin with ten/."""


def refused_commands() -> Iterator[Call]:
    """Commands of those who may not give them."""
    for who in [*NOBODIES, "idler", "reader", "operator"]:
        for payload in COMMANDS.values():
            yield who, RequestKind.COMMAND, payload, False
    for name in ("users", "a session of somebody", "reserved"):
        yield "boss", RequestKind.COMMAND, COMMANDS[name], False  # nobody may send these
    for payload in OF_OTHERS.values():
        yield "tenant", RequestKind.COMMAND, payload, False
    for name in ("delete", "compare_and_set", "increment", "transact", "no such"):
        yield "app", RequestKind.COMMAND, COMMANDS[name], False


QUERIES = [
    query("get", b"other/1"),
    query("range", b"", None, 10, False),
    query("range", b"other/", b"other0", 10, True),
    encode_query(ROWS.name, ROWS.encode_args(("records", b"", None, 10, False), {})),
]

RANGES_OF_OTHERS = [
    query("get", b"other"),
    query("get", b"ten"),
    query("get", b"ten0"),
    query("range", b"", None, 10, False),
    query("range", b"ten/", None, 10, False),
    query("range", b"ten/", b"ten1", 10, False),
    query("range", b"ten/", b"ten0\0", 10, False),
    query("range", b"ten", b"ten0", 10, True),
    query("range", b"", b"ten/1", 10, False),
    encode_query(ROWS.name, ROWS.encode_args(("records", b"ten", b"ten0", 10, False), {})),
    encode_query(ROWS.name, ROWS.encode_args(("others", b"ten/", b"ten0", 10, False), {})),
]


def asked(payload: bytes) -> Iterator[tuple[RequestKind, bytes, bool]]:
    """In every way in which a query can be asked."""
    yield RequestKind.QUERY, payload, False
    yield RequestKind.QUERY, payload, True
    yield RequestKind.POLL, msgspec.msgpack.encode(Poll(payload, 5)), False
    yield RequestKind.VIEW_QUERY, msgspec.msgpack.encode(ViewQuery(7, payload)), False


def watching(start: bytes, end: bytes | None, source: str = "records") -> bytes:
    """A request to watch rows of a table."""
    return msgspec.msgpack.encode(Watching(source, Cursor(0, 0), start, end))


def refused_queries() -> Iterator[Call]:
    """Queries of those who may not ask them."""
    for who in [*NOBODIES, "idler", "operator"]:
        for payload in QUERIES:
            for kind, wrapped, stale in asked(payload):
                yield who, kind, wrapped, stale
        yield who, RequestKind.WATCH, watching(b"", None), False
        yield who, RequestKind.VIEW_OPEN, b"", False
    for who in NOBODIES:
        yield who, RequestKind.VIEW_CLOSE, msgspec.msgpack.encode(7), False
        yield who, RequestKind.MEMBERS, b"", False
        yield who, RequestKind.WATCH, msgspec.msgpack.encode(Watching("records")), False
    for payload in RANGES_OF_OTHERS:
        for kind, wrapped, stale in asked(payload):
            yield "tenant", kind, wrapped, stale
    for start, end in ((b"", None), (b"ten/", None), (b"ten", b"ten0"), (b"ten/", b"ten1")):
        yield "tenant", RequestKind.WATCH, watching(start, end), False
    yield "tenant", RequestKind.WATCH, watching(b"ten/", b"ten0", "others"), False


ORDERS = {
    RequestKind.STATUS: NOTHING,
    RequestKind.ADD_LEARNER: msgspec.msgpack.encode(Member(4, "a:1", "a:2")),
    RequestKind.UPDATE: msgspec.msgpack.encode((Member(4, "a:1", "a:2"), True)),
    RequestKind.PROMOTE: msgspec.msgpack.encode(4),
    RequestKind.REMOVE: msgspec.msgpack.encode(4),
    RequestKind.TRANSFER: NOTHING,
    RequestKind.SNAPSHOT: NOTHING,
    RequestKind.CLOCK_RESET: NOTHING,
    RequestKind.UPGRADE: NOTHING,
    RequestKind.CONFIGURE: msgspec.msgpack.encode({}),
    RequestKind.ACCESS: msgspec.msgpack.encode(TurnOff()),
    RequestKind.ACCESS_SHOW: msgspec.msgpack.encode(("users", "")),
    RequestKind.BACKUP_OFFER: msgspec.msgpack.encode((b"", 0, False)),
    RequestKind.BACKUP_READ: msgspec.msgpack.encode((b"", 0, 1)),
}


def test_every_order_is_of_a_right_that_can_be_granted() -> None:
    """And every right that can be granted is one that something needs."""
    needed = {demand_of(Request(1, kind, payload, False, 0), KeyValue).name for kind, payload in ORDERS.items()}
    assert needed | {MEASURING.name} == set(VERBS)


def refused_orders() -> Iterator[Call]:
    """Orders of those who may not give them."""
    for who in [*NOBODIES, "idler", "app", "reader", "tenant"]:
        for kind, payload in ORDERS.items():
            yield who, kind, payload, False
    for kind in ORDERS.keys() - {RequestKind.STATUS, RequestKind.SNAPSHOT}:
        yield "operator", kind, ORDERS[kind], False


@pytest.mark.parametrize("calls", [refused_commands, refused_queries, refused_orders], ids=lambda each: each.__name__)
def test_what_nobody_has_a_right_to_is_refused_and_not_done(calls: Callable[[], Iterator[Call]]) -> None:
    """Dozens of requests of each kind: each is answered with who lacks what, is counted, and leaves no trace."""
    table = list(calls())
    assert len(table) >= 40

    async def story(world: World) -> None:
        clients = {who: await world.connect(who) for who, *_ in table}
        before, stats = world.done, world.listener.stats
        for who, kind, payload, stale in table:
            found = await answer(clients[who], kind, payload, stale=stale)
            wanted = Status.UNAUTHENTICATED if who in NOBODIES else Status.FORBIDDEN
            assert found.status is wanted, (who, kind, payload, found)
            assert who in NOBODIES or f"{who} may not" in found.payload.decode() or "is no command" in str(found)
        assert world.done == before
        assert stats.unauthenticated == sum(who in NOBODIES for who, *_ in table)
        assert stats.unauthenticated + stats.forbidden == len(table)

    run(story)


ALLOWED = [
    ("app", RequestKind.COMMAND, command("put", b"any", b"v")),
    ("app", RequestKind.QUERY, query("get", b"any")),
    ("reader", RequestKind.QUERY, query("get", b"any")),
    ("reader", RequestKind.QUERY, query("range", b"", None, 10, False)),
    ("tenant", RequestKind.COMMAND, command("put", b"ten/1", b"v")),
    ("tenant", RequestKind.COMMAND, command("increment", b"ten/2", 1)),
    ("tenant", RequestKind.COMMAND, command("transact", [Exists(b"ten/1")], [Put(b"ten/3", b"v")], [Get(b"ten/")])),
    ("tenant", RequestKind.QUERY, query("range", b"ten/", b"ten0", 10, True)),
    ("tenant", RequestKind.QUERY, query("range", b"ten/1", b"ten/2", 10, True)),
    ("tenant", RequestKind.MEMBERS, b""),
    ("reader", RequestKind.VIEW_OPEN, b""),
    ("tenant", RequestKind.VIEW_OPEN, b""),
    ("app", RequestKind.COMMAND, OPEN_SESSION_PAYLOAD),
    ("tenant", RequestKind.COMMAND, OPEN_SESSION_PAYLOAD),
    ("tenant", RequestKind.COMMAND, close_session_payload(1)),
    ("idler", RequestKind.MEMBERS, b""),
    ("operator", RequestKind.STATUS, NOTHING),
    ("operator", RequestKind.SNAPSHOT, NOTHING),
    *(
        ("boss", kind, payload)
        for kind, payload in ORDERS.items()
        if kind not in (RequestKind.REMOVE, RequestKind.CONFIGURE, RequestKind.BACKUP_OFFER, RequestKind.BACKUP_READ)
    ),
    ("boss", RequestKind.COMMAND, command("delete", b"any")),
]


def enabling(user: str = "", password: str = "", token: str = "") -> bytes:
    """An order to have rights count, with what it shows."""
    return msgspec.msgpack.encode(Enable(user, password, token))


def test_who_guesses_a_password_to_turn_it_on_has_to_wait_as_whoever_signs_in() -> None:
    """While nobody is asked who they are, an order with a password would be a way to guess and to use the node's time:
    sixty of them, of which few are tried and none is done; then the right one waits as well, and is not handed on."""

    async def story(world: World) -> None:
        client = await world.connect()
        for number in range(60):
            found = await answer(client, RequestKind.ACCESS, enabling("boss", f"guess {number}"))
            assert found.status is Status.REJECTED and b"NotProven" in found.payload, number
        stats = world.listener.stats
        assert world.tried <= 6 and world.service.calls == []
        assert stats.sign_ins_failed == world.tried and stats.sign_ins_delayed == 60 - world.tried
        right = enabling("boss", password_of("boss"))
        found = await answer(client, RequestKind.ACCESS, right)
        assert b"too many wrong passwords were tried: try again in" in found.payload and world.service.calls == []
        await elapse(61.0)
        assert (await answer(client, RequestKind.ACCESS, right)).status is Status.OK
        token = SignIn(token="the token of tenant")
        assert (await answer(client, RequestKind.ACCESS, enabling(token=token.token))).status is Status.OK
        assert world.service.calls == [("change_access", (Enable(), "boss")), ("change_access", (Enable(), "tenant"))]

    run(story, on=False)


def test_wrong_tokens_turn_nothing_on_and_only_the_leader_tries_anything() -> None:
    """More than forty tokens; and another node sends an order on before it tries a password."""

    async def story(world: World) -> None:
        client = await world.connect()
        with capture_logs() as lines:
            for token in [*(f"guess {number}" for number in range(40)), "a token of boss that is over"]:
                found = await answer(client, RequestKind.ACCESS, enabling(token=token))
                assert found.status is Status.REJECTED and b"of no user here, or over" in found.payload, token
        refused = [line for line in lines if line["event"] == "audit" and line.get("what") == "sign_in"]
        assert len(refused) == 20 and "guess" not in repr(refused), "the rest is counted"
        world.service.leader = Member(2, "peer", "client")
        for number in range(40):
            found = await answer(client, RequestKind.ACCESS, enabling("boss", f"guess {number}"))
            assert found.status is Status.NOT_LEADER, number
        assert world.tried == 0 and world.service.calls == []

    run(story, on=False)


def test_what_somebody_has_a_right_to_is_done() -> None:
    """The same requests of those who may: by name, by keys, by the order's verb, and all of them for the role root."""

    async def story(world: World) -> None:
        clients = {who: await world.connect(who) for who, *_ in ALLOWED}
        for who, kind, payload in ALLOWED:
            found = await answer(clients[who], kind, payload)
            assert found.status is Status.OK, (who, kind, payload, found)
        assert world.listener.stats.forbidden == world.listener.stats.unauthenticated == 0

    run(story)


def test_a_wrong_order_of_somebody_who_may_is_told_what_is_wrong() -> None:
    """The gate hides no other error: it comes before them, and only for those who may not."""

    async def story(world: World) -> None:
        boss, idler = await world.connect("boss"), await world.connect("idler")
        assert (await answer(boss, RequestKind.REMOVE, ORDERS[RequestKind.REMOVE])).status is Status.CHANGE_REFUSED
        assert (await answer(boss, RequestKind.COMMAND, b"\xc1")).status is Status.INVALID
        assert (await answer(idler, RequestKind.COMMAND, b"\xc1")).status is Status.INVALID
        assert (await answer(idler, RequestKind.POLL, b"\xc1")).status is Status.INVALID

    run(story)


def test_the_hello_says_who_one_is_and_whether_one_is_asked() -> None:
    """A client learns it before its first request; nobody learns where the members are."""

    async def story(world: World) -> None:
        members = world.service.members = Members(3, ("a:1", "b:1"))
        for who in CALLERS:
            client = await world.connect(who)
            assert client.hello is not None and client.hello.asks_who
            assert client.hello.user == (who if who in USERS else "")
            assert client.hello.members is not None
            assert client.hello.members.addresses == (members.addresses if who in USERS else ())
        world.change(TurnOff())
        client = await world.connect(None)
        assert client.hello is not None and not client.hello.asks_who and client.hello.members == members

    run(story)


def test_nobody_is_told_when_the_members_change() -> None:
    """Who has signed in is, who has not is not."""

    async def story(world: World) -> None:
        boss, nobody = await world.connect("boss"), await world.connect("nobody")
        world.service.members = Members(3, ("a:1", "b:1"))
        world.service.members_changed()
        await settle()
        assert [each.id for each in boss.responses] == [NOTICE_ID] and nobody.responses == []

    run(story)


def test_while_it_is_off_everybody_may_do_everything() -> None:
    """Also those who sign in wrongly; and nothing is looked at."""

    async def story(world: World) -> None:
        for who in CALLERS:
            client = await world.connect(who)
            assert (await answer(client, RequestKind.COMMAND, command("put", b"a", b"v"))).status is Status.OK
            assert (await answer(client, RequestKind.STATUS, NOTHING)).status is Status.OK

    run(story, on=False)


def test_turning_it_on_counts_at_once_for_those_who_are_connected() -> None:
    """Between two requests of one connection: who has signed in goes on by their rights, all others do nothing more."""

    async def story(world: World) -> None:
        clients = {who: await world.connect(who) for who in CALLERS}
        payload = command("put", b"ten/1", b"v")
        for client in clients.values():
            assert (await answer(client, RequestKind.COMMAND, payload)).status is Status.OK
        world.change(TurnOn())
        allowed = {
            who for who, each in clients.items() if (await answer(each, RequestKind.COMMAND, payload)).status == 0
        }
        assert allowed == {"boss", "app", "tenant"}
        world.change(TurnOff())
        assert (await answer(clients["nobody"], RequestKind.COMMAND, payload)).status is Status.OK

    run(story, on=False)


def test_it_counts_at_once_for_more_connections_than_are_looked_at_in_a_turn() -> None:
    """With a crowd of them, all are judged by it before any is told of anything."""

    async def story(world: World) -> None:
        clients = [await world.connect(None) for _ in range(TOLD_AT_ONCE + 20)]
        world.change(TurnOn())
        for client in clients:
            client.ask(1, command("put", b"a", b"v"))
        await settle()
        assert {each.status for client in clients for each in client.responses} == {Status.UNAUTHENTICATED}
        assert world.service.log.index == 0

    run(story, on=False)


def test_none_of_a_crowd_has_rights_that_rest_on_an_old_password() -> None:
    """Nobody's request is done behind the entry that sets another one, whether it is this connection's turn or not."""

    async def story(world: World) -> None:
        clients = [await world.connect("tenant") for _ in range(TOLD_AT_ONCE + 20)]
        world.change(SetPassword("tenant", hashed("another one")))
        for client in clients:
            client.ask(1, command("put", b"ten/1", b"v"))
        await settle()
        assert world.service.log.index == 0
        told = [each.status for client in clients for each in client.responses if each.id == 1]
        assert told == [Status.UNAUTHENTICATED] * 20  # the others have gone by then

    run(story)


def test_all_of_a_crowd_who_are_no_user_any_more_are_let_go() -> None:
    """A hundred at a time, so that others get their turns; what changes meanwhile is not missed."""

    async def story(world: World) -> None:
        clients = [await world.connect("tenant") for _ in range(2 * TOLD_AT_ONCE + 20)]
        others = [await world.connect("app") for _ in range(TOLD_AT_ONCE)]
        world.change(RemoveUser("tenant"))
        world.change(SetPassword("app", ""))
        await settle()
        assert not all(client.lost for client in clients)
        await elapse(1.0)
        await settle()
        assert all(client.lost for client in (*clients, *others))

    run(story)


def test_a_new_password_counts_at_once_for_more_connections_than_are_looked_at_in_a_turn() -> None:
    """The user is there as before, with all rights; none of a crowd that came in by the old one does more."""

    async def story(world: World) -> None:
        clients = [await world.connect("app") for _ in range(TOLD_AT_ONCE + 20)]
        world.change(SetPassword("app", hashed("another one")))
        for client in clients:
            client.ask(1, command("put", b"a", b"v"))
        await settle()
        answers = [each for client in clients for each in client.responses if each.id == 1]
        assert len(answers) >= 20 and {each.status for each in answers} == {Status.UNAUTHENTICATED}
        assert world.service.log.index == 0

    run(story)


def test_rights_that_are_taken_are_gone_at_once_and_new_ones_are_there() -> None:
    """Grants, roles, and whole users, between two requests of one connection."""

    async def story(world: World) -> None:
        client = await world.connect("app")
        get, delete = query("get", b"a"), command("delete", b"a")
        assert (await answer(client, RequestKind.QUERY, get)).status is Status.OK
        world.change(RevokeRight("app", Grant("query", "get")))
        assert (await answer(client, RequestKind.QUERY, get)).status is Status.FORBIDDEN
        world.change(GrantRight("app", Grant("command", "del*")))
        assert (await answer(client, RequestKind.COMMAND, delete)).status is Status.OK
        world.change(TakeRole("app", "app"))
        assert (await answer(client, RequestKind.COMMAND, delete)).status is Status.FORBIDDEN
        world.change(GiveRole("app", "root"))
        assert (await answer(client, RequestKind.COMMAND, delete)).status is Status.OK

    run(story)


LOSSES = {
    "removed": ("tenant", [RemoveUser("tenant")]),
    "another password": ("tenant", [SetPassword("tenant", hashed("another one"))]),
    "no password": ("tenant", [SetPassword("tenant", "")]),
    "token revoked": (shows("the token of tenant"), [RemoveToken("tenant", digest_of("the token of tenant").hex())]),
    "user of the token removed": (shows("the token of tenant"), [RemoveUser("tenant")]),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_who_is_no_user_any_more_is_told_and_let_go(loss: str) -> None:
    """What waits is answered, nothing is done any more, a notice says why, and the connection ends."""
    shown, changes = LOSSES[loss]

    async def story(world: World) -> None:
        client = await world.connect(shown)
        client.ask(1, msgspec.msgpack.encode(Poll(query("get", b"ten/1"), 5)), RequestKind.POLL)
        await settle()
        assert client.responses == []
        before = world.done
        world.change(*changes)
        client.ask(2, command("put", b"ten/1", b"v"))
        await settle()
        told = {each.id: each for each in client.responses}
        assert told[1].status is told[NOTICE_ID].status is Status.UNAUTHENTICATED
        assert "tenant can't sign in by this" in told[NOTICE_ID].payload.decode()
        assert client.lost and world.done == before
        assert all(poll.is_over for poll in world.service.polls)

    run(story)


def test_a_token_that_runs_out_ends_its_rights_and_then_its_connection() -> None:
    """At the very request behind its end; one that only waits is told within a second."""

    async def story(world: World) -> None:
        busy, idle = await world.connect(shows("for a minute")), await world.connect(shows("for a minute"))
        payload = command("put", b"ten/1", b"v")
        assert (await answer(busy, RequestKind.COMMAND, payload)).status is Status.OK
        world.service.now_ms += 60_000
        assert (await answer(busy, RequestKind.COMMAND, payload)).status is Status.UNAUTHENTICATED
        await elapse(1.1)
        await settle()
        assert busy.lost and idle.lost
        assert [each.status for each in idle.responses] == [Status.UNAUTHENTICATED]

    run(story)


def test_what_waits_is_told_nothing_that_its_client_may_not_read_any_more() -> None:
    """A poll and a watch that were allowed when they came, and are not when there is something to tell."""

    async def story(world: World) -> None:
        client = await world.connect("tenant")
        client.ask(1, msgspec.msgpack.encode(Poll(query("get", b"ten/1"), 5)), RequestKind.POLL)
        client.ask(2, watching(b"ten/", b"ten0"), RequestKind.WATCH)
        await settle()
        world.change(RevokeRight("tenant", Grant("read", b"ten/")))
        for poll in world.service.polls:
            poll.done(9, b"a secret")
        await settle()
        assert [each.status for each in client.responses] == [Status.FORBIDDEN] * 2
        assert not any(b"secret" in each.payload for each in client.responses)

    run(story)


def test_what_nobody_waited_for_is_told_to_nobody_once_it_is_turned_on() -> None:
    """The same for a poll that came while nobody was asked."""

    async def story(world: World) -> None:
        client = await world.connect("nobody")
        client.ask(1, msgspec.msgpack.encode(Poll(query("get", b"ten/1"), 5)), RequestKind.POLL)
        await settle()
        world.change(TurnOn())
        world.service.polls[0].done(9, b"a secret")
        await settle()
        assert [each.status for each in client.responses] == [Status.UNAUTHENTICATED]

    run(story, on=False)


def test_a_session_is_of_the_user_who_has_opened_it() -> None:
    """Nobody else sends commands in it, or closes it, whatever else they may do: forty tries, none let through."""
    tries = 0

    async def story(world: World) -> None:
        nonlocal tries
        clients = {who: await world.connect(who) for who in CALLERS}
        for opener in ("tenant", "app", "boss"):
            opened = await answer(clients[opener], RequestKind.COMMAND, OPEN_SESSION_PAYLOAD)
            session = msgspec.msgpack.decode(opened.payload)
            assert world.service.owners[session] == opener
            put = KeyValue.methods["put"]
            payloads = [
                put.command_payload(session, number, 0, put.encode_args((b"ten/1", b"v"), {})) for number in range(1, 5)
            ]
            before = world.done
            for who in CALLERS.keys() - {opener}:
                for payload in (*payloads, close_session_payload(session)):
                    found = await answer(clients[who], RequestKind.COMMAND, payload)
                    assert found.status in (Status.FORBIDDEN, Status.UNAUTHENTICATED), (opener, who)
                    tries += 1
            assert world.done == before
            assert (await answer(clients[opener], RequestKind.COMMAND, payloads[0])).status is Status.OK
            assert (await answer(clients[opener], RequestKind.COMMAND, close_session_payload(session))).status == 0

    run(story)
    assert tries >= 40


def test_a_session_that_is_nobodys_is_over_for_everybody() -> None:
    """It was opened before users had to sign in: whose it was, nobody knows. Its client opens another one."""

    async def story(world: World) -> None:
        client = await world.connect("boss")
        put = KeyValue.methods["put"]
        world.service.owners[1] = ""
        world.service.log.apply(OPEN_SESSION_PAYLOAD)
        payload = put.command_payload(1, 1, 0, put.encode_args((b"a", b"v"), {}))
        assert (await answer(client, RequestKind.COMMAND, payload)).status is Status.SESSION_EXPIRED

    run(story)


def test_a_leader_that_has_not_applied_a_session_yet_lets_its_client_wait() -> None:
    """It can't know whose it is; the client tries again. One that is over is told so by the machine."""

    async def story(world: World) -> None:
        client = await world.connect("boss")
        put = KeyValue.methods["put"]
        early = put.command_payload(1_000, 1, 0, put.encode_args((b"a", b"v"), {}))
        assert (await answer(client, RequestKind.COMMAND, early)).status is Status.BUSY
        world.service.log.apply(command("put", b"a", b"v"))
        over = put.command_payload(1, 1, 0, put.encode_args((b"a", b"v"), {}))
        assert (await answer(client, RequestKind.COMMAND, over)).status is Status.SESSION_EXPIRED

    run(story)


def test_a_session_that_is_opened_by_a_user_while_it_is_off_is_theirs() -> None:
    """So clients that sign in before it is turned on go on as if nothing had happened."""

    async def story(world: World) -> None:
        client = await world.connect("tenant")
        opened = await answer(client, RequestKind.COMMAND, OPEN_SESSION_PAYLOAD)
        session = msgspec.msgpack.decode(opened.payload)
        world.change(TurnOn())
        put = KeyValue.methods["put"]
        payload = put.command_payload(session, 1, 0, put.encode_args((b"ten/1", b"v"), {}))
        assert (await answer(client, RequestKind.COMMAND, payload)).status is Status.OK

    run(story, on=False)


def test_a_follower_sends_on_whom_it_may_not_know_yet() -> None:
    """What only the leader does, only the leader refuses: a new user, or a new right, may not be here yet. What is
    answered here is refused here, and so is who shows nothing at all."""

    async def story(world: World) -> None:
        world.service.leader = Member(2, "peer-2", "client-2")
        put, get = command("put", b"other", b"v"), query("get", b"other")
        for who in ("mistyped", "stranger", "idler", "tenant"):
            client = await world.connect(who)
            found = await answer(client, RequestKind.COMMAND, put)
            assert (found.status, found.leader) == (Status.NOT_LEADER, "client-2"), who
            assert (await answer(client, RequestKind.QUERY, get)).status is Status.NOT_LEADER
            assert (await answer(client, RequestKind.QUERY, get, stale=True)).status in (14, 15), who
            assert (await answer(client, RequestKind.STATUS, NOTHING)).status in (14, 15), who
        client = await world.connect("nobody")
        assert (await answer(client, RequestKind.COMMAND, put)).status is Status.UNAUTHENTICATED
        assert world.service.log.index == 0

    run(story)


def test_a_client_of_the_same_program_is_asked_nothing() -> None:
    """It could do everything anyway; it also needs no worker to sign in."""

    async def story(world: World) -> None:
        world.network.listeners[ADDRESS] = world.listener.trusted_connection
        client = await world.connect(None)
        assert client.hello is not None and not client.hello.asks_who
        assert (await answer(client, RequestKind.COMMAND, command("put", b"a", b"v"))).status is Status.OK
        assert (await answer(client, RequestKind.STATUS, NOTHING)).status is Status.OK
        world.change(RemoveUser("tenant"))
        assert (await answer(client, RequestKind.COMMAND, command("put", b"a", b"v"))).status is Status.OK

    run(story)


def test_requests_that_come_with_the_hello_wait_until_it_is_known_who_sends_them() -> None:
    """A client that does not wait for the answer to its hello gets its own rights, neither more nor less."""

    async def story(world: World) -> None:
        client = await connect(world.network, ADDRESS, greet=False)
        hello = encode_client_hello(ClientHello(PROTOCOL_VERSION, "", CALLERS["tenant"]))
        mine, others = command("put", b"ten/1", b"v"), command("put", b"other", b"v")
        requests = [
            encode_request(Request(number, RequestKind.COMMAND, payload, False, 1000))
            for number, payload in enumerate((mine, others), 1)
        ]
        client.send(hello + b"".join(requests))
        await settle()
        assert client.hello is not None and client.hello.user == "tenant"
        assert [each.status for each in client.responses] == [Status.OK, Status.FORBIDDEN]

    run(story)


def test_the_log_tells_who_ordered_what_and_who_was_refused() -> None:
    """Who, from where, what, and how it ended; refusals up to a number, then how many more. Never a secret."""

    async def story(world: World) -> None:
        with capture_logs() as events:
            boss, idler = await world.connect("boss"), await world.connect("idler")
            await answer(boss, RequestKind.PROMOTE, ORDERS[RequestKind.PROMOTE])
            await answer(boss, RequestKind.REMOVE, ORDERS[RequestKind.REMOVE])
            await answer(boss, RequestKind.STATUS, NOTHING)
            for _ in range(100):
                await answer(idler, RequestKind.STATUS, NOTHING)
            await elapse(15)
        audits = [each for each in events if each["event"] == "audit"]
        assert [(each["who"], each["what"], each["outcome"]) for each in audits[:3]] == [
            ("boss by password", "promote", "done"),
            ("boss by password", "remove", "ChangeRefused"),
            ("idler by password", "status", "forbidden"),
        ]
        assert all("address" in each for each in audits[:-1])
        assert sum(each.get("more", 1) for each in audits if each["outcome"] in ("forbidden", "refused")) == 100
        assert len(audits) == 23
        assert world.listener.stats.forbidden == 100
        assert not any("the password of" in str(each) or "argon2" in str(each) for each in events)

    run(story)


def test_nobodys_error_says_how_to_sign_in() -> None:
    """Who shows nothing is told what to show; who shows something wrong is told what was wrong with it."""

    async def story(world: World) -> None:
        told = {}
        for who in NOBODIES:
            client = await world.connect(who)
            told[who] = (await answer(client, RequestKind.STATUS, NOTHING)).payload.decode()
        assert told["nobody"] == UNKNOWN
        assert told["stranger"] == told["outdated"] == told["revoked"] == "the token is of no user here, or over"
        assert told["mistyped"] == told["unknown"] == "there is no user of this name with this password"

    run(story)


def test_a_user_who_comes_back_is_somebody_again() -> None:
    """After a removal, the same name with a new password is another user: old proofs are of no use."""

    async def story(world: World) -> None:
        world.change(RemoveUser("tenant"))
        world.change(AddUser("tenant", hashed("a new one"), ("tenant",), ()))
        world.change(AddToken("tenant", digest_of("a new token"), None))
        assert (await world.connect("tenant")).hello.user == ""  # type: ignore[union-attr]
        assert (await world.connect(shows("the token of tenant"))).hello.user == ""  # type: ignore[union-attr]
        assert (await world.connect(SignIn("tenant", "a new one"))).hello.user == "tenant"  # type: ignore[union-attr]
        assert (await world.connect(shows("a new token"))).hello.user == "tenant"  # type: ignore[union-attr]

    run(story)


def test_a_new_leader_that_does_not_know_all_changes_yet_decides_nothing() -> None:
    """Who was removed a moment ago, at the leader before it, must not get in, nor a new user be refused; both are told
    to come again. What any node does goes by what it has applied, as ever."""

    async def story(world: World) -> None:
        tenant, boss = await world.connect("tenant"), await world.connect("boss")
        world.service.knows_all = False
        put, get = command("put", b"ten/1", b"v"), query("get", b"ten/1")
        for client, kind, payload in (
            (tenant, RequestKind.COMMAND, put),
            (tenant, RequestKind.QUERY, get),
            (boss, RequestKind.ACCESS, ORDERS[RequestKind.ACCESS]),
        ):
            assert (await answer(client, kind, payload)).status is Status.BUSY
        assert world.service.log.index == 0
        assert (await answer(tenant, RequestKind.QUERY, get, stale=True)).status is Status.OK
        assert (await answer(boss, RequestKind.STATUS, NOTHING)).status is Status.OK
        world.service.leader = Member(2, "peer", "client")
        assert (await answer(tenant, RequestKind.STATUS, NOTHING)).status is Status.FORBIDDEN
        world.service.leader = Member(1, "peer", "client")
        world.service.knows_all = True
        assert (await answer(tenant, RequestKind.COMMAND, put)).status is Status.OK

    run(story)


def test_a_leader_refuses_nobody_before_it_is_sure_that_it_leads() -> None:
    """Who got a right at the leader behind it is not told otherwise: sent on, or judged by what is known then. What it
    may do anyway costs no round, and who is nobody is refused at once."""

    async def story(world: World) -> None:
        tenant, stranger = await world.connect("tenant"), await world.connect("nobody")
        put, get = command("put", b"others/1", b"v"), query("get", b"others/1")
        asked = ((RequestKind.COMMAND, put), (RequestKind.QUERY, get))
        assert (await answer(tenant, RequestKind.COMMAND, command("put", b"ten/1", b"v"))).status is Status.OK
        assert (await answer(stranger, RequestKind.COMMAND, put)).status is Status.UNAUTHENTICATED
        assert world.service.confirmed == 0
        for number, (kind, payload) in enumerate(asked, 1):
            assert (await answer(tenant, kind, payload)).status is Status.FORBIDDEN
            assert world.service.confirmed == number
        before = world.service.log.index

        def deposed(done: QueryDone) -> None:
            world.service.leader = Member(2, "peer", "client")
            done(0, NotLeader(2))

        world.service.confirming = deposed
        with capture_logs() as events:
            for kind, payload in asked:
                world.service.leader = Member(1, "peer", "client")
                assert (await answer(tenant, kind, payload)).status is Status.NOT_LEADER
        assert (world.service.log.index, events) == (before, []), "nothing was done, and nothing refused"

        def known(done: QueryDone) -> None:
            world.change(*[GrantRight("tenant", Grant(what, b"others/")) for what in ("read", "write")])
            done(0, b"")

        world.service.leader = Member(1, "peer", "client")
        world.service.confirming = known
        for kind, payload in asked:
            assert (await answer(tenant, kind, payload)).status is Status.OK

    run(story)


def test_who_showed_a_password_that_is_right_by_now_signs_in_anew() -> None:
    """A node that had not applied it yet took it for a wrong one. It is not kept, so a notice ends the connection, and
    the request is answered as one to be sent again. That a user was changed whom nobody named looks the same (F90)."""

    async def story(world: World) -> None:
        shown = SignIn("tenant", "to be set")
        put = command("put", b"ten/1", b"v")
        for change in (SetPassword("tenant", hashed("to be set")), SetPassword("idler", hashed("another"))):
            client = await world.connect(shown if change.user == "tenant" else SignIn("ghost", "no password"))
            refused = await answer(client, RequestKind.COMMAND, put)
            assert (refused.status, client.lost) == (Status.UNAUTHENTICATED, False)
            world.change(change)
            await settle()
            assert not client.lost, "nobody who asks for nothing is disturbed"
            before = world.listener.stats.unauthenticated
            assert (await answer(client, RequestKind.COMMAND, put)).status is Status.BUSY
            assert client.responses[-2].id == NOTICE_ID and client.responses[-2].status is Status.UNAUTHENTICATED
            assert client.lost and world.listener.stats.unauthenticated == before
        client = await world.connect(shown)
        assert (await answer(client, RequestKind.COMMAND, put)).status is Status.OK

    run(story)


def test_who_waits_for_a_query_is_judged_by_the_password_that_was_set_before_it_was_asked() -> None:
    """A follower that is behind asks nobody who they are, and then has applied all that was acknowledged."""

    async def story(world: World) -> None:
        client = await world.connect(SignIn("tenant", "to be set"))
        client.ask(1, msgspec.msgpack.encode(Poll(query("get", b"ten/1"), 5)), RequestKind.POLL)
        await settle()
        world.change(SetPassword("tenant", hashed("to be set")), TurnOn())
        world.service.polls[0].done(0, b"")
        await settle()
        assert {each.id: each.status for each in client.responses} == {1: Status.BUSY, NOTICE_ID: 14}
        assert client.lost

    run(story, on=False)


def test_changes_of_users_make_no_guess_free() -> None:
    """Who signs in anew as something has changed is tried as whoever comes: what was wrong a moment ago costs nothing,
    and counts once; others count each, and have to wait."""

    async def story(world: World) -> None:
        put = command("put", b"ten/1", b"v")
        for number in range(40):
            for password in ("the same", f"another, {number}"):
                client = await world.connect(SignIn("tenant", password))
                world.change(SetPassword("idler", hashed(str(number))))
                assert (await answer(client, RequestKind.COMMAND, put)).status is Status.BUSY
                assert client.lost
        assert world.tried == 6
        assert world.listener.stats.sign_ins_delayed == 35

    run(story)


def test_the_log_tells_of_wrong_passwords_and_tokens() -> None:
    """Also of those who ask for nothing then: from where, and for which user, if there is one of that name. What was
    typed is not told: it may be a password in the wrong place."""

    async def story(world: World) -> None:
        with capture_logs() as events:
            for who in ("boss", "nobody", *NOBODIES[1:]):
                await world.connect(who)
            await world.connect(SignIn("my password", "in the wrong place"))
        audits = [each for each in events if each["event"] == "audit"]
        assert [each.get("user", "") for each in audits] == ["", "", "", "boss", "", ""]
        assert {(each["what"], each["outcome"], each["who"]) for each in audits} == {
            ("sign_in", "unauthenticated", "nobody")
        }
        assert all(each["address"] and each["reason"] for each in audits)
        assert not any("my password" in str(each) or "a token of" in str(each) for each in events)
        world.change(TurnOff())
        with capture_logs() as events:
            await world.connect("mistyped")
        assert events == []

    run(story)


def test_a_name_of_megabytes_is_refused_in_a_few_words() -> None:
    """Neither the answer nor the log repeats it."""

    async def story(world: World) -> None:
        tenant = await world.connect("tenant")
        for name in ("x" * (1 << 20), "*" + "x" * (1 << 20)):
            found = await answer(tenant, RequestKind.COMMAND, encode_command(0, 0, 0, name, NOTHING))
            assert found.status is Status.FORBIDDEN and len(found.payload) < 500

    run(story)


def test_what_was_asked_before_anybody_had_to_sign_in_is_looked_at_anew() -> None:
    """Whoever shows a certificate may have become a user since, without the right to what they wait for."""

    async def story(world: World) -> None:
        standing = Standing(world.listener.gate, Identity(None, "certificate", names=("idler.example",)))
        assert not standing.is_asked
        standing.check_still(None)
        world.change(TurnOn())
        standing.access_changed()
        with pytest.raises(Busy):
            standing.check_still(None)
        assert standing.user == "idler"
        world.change(SetCertificates("idler", ()))
        with pytest.raises(Unauthenticated):
            standing.check_still(None)

    run(story, on=False)
