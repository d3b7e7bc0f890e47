"""Hosted objects under kills, pauses and partitions: nothing acknowledged is lost, nothing applied twice."""

from __future__ import annotations

import json
import queue
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from raftkv.errors import WrongDataDir
from raftkv.syncobj import SyncObj, SyncObjConf, replicated
from tests.syncobj.clusters import DEADLINE_S, Outcomes, addresses, eventually, others

ROOT = Path(__file__).parent.parent.parent


class Process:
    """One `tests.syncobj.worker`, and what it says."""

    def __init__(self, number, places, directory):
        self.place = places[number]
        self.arguments = [self.place, str(directory / f"journal{number}"), *others(self.place, places)]
        self.acknowledged = []
        self.starts = 0
        self.start()

    def start(self):
        """Start it, again after a kill."""
        self.starts += 1
        self.answers = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.syncobj.worker", *self.arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.reader = threading.Thread(target=self.listen, args=(self.process.stdout, self.answers))
        self.reader.start()

    def listen(self, lines, answers):
        """Sort what it says."""
        with lines:
            for line in lines:
                word, _, rest = line.strip().partition(" ")
                if word != "ack":
                    answers.put((word, rest))
                elif line.endswith("\n"):  # a kill may cut the last line short
                    name, number = rest.split()
                    self.acknowledged.append((name, int(number)))

    def say(self, *words):
        """A line to it."""
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()

    def hear(self, word):
        """The rest of the next line that begins so."""
        while True:
            found, rest = self.answers.get(timeout=DEADLINE_S)
            if found == word:
                return rest

    def ask(self, word, answer=None):
        """Say a word and hear the answer."""
        self.say(word)
        return self.hear(answer or word)

    def end(self, *, kill=True):
        """SIGKILL, or let it end by itself."""
        if kill:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait(DEADLINE_S)
        self.reader.join(DEADLINE_S)


def test_nothing_acknowledged_is_lost_when_processes_are_killed(tmp_path):
    """Three writers, SIGKILL of each node in turn, the leader first, then of all at once; every acknowledged call is
    there once, in its writer's order, and the nodes agree (F4, F74)."""
    places, dice = addresses(3), random.Random(7)
    nodes = [Process(number, places, tmp_path) for number in range(3)]
    try:
        for number, node in enumerate(nodes):
            node.hear("started")
            node.say("write", f"n{number}s1", 1_000_000)
        for _ in range(4):
            progress(nodes)
            victim = leader_of(nodes) or dice.choice(nodes)
            kill_and_restart(victim, nodes)
        progress(nodes)
        for node in nodes:
            node.end()
        for node in nodes:
            node.start()
        states = [[tuple(each) for each in json.loads(node.ask("read", "state"))] for node in nodes]
    finally:
        for node in nodes:
            node.end()
    assert all(state[: len(states[0])] == states[0][: len(state)] for state in states), "nodes disagree"
    state = max(states, key=len)
    assert len(set(state)) == len(state), "applied twice"
    acknowledged = [each for node in nodes for each in node.acknowledged]
    assert len(acknowledged) > 500
    assert set(acknowledged) <= set(state), "an acknowledged call is lost"
    for name in {name for name, _ in state}:
        numbers = [number for each, number in state if each == name]
        assert numbers == sorted(numbers), f"the calls of {name} changed places"


def progress(nodes):
    """Wait until everybody has had some more calls acknowledged."""
    before = [len(node.acknowledged) for node in nodes]
    eventually(lambda: all(len(node.acknowledged) > seen + 30 for node, seen in zip(nodes, before, strict=True)))


def leader_of(nodes):
    """Who leads at the moment, if anybody says so."""
    return next((node for node in nodes if node.ask("leader") == "True"), None)


def kill_and_restart(victim, nodes):
    """SIGKILL; the others go on without it; then it comes back, and writes under another name."""
    victim.end()
    progress([node for node in nodes if node is not victim])
    victim.start()
    victim.hear("started")
    victim.say("write", f"n{nodes.index(victim)}s{victim.starts}", 1_000_000)


def test_a_leader_that_wakes_from_a_pause_marks_its_local_reads(tmp_path):
    """While it was stopped others went on: its first local read says that it may be old, a linearizable one is not,
    and soon its local reads are fresh again (F72)."""
    places = addresses(3)
    nodes = [Process(number, places, tmp_path) for number in range(3)]
    try:
        for node in nodes:
            node.hear("started")
        leader = eventually(lambda: leader_of(nodes))
        eventually(lambda: leader.ask("local").startswith("False"))
        leader.process.send_signal(signal.SIGSTOP)
        writer = next(node for node in nodes if node is not leader)
        writer.say("write", "w", 50)
        writer.hear("done")
        # What is written now is read by the process before anything else that it can know of.
        leader.say("local")
        leader.process.send_signal(signal.SIGCONT)
        stale, length = leader.hear("local").split()
        assert stale == "True" or int(length) == 50
        assert len(json.loads(leader.ask("read", "state"))) == 50
        eventually(lambda: leader.ask("local") == "False 50")
    finally:
        for node in nodes:
            node.process.send_signal(signal.SIGCONT)
            node.end()


class Ledger(SyncObj):
    """Numbers that were added."""

    def __init__(self, own, others, directory):
        conf = SyncObjConf(journalFile=str(directory / own.replace(":", "-")))
        super().__init__(own, others, conf)
        self.numbers = []

    @replicated
    def add(self, number):
        """One more."""
        self.numbers.append(number)
        return len(self.numbers)


def test_a_leader_that_is_cut_off_acknowledges_nothing_and_marks_its_reads(tmp_path):
    """Its calls wait and are applied once after the partition; meanwhile its local reads are marked, and a
    linearizable one does not come (F40)."""
    places = addresses(3)
    made = [Ledger(place, others(place, places), tmp_path) for place in places]
    try:
        assert made[0].add(0, sync=True, timeout=DEADLINE_S) == 1
        leader = eventually(lambda: next((each for each in made if each._isLeader()), None))
        rest = [each for each in made if each is not leader]
        eventually(lambda: not leader.isStale)
        heal = cut(leader)
        outcomes = Outcomes()
        leader.add(1, callback=outcomes)
        new = eventually(lambda: next((each for each in rest if each._isLeader()), None))
        assert new.add(2, sync=True, timeout=DEADLINE_S) >= 2
        eventually(lambda: leader.isStale)
        assert leader.numbers == [0]
        assert leader.getStatus()["is_stale"]
        assert not outcomes.seen
        heal()
        eventually(lambda: outcomes.seen)
        assert outcomes.seen[0][1] == 0
        for each in made:
            each.readBarrier(DEADLINE_S)
            assert sorted(each.numbers) == [0, 1, 2]
            assert each.numbers == made[0].numbers
        eventually(lambda: not leader.isStale)
    finally:
        for each in made:
            each.destroy()


def cut(ledger):
    """Let nothing through between this node and its peers; returns what undoes it."""
    mesh = ledger._host.node.transport
    handler = mesh._shared.handler
    send, receive = mesh.send, handler.on_message
    mesh.send = lambda to, message: False
    handler.on_message = lambda sender, message: None

    def heal():
        mesh.send, handler.on_message = send, receive

    return heal


def test_restarts_of_one_node_after_the_other_lose_nothing(tmp_path):
    """`destroy` and a new object, in turn, while another one writes: each acknowledged call is there once."""
    places = addresses(3)
    made = {place: Ledger(place, others(place, places), tmp_path) for place in places}
    outcomes, sent, over = Outcomes(), [], threading.Event()
    writer = made[places[2]]

    def load():
        while not over.is_set():
            number = len(sent)
            sent.append(number)
            assert writer.add(number, sync=True, timeout=DEADLINE_S)
            outcomes(number, 0)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for place in places[:2]:
            before = len(outcomes.seen)
            eventually(lambda before=before: len(outcomes.seen) > before + 20)
            made[place].destroy()
            made[place] = Ledger(place, others(place, places), tmp_path)
            made[place].readBarrier(DEADLINE_S)
        over.set()
        thread.join(DEADLINE_S)
        for each in made.values():
            each.readBarrier(DEADLINE_S)
            assert each.numbers == sent == [number for number, _ in outcomes.seen]
    finally:
        over.set()
        for each in made.values():
            each.destroy()


class Forgetful(Ledger):
    """The same without a journal: what it keeps, it keeps in a temporary directory."""

    def __init__(self, own, others):
        SyncObj.__init__(self, own, others)
        self.numbers = []


def test_a_node_without_a_journal_comes_back_as_another_one():
    """What it had acknowledged is gone with it, so it must not vote as if it had it: it gets a new number, and the
    log from the others (F20). As with PySyncObj, nobody has to be asked for that."""
    places = addresses(3)
    made = {place: Forgetful(place, others(place, places)) for place in places}
    try:
        expected = []
        for number, place in enumerate(places):
            other = made[places[(number + 1) % 3]]
            other.add(number, sync=True, timeout=DEADLINE_S)
            expected.append(number)
            old = made[place]._node.node_id
            made[place].destroy()
            again = made[place] = Forgetful(place, others(place, places))
            again.waitReady()
            assert again.readBarrier(DEADLINE_S)
            assert again.numbers == expected
            assert again._node.node_id > max(old, 3)
            eventually(lambda again=again: len(again._node.raft.membership.voters) == 3)
    finally:
        for each in made.values():
            each.destroy()


def test_a_node_with_a_journal_that_lost_it_is_refused(tmp_path):
    """Who asked for durability hears that it is gone, and what to do (F20)."""
    places = addresses(2)
    made = [Ledger(place, others(place, places), tmp_path / str(n)) for n, place in enumerate(places)]
    try:
        made[0].add(1, sync=True, timeout=DEADLINE_S)
        made[1].destroy()
        with pytest.raises(WrongDataDir, match="give it its old directory back"):
            Ledger(places[1], places[:1], tmp_path / "elsewhere")
    finally:
        for each in made:
            each.destroy()
