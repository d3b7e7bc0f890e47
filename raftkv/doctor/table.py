"""Every condition by its name, with the rows of the table of faults that it shows an operator; and the diagnosis."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from raftkv.doctor.conditions import (
    application,
    directories,
    disks,
    host,
    logfiles,
    peers,
    progress,
    service,
    signins,
    stops,
)
from raftkv.doctor.evidence import Evidence
from raftkv.doctor.finding import Finding, Severity, Sign

CRITICAL, WARNING, NOTE = Severity


class Condition(msgspec.Struct, frozen=True):
    """Something that may be wrong, and the function that finds its signs."""

    name: str
    severity: Severity
    signs: Callable[[Evidence], Iterable[Sign]]
    faults: tuple[int, ...]
    data_in_doubt: bool = False
    """Whether it is about data, and not only about who serves them."""


TABLE = (
    Condition("replicas-differ", CRITICAL, progress.replicas_differ, (76,), True),
    Condition("replicas-doubted", CRITICAL, progress.replicas_doubted, (76, 86), True),
    Condition("stopped-no-agreement", CRITICAL, stops.stopped_no_agreement, (76, 86), True),
    Condition("stopped-otherwise", CRITICAL, stops.stopped_otherwise, (25, 26), True),
    Condition("two-clusters", CRITICAL, service.two_clusters, (23, 83), True),
    Condition("quorum-lost", CRITICAL, service.quorum_lost, (58, 87)),
    Condition("no-member-answers", CRITICAL, service.no_member_answers, (80,)),
    Condition("no-leader", CRITICAL, service.no_leader, (39, 41, 42, 44)),
    Condition("writes-refused", CRITICAL, disks.writes_refused, (13,)),
    Condition("certificate-expired", CRITICAL, host.certificate_expired, (84,)),
    Condition("stopped-corrupt", CRITICAL, stops.stopped_corrupt, (9, 11, 18, 19), True),
    Condition("stopped-state", CRITICAL, stops.stopped_state, (10, 61, 70), True),
    Condition("stopped-diverged", CRITICAL, stops.stopped_diverged, (76,), True),
    Condition("stopped-disk", CRITICAL, stops.stopped_disk, (13, 15, 16, 17), True),
    Condition("stopped-version", CRITICAL, stops.stopped_version, (24, 85), True),
    Condition("stopped-machine", CRITICAL, stops.stopped_machine, (75,), True),
    Condition("stopped-directory", CRITICAL, stops.stopped_directory, (20, 22, 77), True),
    Condition("directory-foreign", CRITICAL, directories.directory_foreign, (77,), True),
    Condition("recovery-unfinished", CRITICAL, directories.recovery_unfinished, (87, 88), True),
    Condition("directory-older", CRITICAL, directories.directory_older, (21,), True),
    Condition("directory-damaged", CRITICAL, directories.directory_damaged, (9, 11, 18, 19), True),
    Condition("directory-other-version", CRITICAL, directories.directory_other_version, (24,), True),
    Condition("directory-state-lost", CRITICAL, directories.directory_state_lost, (10, 70), True),
    Condition("directory-no-agreement", CRITICAL, directories.directory_no_agreement, (86,), True),
    Condition("directory-unreadable", CRITICAL, directories.directory_unreadable, (15, 18), True),
    Condition("directory-not-met", CRITICAL, directories.directory_not_met, (20,), True),
    Condition("directory-twice", CRITICAL, directories.directory_twice, (22,), True),
    Condition("not-allowed", WARNING, service.not_allowed, (80,)),
    Condition("quorum-at-risk", WARNING, service.quorum_at_risk, (46, 58)),
    Condition("voter-silent", WARNING, service.voter_silent, (38,)),
    Condition("old-leader", WARNING, service.old_leader, (40, 72)),
    Condition("leader-changes", WARNING, service.leader_changes, (42, 43, 44)),
    Condition("change-stuck", WARNING, service.change_stuck, (50, 55, 56)),
    Condition("not-started", WARNING, stops.not_started, (83,)),
    Condition("damage-found", WARNING, disks.damage_found, (9, 10, 70)),
    Condition("other-cluster", WARNING, peers.other_cluster, (23, 77)),
    Condition("directory-replaced", WARNING, peers.directory_replaced, (20,)),
    Condition("directory-copied", WARNING, peers.directory_copied, (22,)),
    Condition("directory-set-back", WARNING, peers.directory_set_back, (21,)),
    Condition("id-taken", WARNING, peers.id_taken, (57,)),
    Condition("other-code", WARNING, peers.other_code, (24, 85)),
    Condition("other-settings", WARNING, peers.other_settings, (73,)),
    Condition("secret-differs", WARNING, peers.secret_differs, (23, 91)),
    Condition("secret-not-accepted", WARNING, peers.secret_not_accepted, (23, 91)),
    Condition("secret-refused", WARNING, peers.secret_refused, (23, 91)),
    Condition("certificate-not-a-nodes", WARNING, peers.certificate_not_a_nodes, (84,)),
    Condition("peer-stopped", WARNING, peers.peer_stopped, (15,)),
    Condition("peer-removed", WARNING, peers.peer_removed, (37,)),
    Condition("not-added", WARNING, peers.not_added, (83,)),
    Condition("peer-refused", WARNING, peers.peer_refused, (23,)),
    Condition("tls-refused", WARNING, peers.tls_refused, (84,)),
    Condition("tls-not-agreed", WARNING, host.tls_not_agreed, (84,)),
    Condition("name-unknown", WARNING, peers.name_unknown, (81,)),
    Condition("peer-unreached", WARNING, peers.peer_unreached, (38, 39, 40, 43)),
    Condition("misplaced", WARNING, peers.misplaced, (83,)),
    Condition("elsewhere", WARNING, peers.elsewhere, (83,)),
    Condition("node-stuck", WARNING, progress.node_stuck, (34,)),
    Condition("node-behind", WARNING, progress.node_behind, (34,)),
    Condition("apply-behind", WARNING, progress.apply_behind, (79,)),
    Condition("snapshot-failing", WARNING, progress.snapshot_failing, (14, 59, 61, 68)),
    Condition("snapshot-overdue", WARNING, progress.snapshot_overdue, (35,)),
    Condition("snapshot-stalled", WARNING, progress.snapshot_stalled, (66,)),
    Condition("disk-stalled", WARNING, disks.disk_stalled, (16,)),
    Condition("disk-slow", WARNING, disks.disk_slow, (16,)),
    Condition("disk-low", WARNING, disks.disk_low, (13,)),
    Condition("disk-nearly-low", WARNING, disks.disk_nearly_low, (13,)),
    Condition("certificate-expiring", WARNING, host.certificate_expiring, (84,)),
    Condition("certificate-not-taken", WARNING, host.certificate_not_taken, (84,)),
    Condition("secret-not-taken", WARNING, host.secret_not_taken, (84,)),
    Condition("clock-doubted", WARNING, host.clock_doubted, (73, 82)),
    Condition("clock-off", WARNING, host.clock_off, (73, 82)),
    Condition("log-time-ahead", WARNING, host.log_time_ahead, (82,)),
    Condition("timers-overdue", WARNING, application.timers_overdue, (73,)),
    Condition("upgrade-failed", WARNING, application.upgrade_failed, (85,)),
    Condition("method-mistakes", WARNING, application.method_mistakes, (75,)),
    Condition("sessions-exhausted", WARNING, application.sessions_exhausted, (74,)),
    Condition("requests-wait", WARNING, application.requests_wait, (34,)),
    Condition("passwords-guessed", WARNING, signins.passwords_guessed, ()),
    Condition("files-run-out", WARNING, host.files_run_out, (34,)),
    Condition("log-dropping", WARNING, host.log_dropping, (78,)),
    Condition("peer-doubted", WARNING, logfiles.peer_doubted, (20, 22, 76)),
    Condition("directory-held", WARNING, directories.directory_held, (16, 22)),
    Condition("directory-elsewhere", WARNING, directories.directory_elsewhere, (23,)),
    Condition("directory-full", WARNING, directories.directory_full, (13, 14)),
    Condition("directory-in-memory", WARNING, directories.directory_in_memory, (4, 5)),
    Condition("state-rebuilt", WARNING, directories.state_rebuilt, (10, 60, 88)),
    Condition("no-directory", WARNING, directories.no_directory, (11,)),
    Condition("snapshot-refused", WARNING, directories.snapshot_refused, (61, 77)),
    Condition("unused-snapshot", NOTE, disks.unused_snapshot, (77,)),
    Condition("single-voter", NOTE, service.single_voter, (58,)),
    Condition("even-voters", NOTE, service.even_voters, (58,)),
    Condition("learner-silent", NOTE, service.learner_silent, (54,)),
    Condition("learner-waits", NOTE, progress.learner_waits, (54,)),
    Condition("address-silent", NOTE, service.address_silent, (80,)),
    Condition("addresses-unwritten", NOTE, peers.addresses_unwritten, (83,)),
    Condition("secret-being-replaced", NOTE, peers.secret_being_replaced, (91,)),
    Condition("catching-up", NOTE, progress.catching_up, (34,)),
    Condition("snapshot-sent", NOTE, progress.snapshot_sent, (67,)),
    Condition("user-slowed", NOTE, signins.user_slowed, ()),
    Condition("token-ending", NOTE, signins.token_ending, ()),
    Condition("upgrade-waits", NOTE, application.upgrade_waits, (85,)),
    Condition("raftkv-mixed", NOTE, application.raftkv_mixed, (24,)),
    Condition("method-slow", NOTE, application.method_slow, (79,)),
    Condition("disk-too-quick", NOTE, disks.disk_too_quick, (4, 7, 12)),
    Condition("log-dropped", NOTE, host.log_dropped, (78,)),
    Condition("log-unreadable", NOTE, logfiles.log_unreadable, (78,)),
    Condition("stopped-removed", NOTE, stops.stopped_removed, (37, 53)),
    Condition("directory-of-removed", NOTE, directories.directory_of_removed, (37,)),
    Condition("directory-in-use", NOTE, directories.directory_in_use, (22,)),
    Condition("directory-mended", NOTE, directories.directory_mended, (8,)),
    Condition("directory-strangers", NOTE, directories.directory_strangers, (77,)),
    Condition("directory-addresses", NOTE, directories.directory_addresses, (83,)),
)
"""The worst first; findings come in this order."""


def diagnose(evidence: Evidence, now: datetime) -> list[Finding]:
    """Everything that is found, the worst first; the same evidence gives the same."""
    return [_finding(condition, sign, now) for condition in TABLE for sign in condition.signs(evidence)]


def _finding(condition: Condition, sign: Sign, now: datetime) -> Finding:
    since = sign.at
    if sign.lasting_s is not None:
        since = (now - timedelta(seconds=sign.lasting_s)).astimezone(UTC).isoformat(timespec="seconds")
    return Finding(
        condition=condition.name,
        severity=condition.severity,
        what=sign.what,
        since=since,
        why=sign.why,
        do=sign.do,
        commands=sign.commands,
        dont=sign.dont,
    )


def exit_code_of(findings: Iterable[Finding]) -> int:
    """For scripts, by the worst: 5 when data is in doubt, 3 when clients are not served, 1 for a warning, else 0."""
    in_doubt = {condition.name for condition in TABLE if condition.data_in_doubt}
    codes = {Severity.WARNING: 1, Severity.NOTE: 0}
    return max((codes.get(each.severity, 5 if each.condition in in_doubt else 3) for each in findings), default=0)
