"""Jobs are run beside each other, each once, and what ends them early is said."""

from __future__ import annotations

import os
import signal
from concurrent.futures import Future

import pytest

from tests.campaign.campaign import WorldOutcome, outcome_of
from tests.campaign.cluster import CodeDiffers, run_job
from tests.campaign.fingerprint import fingerprint, own_fingerprint
from tests.campaign.jobs import Ended, JobLost, JobsFailed, as_they_come, in_order, processes_here, threads_here


class AtOnce:
    """A place where some jobs end as soon as they are begun, and the others when a test says so."""

    def __init__(self, slots, quick):
        self.begun = {}
        self._slots = slots
        self._quick = quick

    def slots(self):
        return self._slots

    def submit(self, function, task):
        self.begun[task] = Future()
        if task in self._quick:
            self.begun[task].set_result(function(task))
        return self.begun[task]


def test_jobs_are_given_as_they_end_and_begun_as_there_is_room():
    """Twice as many as are run at once are begun; each that ends makes room for the next."""
    place = AtOnce(1, quick="bc")
    ending = as_they_come(place, str.upper, iter("abcd"))
    assert next(ending) == (1, "b", place.begun["b"])
    assert list(place.begun) == ["a", "b"]
    assert next(ending).future.result() == "C"
    assert list(place.begun) == ["a", "b", "c"]
    place.begun["a"].set_result("A")
    assert next(ending).task == "a"
    place.begun["d"].set_result("D")
    assert [ended.number for ended in ending] == [3]


def test_what_nobody_waits_for_any_more_is_cancelled():
    """Who stops asking leaves no jobs behind."""
    place = AtOnce(2, quick="a")
    ending = as_they_come(place, str.upper, iter("abcdefgh"))
    next(ending)
    ending.close()
    assert [task for task, future in place.begun.items() if future.cancelled()] == ["b", "c", "d"]


def test_a_place_without_room_is_given_one_job_that_waits():
    """A cluster that has no workers for a while keeps it until some come."""
    place = AtOnce(0, quick="ab")
    assert [ended.task for ended in as_they_come(place, str.upper, iter("ab"))] == ["a", "b"]


def test_in_order_what_ends_early_waits():
    """In the order of the tasks, and all of them."""
    place = AtOnce(2, quick="bcd")
    ending = in_order(place, str.upper, iter("abcd"))
    submit = place.submit

    def end_a_behind_d(function, task):
        if task == "d":
            place.begun["a"].set_result("A")
        return submit(function, task)

    place.submit = end_a_behind_d
    assert [ended.future.result() for ended in ending] == ["A", "B", "C", "D"]


def test_threads_and_processes_of_this_machine():
    """The same jobs come to the same; what one raises is raised by its own result."""
    for place_here in (threads_here, processes_here):
        with place_here(2) as place:
            assert [ended.future.result() for ended in in_order(place, abs, [-3, 2, -1])] == [3, 2, 1]
            (wrong,) = as_they_come(place, int, ["x"])
            with pytest.raises(ValueError, match="invalid literal"):
                wrong.future.result()


def test_a_process_that_is_killed_is_not_waited_for():
    """Nobody knows which job it was, so none goes on."""
    with pytest.raises(JobsFailed, match="memory"), processes_here(1) as place:
        for ended in as_they_come(place, kill_yourself, range(3)):
            ended.future.result()


def kill_yourself(_):
    """End this process as a kernel without memory does."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_job_that_was_sent_by_another_version_is_refused():
    """Also by a worker that came when others had been asked already: the text tells both, and how to start workers."""
    assert run_job(abs, -3, own_fingerprint()) == 3
    with pytest.raises(CodeDiffers, match="dask worker") as refused:
        run_job(abs, -3, "another")
    assert "another" in str(refused.value)
    assert own_fingerprint() in str(refused.value)


def test_a_fingerprint_is_of_names_and_bytes_but_not_of_what_tools_leave(tmp_path):
    """One more byte, or one byte in another file, is other code."""
    (tmp_path / "raftkv").mkdir()
    (tmp_path / "tests" / "__pycache__").mkdir(parents=True)
    found = set()
    for name, text in [("raftkv/a.py", "1"), ("raftkv/b.py", "1"), ("raftkv/b.py", "2"), ("tests/c.txt", "")]:
        (tmp_path / name).write_text(text)
        found.add(fingerprint(tmp_path))
    assert len(found) == 4
    (tmp_path / "tests" / "__pycache__" / "c.pyc").write_text("left")
    (tmp_path / "tests" / ".hypothesis").write_text("left")
    assert fingerprint(tmp_path) in found


def test_a_world_whose_processes_all_ended_has_failed():
    """It is told as every failed world is, with what to type to see it here."""
    future = Future()
    future.set_exception(JobLost("4 workers were lost while each ran it"))
    assert outcome_of(Ended(0, (7, 2.0), future)) == WorldOutcome(
        7, failure="seed 7: 4 workers were lost while each ran it\nsee what happens: raftkv replay 7 --virtual 2"
    )
