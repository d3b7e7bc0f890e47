"""Everything, page by page, as it was at one index; and an honest end when the node holds that state no more."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from raftkv.config import Config
from raftkv.errors import Busy, InvalidArgument, Unavailable, ViewExpired
from raftkv.kv import KeyValue
from raftkv.kv.views import KeyValueView
from raftkv.node.views import Views
from raftkv.testing import elapse, scenario
from raftkv.testing.world.cluster import SimCluster
from raftkv.testing.world.settings import CONFIG


async def write_thirty(cluster: SimCluster) -> None:
    """Thirty keys for views to show."""
    async with cluster.client() as remote:
        for number in range(30):
            await remote.put(b"%02d" % number, b"old")


@scenario(KeyValue)
async def test_all_pages_are_of_the_state_at_one_index(cluster: SimCluster) -> None:
    """F79: whatever is put, changed and deleted between two pages; single reads see the same."""
    await write_thirty(cluster)
    client = cluster.client()
    remote: Any = client.remote
    found = []
    async with KeyValueView(client) as view:
        async for item in view.items(b"", None, page=3):
            found.append((item.key, item.value))
            number = len(found)
            await remote.put(b"%02d" % (number + 4), b"new")
            await remote.put(b"%02d+" % (number + 4), b"new")
            await remote.delete(b"%02d" % (number + 9))
        assert await view.get(b"29") is not None
        stamp = await remote.put(b"last", b"")
        assert view.index < stamp.changed_index
    assert found == [(b"%02d" % number, b"old") for number in range(30)]
    await client.close()
    assert cluster.leader is not None
    assert len(cluster.leader.views) == 0


@scenario(KeyValue)
async def test_a_view_that_nobody_reads_is_let_go_of(cluster: SimCluster) -> None:
    """After half a minute; whoever comes back is told to begin anew, and not given another state."""
    await write_thirty(cluster)
    client = cluster.client()
    async with KeyValueView(client) as view:
        page = await view.range(limit=3)
        for _ in range(3):
            await elapse(20.0)
            assert (await view.range(page.next or b"", limit=3)).items
        await elapse(31.0)
        with pytest.raises(ViewExpired):
            await view.range(page.next or b"", limit=3)
    await client.close()


@scenario(KeyValue)
async def test_another_leader_does_not_have_the_view(cluster: SimCluster) -> None:
    """A client that ends up at another node is told so at once; a view is never taken for that of another node."""
    await write_thirty(cluster)
    client = cluster.client()
    async with KeyValueView(client) as view:
        assert (await view.range(limit=3)).items
        leader = cluster.leader
        assert leader is not None
        cluster.nodes[leader.node_id].crash()
        await cluster.until_leader()
        with pytest.raises(ViewExpired):
            await view.range(b"03", limit=3)
    await client.close()


@scenario(KeyValue, config=msgspec.structs.replace(CONFIG, views_max=2))
async def test_only_so_many_views_are_held(cluster: SimCluster) -> None:
    """One more is refused with `Busy` until there is room; views that were closed make some."""
    await write_thirty(cluster)
    client = cluster.client(deadline_s=2.0)
    async with KeyValueView(client), KeyValueView(client):
        with pytest.raises(Busy):
            await client.open_view()
    await (await client.open_view()).close()
    await client.close()
    with pytest.raises(Unavailable):
        await client.open_view()


@scenario(KeyValue)
async def test_a_view_is_only_read(cluster: SimCluster) -> None:
    """A command on it is refused before it is sent."""
    await write_thirty(cluster)
    client = cluster.client()
    view = await client.open_view()
    with pytest.raises(InvalidArgument):
        await view.invoke(client.method("put"), (b"a", b"b"), {}, 1.0)
    with pytest.raises(RuntimeError):
        await KeyValueView(client).get(b"a")
    await client.close()


class Watched:
    """Stands for a store's view: tells whether it is closed."""

    changes = 0
    closed = False

    def close(self) -> None:
        self.closed = True


def test_a_view_is_closed_only_when_no_query_reads_it():
    """One at a time; when its time is over meanwhile, it is closed after it, and nobody else reads it."""
    now = [0.0]
    views = Views(Config(view_changes_max=10), lambda: now[0], lambda n: 6)
    watched = Watched()
    number = views.open(lambda: watched)  # type: ignore[arg-type, return-value]
    held = views.find(number)
    held.begin()
    with pytest.raises(Busy):
        held.begin()
    watched.changes = 11
    views.sweep()
    assert (len(views), watched.closed, views.expired) == (0, False, 1)
    held.end(now[0])
    assert watched.closed
    with pytest.raises(ViewExpired):
        held.begin()
    with pytest.raises(ViewExpired):
        views.find(number)


@scenario(KeyValue)
async def test_no_view_outlives_its_store(cluster: SimCluster) -> None:
    """When a snapshot replaces the state, its views are closed first, and their clients begin anew."""
    await write_thirty(cluster)
    client = cluster.client()
    async with KeyValueView(client) as view:
        leader = cluster.leader
        assert leader is not None
        await leader.scans.hold()
        leader.scans.resume()
        assert len(leader.views) == 0
        with pytest.raises(ViewExpired):
            await view.get(b"00")
    await client.close()
    await asyncio.sleep(0)
