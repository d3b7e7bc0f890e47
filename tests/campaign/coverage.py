"""Which rows of the table of faults are covered, and by what: kinds of simulated faults, counted, and named tests.

A row is a bug that some system shipped, or something that disks, networks and people do. Worlds meet the rows of
their kinds of faults by chance, again and again; a test or a scenario meets one row on purpose, every time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

KINDS: dict[str, str] = {
    "crash": "F1-F6",
    "crash in an operation": "F1-F8 F12 F59 F60",
    "crash in a recovery": "F88",
    "crash of all": "F2 F4 F5 F7",
    "kill": "F4 F15",
    "lost unsynced changes": "F4 F7 F8 F12",
    "restart": "F37 F48 F66",
    "graceful stop": "F37",
    "pause": "F16 F34 F38 F72",
    "cut": "F38 F39 F43",
    "partition": "F26 F38 F40",
    "one-way cut": "F40",
    "cuts of any shape": "F39 F40 F41",
    "heal": "F38 F43",
    "reset": "F43 F66 F74",
    "slow network": "F30 F62 F65",
    "slow link": "F30 F65",
    "bit flip": "F61 F66 F74",
    "lost frame": "F45 F66 F74",
    "repeated frame": "F28 F29 F48 F66",
    "frame out of order": "F28 F29 F31 F66",
    "slow name": "F81",
    "unknown name": "F81",
    "wrong name": "F81",
    "slow disk": "F16 F31",
    "hanging disk": "F16",
    "hanging thread": "F16 F31 F66 F69",
    "failing disk": "F15",
    "write cut short": "F17",
    "failing read": "F18",
    "full disk": "F13 F14",
    "clock": "F73 F82",
    "clock that goes fast or slow": "F82",
    "clock reset": "F82",
    "leader that doubts its clock": "F82",
    "log time that is ahead": "F82",
    "rot": "F9 F10 F61 F70",
    "stale write": "F19",
    "misdirected write": "F19",
    "missing file": "F11",
    "wiped directory": "F20",
    "foreign file": "F77",
    "older copy": "F21",
    "copied directory": "F22",
    "transfer": "F45 F48",
    "snapshot": "F59 F62 F69",
    "add": "F52 F54 F55",
    "promote": "F54 F55",
    "remove": "F37 F50 F53 F55",
    "id given twice": "F57",
    "transfer to a learner": "F47",
    "transfer to a silent node": "F46",
    "change before the first commit": "F49",
    "node of another cluster": "F23",
    "node of another version": "F24",
    "equal time-outs": "F44",
    "clock rate": "F73",
    "leases": "F72 F73",
    "failing log": "F78",
    "no pre-vote": "F42",
    "small batches": "F32",
    "command at the limit": "F32 F33",
    "command over the limit": "F33",
    "command that raises": "F75",
    "command that calls itself": "F75",
    "unknown outcome that was done": "F36",
    "leader before its first commit": "F27 F49",
    "old terms' entries wait for a commit": "F25",
    "read before the first commit": "F71",
    "change that is cut off": "F51",
    "founding cut off": "F83",
    "move": "F83",
    "joint membership with a node down": "F50 F56",
    "log cut behind a snapshot on its way": "F67",
    "client without its seeds": "F80",
    "leadership handed over for want of room": "F13",
    "writes refused for want of room": "F13",
    "slow scan": "F79",
    "view of one index": "F79",
    "view that is gone": "F79",
    "1 voter": "F58",
    "2 voters": "F58",
    "3 voters": "F58",
    "4 voters": "F58",
    "5 voters": "F58",
    "6 voters": "F58",
    "7 voters": "F58",
}
"""By kind of fault, as `WorldReport.faults` counts them: the rows that the kind stands for."""

FAULTS: dict[int, str] = {
    1: "a vote that is not durable when it is given",
    2: "terms that are forgotten by all",
    3: "a vote cleared within its term",
    4: "an append acknowledged before it is durable",
    5: "a leader that counts its own entry before it is durable",
    6: "a state ahead of the durable log",
    7: "files that become durable in another order",
    8: "a torn record at the log's end",
    9: "a flipped bit in the log",
    10: "a damaged state",
    11: "a missing file",
    12: "a name that is not durable",
    13: "a full disk under the log",
    14: "a full disk under a snapshot",
    15: "a sync that fails",
    16: "a slow disk",
    17: "a write that is cut short",
    18: "old entries that can't be read",
    19: "stale, misdirected and lost writes",
    20: "a wiped directory under an old id",
    21: "an older backup under an old id",
    22: "a copied directory: two processes, one id",
    23: "a node of another cluster",
    24: "files of another version",
    25: "an old term's entry committed by counting (Figure 8)",
    26: "a leader that lacks what is committed",
    27: "a leader that does not know what is committed",
    28: "appends repeated, late and out of order",
    29: "answers to appends, late and out of order",
    30: "a commit index ahead of the follower's log",
    31: "a truncation while a write is under way",
    32: "batches at their limit of bytes",
    33: "a command over the limit",
    34: "a slow follower, and queues",
    35: "a log that grows for ever",
    36: "an operation that failed and is done later",
    37: "a removed node that campaigns",
    38: "a node that comes back after long",
    39: "two that can't talk, and a third that both hear",
    40: "a leader that can send and not hear",
    41: "an old leader's heartbeats to a connected majority",
    42: "nodes with and without pre-vote",
    43: "a link that flaps",
    44: "equal election time-outs",
    45: "a transfer of leadership that gets lost, or to one that lags",
    46: "a transfer that would lower the quorum",
    47: "a learner that leads",
    48: "TimeoutNow and votes from before",
    49: "a change of membership before the term's first commit",
    50: "a crash in the middle of a change",
    51: "a change that is cut off the log",
    52: "a snapshot's membership",
    53: "a leader that is removed",
    54: "a learner that is promoted too early",
    55: "two changes at once",
    56: "decisions in a joint membership",
    57: "an id or address that is used twice",
    58: "memberships of every size, down to one",
    59: "a crash while a snapshot is made",
    60: "a crash while a snapshot is installed",
    61: "a snapshot that is not what it says",
    62: "a snapshot older than the state",
    63: "a snapshot, and a log that differs from it",
    64: "a snapshot, and a log that goes on behind it",
    65: "a snapshot of a deposed leader",
    66: "chunks lost, repeated, of another transfer",
    67: "a log cut behind a snapshot that is still being installed",
    68: "a snapshot of half the state",
    69: "a snapshot while entries are applied",
    70: "damaged snapshots",
    71: "a read before the term's first commit",
    72: "a leader that wakes from a pause",
    73: "clocks that jump and run fast or slow",
    74: "commands that are sent again, and sessions that expire",
    75: "a command that raises",
    76: "replicas that differ",
    77: "files of another node or cluster in a data directory",
    78: "a log whose sink blocks, fails or is closed",
    79: "a range over very many deleted keys, a scan of everything, by many callers",
    80: "clients that were told of nodes that are gone",
    81: "a name that is found late, not at all, or at another address",
    82: "a leader's clock that is far ahead for a moment, or runs fast",
    83: "a founding that is half done, or at an address where nobody is, and nodes that move",
    84: "certificates that run out, are replaced, or are somebody else's",
    88: "a second crash in the middle of a recovery",
    89: "a fork with a live client or node",
}
"""The rows, in a few words."""

TESTS: dict[int, tuple[str, ...]] = {
    1: (
        "tests/core/test_demands_elections.py::test_a_granted_vote_is_sent_only_when_it_is_durable",
        "tests/log/test_vote.py::test_a_vote_never_goes_back",
    ),
    2: ("tests/log/test_vote.py::test_the_power_goes_at_every_operation",),
    3: ("tests/core/test_demands_elections.py::test_stepping_down_within_a_term_keeps_the_vote",),
    4: ("tests/core/test_demands_replication.py::test_a_follower_acknowledges_only_what_is_durable",),
    5: ("tests/core/test_demands_replication.py::test_the_leaders_own_copy_counts_only_when_durable",),
    6: ("tests/node/test_mixups.py::test_a_state_that_is_ahead_of_the_log_is_not_served",),
    7: ("tests/log/test_crash.py::test_it_ends_at_every_operation",),
    8: ("tests/log/test_damage.py::test_each_zeroed_sector_after_an_unclean_end",),
    9: ("tests/log/test_damage.py::test_each_flipped_byte_after_a_clean_end",),
    10: (
        "tests/state/test_rocks.py::test_a_flip_in_any_file_is_found_or_harmless",
        "tests/node/test_damage.py::test_damage_that_is_met_later_stops_the_node_and_is_not_forgotten",
    ),
    11: (
        "tests/log/test_damage.py::test_each_missing_file",
        "tests/state/test_rocks.py::test_a_missing_file_is_found",
    ),
    12: ("tests/disk/test_real.py::test_the_order_of_replacing_a_file",),
    13: ("tests/log/test_crash.py::test_a_disk_that_is_really_full",),
    14: ("tests/snapshot/test_store.py::test_a_full_disk_leaves_no_draft",),
    15: ("tests/disk/test_simulated.py::test_what_a_failed_sync_did_not_save_no_other_sync_saves",),
    16: ("tests/node/test_disks.py::test_a_disk_that_never_comes_back_stops_the_node",),
    17: (
        "tests/disk/test_real.py::test_a_short_write_goes_on",
        "tests/disk/test_real.py::test_a_write_that_gets_nowhere_fails",
    ),
    18: (
        "tests/node/test_engine.py::test_entries_that_cannot_be_read_stop_the_node_unless_they_were_compacted",
        "tests/log/test_log.py::test_a_failed_read_is_an_error_of_the_disk",
    ),
    19: (
        "tests/log/test_damage.py::test_each_piece_in_another_place",
        "tests/log/test_damage.py::test_an_older_copy_of_each_file",
    ),
    20: (
        "tests/node/test_handshakes.py::test_a_new_member_knows_a_wiped_directory_too",
        "tests/node/test_met.py::test_whoever_counted_an_acknowledgement_knows_whose_it_was",
        "tests/node/test_met.py::test_two_live_processes_on_two_directories_count_nowhere",
        "tests/node/test_met.py::test_a_wiped_founder_that_stood_alone_stops_when_it_hears_of_itself",
    ),
    21: (
        "tests/node/test_handshakes.py::test_an_older_copy_is_refused_however_often_it_is_started",
        "tests/node/test_met.py::test_who_was_started_since_is_not_heard_any_more",
    ),
    22: (
        "tests/node/test_met.py::test_two_live_processes_on_copies_of_a_directory_count_nowhere",
        "tests/node/test_met.py::test_a_copy_that_takes_the_place_of_a_running_node_is_found_out",
        "tests/node/test_handshakes.py::test_a_copied_data_directory_is_refused",
        "tests/disk/test_contract.py::test_a_directory_is_locked_once",
    ),
    23: (
        "tests/node/test_mixups.py::test_a_data_directory_of_another_cluster_is_refused",
        "tests/transport/test_contract.py::test_a_refused_handshake_says_what_to_do",
    ),
    24: (
        "tests/log/test_log.py::test_a_log_of_another_version_is_refused",
        "tests/log/test_vote.py::test_another_version",
        "tests/test_entry.py::test_a_record_is_laid_out_as_documented",
    ),
    25: (
        "tests/core/test_demands_replication.py::test_entries_of_older_terms_are_not_committed_by_counting",
        "tests/core/scripts/figure_8_an_old_entry_on_a_majority_is_not_committed.txt",
        "tests/core/scripts/figure_8_d_an_old_entry_on_a_majority_is_overwritten.txt",
        "tests/core/scripts/figure_8_e_with_an_entry_of_the_own_term_the_old_one_is_safe.txt",
    ),
    26: ("tests/core/scripts/what_is_committed_is_not_removed.txt",),
    27: ("tests/core/test_demands_replication.py::test_a_new_leader_begins_its_term_with_a_no_op",),
    28: ("tests/core/test_demands_replication.py::test_a_late_shorter_append_removes_nothing",),
    29: ("tests/core/test_demands_replication.py::test_the_match_index_never_goes_back",),
    30: (
        "tests/core/test_demands_replication.py::test_a_follower_commits_no_further_than_what_the_message_vouches_for",
    ),
    31: ("tests/core/test_demands_replication.py::test_a_write_that_was_cut_off_vouches_for_nothing",),
    32: (
        "tests/core/test_demands_replication.py::test_a_batch_is_bounded_in_bytes_but_never_empty",
        "tests/test_config.py::test_whatever_goes_to_a_peer_fits_into_a_frame",
    ),
    33: ("tests/node/test_requests.py::test_commands_are_checked_before_they_get_into_the_log",),
    34: ("tests/core/test_demands_replication.py::test_the_window_bounds_bytes_on_their_way",),
    35: (
        "tests/node/test_growth.py::test_a_log_is_cut_when_it_has_many_entries_however_slowly_they_come",
        "tests/node/test_growth.py::test_a_log_is_cut_when_it_has_many_bytes_however_few_the_entries",
    ),
    36: (
        "tests/client/test_outcomes.py::test_the_deadline_of_a_sent_command_is_indeterminate",
        "tests/client/test_chaos.py::test_without_sessions_every_increment_counts_at_most_once",
    ),
    37: ("tests/core/test_demands_elections.py::test_a_stranger_with_a_newer_term_deposes_nobody",),
    38: ("tests/core/scripts/a_node_that_comes_back_does_not_disturb.txt",),
    39: ("tests/worlds/test_simulation.py::test_every_shape_of_a_partition_of_three",),
    40: ("tests/core/scripts/a_leader_that_sends_but_does_not_receive_steps_down.txt",),
    41: ("tests/core/scripts/old_heartbeats_do_not_block_a_connected_majority.txt",),
    42: ("tests/core/scripts/nodes_with_and_without_pre_vote_get_along.txt",),
    43: ("tests/core/scripts/a_flapping_link_does_not_raise_terms.txt",),
    44: ("tests/core/scripts/equal_timeouts_do_not_split_votes_for_ever.txt",),
    45: ("tests/core/test_demands_elections.py::test_a_transfer_that_fails_is_given_up_after_a_while",),
    46: ("tests/core/test_demands_elections.py::test_a_transfer_to_a_silent_node_is_refused",),
    47: ("tests/core/test_demands_elections.py::test_a_learner_is_never_told_to_lead_and_never_campaigns",),
    48: ("tests/core/test_demands_elections.py::test_a_stale_timeout_now_is_ignored",),
    49: (
        "tests/core/test_demands_membership.py::test_no_change_before_the_terms_no_op_is_committed",
        "tests/core/scripts/the_bug_of_2015_an_addition_and_a_removal.txt",
        "tests/core/scripts/the_bug_of_2015_two_additions.txt",
        "tests/core/scripts/the_bug_of_2015_two_removals.txt",
    ),
    50: ("tests/core/test_demands_membership.py::test_a_new_leader_finishes_the_change_that_it_finds",),
    51: ("tests/core/test_demands_membership.py::test_a_truncated_membership_rolls_back",),
    52: ("tests/core/test_demands_snapshots_and_reads.py::test_a_snapshot_brings_its_membership",),
    53: (
        "tests/core/test_demands_membership.py::test_a_leader_that_is_removed_manages_the_change_and_then_steps_down",
    ),
    54: ("tests/core/test_demands_membership.py::test_a_learner_that_lags_is_not_promoted",),
    55: ("tests/core/test_demands_membership.py::test_one_change_at_a_time",),
    56: (
        "tests/core/test_demands_membership.py::test_a_joint_membership_commits_only_with_both_majorities",
        "tests/core/test_demands_membership.py::test_an_election_in_a_joint_membership_needs_both_majorities",
    ),
    57: (
        "tests/core/test_demands_membership.py::test_memberships_that_cannot_be_are_refused",
        "tests/node/test_handshakes.py::test_a_removed_node_is_refused",
    ),
    58: (
        "tests/core/test_demands_membership.py::test_a_change_that_would_have_no_quorum_now_is_refused",
        "tests/core/scripts/a_cluster_shrinks_to_one_and_grows_again.txt",
    ),
    59: ("tests/snapshot/test_store.py::test_power_lost_at_any_operation_leaves_whole_snapshots",),
    60: ("tests/node/test_snapshots.py::test_an_install_that_is_interrupted_anywhere_is_finished_later",),
    61: (
        "tests/snapshot/test_store.py::test_what_is_inside_must_be_what_the_manifest_says",
        "tests/node/test_directory.py::test_a_snapshot_that_is_another_state_than_it_says_is_not_installed",
    ),
    62: ("tests/core/test_demands_snapshots_and_reads.py::test_a_snapshot_older_than_what_is_committed_is_ignored",),
    63: (
        "tests/core/test_demands_snapshots_and_reads.py"
        "::test_a_conflicting_entry_at_the_snapshots_index_empties_the_log",
        "tests/node/test_snapshots.py::test_a_log_that_begins_anew_is_no_loss_at_the_next_start",
    ),
    64: (
        "tests/core/test_demands_snapshots_and_reads.py"
        "::test_a_snapshot_whose_last_entry_is_in_the_log_keeps_what_follows",
        "tests/core/test_demands_snapshots_and_reads.py::test_the_matching_tail_survives_the_snapshot_of_a_lost_state",
    ),
    65: ("tests/node/test_snapshots.py::test_a_snapshot_of_a_deposed_leader_is_not_even_begun",),
    66: ("tests/snapshot/test_transfer.py::test_a_transfer_is_resumed_wherever_it_was_cut",),
    67: (
        "tests/node/test_snapshots.py::test_a_lagging_follower_gets_a_snapshot_and_the_rest_from_the_log",
        "tests/core/scripts/a_brand_new_node_is_brought_up_by_a_snapshot.txt",
    ),
    68: (
        "tests/snapshot/test_store.py::test_what_is_inside_must_be_what_the_manifest_says",
        "tests/state/test_rocks.py::test_a_flip_in_any_file_is_found_or_harmless",
    ),
    69: ("tests/node/test_snapshots.py::test_a_snapshot_under_load_is_the_state_at_its_index",),
    70: ("tests/node/test_snapshots.py::test_a_snapshot_that_rots_at_the_sender_is_not_sent_for_ever",),
    71: ("tests/core/test_demands_snapshots_and_reads.py::test_a_read_waits_for_the_terms_first_commit",),
    72: ("tests/node/test_elections.py::test_a_leader_that_wakes_from_a_pause_does_not_trust_its_lease",),
    73: (
        "tests/core/test_demands_snapshots_and_reads.py"
        "::test_a_lease_ends_before_the_election_timeout_by_the_drift_of_clocks",
        "tests/core/test_demands_replication.py::test_an_entrys_time_never_goes_back_along_the_log",
    ),
    74: (
        "tests/client/test_outcomes.py::test_a_lost_reply_is_fetched_under_the_same_number",
        "tests/client/test_outcomes.py::test_an_expired_session_is_told_when_the_command_may_have_been_applied",
    ),
    75: (
        "tests/machine/test_runner.py::test_a_rejected_command_has_no_effect",
        "tests/machine/test_runner.py::test_an_error_that_is_not_the_commands_own_stops_before_it",
    ),
    76: (
        "tests/node/test_divergence.py::test_a_diverged_replica_is_found_and_stopped",
        "tests/node/test_agreement.py::test_a_majority_goes_on_and_without_one_nobody_does",
        "tests/node/test_agreement.py::test_all_start_again_with_a_mended_class_and_nothing_is_lost",
        "tests/node/test_agreement.py::test_a_leader_that_may_be_wrong_tells_clients_nothing",
        "tests/testing/test_determinism.py::test_what_depends_on_the_process_is_named",
    ),
    77: (
        "tests/node/test_belongings.py::test_each_cell_of_the_table",
        "tests/node/test_belongings.py::test_a_snapshot_of_another_cluster_changes_nothing",
        "tests/log/test_owned.py::test_a_directory_is_one_cluster_node_and_incarnation",
    ),
    78: (
        "tests/integration/test_logs.py::test_a_cluster_whose_logs_nobody_takes_goes_on",
        "tests/cli/test_sink.py::test_the_oldest_lines_go_when_nobody_takes_them_and_one_line_says_how_many",
        "tests/node/test_saying.py::test_a_node_that_must_stop_has_stopped_before_it_says_so",
    ),
    79: (
        "tests/integration/test_scans.py::test_very_many_deleted_keys_and_eight_callers_depose_nobody",
        "tests/node/test_scans.py::test_a_query_that_reads_too_much_ends_as_such",
        "tests/node/test_views.py::test_all_pages_are_of_the_state_at_one_index",
    ),
    80: (
        "tests/client/test_members.py::test_all_members_are_replaced_under_a_client_and_then_the_leader_dies",
        "tests/client/test_members.py::test_the_only_seed_and_the_leader_die_together",
    ),
    81: (
        "tests/transport/test_names.py::test_a_slow_lookup_leads_to_a_link_and_holds_up_no_other",
        "tests/transport/test_names.py::test_an_unknown_name_is_said_and_found_once_it_is_known",
        "tests/transport/test_names.py::test_where_a_peer_was_found_it_is_looked_for_again",
        "tests/transport/test_names.py::test_lookups_that_hang_do_not_keep_a_process_from_its_end",
        "tests/integration/test_names.py::test_names_that_are_slow_lead_to_a_cluster_and_never_hold_up_its_end",
    ),
    82: (
        "tests/core/test_clocks.py::test_a_clock_that_jumps_for_a_second_leaves_nothing_behind",
        "tests/core/test_clocks.py::test_a_new_leader_whose_clock_is_wrong_from_its_start_stamps_by_the_others",
        "tests/core/test_clocks.py::test_a_clock_that_runs_fast_or_slow_is_followed_no_further_than_the_bound",
        "tests/machine/test_runner.py"
        "::test_a_reset_of_log_time_forgets_no_session_and_keeps_none_for_longer_than_its_time",
    ),
    83: (
        "tests/node/test_founding.py::test_a_taken_address_founds_nothing",
        "tests/node/test_founding.py::test_a_founding_that_is_cut_off_anywhere_is_finished_by_the_next_start",
        "tests/node/test_members.py::test_a_node_that_moves_is_found_again_and_then_for_good",
    ),
    84: (
        "tests/transport/test_tls.py::test_a_dialler_whose_certificate_has_run_out_hears_why",
        "tests/transport/test_tls.py::test_an_acceptor_whose_certificate_has_run_out_hears_why",
        "tests/transport/test_tls.py::test_new_files_are_used_for_new_connections_and_old_ones_stand",
        "tests/server/test_tls.py::test_a_certificate_that_has_run_out_is_named_and_replaced_without_a_restart",
    ),
    88: ("tests/node/test_recovery.py::test_a_second_crash_anywhere_in_the_recovery_changes_nothing",),
    89: (
        "tests/client/test_forks.py::test_a_blocking_client_is_new_in_the_child_and_undisturbed_in_the_parent",
        "tests/client/test_forks.py::test_a_server_is_the_parents",
    ),
}
"""By row: the tests (`path::function`) and scenarios (`path`) of the repository that show it; each names its row."""


def rows_of(text: str) -> list[int]:
    """The rows that a text names: `F1-F3 F7` are 1, 2, 3 and 7."""
    named = re.finditer(r"\bF(\d+)(?:\s?[-–]\s?F?(\d+))?\b", text)
    return [row for each in named for row in range(int(each[1]), int(each[2] or each[1]) + 1)]


def kinds_of(row: int) -> list[str]:
    """The kinds of simulated faults that stand for a row."""
    return [kind for kind, rows in KINDS.items() if row in rows_of(rows)]


def by_kind(faults: Mapping[str, int]) -> Iterable[str]:
    """A line for each kind: how often it met something, also never, and its rows."""
    return [f"{faults.get(kind, 0):9,}  {kind:24} {rows}" for kind, rows in KINDS.items()]


def by_row(faults: Mapping[str, int]) -> Iterable[str]:
    """A line for each row, and below it how often its kinds met something, and what tests it."""
    for row, words in FAULTS.items():
        yield f"{f'F{row}':4} {words}"
        yield from (f"{faults.get(kind, 0):14,}  {kind}" for kind in kinds_of(row))
        yield from (f"{'test':>14}  {test}" for test in TESTS.get(row, ()))
