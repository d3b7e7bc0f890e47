"""The handshake with a cluster secret: only who knows it is believed, and what was recorded is worth nothing."""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raftkv.errors import FrameError, HandshakeRefused, WrongSecret
from raftkv.model import NodeId
from raftkv.transport import Demands, MemoryTransport, PeerSecret, SecretFile, TcpTransport
from raftkv.transport.limits import TransportLimits
from raftkv.transport.mesh import Mesh
from raftkv.transport.proof import NONCE_BYTES, AcceptorProof, DiallerProof
from raftkv.transport.reasons import Reason
from raftkv.transport.refusals import LINES_MAX
from raftkv.wire import Challenge, DigestReport, Hello, HelloReply, Ping, Proven, Removal, encode_message
from raftkv.wire.frame import FRAME_HEAD_BYTES
from tests.logged import capture_logs
from tests.transport.raw import Listening, connect, hello
from tests.transport.test_secret import NEW, OLD, write
from tests.transport.worlds import CONFIG, MemoryWorld, Talker, TcpWorld, tell

SECRET = PeerSecret([OLD])
REPLY = HelloReply(hello(2), "")


class Dice:
    """Nonces that never come twice."""

    def __init__(self) -> None:
        self._dice = random.Random(5)

    def __call__(self) -> bytes:
        return self._dice.randbytes(NONCE_BYTES)


NONCE = Dice()


def dialler(secret: PeerSecret | None = SECRET, peer: NodeId = 2, own: NodeId = 1) -> DiallerProof:
    """Node 1, which dials node 2."""
    return DiallerProof(secret, peer, lambda: hello(own), NONCE)


def acceptor(secret: PeerSecret | None = SECRET, own: NodeId = 2) -> AcceptorProof:
    """Node 2, which is dialled."""
    return AcceptorProof(secret, own, NONCE)


def sent(message: Any) -> bytes:
    """A message as it stands within a proof."""
    return encode_message(message)[FRAME_HEAD_BYTES:]


def introduced(one: DiallerProof, two: AcceptorProof) -> Proven:
    """The dialler's proven hello, after both challenges."""
    first = one.begin()
    assert isinstance(first, Challenge)
    challenge = two.take(first)
    assert isinstance(challenge, Challenge) and challenge.nonce != first.nonce
    proven = one.take(challenge)
    assert isinstance(proven, Proven)
    return proven


def test_who_knows_the_secret_believes_and_is_believed() -> None:
    """Hello and reply arrive as they were said, each with a proof, and the secret is in none of them."""
    one, two = dialler(), acceptor()
    proven = introduced(one, two)
    assert two.take(proven) == hello(1)
    reply = two.answer(REPLY)
    assert isinstance(reply, Proven) and reply.to == 1 and proven.to == 2
    assert one.take(reply) == REPLY
    assert OLD not in encode_message(proven) + encode_message(reply)


def test_without_a_secret_nothing_else_is_said_than_before() -> None:
    """The first frame is the hello, the second the reply, as nodes of older versions say them."""
    one, two = dialler(None), acceptor(None)
    first = one.begin()
    assert first == hello(1) and two.take(first) == hello(1)
    assert two.answer(REPLY) is REPLY and one.take(REPLY) is REPLY


def test_a_recorded_hello_is_worth_nothing_again() -> None:
    """On a new connection the acceptor's nonce is another one, whatever the dialler says."""
    one, two = dialler(), acceptor()
    first = one.begin()
    assert isinstance(first, Challenge)
    recorded = one.take(two.take(first))
    again = acceptor()
    again.take(first)
    with pytest.raises(WrongSecret, match="another cluster secret"):
        again.take(recorded)


def test_a_recorded_reply_is_worth_nothing_again() -> None:
    """Nor is the acceptor's challenge with it: the dialler has drawn a nonce of its own."""
    one, two = dialler(), acceptor()
    first = one.begin()
    challenge = two.take(first)
    two.take(one.take(challenge))
    recorded = two.answer(REPLY)
    later = dialler()
    later.begin()
    later.take(challenge)
    with pytest.raises(WrongSecret, match="another cluster secret"):
        later.take(recorded)


def test_what_is_sent_back_to_its_sender_proves_nothing() -> None:
    """One who knows no secret gives a dialler its own challenge and its own proof, in either message's form."""
    forms: list[Callable[[Proven], Proven]] = [
        lambda own: own,
        lambda own: Proven(1, own.message, own.proof),
        lambda own: Proven(1, sent(REPLY), own.proof),
    ]
    for form in forms:
        one = dialler()
        first = one.begin()
        assert isinstance(first, Challenge)
        own = one.take(Challenge(first.nonce))
        assert isinstance(own, Proven)
        with pytest.raises(WrongSecret):
            one.take(form(own))


def test_a_hello_for_one_node_is_none_for_another() -> None:
    """Somebody on the way leads a dialler to another node of the cluster: that one takes nothing, and says so."""
    one, third = dialler(peer=2), acceptor(own=3)
    proven = introduced(one, third)
    with pytest.raises(HandshakeRefused, match="node 3 answers at the address where node 1 dials node 2") as caught:
        third.take(proven)
    assert not isinstance(caught.value, WrongSecret)
    refusal = HelloReply(None, str(caught.value))
    assert one.take(third.answer(refusal)) == refusal, "it is proven, so it can be believed"
    changed = msgspec.structs.replace(proven, to=3)
    other = acceptor(own=3)
    other.take(dialler().begin())
    with pytest.raises(WrongSecret):
        other.take(changed)


@pytest.mark.parametrize(
    "changed",
    [{"cluster_id": "other"}, {"node_id": 7}, {"address": "10.0.0.9:1"}, {"incarnation": "wiped"}, {"boot": 2}],
)
def test_a_hello_that_was_changed_on_the_way_is_refused(changed: dict[str, Any]) -> None:
    """Each field is part of what is proven: cluster, ids and all."""
    one, two = dialler(), acceptor()
    proven = introduced(one, two)
    tampered = sent(msgspec.structs.replace(hello(1), **changed))
    with pytest.raises(WrongSecret):
        two.take(msgspec.structs.replace(proven, message=tampered))


@pytest.mark.parametrize("changed", [{"cluster_id": "other"}, {"node_id": 7}])
def test_a_reply_that_was_changed_on_the_way_is_refused(changed: dict[str, Any]) -> None:
    """So is a refusal that somebody makes up: it is shown, and a removal in it is not believed."""
    one, two = dialler(), acceptor()
    two.take(introduced(one, two))
    reply = two.answer(REPLY)
    assert isinstance(reply, Proven)
    tampered = sent(HelloReply(msgspec.structs.replace(hello(2), **changed), ""))
    with pytest.raises(WrongSecret):
        one.take(msgspec.structs.replace(reply, message=tampered))


def test_a_reply_to_another_hello_is_refused() -> None:
    """The reply is bound to the hello that it answers: the acceptor has heard what the dialler has said."""
    one, two = dialler(), acceptor()
    first = one.begin()
    assert isinstance(first, Challenge)
    challenge = two.take(first)
    assert isinstance(challenge, Challenge)
    one.take(challenge)
    liar = DiallerProof(SECRET, 2, lambda: msgspec.structs.replace(hello(1), boot=9), lambda: first.nonce)
    liar.begin()
    two.take(liar.take(challenge))
    with pytest.raises(WrongSecret):
        one.take(two.answer(REPLY))


def test_a_made_up_refusal_removes_nobody() -> None:
    """Without a proof, nothing but its text gets through, and that says that it is not proven."""
    one = dialler()
    one.begin()
    removal = Removal("c", 2, "i", 5, 1, True)
    with pytest.raises(HandshakeRefused, match="without a proof of the cluster secret, it says: go away") as caught:
        one.take(HelloReply(None, "go away" + "!" * 10_000, removal))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        (None, SECRET, "node 2 demands a proof of the cluster secret, and node 1 gives none"),
        (SECRET, None, "node 2 has no cluster secret, and who dials it has one"),
    ],
)
def test_who_has_none_is_told_so(here: PeerSecret | None, there: PeerSecret | None, said: str) -> None:
    """Either way it is a `WrongSecret` at the acceptor, with what to do."""
    with pytest.raises(WrongSecret, match=f"{said}.*--peer-secret-file"):
        acceptor(there).take(dialler(here).begin())


def test_a_reply_without_a_proof_is_not_believed() -> None:
    """One who knows no secret answers as if none were needed."""
    one = dialler()
    one.begin()
    with pytest.raises(WrongSecret, match="does not prove that it knows the cluster secret"):
        one.take(REPLY)


@pytest.mark.parametrize(
    "message", [Ping(1), Challenge(b"short"), Proven(2, b"", b""), DigestReport(1, 1), Challenge(b""), REPLY]
)
def test_what_is_no_part_of_a_handshake_is_garbage_to_an_acceptor(message: Any) -> None:
    """A proof before the challenge, a challenge of another size, anything else."""
    with pytest.raises(FrameError):
        acceptor().take(message)


def test_each_step_comes_once() -> None:
    """A second challenge, or a second hello, is no handshake."""
    one, two = dialler(), acceptor()
    proven = introduced(one, two)
    for message in (Challenge(bytes(NONCE_BYTES)), Ping(1), hello(1)):
        with pytest.raises(FrameError):
            two.take(message)
    with pytest.raises(FrameError):
        one.take(Challenge(bytes(NONCE_BYTES)))
    two.take(proven)
    with pytest.raises(FrameError):
        two.take(proven)


def test_a_proof_is_of_what_it_is_said_to_be_of() -> None:
    """Its form is kept: nodes of two versions must make the same one. What is proven must be a hello, too."""
    for message, is_right in ((hello(1), True), (Ping(1), False)):
        two = acceptor()
        challenge = two.take(Challenge(bytes(NONCE_BYTES)))
        assert isinstance(challenge, Challenge)
        said = [bytes(NONCE_BYTES), challenge.nonce, "raftkv dialler", 2, sent(message)]
        proof = hmac.digest(OLD, msgspec.msgpack.encode(said), "sha256")
        if not is_right:
            with pytest.raises(FrameError, match="a Ping instead of a hello"):
                two.take(Proven(2, sent(message), proof))
            continue
        assert two.take(Proven(2, sent(message), proof)) == message
        reply = two.answer(REPLY)
        assert isinstance(reply, Proven)
        said += ["raftkv acceptor", 1, sent(REPLY)]
        assert reply.proof == hmac.digest(OLD, msgspec.msgpack.encode(said), "sha256")


def secrets_world(secrets: Mapping[NodeId, PeerSecret | None]) -> type[MemoryWorld]:
    """Nodes in memory, each with a secret of its own or without one."""

    class SecretsWorld(MemoryWorld):
        def transport(self, node_id: NodeId, address: str | None, limits: TransportLimits) -> Mesh:
            return MemoryTransport(
                self.network,
                node_id,
                address or f"node-{node_id}:1",
                config=CONFIG,
                draw=random.Random(node_id).randrange,
                limits=limits,
                demands=Demands(secrets[node_id]),
            )

    return SecretsWorld


class Watcher(Talker):
    """Counts the hellos that it was asked to judge."""

    asked = 0

    def check_hello(self, hello: Hello) -> None:
        self.asked += 1
        super().check_hello(hello)


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({1: SECRET, 2: None}, ("has no cluster secret", "demands a proof of the cluster secret")),
        ({1: None, 2: SECRET}, ("demands a proof of the cluster secret", "has no cluster secret")),
        ({1: SECRET, 2: PeerSecret([NEW])}, ("has another cluster secret", "has another cluster secret")),
    ],
    ids=["only this one", "only the other", "another one"],
)
def test_nodes_with_different_secrets_take_nothing_of_each_other(
    secrets: dict[NodeId, PeerSecret | None], said: tuple[str, str]
) -> None:
    """Both say so in their status and in the log, as long as it lasts; no hello is judged, no message is heard."""

    async def story(world: MemoryWorld) -> None:
        watchers = [await world.start(node_id, talker=Watcher(node_id)) for node_id in (1, 2)]
        world.introduce(1, 2)
        links = [lambda a=a: world.nodes[a].links()[3 - a] for a in (1, 2)]
        await world.until(lambda: all(link().refused for link in links))
        for link, text in zip(links, said, strict=True):
            assert text in link().refused and "--peer-secret-file" in link().refused
            assert not link().connected and not link().refused_here
            assert link().unreached.reason is Reason.HANDSHAKE
        assert all(world.nodes[a].stats.handshake_refused for a in (1, 2))
        assert not any(watcher.asked or watcher.messages or watcher.lost for watcher in watchers)

    with capture_logs() as lines:
        tell(story, secrets_world(secrets))
    assert {line["kind"] for line in lines if line["event"] == "stranger_refused"} == {"secret"}
    assert {line["peer"] for line in lines if line["event"] == "handshake_refused"} == {1, 2}
    assert not any(OLD.decode() in str(line) for line in lines)


def test_a_secret_is_replaced_node_by_node_while_all_go_on(tmp_path: Path) -> None:
    """Old; old and new; new and old; new: at each step every pair of nodes can connect anew."""
    files = {node_id: tmp_path / f"secret-{node_id}" for node_id in (1, 2, 3)}
    kept = {node_id: SecretFile(write(path, OLD)) for node_id, path in files.items()}

    async def story(world: MemoryWorld) -> None:
        talkers = {node_id: await world.start(node_id) for node_id in files}
        world.introduce(*files)

        async def connect_anew() -> None:
            for node_id in files:
                for peer in files:
                    world.nodes[node_id].drop(peer, "to see whether it comes back")
            links = [world.nodes[a].links for a in files]
            await world.until(lambda: all(link.connected for each in links for link in each().values()))

        for content in (OLD + b"\n" + NEW, NEW + b"\n" + OLD, NEW):
            for node_id, path in files.items():
                write(path, content)
                assert kept[node_id].is_replaced()
                kept[node_id].renew()
                await connect_anew()
                for sender, peer in ((1, 2), (2, 3), (3, 1)):
                    assert world.nodes[sender].send(peer, DigestReport(1, sender))
                    await talkers[peer].until(lambda peer=peer: talkers[peer].messages)
                    assert talkers[peer].messages.pop() == (sender, DigestReport(1, sender))
        assert not any(world.nodes[node_id].stats.handshake_refused for node_id in files)
        kept[1].take([OLD])
        world.nodes[1].drop(2, "it has the old one alone")
        await world.until(lambda: world.nodes[2].links()[1].refused)

    tell(story, secrets_world(kept))


class ProvingTcpWorld(TcpWorld):
    """Nodes on loopback that know the secret."""

    def transport(self, node_id: NodeId, address: str | None, limits: TransportLimits) -> Mesh:
        return TcpTransport(
            node_id,
            "127.0.0.1",
            0,
            config=CONFIG,
            draw=random.Random(node_id).randrange,
            limits=limits,
            demands=Demands(SECRET),
        )


def test_a_recording_of_a_whole_connection_is_worth_nothing() -> None:
    """What a node of the cluster once said is said again, byte by byte, with a message behind it."""

    async def story(world: ProvingTcpWorld) -> None:
        one = await world.start(1, talker=Watcher(1))
        member = DiallerProof(SECRET, 1, lambda: hello(2), NONCE)
        said = [member.begin()]
        raw = await connect(world.nodes[1].address)
        raw.say(*said)
        await raw.heard(1)
        said += [member.take(raw.messages[0]), Ping(0), DigestReport(7, 7)]
        raw.say(*said[1:])
        await one.until(lambda: one.messages)
        again = await connect(world.nodes[1].address)
        again.say(said[0])
        await again.heard(1)
        again.say(*said[1:])
        await again.closed()
        assert one.messages == [(2, DigestReport(7, 7))] and one.asked == 1
        (_, refusal) = again.messages
        assert isinstance(refusal, HelloReply) and "another cluster secret" in refusal.refused

    tell(story, ProvingTcpWorld)


def test_a_hello_without_a_proof_is_answered_and_heard_by_nobody() -> None:
    """As a node without the secret says it, or one that only asks what listens there; a flood of them is counted."""

    async def story(world: ProvingTcpWorld) -> None:
        one = await world.start(1, talker=Watcher(1))
        for count in range(1, 8):
            raw = await connect(world.nodes[1].address)
            raw.say(hello(2))
            await raw.closed()
            (refusal,) = raw.messages
            assert isinstance(refusal, HelloReply) and refusal.hello is None
            assert world.nodes[1].stats.handshake_refused == count
        assert not one.asked and not one.messages and not one.lost

    with capture_logs() as lines:
        tell(story, ProvingTcpWorld)
    said = [line for line in lines if line["event"] == "stranger_refused"]
    assert len(said) == LINES_MAX and {line["kind"] for line in said} == {"secret"}


def test_one_who_answers_without_the_secret_hears_nothing_but_a_challenge() -> None:
    """Somebody listens at a member's address: what the dialler says of itself is proven, and no message follows."""

    async def story(world: ProvingTcpWorld) -> None:
        await world.start(1)
        impostor = Listening()
        address = await impostor.start()
        try:
            world.nodes[1].set_peers({2: address})
            raw = await impostor.next()
            (first,) = raw.messages
            assert isinstance(first, Challenge)
            raw.say(HelloReply(hello(2), ""))
            await raw.closed()
            assert raw.messages == [first]
            assert world.nodes[1].links()[2].refused_here
            assert "does not prove that it knows the cluster secret" in world.nodes[1].links()[2].refused
        finally:
            impostor.close()

    tell(story, ProvingTcpWorld)
