"""For each condition some evidence that shows it, made by hand from a cluster that is well."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from raftkv.doctor import ClusterView, DirectorySeen, Event, Evidence, Heard, LogSeen, Silent, Trial
from raftkv.log import Identity
from raftkv.machine import MethodTime
from raftkv.model import Member, Membership
from raftkv.node.directory import unfinished_text
from raftkv.node.status import (
    ClockStatus,
    NodeStatus,
    PeerStatus,
    SignInStatus,
    Slowed,
    TimerStatus,
    TokenEnd,
    UpgradeStatus,
)
from raftkv.snapshot import TransferProgress
from raftkv.transport.tls import CertificateStatus

CLUSTER = "0123456789abcdef0123456789abcdef"
MEMBERS = tuple(Member(node, f"10.0.0.{node}:8001", f"10.0.0.{node}:7001") for node in (1, 2, 3))
OPTIONS = ("-a", "10.0.0.1:7001,10.0.0.2:7001")
MIB = 1 << 20
NOW = datetime(2026, 5, 1, 3, 0, tzinfo=UTC)
UNREADABLE = "peer_secret_file = 's': No such file or directory"


def peer(number, **more):
    """A peer that is well, and is met where the membership has it."""
    return PeerStatus(node_id=number, connected=True, address=MEMBERS[number - 1].peer_address, **more)


def node(number, **more):
    """A node of three that is well; node 1 leads."""
    found = {
        "node_id": number,
        "cluster_id": CLUSTER,
        "machine": "KeyValue/1",
        "version": "1",
        "role": "leader" if number == 1 else "follower",
        "term": 3,
        "leader": 1,
        "first_index": 1,
        "last_index": 100,
        "durable_index": 100,
        "commit_index": 100,
        "applied_index": 100,
        "digest": "00",
        "membership": Membership(voters=(1, 2, 3), members=MEMBERS),
        "membership_index": 1,
        "disk_free_bytes": 90 << 30,
        "disk_total_bytes": 100 << 30,
        "disk_reserve_bytes": 1 << 30,
        "write_batches": 100,
        "write_seconds": 0.2,
        "sessions": 3,
        "sessions_max": 4096,
        "waiting_requests_max": 50_000,
        "open_files": 40,
        "open_files_max": 1024,
        "data_dir": f"/var/lib/raftkv/n{number}",
        "incarnation": f"word{number}",
        "clock": clock(),
        "peers": [peer(other, incarnation=f"word{other}") for other in (1, 2, 3) if other != number],
    }
    return NodeStatus(**(found | more))


def clock(**more):
    """A clock that is right."""
    return ClockStatus(**({"wall_ms": 1_000_000, "log_time_ms": 1_000_000, "bound_ms": 10_000, "doubts": 0} | more))


def asked(*nodes, silent=(), before=None, **more):
    """Evidence of a cluster whose other nodes of three are well, and was like that a second ago, if not said."""
    given = {each.node_id: each for each in nodes}
    missing = {each.node_id for each in silent}
    all_nodes = [given.get(number) or node(number) for number in (1, 2, 3) if number not in missing]
    view = ClusterView(all_nodes, list(silent))
    return Evidence(view=view, before=view if before is None else before, options=OPTIONS, **more)


def then(*nodes):
    """The first look at three nodes."""
    given = {each.node_id: each for each in nodes}
    return ClusterView([given.get(number) or node(number) for number in (1, 2, 3)], [])


def down(number, address=None):
    """A node that does not answer."""
    return Silent(address or MEMBERS[number - 1].client_address, "connection refused", number)


def cut_off(number, other, reason="timeout", **more):
    """A node that does not reach another one."""
    text = {"name": "its name stands for no address", "tls": "certificate has expired"}.get(reason, "no answer")
    gone = PeerStatus(
        node_id=other, connected=False, unreached=text, unreached_reason=reason, unreached_s=30.0, address="x:1", **more
    )
    return node(number, peers=[gone if each.node_id == other else each for each in node(number).peers])


def refused(text, *, here=True):
    """Node 1 refuses node 3 with this text."""
    gone = PeerStatus(node_id=3, connected=False, refused=text, refused_here=here, unreached_s=5.0)
    return asked(node(1, peers=[peer(2, incarnation="word2"), gone]))


def stopped(error, number=3):
    """A node that has stopped by itself, and still answers."""
    return asked(
        node(number, role="stopped", stopped="why and what to do", stopped_error=error, lasting_s={"stopped": 60.0})
    )


def certificate(expires_s, **more):
    """Of a node."""
    return CertificateStatus(role="node", name="n1", not_after=NOW, expires_s=expires_s, **more)


def directory(path="/data", error=None, text="", number=3, word="word3", **more):
    """A data directory that was tried."""
    found = {
        "path": path,
        "owner": Identity(CLUSTER, number, word),
        "starts": 4,
        "trial": Trial(error=error, text=text),
        "free_bytes": 90 << 30,
        "total_bytes": 100 << 30,
        "reserve_bytes": 1 << 30,
        "filesystem": "ext4",
    }
    return DirectorySeen(**(found | more))


def lies(*directories, **more):
    """Evidence of directories only."""
    return Evidence(directories=directories, **more)


def ended(error, name="process_ended", reason="why and what to do"):
    """A log whose process has ended."""
    last = Event(name, "error", "2026-05-01T02:59:00Z", {"error": error, "reason": reason})
    return Evidence(logs=(LogSeen(path="n3.log", node_id=3, events=(Event("node_started"), last)),))


def grown(number, was, now):
    """A node's commit index at the two looks."""
    return node(number, commit_index=was, applied_index=was), node(number, commit_index=now, applied_index=now)


def lagging(leader, follower):
    """Node 1 leads and node 3 follows, with these commit indexes at the two looks."""
    (led, leads), (was, now), (with_it, still) = grown(1, *leader), grown(3, *follower), grown(2, *leader)
    return asked(leads, now, still, before=then(led, was, with_it))


def sending(before, now):
    """Node 1 sends a snapshot to node 3."""

    def leader(sent):
        progress = TransferProgress(index=50, sent_bytes=sent, total_bytes=100, files_done=0, files=2)
        return node(1, peers=[peer(2, incarnation="word2"), peer(3, incarnation="word3", snapshot=progress)])

    return asked(leader(now), before=then(leader(before)))


def members(voters, **more):
    """A cluster of these nodes, all the same but for their ids."""
    every = tuple(Member(each, f"10.0.0.{each}:8001", f"10.0.0.{each}:7001") for each in range(1, 5))
    ids = sorted({*voters, *more.get("learners", ()), *more.get("outgoing", ())})
    membership = Membership(voters=voters, members=tuple(every[each - 1] for each in ids), **more)
    nodes = [node(each, membership=membership, peers=[]) for each in ids if each < 4]
    view = ClusterView(nodes, [])
    return Evidence(view=view, before=view, options=OPTIONS)


def learning():
    """Node 3 learns, and has caught up."""
    membership = Membership(voters=(1, 2), learners=(3,), members=MEMBERS)
    leader = node(1, membership=membership, peers=[peer(2), peer(3, match_index=99)])
    return asked(leader, *[node(each, membership=membership) for each in (2, 3)])


def learner_down():
    """Node 3 learns, and does not answer."""
    membership = Membership(voters=(1, 2), learners=(3,), members=MEMBERS)
    return asked(*[node(each, membership=membership) for each in (1, 2)], silent=[down(3)])


def leaderless(*silent, before=True):
    """No node leads."""
    nodes = [node(number, role="follower", leader=None, lasting_s={"leaderless": 90.0}) for number in (1, 2, 3)]
    present = [each for each in nodes if each.node_id not in {gone.node_id for gone in silent}]
    view = ClusterView(present, list(silent))
    return Evidence(view=view, before=view if before else None, options=OPTIONS)


def method(**more):
    """How often a method ran."""
    return {"put": MethodTime(kind="command", line="shop.py:12", runs=9, **more)}


def due(number=1, next_due_ms=900_000):
    """A leader with scheduled commands."""
    return node(number, timers=TimerStatus(5, next_due_ms, 0, 0, 0))


def signing_in(*slowed, ending=()):
    """What a node knows of those who sign in there."""
    ends = [TokenEnd(user, 1_000_000 + left_ms) for user, left_ms in ending]
    signs = SignInStatus(
        failed=57, delayed=900, slowed=list(slowed), slowed_count=len(slowed), ending=ends, ending_count=len(ends)
    )
    return asked(node(2, sign_ins=signs))


def slowed(of, user="", host="", failures=57):
    """Somebody who has to wait."""
    return Slowed(of=of, user=user, host=host, failures=failures, ago_s=3.0)


def versions(**more):
    """A leader's versions of the application."""
    return node(1, versions=UpgradeStatus(active=1, oldest=1, newest=2, **more))


FOREIGN = "/d/snapshots/1-1 was neither taken nor received by this node, so it is not used: remove it"

OLD = node(3, role="leader", term=2)

CASES: dict[str, Evidence] = {
    "replicas-differ": asked(node(3, digest="01")),
    "replicas-doubted": asked(node(1, doubt="the states of nodes 1 and 3 differ", lasting_s={"doubt": 3.0})),
    "stopped-no-agreement": stopped("NoAgreement"),
    "stopped-otherwise": stopped("SafetyViolation"),
    "two-clusters": asked(heard=(Heard("10.0.0.1:7001", 1, CLUSTER), Heard("10.0.1.1:7001", 1, "other"))),
    "quorum-lost": leaderless(down(2), down(3)),
    "no-member-answers": Evidence(view=ClusterView([], [Silent("10.0.0.1:7001", "refused")]), options=OPTIONS),
    "not-allowed": Evidence(
        view=ClusterView([], [Silent("10.0.0.1:7001", "sign in", is_refusal=True)]), options=OPTIONS
    ),
    "tls-not-agreed": asked(
        silent=[Silent("10.0.0.3:7001", "no answer within 1.5 s (10.0.0.3:7001: TLS: it does not speak TLS)", 3)]
    ),
    "no-leader": leaderless(),
    "writes-refused": asked(node(1, writes_refused="no voter has room", lasting_s={"writes_refused": 9.0})),
    "certificate-expired": asked(node(2, certificates=[certificate(-60.0)])),
    "stopped-corrupt": stopped("Corruption"),
    "stopped-state": stopped("StateCorruption"),
    "stopped-diverged": stopped("Diverged"),
    "stopped-disk": ended("DiskFull"),
    "stopped-version": ended("WrongVersion"),
    "stopped-machine": ended("MachineFailed"),
    "stopped-directory": ended("WrongDataDir"),
    "directory-foreign": lies(directory(error="WrongDataDir", text="/data/vote belongs to node 2")),
    "recovery-unfinished": lies(directory(error="WrongDataDir", text=unfinished_text("/data"))),
    "directory-older": lies(directory(error="Corruption", text="/data/vote is an older copy: it knows of 2 starts")),
    "directory-damaged": lies(directory(error="Corruption", text="/data/log/1.log is missing")),
    "directory-other-version": lies(directory(error="FormatError", text="/data/vote has format version 9")),
    "directory-state-lost": lies(directory(error="StateCorruption", text="start it with --rebuild")),
    "directory-no-agreement": lies(directory(error="NoAgreement", text="no state has a majority")),
    "directory-unreadable": lies(directory(error="DiskError", text="reading /data/vote: Input/output error")),
    "directory-not-met": asked(directories=(directory(word="another"),)),
    "directory-twice": lies(directory(), directory("/copy")),
    "quorum-at-risk": asked(silent=[down(3)]),
    "voter-silent": asked(silent=[down(3)]),
    "old-leader": asked(OLD, before=then(OLD)),
    "leader-changes": asked(*[node(each, term=4) for each in (1, 2, 3)], before=then()),
    "change-stuck": members((1, 2, 3), outgoing=(1, 2)),
    "not-started": ended("ConfigError"),
    "damage-found": asked(node(2, damaged=["/d/log/1.log does not match its checksum: remove it"])),
    "other-cluster": refused("node 3 belongs to the cluster abc, node 1 to def: check the addresses"),
    "directory-replaced": refused("node 3 comes with another data directory than before"),
    "directory-copied": refused("two processes run as node 3 on copies of one data directory: stop one"),
    "directory-set-back": refused("node 3 comes with an older copy of its data directory (start 2, seen was 3)"),
    "id-taken": refused("there is a node 3 already: give each node an id of its own"),
    "other-code": refused("version 2 of Shop is active, and node 3 runs version 1: install a version"),
    "other-settings": refused("node 3 has lease_reads = True, node 1 has False: a lease holds only if all agree"),
    "secret-differs": refused("node 1 has another cluster secret than who dials it: give all nodes the same file"),
    "secret-not-accepted": asked(
        *(node(each, secret_marks=["00aa"]) for each in (1, 2)), node(3, secret_marks=["11bb"])
    ),
    "secret-refused": asked(node(2, secrets_refused=9, secret_refused_s=4.0)),
    "certificate-not-a-nodes": refused("node 3 shows a certificate for alice, and not for 10.0.0.3: give it one"),
    "peer-stopped": asked(
        node(
            1,
            peers=[
                peer(2, incarnation="word2"),
                PeerStatus(node_id=3, connected=False, refused="node 3 has stopped: its disk has failed"),
            ],
        ),
        silent=[down(3)],
    ),
    "peer-removed": refused("node 3 was removed from the cluster: to bring it back, empty its data directory"),
    "not-added": refused("node 3 is no member of the cluster yet: add it first (raftkv member add)"),
    "peer-refused": refused("something that nobody knows yet"),
    "tls-refused": asked(cut_off(1, 3, "tls")),
    "name-unknown": asked(cut_off(1, 3, "name")),
    "peer-unreached": asked(cut_off(2, 3)),
    "misplaced": asked(node(2, misplaced="listens for nodes at h:1, but the membership sends them to h:2")),
    "elsewhere": asked(node(1, peers=[peer(2), PeerStatus(node_id=3, connected=True, address="10.0.0.9:8001")])),
    "node-stuck": lagging((100, 200), (50, 50)),
    "node-behind": lagging((10_000, 20_000), (5_000, 9_000)),
    "apply-behind": asked(node(2, commit_index=90_000, applied_index=5)),
    "snapshot-failing": asked(node(2, snapshot_problem="the disk is full", lasting_s={"snapshot_problem": 7.0})),
    "snapshot-overdue": asked(node(2, lasting_s={"snapshot_due": 1200.0})),
    "snapshot-stalled": sending(10, 10),
    "disk-stalled": asked(node(2, disk_writing_s=2.5)),
    "disk-slow": asked(node(2, write_batches=110, write_seconds=3.2), before=then()),
    "disk-low": asked(node(2, disk_low=True, disk_free_bytes=500 * MIB, lasting_s={"disk_low": 12.0})),
    "disk-nearly-low": asked(node(2, disk_free_bytes=1500 * MIB)),
    "certificate-expiring": asked(node(2, certificates=[certificate(5 * 86_400.0)])),
    "certificate-not-taken": asked(node(2, certificates=[certificate(1e8, not_taken="tls_key = 'k': no such file")])),
    "secret-not-taken": asked(node(2, secret_not_taken=UNREADABLE)),
    "clock-doubted": asked(node(1, clock=clock(doubt="its clock is 60 s behind"), lasting_s={"clock_doubt": 4.0})),
    "clock-off": asked(node(1, peers=[peer(2), peer(3, clock_offset_ms=60_000)])),
    "log-time-ahead": asked(node(1, clock=clock(ahead_ms=60_000))),
    "timers-overdue": asked(due()),
    "upgrade-failed": asked(versions(failed="the upgrade to 2 has raised KeyError")),
    "method-mistakes": asked(node(2, mistakes={"put": 3})),
    "sessions-exhausted": asked(node(1, sessions=4000)),
    "requests-wait": asked(node(1, waiting_requests=49_000)),
    "passwords-guessed": signing_in(slowed("host", host="10.9.9.9"), slowed("user", "boss")),
    "files-run-out": asked(node(2, open_files=1000)),
    "log-dropping": asked(node(2, log_problem="nobody reads", log_lines_lost=3, lasting_s={"log_problem": 8.0})),
    "peer-doubted": Evidence(logs=(LogSeen(path="n1.log", node_id=1, events=(Event("peer_doubted"),)),)),
    "directory-held": asked(silent=[down(3)], directories=(directory(in_use=True, used_by=4711, trial=None),)),
    "directory-elsewhere": asked(directories=(directory(owner=Identity("other", 3, "word3")),)),
    "directory-full": lies(directory(free_bytes=MIB)),
    "directory-in-memory": lies(directory(filesystem="tmpfs")),
    "state-rebuilt": lies(directory(trial=Trial(rebuilds="its newest sound snapshot"))),
    "no-directory": lies(DirectorySeen(path="/data", has_data=False)),
    "snapshot-refused": lies(
        directory(trial=Trial(events=(Event("snapshot_refused", "error", "", {"reason": FOREIGN}),)))
    ),
    "unused-snapshot": asked(node(2, damaged=[FOREIGN])),
    "single-voter": members((1,)),
    "even-voters": members((1, 2)),
    "learner-silent": learner_down(),
    "learner-waits": learning(),
    "address-silent": asked(silent=[Silent("10.0.0.9:7001", "connection refused")]),
    "secret-being-replaced": asked(
        *(node(each, secret_marks=["00aa", "11bb"]) for each in (1, 2)), node(3, secret_marks=["11bb", "00aa"])
    ),
    "addresses-unwritten": asked(node(2, addresses_unwritten=True)),
    "catching-up": lagging((10_000, 11_000), (5_000, 8_000)),
    "snapshot-sent": sending(10, 20),
    "user-slowed": signing_in(
        slowed("user from host", "ann", "10.9.9.9", 7), slowed("user from host", host="10.9.9.9")
    ),
    "token-ending": signing_in(ending=[("ann", 7_200_000), ("bob", -60_000)]),
    "upgrade-waits": asked(versions(waits_for="node 3 runs version 1 only")),
    "raftkv-mixed": asked(node(3, version="2")),
    "method-slow": asked(node(2, methods=method(slow=2, seconds=1.0))),
    "disk-too-quick": asked(node(2, write_batches=5_000, write_seconds=0.02)),
    "log-dropped": asked(node(2, log_lines_lost=4)),
    "log-unreadable": Evidence(logs=(LogSeen(path="n1.log", problem="n1.log: No such file or directory"),)),
    "stopped-removed": ended("NodeRemoved"),
    "directory-of-removed": asked(
        *[
            msgspec.structs.replace(node(each), membership=Membership(voters=(1, 2, 3), members=MEMBERS, removed=(4,)))
            for each in (1, 2, 3)
        ],
        directories=(directory(number=4),),
    ),
    "directory-in-use": lies(directory(in_use=True, used_by=4711, trial=None)),
    "directory-mended": lies(directory(trial=Trial(events=(Event("vote_file_mended", "warning", "", {"copy": "1"}),)))),
    "directory-strangers": lies(directory(strangers=("notes.txt",))),
    "directory-addresses": lies(directory(has_addresses=True)),
}
