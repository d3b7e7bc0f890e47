"""Who may look at a node's pages, once users have to sign in: by HTTP's own ways, and from one look to the next."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
from collections.abc import Callable
from typing import Any

import pytest

from raftkv.access import Access, AddRole, AddToken, AddUser, Grant, GrantRight, RevokeRight, TurnOff, digest_of
from raftkv.errors import Forbidden, Unauthenticated
from raftkv.kv import KeyValue
from raftkv.listener import ClientLimits, Listener
from raftkv.server.http import HttpServer
from raftkv.server.visitors import CERTIFICATE, Visitors, read_authorization
from raftkv.wire import SignIn
from tests.cli.test_view import status_of
from tests.listener.people import make, password_of, peopled
from tests.listener.service import FakeService

OPEN = ["/health", "/ready", "/metrics"]
CLOSED = ["/", "/status", "/events"]


def basic(user: str, password: str | None = None) -> str:
    """A header that shows a user's password."""
    shown = f"{user}:{password_of(user) if password is None else password}"
    return "Basic " + base64.b64encode(shown.encode()).decode()


async def tried(work: Callable[[], bool]) -> bool:
    """A thread's work, on the loop."""
    return work()


def visited(
    access: Access,
    story: Callable[[Callable[..., tuple[int, dict[str, str]]], FakeService], None],
    *,
    are_all: bool = False,
) -> Any:
    """Have `story` ask a node with these users, on a thread of its own; gives the listener's counts."""

    async def main() -> Any:
        service = FakeService(KeyValue)
        service.access = access
        listener = Listener(service, ClientLimits(), workers=[lambda work: asyncio.ensure_future(tried(work))])
        visitors = Visitors(listener.gate, are_all=are_all)
        server = HttpServer("127.0.0.1", 0, lambda: status_of(1), visitors=visitors)
        server.begin()

        def ask(path: str, shown: str | None = None, *, by: str | None = None) -> tuple[int, dict[str, str]]:
            headers = {"Authorization": shown} if shown is not None else {}
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
            connection.request("GET", path, headers=headers if by is None else {**headers, "Host": by})
            answer = connection.getresponse()
            body = b"" if path == "/events" and answer.status == 200 else answer.read()
            connection.close()
            return answer.status, {**dict(answer.getheaders()), "body": body.decode()}

        ask.port = server.port  # type: ignore[attr-defined]
        try:
            await asyncio.to_thread(story, ask, service)
        finally:
            await asyncio.to_thread(server.close)
        return listener.stats

    return asyncio.run(main())


def test_while_it_is_off_everybody_may_look() -> None:
    """Nobody is asked anything, whatever they show."""

    def story(ask: Any, service: FakeService) -> None:
        for path in (*OPEN, *CLOSED):
            assert ask(path)[0] == ask(path, "Bearer nonsense")[0] == 200, path

    assert visited(peopled(on=False), story).unauthenticated == 0


def test_the_page_and_the_status_are_for_those_with_the_right_status() -> None:
    """By a password or a token; others are told to sign in, or that they may not. Probes and monitors go on."""

    def story(ask: Any, service: FakeService) -> None:
        for path in OPEN:
            assert ask(path)[0] == 200
        for path in CLOSED:
            code, headers = ask(path)
            assert code == 401 and headers["WWW-Authenticate"]
            for shown in (basic("operator", "wrong"), basic("ghost", "x"), "Bearer no", "Basic !", "Digest x", ""):
                assert ask(path, shown)[0] == 401, (path, shown)
            for user in ("idler", "app", "reader", "tenant"):
                assert ask(path, basic(user))[0] == 403, (path, user)
            assert ask(path, "Bearer the token of tenant")[0] == 403
            for user in ("operator", "boss"):
                assert ask(path, basic(user))[0] == 200, (path, user)

    stats = visited(peopled(), story)
    assert stats.unauthenticated == 7 * len(CLOSED) and stats.forbidden == 5 * len(CLOSED)


@pytest.mark.parametrize("on", [False, True])
def test_where_all_sign_in_nobody_reads_metrics_without_the_right(on: bool) -> None:
    """More than forty of each refusal, whether the cluster's users have to sign in or not: a scraper has the right
    `metrics` and no other, health says yes or no, and a wrong password never gets in."""
    access = peopled(on=on)
    make(access, AddRole("scraper"), GrantRight("scraper", Grant("admin", "metrics")))
    make(access, AddUser("prometheus", "", ("scraper",)), AddToken("prometheus", digest_of("of prometheus"), None))

    def story(ask: Any, service: FakeService) -> None:
        for path in ("/health", "/ready"):
            code, headers = ask(path)
            assert code == 200 and headers["body"] == "{}\n", "it says yes or no, and nothing of the cluster"
        for number in range(45):
            code, headers = ask("/metrics", (None, f"Bearer guess-{number}", "Basic !")[number % 3])
            assert code == 401 and headers["WWW-Authenticate"] and "raftkv_" not in headers["body"], number
        for number in range(45):
            code, headers = ask("/metrics", "Bearer the token of tenant")
            assert code == 403 and "admin metrics" in headers["body"] and "raftkv_" not in headers["body"], number
        for path in CLOSED * 15:
            assert ask(path)[0] == 401 and ask(path, "Bearer of prometheus")[0] == 403, path
        for shown in ("Bearer of prometheus", basic("boss")):
            code, headers = ask("/metrics", shown)
            assert code == 200 and "raftkv_term" in headers["body"]
        assert ask("/metrics", basic("operator"))[0] == 403, "the right `status` is another one"
        make(service.access, RevokeRight("scraper", Grant("admin", "metrics")))
        assert ask("/metrics", "Bearer of prometheus")[0] == 403, "at once"

    stats = visited(access, story, are_all=True)
    assert stats.unauthenticated == 90 and stats.forbidden == 92


def test_who_loses_the_right_sees_no_more_of_a_stream() -> None:
    """What `admit` gives is asked again with each part of an answer that has no end."""

    async def main() -> None:
        service = FakeService(KeyValue)
        service.access = peopled()
        listener = Listener(service, ClientLimits(), workers=[lambda work: asyncio.ensure_future(tried(work))])
        visitors = Visitors(listener.gate)
        environ = {"HTTP_AUTHORIZATION": basic("operator"), "REMOTE_ADDR": "127.0.0.1"}
        still = await asyncio.to_thread(visitors.admit, environ)
        assert await asyncio.to_thread(still)
        make(service.access, RevokeRight("operator", Grant("admin", "status")))
        assert not await asyncio.to_thread(still)
        with pytest.raises(Forbidden, match="admin status"):
            await asyncio.to_thread(visitors.admit, environ)
        make(service.access, TurnOff())
        assert await asyncio.to_thread(still)

    asyncio.run(main())


def test_who_looked_while_it_was_off_sees_no_more_once_it_is_on() -> None:
    """A stream that began with nobody asked ends with the first part behind that."""

    async def main() -> None:
        service = FakeService(KeyValue)
        service.access = peopled(on=False)
        visitors = Visitors(Listener(service, ClientLimits()).gate)
        still = await asyncio.to_thread(visitors.admit, {})
        assert await asyncio.to_thread(still)
        service.access = peopled()
        assert not await asyncio.to_thread(still)

    asyncio.run(main())


def test_a_certificate_signs_in_as_well() -> None:
    """With HTTPS that asks for one: it is a user's, or nobody's."""

    async def main() -> None:
        service = FakeService(KeyValue)
        service.access = peopled()
        visitors = Visitors(Listener(service, ClientLimits()).gate)

        def shown(name: str) -> dict[str, Any]:
            return {CERTIFICATE: {"subject": ((("commonName", name),),)}, "REMOTE_ADDR": "127.0.0.1"}

        await asyncio.to_thread(visitors.admit, shown("operator.example"))
        with pytest.raises(Forbidden):
            await asyncio.to_thread(visitors.admit, shown("idler.example"))
        with pytest.raises(Unauthenticated):
            await asyncio.to_thread(visitors.admit, shown("somebody.example"))

    asyncio.run(main())


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("Bearer abc", SignIn(token="abc")),
        ("bearer  abc ", SignIn(token="abc")),
        (basic("ann", "with:colon"), SignIn("ann", "with:colon")),
        (basic("ann", "ümlaut"), SignIn("ann", "ümlaut")),
        ("Bearer ", None),
        ("Basic " + base64.b64encode(b"no colon").decode(), None),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), None),
        ("Basic not base64!", None),
        ("", None),
    ],
)
def test_what_a_header_shows(header: str, shown: SignIn | None) -> None:
    """As RFC 7617 and 6750 write it; anything else shows nothing."""
    assert read_authorization(header) == shown


WAYS = [
    "//metrics", "/%6detrics", "/metrics?x=1", "//status", "/%73tatus", "/status?", "//", "/?x", "/%65vents",
]  # fmt: skip
NOWHERE = [
    "/metrics/", "/./metrics", "/health/../metrics", "/metrics;x", "/METRICS", "/metrics%00", "/%2fmetrics", "*",
    "http://elsewhere/metrics", "\\\\status",
]  # fmt: skip


def test_where_all_sign_in_no_way_of_writing_a_path_leads_by() -> None:
    """What comes to a page needs what the page needs, and nothing else comes to one; who asks only whether there is
    something gets no more than that."""

    def raw(port: int, path: str, method: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Original-URL: /health\r\n\r\n".encode())
            return b"".join(iter(lambda: connection.recv(65_536), b""))

    def story(ask: Any, service: FakeService) -> None:
        for code, paths in ((b"401", [*CLOSED, "/metrics", *WAYS]), (b"404", NOWHERE)):
            for path in paths:
                answer, short = raw(ask.port, path, "GET"), raw(ask.port, path, "HEAD")
                assert answer.split()[1] == code and b"raftkv_" not in answer, path
                assert short.split()[1] == code and short.endswith(b"\r\n\r\n"), path

    visited(peopled(), story, are_all=True)


def test_by_another_name_only_those_look_who_show_who_they_are() -> None:
    """A browser sends what it knows for one name to no other, so a page of elsewhere shows nothing; a proxy does."""

    def story(ask: Any, service: FakeService) -> None:
        assert ask("/status", basic("operator"), by="proxy.example")[0] == 200
        assert ask("/status", by="evil.example")[0] == 401 and ask("/metrics", by="evil.example")[0] == 421
        make(service.access, TurnOff())
        assert ask("/status", basic("operator"), by="proxy.example")[0] == ask("/", by="evil.example")[0] == 421
        assert ask("/status")[0] == 200

    visited(peopled(), story)


def test_where_all_sign_in_any_name_will_do() -> None:
    """For metrics as well, and also while nobody has to sign in for anything else."""

    def story(ask: Any, service: FakeService) -> None:
        for path in ("/metrics", "/status"):
            assert ask(path, basic("boss"), by="proxy.example")[0] == 200
            assert ask(path, by="evil.example")[0] == 401

    visited(peopled(on=False), story, are_all=True)
