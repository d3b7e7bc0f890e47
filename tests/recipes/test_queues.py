"""Queues: who gets which job when, who may say that it is done, and what becomes of those that fail."""

from __future__ import annotations

import pytest

from raftkv import LocalMachine, Part, Rejected, StateMachine, query
from raftkv.recipes import JobLost, Locks, Queues, Seen, Sizes, TooManyJobs, queues


class Watched(Queues):
    """Queues that tell how much is left of them."""

    @query
    def count_rows(self) -> dict[str, int]:
        """How many rows each table has."""
        return {name: len(getattr(self, name)) for name in self.parts if not name.startswith("last_")}


def test_the_highest_priority_is_taken_first_and_within_one_the_first_that_came():
    """Two queues have nothing to do with each other."""
    machine = LocalMachine(Queues)
    for priority, data in [(0, "c"), (5, "a"), (0, "d"), (5, "b"), (9, "z")]:
        machine.put("other" if data == "z" else "mail", data, priority)
    assert [machine.take("mail").data for _ in range(4)] == ["a", "b", "c", "d"]
    assert machine.take("mail") is None
    assert machine.take("other").data == "z"


def test_a_job_is_nobody_elses_while_it_is_visible_to_its_worker_only():
    """At its time it has failed, and is tried again; the worker that lost it is refused, whatever it wants."""
    machine = LocalMachine(Queues)
    number = machine.put("mail", "a")
    first = machine.take("mail", "w1", 10)
    machine.advance(9)
    assert machine.take("mail") is None
    machine.extend(first.receipt, 10)
    machine.advance(9)
    assert machine.take("mail") is None
    machine.advance(1)
    for lost in (machine.ack, machine.extend, machine.nack):
        with pytest.raises(JobLost):
            lost(first.receipt)
    machine.advance(1)
    second = machine.take("mail", "w2", 10)
    assert (second.job, second.attempt) == (number, 2)
    assert second.receipt > first.receipt
    with pytest.raises(JobLost, match=f"receipt {first.receipt} has no job any more"):
        machine.ack(first.receipt)
    machine.ack(second.receipt, "sent")
    assert machine.look(number) == Seen("mail", "done", 2, "w2", "sent")
    with pytest.raises(JobLost):
        machine.ack(second.receipt, "sent again")


def test_a_job_that_fails_is_tried_again_after_twice_as_long_each_time_and_is_dead_at_the_end():
    """A dead letter stays until somebody revives or removes it."""
    machine = LocalMachine(Queues)
    number = machine.put("mail", "a", attempts=3, backoff_s=4)
    for wait_s in (4, 8):
        taken = machine.take("mail")
        assert machine.nack(taken.receipt, "no route") == "delayed"
        machine.advance(wait_s - 0.001)
        assert machine.take("mail") is None
        machine.advance(0.001)
    assert machine.nack(machine.take("mail").receipt, "gone") == "dead"
    machine.advance(10**7)
    assert machine.sizes("mail") == Sizes(dead=1)
    (letter,) = machine.dead_letters("mail")
    assert (letter.job, letter.data, letter.attempts, letter.error) == (number, "a", 3, "gone")
    assert machine.dead_letters("mail", number) == []
    assert machine.revive(number) is True
    assert machine.revive(number) is False
    assert machine.take("mail").attempt == 1
    assert machine.remove(number) is False
    assert machine.sizes("mail") == Sizes(taken=1)


def test_a_worker_that_dies_uses_up_an_attempt():
    """Else a job that kills each worker would go round for ever."""
    machine = LocalMachine(Queues)
    number = machine.put("mail", "a", attempts=2, backoff_s=0)
    for _ in range(2):
        assert machine.take("mail", "w", 5).job == number
        machine.advance(5)
    assert machine.look(number) == Seen("mail", "dead", 2, "w", "", queues.NOT_ACKNOWLEDGED)


def test_nobody_ends_the_time_of_a_job_by_a_call():
    """What runs at a time may be called by anyone, and does nothing then."""
    machine = LocalMachine(Queues)
    late = machine.put("mail", "late", delay_s=60)
    number = machine.put("mail", "a")
    taken = machine.take("mail")
    machine.delay_is_over(late, "mail")
    for receipt in (taken.receipt, taken.receipt + 1):
        machine.visibility_is_over(receipt, number)
    machine.delay_is_over(number, "mail")
    machine.delay_is_over(17, "mail")
    assert machine.sizes("mail") == Sizes(delayed=1, taken=1)
    machine.ack(taken.receipt)


def test_backoff_ends_at_an_hour_and_a_delay_that_is_said_counts():
    """However often a job has failed; one whose backoff is longer from the beginning keeps that."""
    machine = LocalMachine(Queues)
    number = machine.put("mail", "a", attempts=1000, backoff_s=1800)
    for wait_s in (1800, 3600, 3600):
        machine.nack(machine.take("mail").receipt)
        machine.advance(wait_s - 1)
        assert machine.take("mail") is None
        machine.advance(1)
    assert machine.nack(machine.take("mail").receipt, "", 0.0) == "ready"
    assert machine.nack(machine.take("mail").receipt, "", 7.0) == "delayed"
    machine.advance(7)
    assert machine.take("mail").job == number
    slow = machine.put("slow", "a", backoff_s=86_400)
    machine.nack(machine.take("slow").receipt)
    machine.advance(86_399)
    assert machine.take("slow") is None
    machine.advance(1)
    assert machine.take("slow").job == slow


def test_what_is_removed_is_passed_over_and_nothing_is_left_of_a_queue_without_jobs():
    """Jobs in the middle and at the beginning are removed, and those behind them still taken in order."""
    machine = LocalMachine(Watched)
    numbers = [machine.put("mail", str(number)) for number in range(8)]
    late = machine.put("mail", "late", delay_s=60)
    for at in (0, 1, 3, 4, 7):
        assert machine.remove(numbers[at]) is True
    assert machine.remove(late) is True
    assert machine.remove(numbers[0]) is False
    assert [machine.take("mail").data for _ in range(3)] == ["2", "5", "6"]
    assert machine.take("mail") is None
    for receipt in (1, 2, 3):
        machine.ack(receipt)
    assert machine.sizes("mail") == Sizes()
    machine.advance(10**6)
    assert set(machine.count_rows().values()) == {0}


def test_the_last_jobs_that_were_done_are_known_and_no_more_than_may_be(monkeypatch):
    """However long they were to be: in the order in which they were done, and nothing is left of them in the end."""
    monkeypatch.setattr(queues, "DONE_MAX", 3)
    machine = LocalMachine(Watched)
    numbers = [machine.put("mail", str(number), keep_s=0.0 if number == 2 else 10**6) for number in range(6)]
    receipts = [machine.take("mail").receipt for _ in numbers]
    for at in (5, 0, 2, 4, 1, 3):
        machine.ack(receipts[at], str(at))
        assert machine.count_rows()["done"] <= 3
    known = [machine.look(number) for number in numbers]
    assert [each and each.result for each in known] == [None, "1", None, "3", "4", None]
    machine.advance(10**6)
    assert set(machine.count_rows().values()) == {0}


def test_a_job_that_was_not_begun_costs_no_attempt_and_is_behind_the_others():
    """Who gives back what is not its own changes nothing."""
    machine = LocalMachine(Queues)
    first, second = machine.put("mail", "a", attempts=1), machine.put("mail", "b")
    taken = machine.take("mail")
    assert machine.hand_back(taken.receipt) is True
    assert machine.hand_back(taken.receipt) is False
    assert machine.sizes("mail") == Sizes(ready=2)
    assert [machine.take("mail").job for _ in range(2)] == [second, first]
    assert machine.look(first).attempts == 1
    with pytest.raises(JobLost):
        machine.ack(taken.receipt)


def test_there_are_so_many_jobs_at_most(monkeypatch):
    """Dead letters count, so that forgotten ones do not fill the disk; the error says so."""
    monkeypatch.setattr(queues, "JOBS_MAX", 2)
    machine = LocalMachine(Queues)
    machine.put("mail", "a")
    dead = machine.put("other", "b", attempts=1)
    machine.nack(machine.take("other").receipt)
    with pytest.raises(TooManyJobs):
        machine.put("mail", "c")
    machine.remove(dead)
    machine.put("mail", "c")


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 10},
        {"priority": -1},
        {"attempts": 0},
        {"attempts": 1001},
        {"delay_s": -1.0},
        {"backoff_s": float("nan")},
        {"keep_s": float("inf")},
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(wrong):
    """It names what is wrong, and what may be."""
    ((name, value),) = wrong.items()
    with pytest.raises(Rejected, match=f"{name} must be .* to .*, not {value}"):
        LocalMachine(Queues).put("mail", "a", **wrong)


class App(StateMachine):
    """Queues as a part, beside locks."""

    work = Part(Queues)
    locks = Part(Locks)


def test_the_work_may_be_a_part_and_times_come_there_as_well():
    """Delay, visibility and dead letters of a part."""
    machine = LocalMachine(App)
    number = machine.work.put("mail", "a", 0, 5.0, 1)
    assert machine.work.take("mail") is None
    machine.advance(5)
    assert machine.work.take("mail", "w", 3.0).job == number
    machine.advance(3)
    assert machine.work.sizes("mail") == Sizes(dead=1)
