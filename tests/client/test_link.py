"""A client's connection, by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from raftkv.client.call import PendingCall
from raftkv.client.link import Link
from raftkv.client.options import ClientOptions
from raftkv.errors import RaftKVError, WrongCluster
from raftkv.testing.world.loop import SimLoop, elapse
from raftkv.wire import (
    PROTOCOL_VERSION,
    FrameDecoder,
    Members,
    Request,
    RequestKind,
    Response,
    ServerHello,
    Status,
    decode_request,
    encode_response,
    encode_server_hello,
)


class Owner:
    """Hears what happens on a link, and may send more when there is room."""

    def __init__(self) -> None:
        self.answered: list[int] = []
        self.lost: list[RaftKVError] = []
        self.room = 0
        self.when_room: Callable[[Link], None] = lambda link: None

    def on_room(self, link: Link) -> None:
        self.room += 1
        self.when_room(link)

    def on_response(self, _link: Link, call: PendingCall, _response: Response) -> None:
        self.answered.append(call.request_id)

    def on_members(self, link: Link, members: Members) -> None:
        raise AssertionError(f"nobody spoke of members, but {link.address} is said to have told {members}")

    def on_lost(self, _link: Link, error: RaftKVError, _calls: Sequence[PendingCall]) -> None:
        self.lost.append(error)


class Wire(asyncio.Transport):
    """The way to a node that says only what a test tells it to say."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[bytes] = []
        self.aborted = False
        self._decoder = FrameDecoder(1 << 20)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no limit here: a test says when it is reached."""

    def write(self, data: Any) -> None:
        self.frames += self._decoder.feed(bytes(data))

    def abort(self) -> None:
        self.aborted = True

    @property
    def requests(self) -> list[Request]:
        """Calls that were sent, without probes."""
        return [request for request in map(decode_request, self.frames[1:]) if request.id]


class Talk:
    """A link that is connected, and greeted unless its node is to be `mute`."""

    def __init__(self, *, cluster_id: str = "", mute: bool = False, **settings: Any) -> None:
        self.owner, self.wire = Owner(), Wire()
        self.link = Link("node:1", self.owner, ClientOptions(**settings), cluster_id)
        self.link.connection_made(self.wire)
        if not mute:
            self.greet("cluster")

    def greet(self, cluster_id: str, *, cancels: bool = False) -> None:
        """The node says hello."""
        self.link.data_received(encode_server_hello(ServerHello(PROTOCOL_VERSION, cluster_id, 1, "", cancels=cancels)))

    def send(self, deadline_s: float = 1000.0, *, parks: bool = False) -> PendingCall:
        """Send a query."""
        loop = asyncio.get_running_loop()
        call = PendingCall(
            RequestKind.QUERY, b"", loop.create_future(), deadline=loop.time() + deadline_s, deadline_s=deadline_s,
            changes_state=False, repeatable=True, stale=False, parks=parks,
        )  # fmt: skip
        self.link.send(call)
        return call

    def fill(self) -> None:
        """Send calls as long as there is room."""
        while self.link.has_room:
            self.send()

    def answer(self, *request_ids: int) -> None:
        """The node answers these requests, at once."""
        self.link.data_received(b"".join(encode_response(Response(each, Status.OK)) for each in request_ids))


def tell(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Tell a story in virtual time."""
    loop = SimLoop()
    loop.run(story())
    assert loop.failures == []


def test_a_link_that_nobody_waits_for_any_more_is_not_ready() -> None:
    """Whoever waited for its handshake gave up; when the connection then breaks, that is no error of anybody's."""

    async def main() -> None:
        owner: Any = None
        link = Link("node:1", owner, ClientOptions())
        assert not link.is_ready
        link.ready.cancel()
        assert not link.is_ready

    asyncio.run(main())


@pytest.mark.parametrize("cancels", [True, False])
def test_a_node_hears_of_callers_that_wait_there_no_longer_if_it_understands(cancels: bool) -> None:
    """Only of what may wait for long and was not answered; an older node would take it for garbage."""

    async def story() -> None:
        talk = Talk(mute=True)
        talk.greet("cluster", cancels=cancels)
        short, answered, waiting = talk.send(), talk.send(parks=True), talk.send(parks=True)
        talk.answer(answered.request_id)
        for call in (short, answered, waiting, waiting):
            talk.link.forget(call)
        await asyncio.sleep(0)
        told = [request.id for request in talk.wire.requests if request.kind is RequestKind.CANCEL]
        assert told == [waiting.request_id] * cancels and not talk.link.outstanding

    asyncio.run(story())


def test_whoever_fills_a_link_is_told_of_room_each_time() -> None:
    """However it comes: by an answer, a caller that goes, a node that reads again; and not while it reads no more.
    What fills it again in the same moment is told the next time as well."""

    async def story() -> None:
        talk = Talk(in_flight_max=2)
        talk.owner.when_room = lambda link: talk.fill()
        talk.fill()
        for number in range(1, 4):
            talk.answer(next(iter(talk.link.outstanding)))
            assert talk.owner.room == number
        talk.link.forget(next(iter(talk.link.outstanding.values())))
        assert talk.owner.room == 4
        talk.link.pause_writing()
        talk.answer(*talk.link.outstanding)
        assert (talk.owner.room, talk.link.outstanding, talk.link.has_room) == (4, {}, False)
        talk.link.resume_writing()
        assert (talk.owner.room, len(talk.link.outstanding)) == (5, 2)

    tell(story)


def test_a_link_is_not_given_up_for_the_time_when_nobody_asked() -> None:
    """Idle from the beginning or after an answer, however long: silence counts from the first call that waits."""

    async def story() -> None:
        talk = Talk(silence_s=2.0)
        for _ in range(2):
            await elapse(100)
            call = talk.send()
            await elapse(0.7)  # a probe was due meanwhile
            talk.answer(call.request_id)
            await elapse(0)
        assert (len(talk.owner.answered), talk.owner.lost) == (2, [])

    tell(story)


def test_calls_that_keep_coming_do_not_hide_that_none_is_answered() -> None:
    """The node shows signs of life, and does nothing: the first call's silence counts."""

    async def story() -> None:
        talk = Talk(silence_s=2.0)
        for _ in range(9):
            talk.send()
            await elapse(0.3)
            talk.answer(0)
        assert [str(error) for error in talk.owner.lost] == ["no answer for 2 s"]
        assert asyncio.get_running_loop().time() < 3

    tell(story)


def test_a_node_is_told_how_long_its_answer_is_waited_for() -> None:
    """In milliseconds, and at least one: 0 would mean no deadline."""

    async def story() -> None:
        talk = Talk()
        for deadline_s in (3.0, 0.0019, 0.0001):
            talk.send(deadline_s)
        await elapse(0)
        assert [request.deadline_ms for request in talk.wire.requests] == [3_000, 1, 1]

    tell(story)


@pytest.mark.parametrize("theirs", ["another", ""])
def test_a_node_of_another_cluster_is_not_spoken_to(theirs: str) -> None:
    """Nor one that has joined none: a client of one cluster has a session there, and its number means something else
    elsewhere."""

    async def story() -> None:
        talk = Talk(cluster_id="cluster", mute=True)
        with pytest.raises(WrongCluster):
            talk.greet(theirs)
            await talk.link.ready
        assert not talk.link.is_ready
        assert talk.wire.aborted

    tell(story)


def test_a_broken_connection_says_what_broke_it() -> None:
    """As far as the system says it; and whether there was a greeting, as a node that speaks TLS sends none."""

    async def story() -> None:
        greeted, mute = Talk(), Talk(mute=True)
        greeted.link.connection_lost(ConnectionResetError("reset by peer"))
        assert "reset by peer" in str(greeted.owner.lost[0])
        mute.link.connection_lost(None)
        with pytest.raises(RaftKVError, match="does it speak TLS") as caught:
            await mute.link.ready
        assert "None" not in str(caught.value)

    tell(story)
