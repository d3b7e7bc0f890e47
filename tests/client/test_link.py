"""A client's connection, by itself."""

from __future__ import annotations

import asyncio
from typing import Any

from raftkv.client.link import Link
from raftkv.client.options import ClientOptions


def test_a_link_that_nobody_waits_for_any_more_is_not_ready():
    """Whoever waited for its handshake gave up; when the connection then breaks, that is no error of anybody's."""

    async def main() -> None:
        owner: Any = None
        link = Link("node:1", owner, ClientOptions())
        assert not link.is_ready
        link.ready.cancel()
        assert not link.is_ready

    asyncio.run(main())
