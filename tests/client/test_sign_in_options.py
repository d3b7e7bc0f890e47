"""What clients sign in by: what is right of it, where it is sent, who gets to see it, and what a refusal means."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import pytest

from raftkv.client import Admin, BlockingAdmin, BlockingClient, Client, ClientOptions
from raftkv.client.dial import Dialler
from raftkv.errors import ConfigError, Forbidden, HandshakeRefused, Indeterminate, Unauthenticated
from raftkv.kv import KeyValue
from raftkv.wire import Request, RequestKind, Response, Status
from tests.client.cluster import ADDRESSES, FakeCluster
from tests.client.worlds import run_world


def test_a_command_that_may_have_been_done_before_it_was_refused_is_indeterminate() -> None:
    """The refusal is about the last try only: the one before had rights, and its answer was lost."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        await client.call(KeyValue.put, b"a", b"1")
        leader, tries = cluster.nodes[0], 0

        def script(request: Request) -> Response | None:
            nonlocal tries
            if request.kind is not RequestKind.COMMAND:
                return leader.behave(request)
            tries += 1
            if tries == 1:
                cluster.log.apply(request.payload)
                leader.break_connections()
                return None
            return Response(request.id, Status.FORBIDDEN, b"ann may not")

        leader.script = script
        with pytest.raises(Indeterminate, match=r"refused when it was sent again.*ann may not"):
            await client.call(KeyValue.put, b"a", b"2")
        leader.script = leader.behave

    run_world(story)


@pytest.mark.parametrize(
    ("status", "error"), [(Status.UNAUTHENTICATED, Unauthenticated), (Status.FORBIDDEN, Forbidden)]
)
def test_what_was_refused_is_not_tried_elsewhere(status: Status, error: type[Exception]) -> None:
    """It is certain that nothing was done, and another node would say the same."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        for node in cluster.nodes:
            node.script = lambda request: Response(request.id, status, b"why")
        with pytest.raises(error, match="why"):
            await client.call(KeyValue.put, b"a", b"2")
        assert cluster.requests() == 1

    run_world(story)


WRONG_OPTIONS = [
    {"user": "ann"},
    {"password": "secret"},
    {"user": "ann", "password": "secret", "token": "secret"},
    {"user": "ann", "token": "secret"},
    {"password": "secret", "token": "secret"},
    {"token": "s" * 2_000},
    {"user": "ann", "password": b"secret"},
]


@pytest.mark.parametrize("options", WRONG_OPTIONS)
def test_half_of_a_sign_in_is_a_mistake(options: dict[str, Any]) -> None:
    """One signs in by a name and a password, or by a token alone; the error quotes no secret."""
    with pytest.raises(ConfigError) as caught:
        ClientOptions(**options)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError):
        Client(KeyValue, ["127.0.0.1:7001"], **options)


BEYOND = ["db.example:7001", "10.0.0.1:7001", "[2001:db8::1]:7001", "0.0.0.0:7001", "localhost.example:7001"]
HERE = ["127.0.0.1:7001", "127.1.2.3:7001", "[::1]:7001", "localhost:7001"]
SECRETS = [{"user": "ann", "password": "secret"}, {"token": "secret"}]


@pytest.mark.parametrize("secret", SECRETS, ids=["password", "token"])
def test_secrets_are_not_sent_beyond_this_machine_without_tls(secret: dict[str, str]) -> None:
    """A client refuses to be made for such an address, whichever it is, unless it is told to trust the network."""
    makers: list[Callable[..., Any]] = [
        lambda addresses, **more: Client(KeyValue, addresses, **more),
        lambda addresses, **more: BlockingClient(KeyValue, addresses, **more),
        Admin,
        BlockingAdmin,
    ]
    context = ssl.create_default_context()
    for make_client in makers:
        for address in BEYOND:
            with pytest.raises(ConfigError, match="without TLS") as caught:
                make_client([*HERE, address], **secret)
            assert "secret" not in str(caught.value)
            make_client([address])
            make_client([address], insecure=True, **secret)
            make_client([address], ssl=context, **secret)
        make_client(HERE, **secret)


def test_a_member_that_was_learned_is_no_exception() -> None:
    """An address that a node names is not dialled either, if one would sign in there for all to read."""

    async def story(cluster: FakeCluster, client: Client[KeyValue]) -> None:
        options = ClientOptions(token="secret")

        async def never(*_: Any) -> None:
            raise AssertionError("it was dialled")

        dialler = Dialler(options, dial=never)
        with pytest.raises(HandshakeRefused, match="not reached by TLS"):
            await dialler.connect(ADDRESSES[1], lambda: pytest.fail("a link was made"), lambda _: None)

    run_world(story)


def test_secrets_are_in_no_repr() -> None:
    """Options are in tracebacks and debuggers; who it is may be seen there."""
    for secret in SECRETS:
        options = ClientOptions(**secret)
        assert "secret" not in repr(options) and "deadline_s=10.0" in repr(options)
        assert "secret" not in repr(Client(KeyValue, HERE, **secret))
        assert "secret" not in repr(Admin(HERE, **secret))
    assert "user='ann'" in repr(ClientOptions(user="ann", password="secret"))
    assert ClientOptions().sign_in is None


def test_short_options_are_those_of_client_options() -> None:
    """None stands for what the options say; what is none of them is refused."""
    options = ClientOptions(deadline_s=3.0, user="ann", password="secret")
    client = Client(KeyValue, HERE, options=options, deadline_s=None, sessions=False)
    assert (client.options.deadline_s, client.options.sessions, client.options.user) == (3.0, False, "ann")
    with pytest.raises(TypeError, match="pasword"):
        Client(KeyValue, HERE, pasword="secret")  # type: ignore[call-arg]
