"""What an engine takes in from clients: when it refuses, what it holds back, and that everybody hears an end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from raftkv import failpoints
from raftkv.core.messages import AppendEntries, InstallSnapshot, TimeoutNow
from raftkv.core.ready import Ready
from raftkv.errors import Busy, DiskLow, NodeStopped, NotLeader, RaftKVError, SafetyViolation, Unavailable
from raftkv.node.engine import Engine
from raftkv.node.waiting import Commands, Queries, Query
from raftkv.testing.world.loop import elapse
from tests.node.parts import Body, tell
from tests.snapshot.worlds import meta


class Node:
    """An engine whose node leads in term 3; the core's Readys are what a test says."""

    def __init__(self):
        self.readys, self.proposed, self.roles = [], [], []
        self.error = None
        raft = {
            "node_id": 1, "term": 3, "leader": 1, "is_leader": True, "has_output": False, "propose": self.propose,
            "read": lambda token: None, "ready": lambda: self.readys.pop(0) if self.readys else None,
            "config": SimpleNamespace(lease_reads=False), "persisted": lambda write: None,
        }  # fmt: skip
        self.body = Body(raft, waiting_requests_max=4)
        self.body.transport.cork = self.body.transport.uncork = lambda: None
        self.body.world.now_ms = self.body.world.monotonic_ms = self.body.world.clock = lambda: 0
        self.commands, self.queries = Commands(), Queries(1)
        self.told, self.installed, self.sent_snapshots = [], [], []
        self.log = {}
        self.engine = Engine(
            self.body,
            log=SimpleNamespace(cached=lambda first, last: self.log.get((first, last)), load=None, stage=None),
            writer=SimpleNamespace(end_turn=lambda *, has_sent: None, enqueue=None),
            applier=SimpleNamespace(lag=0, answer_queries=lambda: None, hand_in=None),
            commands=self.commands, queries=self.queries, count_time=lambda: None,
            send_snapshot=lambda to, snapshot: self.sent_snapshots.append((to, snapshot)),
            install_snapshot=lambda *told: self.installed.append(told), on_role=lambda: self.roles.append(1),
        )  # fmt: skip

    def propose(self, payloads, now_ms, monotonic_ms):
        if self.error is not None:
            raise self.error
        self.proposed += payloads
        return len(self.proposed) - len(payloads) + 1, None

    def submit(self, payload):
        self.engine.submit(payload, lambda index, outcome: self.told.append((index, outcome)))

    def ask(self):
        self.engine.query(Query(b"q", lambda index, result: self.told.append((index, result))))


def test_who_comes_too_late_or_too_often_is_told_at_once():
    """Not the leader; no room on the disk; as many wait as may: nothing is taken in."""

    async def story():
        node = Node()
        for _ in range(4):
            node.submit(b"c")
            node.ask()
        with pytest.raises(Busy, match="commands wait on this node"):
            node.submit(b"c")
        with pytest.raises(Busy, match="4 queries wait"):
            node.ask()
        assert node.engine.waiting == 8
        other = Node()
        other.engine.refuse_writes = DiskLow("no room")
        with pytest.raises(DiskLow):
            other.submit(b"c")
        other.body.raft.is_leader, other.body.raft.leader = False, None
        for take_in in (other.ask, lambda: other.submit(b"c")):
            with pytest.raises(NotLeader):
                take_in()
        await elapse(0)
        assert (len(node.proposed), other.proposed, other.told) == (4, [], [])

    tell(story)


def test_commands_that_are_held_get_into_the_log_when_they_may():
    """At once, though nothing else happens; meanwhile they count as waiting."""

    async def story():
        node = Node()
        node.engine.hold(True)
        node.submit(b"c")
        await elapse(1)
        assert (node.proposed, node.engine.waiting, node.engine.has_pending) == ([], 1, False)
        node.engine.hold(False)
        assert node.engine.has_pending
        await elapse(0)
        assert node.proposed == [b"c"]
        node.engine.hold(True)
        node.engine.hold(False)
        assert not node.engine.has_pending, "nothing waits"

    tell(story)


def test_a_command_that_the_core_refuses_is_told_so_and_a_violation_stops_the_node():
    """Index 0: there is none. What must not be is nobody's refusal: the node fails, and nobody is told that it was not
    done."""

    async def story():
        node = Node()
        node.error = Unavailable("a handover is under way")
        node.submit(b"c")
        await elapse(0)
        assert node.told == [(0, node.error)]
        node.error = SafetyViolation("two leaders")
        node.submit(b"c")
        await elapse(0)
        assert node.body.failures == [node.error]
        assert len(node.told) == 1

    tell(story)


def test_everybody_hears_of_the_end():
    """Commands before the log and in it, and queries; later inputs lead to nothing."""

    async def story():
        node = Node()
        node.submit(b"in the log")
        await elapse(0)
        node.submit(b"not yet")
        node.ask()
        error = NodeStopped("the end")
        node.engine.stop(error)
        assert sorted(index for index, _ in node.told) == [0, 0, 0]
        assert {outcome for _, outcome in node.told} == {error}
        assert (node.engine.stopped, node.engine.waiting) == (True, 0)
        await elapse(1)
        assert node.proposed == [b"in the log"]

    tell(story)


def test_queries_whose_round_is_dropped_are_told():
    """The leader was lost before it was confirmed: whoever asked may ask again."""

    async def story():
        node = Node()
        node.ask()
        await elapse(0)
        node.readys = [Ready(write=0, reads_dropped=[(1 << 32) + 1])]
        node.engine.turn()
        ((index, error),) = node.told
        assert index == 0
        assert isinstance(error, RaftKVError)

    tell(story)


def test_who_led_tells_that_commands_are_in_doubt_and_who_followed_has_none():
    """They may still be committed by another leader."""

    async def story():
        node = Node()
        node.submit(b"c")
        await elapse(0)
        node.body.raft.leader = 2
        node.engine.turn()
        assert [index for index, _ in node.told] == [0]
        assert len(node.roles) == 1
        node.commands.add(9, 3, [lambda index, outcome: node.told.append("it was not in doubt")])
        node.body.raft.leader = 3
        node.engine.turn()
        assert (len(node.roles), len(node.told)) == (2, 1)

    tell(story)


def test_a_message_that_is_left_out_holds_up_no_other(monkeypatch):
    """Each goes its own way: a snapshot by its transfer, a dropped one nowhere, entries with what they name."""

    async def story():
        node = Node()
        monkeypatch.setattr(failpoints, "reach", lambda name: name == "send.timeout_now")
        heartbeat, entries = (
            AppendEntries(
                sender=1, to=2, term=3, prev_index=4, prev_term=2, prev_chain=0, last_index=last, commit_index=4,
                round=1, entries=[],
            )
            for last in (4, 5)
        )  # fmt: skip
        node.log[5, 5] = ["entry 5"]
        messages = [
            TimeoutNow(sender=1, to=2, term=3),
            InstallSnapshot(sender=1, to=3, term=3, snapshot=meta(10)),
            entries,
            heartbeat,
        ]
        node.readys = [Ready(write=0, messages=messages), Ready(write=0, snapshot=meta(20), snapshot_keeps_log=True)]
        sent = []
        node.body.transport.send = lambda to, message: sent.append((message, list(message.entries)))
        node.engine.turn()
        assert sent == [(entries, ["entry 5"]), (heartbeat, [])]
        assert node.sent_snapshots == [(3, meta(10))]
        assert node.installed == [(meta(20), True)]

    tell(story)


def test_what_is_durable_is_told_to_peers_first_and_to_clients_in_the_same_turn(monkeypatch):
    """All of it in one flush of each connection; a node that is killed in between has told no client."""

    async def story():
        node = Node()
        steps = []
        node.body.transport.cork = lambda: steps.append("cork")
        node.body.transport.uncork = lambda: steps.append("uncork")
        node.body.transport.send = lambda to, message: steps.append("send")
        node.body.raft.persisted = lambda write: steps.append(f"{write} is durable")
        node.body.raft.ready = lambda: steps.append("turn")
        monkeypatch.setattr(failpoints, "reach", lambda name: steps.append(name))
        node.engine.durable(7, [TimeoutNow(sender=1, to=2, term=3)])
        assert steps == [
            "cork", "send.before", "send", "send.after", "7 is durable", "cork", "turn", "uncork", "uncork",
        ]  # fmt: skip

    tell(story)


def test_a_command_that_is_in_the_log_hears_of_the_end_whatever_comes_next(monkeypatch):
    """The node stops between the core and the disk: it may be done by others, and somebody waits for it."""

    async def story():
        node = Node()

        def reach(name):
            raise NodeStopped(name)

        monkeypatch.setattr(failpoints, "reach", reach)
        node.submit(b"c")
        await elapse(0)
        (error,) = node.body.failures
        node.engine.stop(error)
        assert node.told == [(0, error)]

    tell(story)


@pytest.mark.parametrize("found", ["all", "the first", "the first, and the others in memory", "nothing in time"])
def test_an_append_has_the_entries_that_it_names(found):
    """What is not on disk yet is in memory; if it is in neither, the follower gets what there is, and asks again."""

    async def story():
        node = Node()
        worker = node.body.world.log_worker
        worker.eager = False
        sent = []
        node.body.transport.send = lambda to, message: sent.append(
            (message.last_index, [entry.index for entry in message.entries])
        )
        append = AppendEntries(
            sender=1, to=2, term=3, prev_index=4, prev_term=2, prev_chain=0, last_index=6, commit_index=4, round=1,
            entries=[],
        )  # fmt: skip
        node.readys = [Ready(write=0, messages=[append])]
        node.engine.turn()
        assert sent == []
        read = worker.queue.popleft()[0]
        if found == "nothing in time":
            node.engine.stop(NodeStopped("the end"))
        if found.endswith("memory"):
            node.log[6, 6] = [SimpleNamespace(index=6)]
        on_disk = (5, 6) if found in ("all", "nothing in time") else (5,)
        read.set_result([SimpleNamespace(index=index) for index in on_disk])
        await elapse(0)
        assert sent == {"the first": [(5, [5])], "nothing in time": []}.get(found, [(6, [5, 6])])

    tell(story)
