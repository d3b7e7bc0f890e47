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
    assert [(name, index) for name, index, _ in answers.got] == [("a", 0)], "at no index"
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


def waiting(count, index=5):
    """So many queries that wait for `index`, and what they are answered with."""
    queries, answers = Queries(1), Answers()
    for number in range(count):
        queries.add(Query(b"", answers.done(number)))
    queries.confirmed(queries.next_batch(), index)
    return queries, answers


def test_no_more_queries_are_due_than_are_asked_for_and_the_rest_is_not_lost():
    """A batch is parted where the room ends; whoever is left comes next, and each is counted until it has come."""
    queries, _ = waiting(5)
    assert queries.due(4, 10) == [] and queries.count == 5
    assert len(queries.due(5, 2)) == 2 and queries.count == 3
    assert len(queries.due(5, 3)) == 3 and queries.count == 0
    assert queries.due(5, 3) == []


def test_batches_fill_the_room_together():
    """One that just fits comes whole, and nobody is taken out of the next one."""
    queries, answers = waiting(2)
    for number in (2, 3, 4):
        queries.add(Query(b"", answers.done(number)))
    queries.confirmed(queries.next_batch(), 5)
    whole = queries.due(5, 5)
    for query in whole:
        query.done(5, None)
    assert [name for name, _, _ in answers.got] == [0, 1, 2, 3, 4]
    assert queries.count == 0


def test_queries_that_are_dropped_wait_no_more():
    """They are counted no longer, or a node that lost leaders often would refuse queries for ever."""
    queries, answers = Queries(1), Answers()
    for number in range(3):
        queries.add(Query(b"", answers.done(number)))
    token = queries.next_batch()
    queries.add(Query(b"", answers.done(3)))
    queries.dropped(token, Unavailable("lost"))
    assert (len(answers.got), queries.count) == (3, 1)
    queries.dropped(token, Unavailable("again"))
    assert (len(answers.got), queries.count) == (3, 1)


def test_a_client_is_gone_when_it_says_so():
    """Who says nothing is waited for."""
    ask = Query(b"", lambda *_: None)
    assert not ask.is_gone
    assert not Query(b"", lambda *_: None, gone=lambda: False).is_gone
    assert Query(b"", lambda *_: None, gone=lambda: True).is_gone
