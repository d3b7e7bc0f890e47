"""The key-value clients: typed calls, and limits checked before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

import pytest

from raftkv.errors import InvalidArgument
from raftkv.kv import (
    BlockingKeyValueClient,
    Delete,
    Exists,
    Get,
    Increment,
    KeyValueClient,
    LimitExceeded,
    Missing,
    OperationResult,
    Put,
    Stamp,
)
from raftkv.kv.model import KEY_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, VALUE_BYTES_MAX
from raftkv.testing.world.loop import SimLoop
from tests.client.cluster import FakeCluster


def run(story: Callable[[FakeCluster, KeyValueClient], Awaitable[None]]) -> None:
    """Tell `story` with a fresh cluster and client, in virtual time."""
    loop = SimLoop()

    async def main() -> None:
        cluster = FakeCluster()
        async with KeyValueClient(cluster.addresses, dial=cluster.network.dial) as kv:
            await story(cluster, kv)

    loop.run(main())
    assert loop.failures == []


def test_every_call_does_what_it_says() -> None:
    """A walk through the whole client."""

    async def story(cluster: FakeCluster, kv: KeyValueClient) -> None:
        stamp = await kv.put(b"a", b"1")
        assert stamp == Stamp(cluster.log.index, cluster.log.index, 1)
        assert await kv.compare_and_set(b"a", b"1", b"2")
        assert not await kv.compare_and_set(b"a", b"1", b"3")
        assert await kv.compare_and_set(b"c", None, b"new")
        assert await kv.increment(b"n", 5) == 5
        result = await kv.transact(
            [Exists(b"a"), Missing(b"z")], [Put(b"z", b""), Increment(b"n"), Get(b"a"), Delete(b"c")], [Delete(b"a")]
        )
        item = await kv.get(b"a")
        assert item is not None
        assert item.value == b"2"
        assert result.succeeded
        assert result.results[1:] == [
            OperationResult(counter=6),
            OperationResult(item=item),
            OperationResult(deleted=True),
        ]
        assert [found.key for found in (await kv.range()).items] == [b"a", b"n", b"z"]
        assert [found.key for found in (await kv.range(reverse=True, limit=1)).items] == [b"z"]
        read = await kv.get_stale(b"a")
        assert read.value == item
        assert read.index == cluster.log.index
        assert await kv.delete(b"a", deadline_s=1)
        assert await kv.get(b"a") is None

    run(story)


def test_prefixes_are_read_page_by_page() -> None:
    """Each page says where the next begins."""

    async def story(cluster: FakeCluster, kv: KeyValueClient) -> None:
        for number in range(25):
            await kv.put(b"a/%02d" % number, b"")
        await kv.put(b"b", b"")
        first = await kv.prefix(b"a/", limit=20)
        assert first.next == b"a/20"
        rest = await kv.prefix(b"a/", after=first.next, limit=20)
        assert [len(first.items), len(rest.items), rest.next] == [20, 5, None]
        assert len([item async for item in kv.items(page=7)]) == 26

    run(story)


def test_limits_are_checked_before_anything_is_sent() -> None:
    """Too large and wrongly typed arguments are typed errors at the edge."""

    async def story(cluster: FakeCluster, kv: KeyValueClient) -> None:
        too_long = bytes(KEY_BYTES_MAX + 1)
        for call in [
            lambda: kv.put(too_long, b""),
            lambda: kv.put(b"", b""),
            lambda: kv.put(b"a", bytes(VALUE_BYTES_MAX + 1)),
            lambda: kv.get(too_long),
            lambda: kv.delete(too_long),
            lambda: kv.increment(b"a", 2**63),
            lambda: kv.compare_and_set(b"a", None, bytes(VALUE_BYTES_MAX + 1)),
            lambda: kv.range(limit=0),
            lambda: kv.range(limit=10**6),
            lambda: kv.range(start=bytes(KEY_BYTES_MAX + 2)),
            lambda: kv.transact([], [Get(b"a")] * (TRANSACTION_OPERATIONS_MAX + 1)),
            lambda: kv.transact([Exists(too_long)], []),
        ]:
            with pytest.raises(LimitExceeded):
                await call()
        with pytest.raises(InvalidArgument):
            await kv.put("a", b"1")  # type: ignore[arg-type]
        assert cluster.network.dialled == []

    run(story)


@pytest.mark.parametrize(
    "name", ["put", "delete", "compare_and_set", "increment", "transact", "get", "range", "prefix"]
)
def test_both_clients_have_the_same_calls(name: str) -> None:
    """One declaration: the same arguments, result and words; one is awaited, the other is not."""
    awaited, blocking = getattr(KeyValueClient, name), getattr(BlockingKeyValueClient, name)
    assert inspect.iscoroutinefunction(awaited)
    assert not inspect.iscoroutinefunction(blocking)
    assert inspect.signature(awaited) == inspect.signature(blocking)
    assert "KeyValueRequest" not in str(inspect.signature(awaited))
    assert awaited.__doc__ == blocking.__doc__ and awaited.__doc__
