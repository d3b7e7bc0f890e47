"""A client's view: each query goes to the node that holds it, and is of its index."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from raftkv.client.call import Answer
from raftkv.client.view import View, open_view
from raftkv.errors import InvalidArgument, RaftKVError, Unavailable
from raftkv.kv import KeyValue
from raftkv.wire import RequestKind


class Node:
    """Answers as if it held view 3, of index 7."""

    def __init__(self) -> None:
        self.asked: list[RequestKind] = []
        self.index = 7
        self.fails = False

    async def ask(self, kind: RequestKind, payload: bytes, deadline_s: float) -> Answer:
        self.asked.append(kind)
        if self.fails:
            raise Unavailable("it has gone")
        if kind is RequestKind.VIEW_OPEN:
            return Answer(msgspec.msgpack.encode(3), self.index)
        number, *_ = (
            [msgspec.msgpack.decode(payload)] if kind is RequestKind.VIEW_CLOSE else msgspec.msgpack.decode(payload)
        )
        assert number == 3
        return Answer(msgspec.msgpack.encode(None), self.index)


def test_all_queries_of_a_view_are_of_its_index() -> None:
    """An answer of another one is an error, not a mixture of two states; that a view can't be closed is none."""

    async def story() -> None:
        node = Node()
        view: View = await open_view(node.ask, 1.0)
        get, put = (KeyValue.methods[name] for name in ("get", "put"))
        assert (view.index, await view.invoke(get, (b"k",), {}, 1.0)) == (7, None)
        with pytest.raises(InvalidArgument, match="only read"):
            await view.invoke(put, (b"a", b"1"), {}, 1.0)
        node.index = 8
        with pytest.raises(RaftKVError, match="a view of index 7 was answered at index 8"):
            await view.invoke(get, (b"k",), {}, 1.0)
        node.fails = True
        await view.close()
        assert node.asked[-1] is RequestKind.VIEW_CLOSE

    asyncio.run(story())
