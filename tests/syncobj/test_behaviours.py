"""What PySyncObj's documentation promises of its calls, settings and callbacks, one test for each."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pysyncobj
import pytest

from raftkv.errors import ConfigError
from raftkv.syncobj import FAIL_REASON, SyncObj, SyncObjConf, SyncObjException, replicated, replicated_sync
from raftkv.syncobj.batteries import ReplDict
from tests.syncobj.clusters import DEADLINE_S, Outcomes, addresses, all_in_parallel, cluster, eventually, others

ROOT = Path(__file__).parent.parent.parent


class Notes(SyncObj):
    """A list of what was noted."""

    def __init__(self, own, others=(), conf=None, consumers=None):
        super().__init__(own, list(others), conf, consumers)
        self.notes = []

    @replicated
    def note(self, *words, **named):
        """Note something; gives how many there are."""
        self.notes.append((words, named))
        return len(self.notes)

    @replicated_sync
    def note_now(self, word):
        """The same, and wait."""
        self.notes.append(((word,), {}))
        return len(self.notes)

    @replicated
    def fail(self):
        """Raises on every node."""
        raise ValueError("no")


def alone(**settings):
    """A cluster of one."""
    return cluster(lambda own, rest: Notes(own, rest, SyncObjConf(**settings)), count=1)


def test_arguments_of_any_kind_arrive():
    """Positional and keyword arguments of any type that pickles, and results that are the very objects."""
    with alone() as (notes,):
        notes.note(1, (2, 3), {4}, five=[5], sync=True, timeout=DEADLINE_S)
        assert notes.notes == [((1, (2, 3), {4}), {"five": [5]})]


def test_a_sync_call_gives_the_result_and_replicated_sync_is_one_by_itself():
    """`sync=True` blocks; `replicated_sync` needs no word."""
    with alone() as (notes,):
        assert notes.note("a", sync=True) == 1
        assert notes.note_now("b") == 2
        assert notes.note("c") is None


def test_a_callback_wins_over_sync():
    """With both, the call does not block."""
    with alone() as (notes,):
        outcomes = Outcomes()
        assert notes.note("a", callback=outcomes, sync=True) is None
        eventually(lambda: outcomes.seen)
        assert outcomes.seen == [(1, FAIL_REASON.SUCCESS)]


def test_a_sync_call_without_a_majority_times_out():
    """`timeout` ends the wait, not the call: that is queued until there is a leader."""
    places = addresses(2)
    notes = Notes(places[0], [places[1]])
    second = None
    try:
        with pytest.raises(SyncObjException) as raised:
            notes.note("a", sync=True, timeout=0.05)
        assert raised.value.errorCode == "Timeout"
        second = Notes(places[1], [places[0]])
        eventually(lambda: notes.notes == [(("a",), {})])
    finally:
        notes.destroy()
        if second is not None:
            second.destroy()


def test_without_waiting_for_a_leader_a_call_fails_at_once():
    """`commandsWaitLeader=False`: MISSING_LEADER."""
    places = addresses(2)
    notes = Notes(places[0], [places[1]], SyncObjConf(commandsWaitLeader=False))
    try:
        with pytest.raises(SyncObjException) as raised:
            notes.note("a", sync=True, timeout=DEADLINE_S)
        assert raised.value.errorCode == FAIL_REASON.MISSING_LEADER
    finally:
        notes.destroy()


def test_a_full_queue_says_so():
    """Over `commandsQueueSize`: QUEUE_FULL, and nothing is lost that was taken; at the end whoever waits is told."""
    places = addresses(2)
    outcomes = Outcomes()
    notes = Notes(places[0], [places[1]], SyncObjConf(commandsQueueSize=3))
    # One batch is on its way and will not arrive; three more calls fit.
    notes.note("first", callback=outcomes)
    eventually(lambda: not notes._host.calls._queue)
    for word in "abcde":
        notes.note(word, callback=outcomes)
    assert outcomes.seen == [(None, FAIL_REASON.QUEUE_FULL)] * 2
    notes.destroy()
    reasons = sorted(reason for _, reason in outcomes.seen[2:])
    assert reasons == [FAIL_REASON.MISSING_LEADER] * 3 + [FAIL_REASON.UNKNOWN_OUTCOME]


def test_calls_of_one_thread_take_effect_in_their_order():
    """Thousands without waiting, on a node that does not lead, arrive as they were made."""
    with cluster(Notes) as all_notes:
        follower = eventually(
            lambda: next((each for each in all_notes if each._getLeader() and not each._isLeader()), None)
        )
        for number in range(3_000):
            follower.note(number)
        follower.note("end", sync=True, timeout=DEADLINE_S)
        assert [words[0] for words, _ in follower.notes] == [*range(3_000), "end"]


def test_a_method_that_raises_is_its_callers_trouble():
    """It neither stops a node nor is it applied twice; the exception comes with the fail reason (F75)."""
    with cluster(Notes) as all_notes:
        with pytest.raises(SyncObjException) as raised:
            all_notes[0].fail(sync=True, timeout=DEADLINE_S)
        assert raised.value.errorCode == FAIL_REASON.REQUEST_DENIED
        assert str(raised.value.errorCode.exception) == "no"
        for each in all_notes:
            each.note("after", sync=True, timeout=DEADLINE_S)
        for each in all_notes:
            each.readBarrier(DEADLINE_S)
            assert len(each.notes) == 3


def test_a_callback_that_raises_harms_nobody():
    """Nothing is applied twice because of it."""
    with alone() as (notes,):

        def bad(result, reason):
            raise RuntimeError("the application's own mistake")

        notes.note("a", callback=bad)
        assert notes.note("b", sync=True, timeout=DEADLINE_S) == 2


def test_arguments_that_cannot_be_read_back_are_refused_before_the_log():
    """An object that pickles but does not unpickle would stop every node; it gets nowhere."""
    with alone() as (notes,):
        with pytest.raises(TypeError):
            notes.note(Broken(1))
        assert notes.note("a", sync=True, timeout=DEADLINE_S) == 1


def test_a_call_that_is_too_large_is_refused_alone():
    """Those before and behind it take effect."""
    with alone() as (notes,):
        outcomes = Outcomes()
        for words in ("a", "x" * (8 << 20), "b"):
            notes.note(words, callback=outcomes)
        eventually(lambda: len(outcomes.seen) == 3)
        assert sorted(outcomes.seen, key=str) == [(1, 0), (2, 0), (None, FAIL_REASON.REQUEST_DENIED)]


PROGRAM = """
import sys
from raftkv.syncobj import SyncObj
from raftkv.syncobj.batteries import ReplCounter
counter = ReplCounter()
node = SyncObj(sys.argv[1], [], consumers=[counter])
print(counter.inc(sync=True))
"""


def test_a_program_may_end_without_destroying_anything():
    """Its nodes stop by themselves, at once and without a word, and nothing is left behind."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, addresses(1)[0]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


class Broken(Exception):
    """Pickles, and can't be made again: a common mistake."""

    def __init__(self, number):
        super().__init__()
        self.number = number


def test_ready_and_state_changes_are_told():
    """`onReady` once, `onStateChanged` with PySyncObj's numbers; `waitReady` returns, `isReady` follows."""
    told = []
    settings = SyncObjConf(
        onReady=lambda: told.append("ready"), onStateChanged=lambda old, new: told.append((old, new))
    )
    with cluster(lambda own, rest: Notes(own, rest, settings), count=1) as (notes,):
        notes.waitReady()
        notes.waitBinded()
        eventually(notes.isReady)
        assert notes._isReady()
        eventually(lambda: "ready" in told)
        changes = [each for each in told if each != "ready"]
        assert changes[-1][1] == 2
        assert told.count("ready") == 1


def test_questions_within_the_constructor_start_the_node():
    """An application may wait for its cluster in `__init__`, once it has set its attributes."""

    class Waiting(Notes):
        def __init__(self, own, rest):
            super().__init__(own, rest)
            self.waitReady()
            eventually(self.isReady)
            self.first = self.note("a", sync=True, timeout=DEADLINE_S)

    with cluster(Waiting, count=1) as (waiting,):
        assert waiting.first == 1


STATUS_KEYS = {
    *("version", "revision", "self", "state", "leader", "has_quorum", "partner_nodes_count", "readonly_nodes_count"),
    *("log_len", "last_applied", "commit_idx", "raft_term", "next_node_idx_count", "match_idx_count"),
    *("leader_commit_idx", "uptime", "self_code_version", "enabled_code_version", "read_age", "is_stale"),
}


def test_the_status_has_pysyncobjs_keys():
    """All of them, those of each other node too, on the leader and on others."""
    with cluster(Notes) as all_notes:
        all_notes[0].note("a", sync=True, timeout=DEADLINE_S)
        leader = eventually(lambda: next((each for each in all_notes if each._isLeader()), None))
        eventually(lambda: leader.getStatus()["has_quorum"])
        status = leader.getStatus()
        keys = set(status)
        for node in leader.otherNodes:
            assert keys > {f"{kind}_idx_server_{node.id}" for kind in ("next_node", "match")}
            assert status[f"partner_node_status_server_{node.id}"] in (0, 2)
        assert {key for key in keys if "_server_" not in key} == STATUS_KEYS
        assert status["self"] == status["leader"] == leader.selfNode
        assert status["state"] == 2
        follower = next(each for each in all_notes if each is not leader)
        assert {key for key in follower.getStatus() if "_server_" not in key} == STATUS_KEYS
        leader.printStatus()


def test_an_application_may_tick_by_itself():
    """`autoTick=False`: nothing happens but in `doTick`, and callbacks come on the thread that calls it."""
    conf = SyncObjConf(autoTick=False)
    with cluster(lambda own, rest: Notes(own, rest, conf)) as all_notes:
        outcomes, threads = Outcomes(), []
        all_notes[0].note("a", callback=outcomes)
        all_notes[1].note("b", callback=lambda result, reason: threads.append(threading.current_thread()))

        def ticked():
            for each in all_notes:
                each.doTick(0.002)
            return outcomes.seen and threads and all(len(each.notes) == 2 for each in all_notes)

        eventually(ticked)
        assert outcomes.seen[0][1] == FAIL_REASON.SUCCESS
        assert threads == [threading.current_thread()]
        assert all_notes[0].tick_thread_alive() is False


def test_the_code_version_is_switched_on_all_nodes_at_once():
    """Callers get the newest method that the version knows; a switch back or too far is refused (`setCodeVersion`)."""
    told = []

    class Versioned(SyncObj):
        def __init__(self, own, rest):
            conf = SyncObjConf(onCodeVersionChanged=lambda old, new: told.append((old, new)))
            super().__init__(own, rest, conf)
            self.lines = []

        @replicated
        def write(self, line):
            self.lines.append(line)

        @replicated(ver=1)
        def write(self, line):  # noqa: F811 (that is how PySyncObj's versions are written)
            self.lines.append(line.upper())

    with cluster(Versioned) as all_of_them:
        first = all_of_them[0]
        first.write("a", sync=True, timeout=DEADLINE_S)
        outcomes = Outcomes()
        first.setCodeVersion(1, callback=outcomes)
        eventually(lambda: outcomes.seen)
        first.write("b", sync=True, timeout=DEADLINE_S)
        for each in all_of_them:
            each.readBarrier(DEADLINE_S)
            assert each.lines == ["a", "B"]
            assert each.getCodeVersion() == each.getStatus()["enabled_code_version"] == 1
        eventually(lambda: told == [(0, 1)] * 3)
        for wrong in (0, 2):
            with pytest.raises(Exception, match="wrong version"):
                first.setCodeVersion(wrong)


def test_nodes_come_and_go():
    """`addNodeToCluster` before or after the node starts, `removeNodeFromCluster`; refused when it makes no sense."""
    places = addresses(4)
    conf = SyncObjConf(dynamicMembershipChange=True)
    made = {place: Notes(place, others(place, places[:3]), conf) for place in places[:3]}
    try:
        first = made[places[0]]
        first.note("a", sync=True, timeout=DEADLINE_S)
        outcomes = Outcomes()
        first.addNodeToCluster(places[3], callback=outcomes)
        eventually(lambda: outcomes.seen)
        new = made[places[3]] = Notes(places[3], places[:3], conf)
        eventually(lambda: new.notes == [(("a",), {})])
        eventually(lambda: len(first._node.raft.membership.voters) == 4)
        assert new.note("b", sync=True, timeout=DEADLINE_S) == 2
        first.addNodeToCluster(places[3], callback=outcomes)
        eventually(lambda: len(outcomes.seen) == 2)
        new.removeNodeFromCluster(places[1], callback=outcomes)
        eventually(lambda: len(outcomes.seen) == 3)
        new.removeNodeFromCluster(places[1], callback=outcomes)
        eventually(lambda: len(outcomes.seen) == 4)
        granted, denied = FAIL_REASON.SUCCESS, FAIL_REASON.REQUEST_DENIED
        assert [reason for _, reason in outcomes.seen] == [granted, denied, granted, denied]
        assert {node.id for node in new.otherNodes} == {places[0], places[2]}
        assert new.note("c", sync=True, timeout=DEADLINE_S) == 3
    finally:
        for each in made.values():
            each.destroy()


def test_members_do_not_change_unless_that_is_allowed():
    """Without `dynamicMembershipChange` it is an error, as there."""
    with alone() as (notes,), pytest.raises(Exception, match="dynamicMembershipChange is disabled"):
        notes.addNodeToCluster("127.0.0.1:1")


def test_leadership_is_handed_over():
    """`transferLeadership` on the leader; anybody else is told that it is none."""
    with cluster(Notes) as all_notes:
        leader = eventually(lambda: next((each for each in all_notes if each._isLeader()), None))
        leader.note("a", sync=True, timeout=DEADLINE_S)
        target = next(each for each in all_notes if each is not leader)
        outcomes = Outcomes()
        target.transferLeadership(callback=outcomes)
        assert outcomes.seen == [(None, FAIL_REASON.NOT_LEADER)]
        leader.transferLeadership(target.selfNode, callback=outcomes)
        eventually(lambda: len(outcomes.seen) == 2)
        assert outcomes.seen[1] == (None, FAIL_REASON.SUCCESS)
        eventually(target._isLeader)


def test_callbacks_of_ticks_come_until_they_are_removed():
    """`addOnTickCallback`, `removeOnTickCallback`."""
    with alone() as (notes,):
        ticks = []

        def tick():
            ticks.append(time.monotonic())

        notes.addOnTickCallback(tick)
        eventually(lambda: len(ticks) >= 2)
        notes.removeOnTickCallback(tick)
        notes.removeOnTickCallback(tick)


def test_settings_without_an_effect_are_named_in_one_warning():
    """They are accepted, and nobody is left to believe in them."""
    (place,) = addresses(1)
    conf = SyncObjConf(pollerType="select", sendBufferSize=1024, password="x")
    with pytest.warns(UserWarning, match="password, pollerType, sendBufferSize have no effect"):
        notes = Notes(place, [], conf)
    notes.destroy()


def test_a_conf_of_pysyncobj_itself_will_do():
    """The import of the configuration need not be changed."""
    (place,) = addresses(1)
    notes = Notes(place, [], pysyncobj.SyncObjConf())
    notes.destroy()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"serializer": lambda *a: 0, "deserializer": lambda *a: 0, "fullDumpFile": "x"}, "serializer, deserializer"),
        ({"codec": "json"}, "codec = 'json'"),
        ({"bindAddress": "0.0.0.0:7777"}, "listens on 0.0.0.0"),
    ],
)
def test_settings_that_cannot_hold_are_refused(settings, message):
    """Above all: no pickles from strangers."""
    with pytest.raises(ConfigError, match=message):
        Notes("127.0.0.1:7777", [], SyncObjConf(**settings))


def test_msgpack_may_listen_anywhere_and_takes_plain_data_only():
    """What is no plain data is refused where it is called."""
    (place,) = addresses(1)
    conf = SyncObjConf(codec="msgpack", bindAddress=place.replace("127.0.0.1", "0.0.0.0"))  # noqa: S104 (a test of it)
    mapping = ReplDict()
    notes = Notes(place, [], conf, [mapping])
    try:
        mapping.set((1, "a"), {"b": [2, 3.5, None]}, sync=True, timeout=DEADLINE_S)
        assert mapping[(1, "a")] == {"b": [2, 3.5, None]}
        with pytest.raises(TypeError, match="no plain data"):
            notes.note(object())
    finally:
        notes.destroy()


def test_an_address_in_use_is_waited_for():
    """As with PySyncObj: tried again every `bindRetryTime` seconds, at most `maxBindRetries` times if that is set."""
    (place,) = addresses(1)
    first = Notes(place, [])
    patient = Notes(place, [], SyncObjConf(bindRetryTime=0.01))
    try:
        with pytest.raises(SyncObjException, match="BindError"):
            Notes(place, [], SyncObjConf(bindRetryTime=0.01, maxBindRetries=1))
        assert not patient._host.started.is_set()
        first.destroy()
        patient.waitBinded()
        assert patient.note("a", sync=True, timeout=DEADLINE_S) == 1
    finally:
        first.destroy()
        patient.destroy()


def test_founders_may_start_at_the_same_time():
    """Whoever sees others begin takes them for founders like itself."""
    places = addresses(3)
    made = all_in_parallel([lambda place=place: Notes(place, others(place, places)) for place in places])
    try:
        assert made[0].note("a", sync=True, timeout=DEADLINE_S) == 1
    finally:
        for each in made:
            each.destroy()
