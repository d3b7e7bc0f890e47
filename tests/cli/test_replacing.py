"""`raftkv replace`: what comes next, what is refused, and real nodes that are replaced, also in two goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import msgspec
import pytest

from raftkv.cli.progress import PACE_S, Pace, Stand
from raftkv.cli.replacing import Replacement, Step
from raftkv.cli.transfer import CatchingUp
from raftkv.doctor import ClusterView
from raftkv.errors import ChangeRefused, InvalidArgument
from raftkv.model import Member, Membership
from raftkv.node.status import PeerStatus
from raftkv.processes.cluster import import_path
from raftkv.snapshot import TransferProgress
from tests.cli.commands import invoke, value_of
from tests.cli.test_view import status_of
from tests.forked import ForkedCluster
from tests.waiting import until

NEW = Member(4, "10.0.0.4:8001", "10.0.0.4:7001")
TWO_BY_FOUR = Replacement(2, NEW)


def membership(voters, learners=(), removed=(), outgoing=()):
    """A membership; node 4 has the addresses of `NEW`."""
    known = sorted({*voters, *learners, *outgoing})
    members = tuple(NEW if each == 4 else Member(each, f"p{each}:1", f"c{each}:1") for each in known)
    return Membership(tuple(voters), tuple(outgoing), tuple(learners), members, tuple(removed))


@pytest.mark.parametrize(
    ("found", "is_reached", "step"),
    [
        (membership((1, 2, 3)), False, Step.ADD),
        (membership((1, 3), removed=(2,)), False, Step.ADD),
        (membership((1, 2, 3), (4,)), False, Step.START),
        (membership((1, 2, 3), (4,)), True, Step.PROMOTE),
        (membership((1, 2, 3, 4), outgoing=(1, 2, 3)), True, Step.WAIT),
        (membership((1, 2, 3, 4)), True, Step.REMOVE),
        (membership((1, 3), (4,), removed=(2,)), True, Step.PROMOTE),
        (membership((1, 3, 4), removed=(2,)), False, Step.DONE),
    ],
)
def test_what_comes_next_follows_from_the_members_alone(found, is_reached, step):
    """So it can be interrupted between any two steps, and somebody else may have done some of them."""
    assert TWO_BY_FOUR.next_step(found, is_reached) is step


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (membership((1, 3)), "node 2 is no member"),
        (membership((1, 3), (2,)), "node 2 has no vote"),
        (membership((1, 3, 5), removed=(2,)), "node 2 is removed already, and .* seems to be replaced"),
        (Membership((1, 2, 3), (), (4,), (Member(2), Member(4, "x:1", "x:2"))), "node 4 is a member at x:1/x:2"),
    ],
)
def test_what_makes_no_sense_is_refused(found, said):
    """With what to type instead."""
    with pytest.raises(InvalidArgument, match=said):
        TWO_BY_FOUR.next_step(found, False)


def leader(voters, up):
    """Node 1 leads these voters, and hears of those that are up."""
    peers = [PeerStatus(node_id=each, connected=each in up) for each in voters if each != 1]
    return msgspec.structs.replace(status_of(1), membership=membership(voters), peers=peers)


@pytest.mark.parametrize(
    ("voters", "up", "step", "said"),
    [
        ((1, 2, 3), {1, 3}, Step.ADD, None),
        ((1, 2, 3), {1, 3}, Step.PROMOTE, None),
        ((1, 2, 3, 4), {1, 3, 4}, Step.REMOVE, None),
        ((1, 2, 3, 4), {1, 3}, Step.REMOVE, None),
        ((1, 2, 3, 4), {1, 4}, Step.REMOVE, None),
        ((1, 2, 3, 4), {1}, Step.REMOVE, "without node 2, 2 of the voters .1, 3, 4. are needed and only .1. would"),
        ((1, 2, 3), {1}, Step.PROMOTE, "with node 4, too, as a voter, 3 of the voters .1, 2, 3, 4. are needed"),
        ((1, 2, 3), {1, 2, 3}, Step.ADD, "node 2 is up: if it shall go all the same, add --planned"),
    ],
)
def test_no_step_may_cost_the_majority(voters, up, step, said):
    """Counted with those whom the leader hears, as they are before each step."""
    if said is None:
        TWO_BY_FOUR.check(leader(voters, up), step)
        return
    with pytest.raises(ChangeRefused, match=said):
        TWO_BY_FOUR.check(leader(voters, up), step)


def test_a_node_that_is_silent_behind_its_connection_is_not_up():
    """A paused machine holds its connections; the leader knows how long it was not heard of."""
    found = leader((1, 2, 3), {1, 3})
    found.peers[-1] = msgspec.structs.replace(found.peers[-1], silent_ms=60_000)
    with pytest.raises(ChangeRefused, match=r"only \[1, 4\] would be up"):
        TWO_BY_FOUR.check(found, Step.PROMOTE)
    msgspec.structs.replace(TWO_BY_FOUR, is_planned=True).check(leader((1, 2, 3), {1, 2, 3}), Step.ADD)


def test_progress_has_a_rate_and_the_time_that_is_left():
    """The rate is that of the last seconds; without one, only how far it is is said; a new thing begins anew."""
    pace = Pace()
    assert pace.describe(Stand("a", 0, 100 << 20, True), 0) == "a: 0 % of 100.0 MiB"
    assert pace.describe(Stand("a", 20 << 20, 100 << 20, True), 2) == "a: 20 % of 100.0 MiB, 10.0 MiB/s, 8.0 s left"
    for second in range(3, 30):
        pace.describe(Stand("a", (20 + second) << 20, 100 << 20, True), second)
    assert pace.describe(Stand("a", 50 << 20, 100 << 20, True), 30) == "a: 50 % of 100.0 MiB, 1.0 MiB/s, 50.0 s left"
    assert pace.describe(Stand("a", 50 << 20, 100 << 20, True), 30 + 2 * PACE_S).endswith("MiB")
    assert pace.describe(Stand("b", 5, 10), 60) == "b: 50 % of 10 entries"


def test_progress_goes_from_the_snapshot_to_the_log():
    """As the leader sees the node: nothing, bytes of a snapshot, entries of the log."""
    catching_up = CatchingUp(3)

    def line(now, **peer):
        found = status_of(1, commit=1000)
        found.peers[-1] = PeerStatus(**{"node_id": 3, "connected": True, **peer})
        return catching_up.describe(ClusterView([found], []), now)[0]

    assert line(0, connected=False) == "waiting until node 3 is reached"
    sent = TransferProgress(index=9, sent_bytes=1 << 20, total_bytes=4 << 20, files_done=0, files=2)
    assert line(1, snapshot=sent) == "snapshot 9 to node 3: 25 % of 4.0 MiB"
    assert line(2, match_index=500) == "log to node 3: 0 % of 500 entries"
    assert line(3, match_index=900) == "log to node 3: 80 % of 500 entries, 400 entries/s, 0.2 s left"
    assert catching_up.describe(ClusterView([], []), 4)[0] == "waiting until node 3 is reached"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("2", "must be OLD=NEW@PEER/CLIENT"),
        ("2=4", "must be OLD=NEW@PEER/CLIENT"),
        ("two=4@a:1/b:1", "must be OLD=NEW@PEER/CLIENT"),
        ("2=4@a:1", "must be ID=PEER_HOST:PORT/CLIENT_HOST:PORT"),
        ("2=2@a:1/b:1", "an id never comes back"),
    ],
)
def test_words_that_are_no_replacement_are_refused(words, said):
    """Nothing is asked of anybody."""
    result = invoke("replace", words)
    assert result.exit_code == 2 and said in result.stderr


def test_a_dead_node_is_replaced_in_two_goes(tmp_path):
    """Refused while it lives; then interrupted while the new one is not there, which changes nothing for the worse;
    the same command ends it, and says so again when it is repeated. The old node hears that it was removed."""
    with ForkedCluster(tmp_path, 3) as cluster:
        cluster.start_all()
        environment = {"RAFTKV_ADDRESS": ",".join(cluster.addresses)}
        until(lambda: invoke("put", "a", "1", env=environment).exit_code == 0, "it serves")
        fourth = cluster.add(4)
        words = ("replace", f"2=4@{fourth.member.peer_address}/{fourth.member.client_address}", "--json")

        def is_whole():
            value = json.loads(invoke("status", "--json", env=environment).stdout)
            leader = [each for each in value["nodes"] if each["node_id"] == value["leader"]]
            return leader and all(peer["connected"] for peer in leader[0]["peers"])

        until(is_whole, "the leader hears all")
        refused = invoke(*words, env=environment)
        assert refused.exit_code == 3 and "node 2 is up" in refused.stdout
        cluster.kill(2)

        process = subprocess.Popen(
            [sys.executable, "-m", "raftkv", *words],
            env={**os.environ, **environment, "PYTHONPATH": import_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = ""
        while "waiting for node 4" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        assert "node 4 is added; it gets the log, and has no vote yet" in said
        typed = process.stderr.readline()
        assert f"raftkv serve --node-id 4 --join --listen {fourth.member.client_address}" in typed
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=30)
        assert process.returncode == 130, rest
        where = "node 4 is added, and is not started yet; the same command goes on from here"
        assert json.loads(out) == {"error": "Interrupted", "message": where}

        fourth.start()
        for _ in range(2):
            done = value_of(invoke(*words, env=environment))
            assert (done["old"], done["new"], done["membership"]["voters"]) == (2, 4, [1, 3, 4])
        assert invoke("get", "a", "-a", fourth.member.client_address).stdout == "1\n"
        cluster.nodes[2].start()
        assert cluster.nodes[2].process.wait(20) == 6
