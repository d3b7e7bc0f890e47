"""Waiting commands and queries: each gets exactly one answer, and the right one."""

from __future__ import annotations

from raftkv.entry import make_entries
from raftkv.errors import Indeterminate, NodeStopped, NotLeader, Unavailable
from raftkv.model import EntryKind
from raftkv.node.waiting import Commands, Queries, Query


class Answers:
    """Remembers what each `done` was called with."""

    def __init__(self):
        self.got = []

    def done(self, name):
        return lambda index, outcome: self.got.append((name, index, outcome))


def entries(first, term, count):
    """Consecutive entries."""
    return make_entries(first, term, 0, EntryKind.COMMAND, [b"x"] * count, 0)


def test_each_command_gets_the_outcome_of_its_own_entry():
    """Three commands at 5, 6, 7; applied in two pieces, each is told its own outcome once."""
    commands, answers = Commands(), Answers()
    commands.add(5, 2, [answers.done(name) for name in "abc"])
    commands.applied(entries(4, 2, 2), ["four", "five"])
    commands.applied(entries(6, 2, 3), ["six", "seven", "eight"])
    assert answers.got == [("a", 5, "five"), ("b", 6, "six"), ("c", 7, "seven")]
    assert len(commands) == 0


def test_an_entry_of_another_term_means_certainly_lost():
    """Another leader's entry at the command's index: the command can never be committed, so it is safe to retry."""
    commands, answers = Commands(), Answers()
    commands.add(5, 2, [answers.done("a")])
    commands.applied(entries(5, 3, 1), ["other"])
    [(name, index, error)] = answers.got
    assert (name, index) == ("a", 0)
    assert isinstance(error, NotLeader)


def test_lost_leadership_leaves_the_outcome_open():
    """A deposed leader's entries may still be committed by the next one: the caller is told that nobody knows."""
    commands, answers = Commands(), Answers()
    commands.add(5, 2, [answers.done("a"), answers.done("b")])
    commands.leadership_lost()
    assert [type(error) for _, _, error in answers.got] == [Indeterminate, Indeterminate]
    commands.applied(entries(5, 2, 2), ["late", "late"])
    assert len(answers.got) == 2, "nobody is called twice"


def test_a_snapshot_that_jumps_over_a_command_leaves_its_outcome_open():
    """Entries applied elsewhere and installed as a snapshot: their outcomes were never seen here."""
    commands, answers = Commands(), Answers()
    commands.add(5, 2, [answers.done("a")])
    commands.applied(entries(9, 2, 1), ["nine"])
    assert isinstance(answers.got[0][2], Indeterminate)


def test_queries_of_one_turn_share_a_token_and_wait_for_their_index():
    """Two queries are confirmed together at index 7 and answered once 7 is applied, not before."""
    queries, answers = Queries(1), Answers()
    queries.add(Query(b"a", answers.done("a")))
    queries.add(Query(b"b", answers.done("b")))
    token = queries.next_batch()
    assert queries.next_batch() is None
    queries.confirmed(token, 7)
    assert queries.due(6, 10) == []
    assert [query.payload for query in queries.due(7, 10)] == [b"a", b"b"]
    assert queries.count == 0


def test_no_start_of_a_node_uses_a_token_of_another():
    """The leader's answer to a question from before a crash must not pass for the answer to a new one (F72)."""
    tokens = []
    for boot in (1, 2):
        queries = Queries(boot)
        for _ in range(3):
            queries.add(Query(b"a", Answers().done("a")))
            tokens.append(queries.next_batch())
    assert len(set(tokens)) == 6


def test_a_later_read_with_a_lower_index_is_not_held_up():
    """After a change of leaders an index may be lower; whatever is due is answered."""
    queries, answers = Queries(1), Answers()
    queries.add(Query(b"a", answers.done("a")))
    queries.confirmed(queries.next_batch(), 9)
    queries.add(Query(b"b", answers.done("b")))
    queries.confirmed(queries.next_batch(), 5)
    assert [query.payload for query in queries.due(6, 10)] == [b"b"]
    assert [query.payload for query in queries.due(9, 10)] == [b"a"]


def test_dropped_and_failed_queries_get_their_error():
    """Dropped reads may be asked again; a stopping node answers everything that is left."""
    queries, answers = Queries(1), Answers()
    queries.add(Query(b"a", answers.done("a")))
    queries.dropped(queries.next_batch(), Unavailable("no leader"))
    queries.add(Query(b"b", answers.done("b")))
    queries.fail_all(NodeStopped("stopped"))
    assert [(name, type(error)) for name, _, error in answers.got] == [("a", Unavailable), ("b", NodeStopped)]
    assert queries.count == 0
