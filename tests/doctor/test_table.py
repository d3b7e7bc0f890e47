"""Each condition is found in evidence that shows it, says what to do about it, and is not found where all is well."""

from __future__ import annotations

import itertools
import re
import shlex
from datetime import UTC, datetime, timedelta

import click
import msgspec
import pytest

from raftkv import errors
from raftkv.cli import main
from raftkv.doctor import TABLE, ClusterView, Evidence, Severity, Silent, diagnose, exit_code_of
from raftkv.doctor.conditions import stops
from raftkv.doctor.conditions.disks import SNAPSHOT_BYTES
from raftkv.doctor.conditions.peers import REFUSALS
from raftkv.doctor.evidence import SPARED
from raftkv.node.status import NodeStatus, PeerStatus
from tests.campaign.coverage import FAULTS
from tests.doctor.cases import CASES, NOW, asked, directory, down, ended, leaderless, lies, node, peer, stopped

NAMES = [condition.name for condition in TABLE]

ONLY_INSIDE = {
    1: "a vote is durable before it is given, or is not given",
    2: "terms are on disk",
    3: "a rule of the core",
    6: "the log is durable before the state",
    27: "a rule of the core",
    28: "a rule of the core",
    29: "a rule of the core",
    30: "a rule of the core",
    31: "a rule of the core",
    32: "a rule of the core",
    33: "the caller is told",
    36: "the caller is told",
    45: "the old leader goes on",
    47: "refused to who asks for it",
    48: "a rule of the core",
    49: "refused to who asks for it",
    51: "a rule of the core",
    52: "a rule of the core",
    62: "a rule of the core",
    63: "a rule of the core",
    64: "a rule of the core",
    65: "a rule of the core",
    69: "a snapshot is of one index, or there is none",
    71: "a rule of the core",
    89: "raised in the child",
    90: "refused to who asks for it",
    92: "what lies on a disk is in every status; it matters where the disk is nearly full, and is told there",
}
"""Rows of the table of faults that no operator can see in a status, a directory or a log, and why."""


def found(evidence):
    """The findings' names, in their order."""
    return [each.condition for each in diagnose(evidence, NOW)]


def test_there_is_a_case_for_each_condition():
    """Neither more nor fewer, and no name twice."""
    assert len(NAMES) == len(set(NAMES)) >= 30
    assert set(CASES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_condition_is_found_by_name(name):
    """With its evidence, what to do and what to type."""
    findings = [each for each in diagnose(CASES[name], NOW) if each.condition == name]
    assert findings
    for each in findings:
        assert each.what and each.do and each.commands
        assert each.why and all(each.why)


def test_where_all_is_well_nothing_is_found():
    """A cluster of three that answers, and a directory that would start."""
    assert found(asked()) == []
    assert found(lies(directory())) == []
    assert found(Evidence()) == []


@pytest.mark.parametrize("name", NAMES)
def test_little_else_is_found_with_it(name):
    """One fault is not many findings: what only follows from it is left out."""
    follows = {
        "quorum-lost": {"voter-silent"},
        "quorum-at-risk": {"voter-silent"},
        "voter-silent": {"quorum-at-risk"},
        "peer-stopped": {"quorum-at-risk", "voter-silent"},
        "directory-held": {"quorum-at-risk"},
        "tls-not-agreed": {"quorum-at-risk"},
        "learner-silent": {"even-voters"},
        "learner-waits": {"even-voters"},
        "catching-up": set(),
    } | {each: {"quorum-at-risk"} for each in NAMES if each.startswith("stopped-")}
    assert set(found(CASES[name])) - {name} <= follows.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_every_command_that_is_told_to_type_is_one(name):
    """The real command line takes each, and runs none."""
    for each in diagnose(CASES[name], NOW):
        for typed in each.commands:
            parse(typed)


def parse(typed):
    """Let click parse a command line of raftkv; raises what a wrong one raises."""
    program, *arguments = shlex.split(typed)
    if program in ("kill", "fuser"):
        return
    assert program == "raftkv"
    command, context = main, click.Context(main)
    if arguments == ["--version"] or arguments[-1] == "--help":
        return
    while isinstance(command, click.Group):
        name, command, arguments = command.resolve_command(context, arguments)
        context = click.Context(command, parent=context, info_name=name)
    command.make_context(command.name, list(arguments), parent=context.parent)


def test_a_command_that_talks_to_the_cluster_says_where():
    """So it can be typed on any machine: with the addresses that were given, and TLS."""
    evidence = msgspec.structs.replace(asked(silent=[down(3)]), options=("-a", "h:1", "--tls-ca", "my ca.pem"))
    (risk,) = [each for each in diagnose(evidence, NOW) if each.condition == "quorum-at-risk"]
    assert risk.commands == ("raftkv serve --node-id 3 --data-dir DIR",)
    assert evidence.asking("member", "remove", 3) == "raftkv member remove 3 -a h:1 --tls-ca 'my ca.pem'"


def test_the_rows_of_the_table_of_faults():
    """Each is shown to an operator by some condition, or named here with the reason why it can't be."""
    shown = {row for condition in TABLE for row in condition.faults}
    assert shown <= set(FAULTS)
    assert set(FAULTS) - shown == set(ONLY_INSIDE)


def test_what_a_condition_says_of_itself_names_the_same_rows():
    """The sentence beside its function and the table are of one mind."""
    for condition in TABLE:
        said = {int(row) for row in re.findall(r"F(\d+)", condition.signs.__doc__)}
        assert said == set(condition.faults), condition.name


def test_the_worst_comes_first_and_the_same_evidence_gives_the_same():
    """Whatever it is that is found besides."""
    order = list(Severity)
    assert [condition.severity for condition in TABLE] == sorted(
        (condition.severity for condition in TABLE), key=order.index
    )
    everything = Evidence(
        view=ClusterView([node(1, damaged=["b", "a"]), node(2, digest="9", mistakes={"b": 1, "a": 2})], [down(3)]),
        directories=CASES["directory-twice"].directories,
        logs=CASES["log-unreadable"].logs,
        options=("-a", "h:1"),
    )
    assert diagnose(everything, NOW) == diagnose(everything, NOW)
    severities = [order.index(each.severity) for each in diagnose(everything, NOW)]
    assert severities == sorted(severities) and len(set(severities)) == 3


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("single-voter", 0),
        ("disk-low", 1),
        ("quorum-lost", 3),
        ("writes-refused", 3),
        ("replicas-differ", 5),
        ("directory-foreign", 5),
        ("stopped-disk", 5),
    ],
)
def test_the_exit_code_is_that_of_the_worst(name, code):
    """As for other commands: 5 is data in doubt, 3 that nobody serves, 1 that something is not as it should be."""
    assert exit_code_of(diagnose(CASES[name], NOW)) == code
    assert exit_code_of([]) == 0


def hung(**more):
    """Evidence that a process holds the directory of node 3."""
    return directory("/my data", in_use=True, **({"used_by": 4711} | more), trial=None)


END = ("kill -9 4711", "raftkv serve --node-id 3 --data-dir '/my data'")


def test_a_node_that_hangs_is_ended_before_it_is_started():
    """It is one finding of the node, and wherever it is to be brought back, its process is ended first: a second one
    would end at once."""
    by_name = {each.condition: each for each in diagnose(asked(silent=[down(3)], directories=(hung(),)), NOW)}
    assert set(by_name) == {"directory-held", "quorum-at-risk"}
    assert by_name["directory-held"].commands == by_name["quorum-at-risk"].commands == END
    lost = {each.condition: each for each in diagnose(asked(silent=[down(2), down(3)], directories=(hung(),)), NOW)}
    assert set(lost) == {"directory-held", "quorum-lost", "voter-silent"}
    assert lost["quorum-lost"].commands[:3] == ("raftkv serve --node-id 2 --data-dir DIR", *END)
    unknown = diagnose(asked(silent=[down(3)], directories=(hung(used_by=None),)), NOW)[-1]
    assert unknown.commands == ("fuser -v '/my data/LOCK'", END[1])


def test_a_directory_of_another_cluster_is_not_taken_for_that_of_a_node_that_is_silent():
    """Its process may be well, and is not to be killed for a node that has the same id elsewhere."""
    seen = hung()
    theirs = msgspec.structs.replace(seen, owner=msgspec.structs.replace(seen.owner, cluster_id="another"))
    typed = [
        command for each in diagnose(asked(silent=[down(3)], directories=(theirs,)), NOW) for command in each.commands
    ]
    assert "raftkv serve --node-id 3 --data-dir DIR" in typed
    assert not any(each.startswith("kill") for each in typed)


def test_where_all_hang_nobody_is_told_to_start_one():
    """As in a cluster of one: what is known is that nobody answers, and that a process is there."""
    view = ClusterView([], [Silent("h:1", "no answer")])
    silent, held = diagnose(Evidence(view=view, directories=(hung(),)), NOW)
    assert (silent.condition, held.condition) == ("no-member-answers", "directory-held")
    assert "start it" not in silent.do and "directory-held" in silent.do
    assert held.commands == END
    refuses = ClusterView([], [Silent("h:1", "nobody has signed in", is_refusal=True)])
    assert found(Evidence(view=refuses, directories=(hung(),))) == ["not-allowed", "directory-in-use"]


def test_a_node_that_the_leader_hears_does_not_hang():
    """Only its port for clients is out of reach: its process is not to be ended."""
    leader = node(1, peers=[peer(2, incarnation="word2"), peer(3, incarnation="word3", silent_ms=20)])
    findings = {each.condition: each for each in diagnose(asked(leader, silent=[down(3)], directories=(hung(),)), NOW)}
    assert set(findings) == {"voter-silent", "directory-in-use"}
    assert not any("kill" in command for each in findings.values() for command in each.commands)


@pytest.mark.parametrize(("free", "advised"), [(0, False), (SNAPSHOT_BYTES - 1, False), (SNAPSHOT_BYTES, True)])
def test_a_snapshot_is_advised_only_where_there_is_room_for_one(free, advised):
    """With no byte free it would fail, and cost the last of them."""
    full = node(2, disk_low=True, disk_free_bytes=free)
    (low,) = diagnose(asked(full), NOW)
    assert any("snapshot take" in command for command in low.commands) is advised
    assert ("has no room" in low.do) is not advised


@pytest.mark.parametrize(
    "name", ["disk-low", "disk-nearly-low", "writes-refused", "directory-full", "stopped-disk"], ids=str
)
def test_what_may_go_from_a_full_disk_and_what_never(name):
    """Wherever somebody is told to free some space, as a wrong file there is the end of the node."""
    (each,) = [each for each in diagnose(CASES[name], NOW) if each.condition == name]
    assert "remove what is not raftkv's" in each.do and "move its whole directory" in each.do
    assert "neither of its log nor of its snapshots" in each.dont


def test_since_when_is_said_where_it_is_known():
    """The node says for how long; the time is by the clock of who asks, so a wrong clock there does not matter."""
    (low,) = diagnose(CASES["disk-low"], datetime(2026, 5, 1, 5, 0, 12, tzinfo=UTC))
    assert low.since == "2026-05-01T05:00:00+00:00"
    (nearly,) = diagnose(CASES["disk-nearly-low"], NOW)
    assert nearly.since is None
    (lost, *_) = diagnose(leaderless(down(2), down(3)), NOW)
    assert lost.since == (NOW - timedelta(seconds=90)).isoformat()


def test_every_error_that_stops_a_node_has_a_condition():
    """The errors of raftkv that end a node or its start are known by name; `stopped-otherwise` is for bugs only."""
    stop = {
        name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, errors.NodeStopped)
    }
    ours = {"NodeStopped", "SafetyViolation", "WrongProcess"}
    assert stop - ours <= set(stops.KNOWN)
    for name in sorted(stop - ours):
        findings = diagnose(ended(name), NOW)
        assert [each.condition for each in findings] != ["stopped-otherwise"], name
        assert "last line of n3.log" in findings[0].why[0]


def test_a_node_that_was_started_again_has_not_stopped():
    """The log that was given may be an older one than what the node says."""
    evidence = msgspec.structs.replace(asked(), logs=ended("DiskFull").logs)
    assert found(evidence) == []
    evidence = msgspec.structs.replace(stopped("Corruption"), logs=ended("DiskFull").logs)
    assert "stopped-corrupt" in found(evidence) and "stopped-disk" not in found(evidence)


def test_an_election_that_goes_on_is_no_finding():
    """At the first look there was a leader, at the second there was none: another second will show it."""
    evidence = msgspec.structs.replace(leaderless(), before=asked().view)
    assert "no-leader" not in found(evidence)


def test_who_does_not_answer_anybody_is_said_once():
    """Not once more by each node that does not reach it either."""
    gone = Silent("10.0.0.3:7001", "refused", 3)
    peers = [each if each.node_id == 2 else msgspec.structs.replace(each, connected=False) for each in node(1).peers]
    assert set(found(asked(node(1, peers=peers), silent=[gone]))) == {"quorum-at-risk", "voter-silent"}


def test_the_names_of_refusals_are_conditions():
    """So each kind of refusal has what to do about it."""
    assert set(REFUSALS) <= set(NAMES)


def test_who_is_heard_by_the_leader_is_not_lost():
    """From where one asks, two voters may not be reached; the leader hears both, and all is served."""

    def heard(silent_ms):
        peers = [msgspec.structs.replace(each, silent_ms=silent_ms) for each in node(1).peers]
        return found(asked(node(1, peers=peers), silent=[down(2), down(3)]))

    assert set(heard(80)) == {"voter-silent"}
    assert set(heard(5_000)) == {"quorum-lost", "voter-silent"}


def test_a_status_of_an_older_node_has_nothing_wrong_by_what_it_lacks():
    """Nodes of the versions before say neither since when, nor how near they are to their bounds."""
    new = {"lasting_s", "sessions", "sessions_max", "waiting_requests_max", "open_files", "open_files_max", "data_dir"}
    new |= {"incarnation", "disk_writing_s", "snapshot_problem", "addresses_unwritten"}

    def older(number):
        fields = {name: value for name, value in msgspec.to_builtins(node(number)).items() if name not in new}
        for each in fields["peers"]:
            del each["address"], each["unreached_s"]
        return msgspec.convert(fields, NodeStatus)

    assert found(asked(*map(older, (1, 2, 3)))) == []


def test_a_log_says_since_when():
    """The time of the line, as it stands there."""
    (stop,) = diagnose(ended("DiskFull"), NOW)
    assert stop.since == "2026-05-01T02:59:00Z"


def test_no_command_gives_a_new_node_an_id_that_may_be_taken():
    """Behind all that are known, removed ones too; far away when nobody answers who would know; none where even the
    node's own id is not known."""
    assert asked().new_id() == 4
    assert CASES["directory-of-removed"].new_id() == 5
    (damaged,) = diagnose(CASES["directory-damaged"], NOW)
    assert damaged.commands[1] == "raftkv member remove 3"
    assert "raftkv member add 103=NEWHOST:8001/NEWHOST:7001" in damaged.commands
    (nobody,) = diagnose(lies(directory(error="Corruption", text="gone", owner=None)), NOW)
    assert nobody.commands == ("raftkv log inspect /data",)
    (unsaid,) = diagnose(Evidence(logs=(msgspec.structs.replace(ended("DiskFull").logs[0], node_id=None),)), NOW)
    assert "raftkv serve --node-id ID --data-dir DIR" in unsaid.commands
    for each in (*damaged.commands, *nobody.commands, *unsaid.commands):
        parse(each)


def test_who_mistypes_is_a_note_and_who_guesses_a_warning():
    """By the failures that are counted; what was typed for a name that is no user's is not shown."""
    (guessed,) = diagnose(CASES["passwords-guessed"], NOW)
    assert guessed.severity is Severity.WARNING and "at node 2" in guessed.what
    assert "57 wrong passwords or tokens from 10.9.9.9" in guessed.why[0] and "for boss from many" in guessed.why[1]
    ann, nobody = diagnose(CASES["user-slowed"], NOW)
    assert ann.what.startswith("ann has to wait") and ann.commands[0].startswith("raftkv user passwd ann")
    assert nobody.what.startswith("somebody who is no user has to wait")
    ends, ended = diagnose(CASES["token-ending"], NOW)
    assert "ann ends in 2.0 h" in ends.what and "bob has ended 60.0 s ago" in ended.what


def test_a_node_that_is_refused_for_its_secret_is_said_once():
    """By the node that it is; somebody who is no known peer, or was long ago, is another matter."""
    evidence = CASES["secret-differs"]
    first, *others = evidence.view.nodes
    first = msgspec.structs.replace(first, secrets_refused=3, secret_refused_s=1.0)
    view = ClusterView([first, *others], [])
    assert found(msgspec.structs.replace(evidence, view=view)) == ["secret-differs"]
    assert found(asked(node(2, secrets_refused=9, secret_refused_s=400.0))) == []


def test_each_step_of_replacing_the_secret_is_told_from_one_too_far():
    """The old one and the new one, the new one first, the new one alone: where nodes differ, that is a note, and a
    warning only where one proves what another would not accept. Nodes that say nothing of it are left out (F91)."""
    old, new = "00aa", "11bb"

    def having(*files):
        return found(asked(*(node(number, secret_marks=list(marks)) for number, marks in enumerate(files, 1))))

    steps = [(old,), (old, new), (new, old), (new,)]
    for before, after in itertools.pairwise(steps):
        assert having(before, before, before) == having(after, after, after) == having(before, (), before) == []
        assert having(before, after, before) == having(after, before, after) == ["secret-being-replaced"]
    assert having((old,), (old, new), (new, old)) == ["secret-not-accepted"], "node 1 has missed the first step"
    assert having((old,), (new,), ()) == ["secret-not-accepted"] * 2
    (one, _) = diagnose(CASES["secret-not-accepted"], NOW)
    assert one.what == "nodes 1, 2 would not accept the cluster secret that node 3 proves"
    assert "status of node 1: it proves the cluster secret 00aa" in one.why


def test_a_node_whose_secret_was_refused_is_not_said_to_be_refused_later():
    """What is so already counts, with what it has brought about."""
    evidence = CASES["secret-differs"]
    first, second, third = evidence.view.nodes
    first, second, third = (
        msgspec.structs.replace(each, secret_marks=marks)
        for each, marks in ((first, ["00aa"]), (second, ["00aa"]), (third, ["11bb"]))
    )
    assert found(msgspec.structs.replace(evidence, view=ClusterView([first, second, third], []))) == ["secret-differs"]


def test_a_client_address_that_may_have_moved_is_not_told_as_the_one_to_write():
    """Met at another address for nodes, and silent where clients reached it: the command has a place to fill in."""
    peers = [peer(2), PeerStatus(node_id=3, connected=True, address="10.0.0.9:8001")]
    evidence = asked(node(1, peers=peers))
    view = ClusterView([each for each in evidence.view.nodes if each.node_id != 3], [down(3)])
    findings = {each.condition: each for each in diagnose(msgspec.structs.replace(evidence, view=view), NOW)}
    assert "3=10.0.0.9:8001/HOST:7001" in findings["elsewhere"].commands[0]
    assert "serving" in findings["elsewhere"].do and "Member(" not in "".join(findings["elsewhere"].why)
    assert "it runs" in findings["voter-silent"].do
    assert not any(" serve " in command for command in findings["voter-silent"].commands)


def test_a_leader_that_is_followed_and_does_not_answer_here_is_not_taken_for_none():
    """Its port for clients is blocked, or another cluster's node is there: no majority is at risk, and it is not to be
    started again. One that is gone is followed by nobody, and a stopped node's word does not count."""
    evidence = asked(node(2), node(3), silent=[down(1)])
    findings = {each.condition: each for each in diagnose(evidence, NOW)}
    assert "node 1 leads, but does not answer here" in findings["no-leader"].what
    assert "quorum-at-risk" not in findings
    stopped = node(3, role="stopped", stopped="its disk is full")
    evidence = asked(node(2, leader=None, role="follower"), stopped, silent=[down(1)])
    assert not any("leads, but" in each.what for each in diagnose(evidence, NOW))


def test_nodes_that_ask_for_a_sign_in_are_not_taken_for_dead():
    """Nothing is said of starting nodes, nor that clients are not served."""
    evidence = CASES["not-allowed"]
    assert found(evidence) == ["not-allowed"]
    assert exit_code_of(diagnose(evidence, NOW)) == 1


EXPIRED = "certificate has expired: it shows the certificate of 'node' for 127.0.0.1, valid until 2026-11-11 00:00 UTC"
REFUSED = "the other side refuses the certificate of 'ann', valid until 2026-11-11 00:00 UTC: certificate expired"


@pytest.mark.parametrize(("why", "name"), [(EXPIRED, "certificate-expired"), (REFUSED, "tls-not-agreed")])
def test_a_node_with_which_tls_is_not_agreed_on_is_not_taken_for_dead(why, name):
    """Where all certificates have run out no node answers to say so; ending and starting it would change nothing."""
    silent = Silent("h:1", f"no answer within 1.5 s (h:1: TLS: {why})")
    evidence = Evidence(view=ClusterView([], [silent]), directories=(hung(),))
    assert found(evidence) == [name, "directory-in-use"]
    (sign, _) = diagnose(evidence, NOW)
    assert sign.why == (f"h:1: TLS: {why}",)
    assert not any(" serve " in typed or typed.startswith("kill") for typed in sign.commands)
    others = asked(silent=[msgspec.structs.replace(silent, node_id=3)], directories=(hung(),))
    assert {name, "directory-in-use"} <= {*found(others)} <= {name, "directory-in-use", "quorum-at-risk"}
    typed = [command for each in diagnose(others, NOW) for command in each.commands]
    assert not any(" serve " in each or " remove " in each for each in typed)


@pytest.mark.parametrize("name", SPARED)
def test_a_damaged_file_that_a_node_goes_on_without_does_not_cost_the_node(name):
    """Its text says to remove that file; the commands do, and do not replace the node by another one."""
    text = f"/my data/{name} does not match its checksum. Remove that file."
    for evidence in (lies(directory(error="Corruption", text=text)), ended("Corruption", reason=text)):
        (finding,) = diagnose(evidence, NOW)
        remove, start = finding.commands
        assert remove == f"rm '/my data/{name}'"
        assert start.startswith("raftkv serve --node-id ") and "--join" not in start
    (finding,) = diagnose(lies(directory(error="Corruption", text="/my data/vote does not match")), NOW)
    assert any("member remove" in command for command in finding.commands)
