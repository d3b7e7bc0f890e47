"""Users of a real node: by the certificates of their connections, and the client of the node's own program."""

from __future__ import annotations

import asyncio
import http.client
import ssl
from pathlib import Path

import pytest

from raftkv import Admin, Client, Forbidden, Server, Tls, Unauthenticated
from raftkv.access import AddRole, Enable, Grant, GrantRight, NewToken, NewUser
from raftkv.kv import KeyValue
from raftkv.server.process import loop_factory
from raftkv.server.server import Listen
from raftkv.server.tls import client_context
from tests.certificates import Authority


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, loop_factory()], ids=["asyncio", "uvloop"])
def test_a_certificate_makes_a_connection_its_users(tmp_path: Path, make_loop: object) -> None:
    """Its name decides, as TLS has accepted it: a user's rights for one who is listed, nothing for another one. The
    client of the node's own program shows nothing, and is asked nothing."""
    authority = Authority(tmp_path)
    names = {name: [str(path) for path in authority.issue(name)] for name in ("node", "boss", "ann", "other")}

    def context(name: str) -> object:
        cert, key = names[name]
        return client_context(str(authority.path), cert, key)

    async def main() -> None:
        cert, key = names["node"]
        tls = Tls.from_files(ca=str(authority.path), cert=cert, key=key)
        async with Server(KeyValue, data_dir=tmp_path / "data", tls=tls) as server:
            where = [server.address]
            async with Admin(where, ssl=context("boss")) as boss:
                await boss.change_access(NewUser("boss", "", ("root",), ("boss",)))
                await boss.change_access(AddRole("clerk"))
                await boss.change_access(GrantRight("clerk", Grant("write", b"orders/")))
                await boss.change_access(NewUser("ann", "", ("clerk",), ("ann",)))
            async with Admin(where, ssl=context("boss")) as boss, Admin(where, ssl=context("other")) as other:
                await boss.change_access(Enable())
                assert (await boss.status())["node_id"] == 1
                with pytest.raises(Unauthenticated, match="'other"):
                    await other.status()
            async with Client(KeyValue, where, ssl=context("ann")) as ann:
                await ann.put(b"orders/1", b"paid")
                with pytest.raises(Forbidden, match="ann may not"):
                    await ann.put(b"other", b"v")
            near = server.client(ssl=context("other"))
            assert (await near.call(KeyValue.get, b"orders/1")).value == b"paid"

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


def test_a_scraper_reads_metrics_by_its_token_over_https(tmp_path: Path) -> None:
    """The whole way, as the README says it: the right `metrics`, a token, and HTTPS that asks for no certificate."""
    authority = Authority(tmp_path)
    cert, key = map(str, authority.issue("node"))
    trusted = ssl.create_default_context(cafile=str(authority.path))
    trusted.check_hostname = False

    def ask(port: int | None, path: str, token: str | None) -> int:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusted, timeout=30)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert (answer.status == 200) == (b"raftkv_term" in answer.read()), path
        connection.close()
        return answer.status

    async def main() -> None:
        tls = Tls.from_files(ca=str(authority.path), cert=cert, key=key, http="server")
        listen = Listen(http_sign_in="all")
        async with Server(KeyValue, data_dir=tmp_path / "data", tls=tls, listen=listen, http="127.0.0.1:0") as server:
            async with Admin([server.address], ssl=client_context(str(authority.path), cert, key)) as admin:
                await admin.change_access(AddRole("scraper"))
                await admin.change_access(GrantRight("scraper", Grant("admin", "metrics")))
                await admin.change_access(NewUser("prometheus", "", ("scraper",)))
                token = await admin.change_access(NewToken("prometheus"))
            for shown, code in ((None, 401), (token + "x", 401), (token, 200)):
                assert await asyncio.to_thread(ask, server.http_port, "/metrics", shown) == code
            assert await asyncio.to_thread(ask, server.http_port, "/status", token) == 403

    asyncio.run(main())
