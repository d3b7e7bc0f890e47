"""Users of a real node: by the certificates of their connections, and the client of the node's own program."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from raftkv import Admin, Client, Forbidden, Server, Tls, Unauthenticated
from raftkv.access import AddRole, Enable, Grant, GrantRight, NewUser
from raftkv.kv import KeyValue
from raftkv.server.process import loop_factory
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
