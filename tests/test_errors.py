"""Errors: who must act, what is safe to retry, and what the texts say."""

from __future__ import annotations

import inspect

import pytest

from raftkv import errors
from raftkv.errors import (
    Busy,
    ChangeRefused,
    ConfigError,
    Corruption,
    CorruptRecord,
    DiskError,
    DiskFull,
    DiskLow,
    FrameError,
    HandshakeRefused,
    Indeterminate,
    InvalidArgument,
    MachineError,
    NodeStopped,
    NotAccepted,
    NotCaughtUp,
    NotLeader,
    PeerError,
    RaftKVError,
    Rejected,
    SafetyViolation,
    SessionExpired,
    SnapshotCorruption,
    StateCorruption,
    TooMuchWork,
    Unavailable,
    ViewExpired,
    unreachable,
)

ALL = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, BaseException)]

GROUPS = (
    errors.NotRunning,
    errors.AlreadyStarted,
    errors.MissingExtra,
    errors.WrongLoop,
    InvalidArgument,
    MachineError,
    Rejected,
    TooMuchWork,
    ViewExpired,
    errors.TimedOut,
    SessionExpired,
    NotAccepted,
    Indeterminate,
    errors.Unauthenticated,
    errors.Forbidden,
    PeerError,
    NodeStopped,
)
"""One for each sort of person or thing that must act; the module's docstring is their table."""

SAFE_TO_RETRY = {NotAccepted, NotLeader, Busy, DiskLow, Unavailable, ChangeRefused, NotCaughtUp}
"""Nothing was done: the same call may be made again without doing anything twice."""


def test_every_error_is_raftkvs_own() -> None:
    """One `except RaftKVError` catches them all, and nothing else."""
    assert ALL[0] is RaftKVError
    assert all(issubclass(error, RaftKVError) for error in ALL)
    assert RaftKVError.__bases__ == (Exception,)


@pytest.mark.parametrize("error", ALL[1:], ids=lambda error: error.__name__)
def test_every_error_is_of_one_group(error: type[RaftKVError]) -> None:
    """Never of two: then who must act would depend on the order of the except clauses."""
    groups = [group.__name__ for group in GROUPS if issubclass(error, group)]
    assert len(groups) == 1, f"{error.__name__} is of {groups}"


def test_what_is_safe_to_retry_is_not_accepted_and_only_that() -> None:
    """The client retries `NotAccepted` by itself: an error below it whose command was done is done twice (F74)."""
    assert {error for error in ALL if issubclass(error, NotAccepted)} == SAFE_TO_RETRY


@pytest.mark.parametrize("error", [Indeterminate, SessionExpired, Rejected, InvalidArgument, NodeStopped, PeerError])
def test_what_may_have_been_done_is_not_retried(error: type[RaftKVError]) -> None:
    """An unknown outcome, an expired session, a failed command: none passes for `NotAccepted` (F36, F74)."""
    assert not issubclass(error, NotAccepted)
    assert not issubclass(NotAccepted, error)


def test_errors_that_stop_the_node_are_told_from_those_of_a_connection() -> None:
    """A broken frame must not stop a node; a broken record must not pass for a broken frame (F9)."""
    assert issubclass(FrameError, PeerError) and issubclass(HandshakeRefused, PeerError)
    for error in (CorruptRecord, StateCorruption, SnapshotCorruption):
        assert issubclass(error, Corruption) and issubclass(error, NodeStopped)
        assert not issubclass(error, PeerError)
    assert issubclass(DiskFull, DiskError) and issubclass(DiskError, NodeStopped)


def test_a_disk_that_is_nearly_full_is_busy_but_a_full_one_stops_the_node() -> None:
    """Below the reserve writes are refused and come back by themselves; a failed write is never retried (F13)."""
    assert issubclass(DiskLow, Busy) and issubclass(DiskLow, NotAccepted)
    assert not issubclass(DiskFull, NotAccepted)


@pytest.mark.parametrize(
    ("error", "builtin"), [(InvalidArgument, ValueError), (ConfigError, ValueError), (MachineError, TypeError)]
)
def test_mistakes_of_the_caller_are_pythons_own_kinds_too(error: type[Exception], builtin: type[Exception]) -> None:
    """Who never heard of raftkv still catches a wrong value as ValueError, a wrong class as TypeError."""
    assert issubclass(error, builtin)


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_every_error_says_what_it_means(error: type[RaftKVError]) -> None:
    """Its docstring is what a person finds who looks it up."""
    assert error.__doc__ and error.__doc__.strip().endswith(".")
    assert error.__module__ == "raftkv.errors"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (NotLeader(), "this node is not the leader; it knows of no leader"),
        (NotLeader(2), "this node is not the leader; the leader may be node 2"),
        (NotLeader(2, "b:7001"), "this node is not the leader; the leader may be node 2 at b:7001"),
        (Rejected("OutOfStock", "3 left"), "OutOfStock: 3 left"),
        (Rejected("OutOfStock", ""), "OutOfStock"),
        (unreachable("moo"), "no case for 'moo'"),
        (Busy("64 bytes wait"), "64 bytes wait"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_text_says_what_happened(error: RaftKVError, text: str) -> None:
    """It is all that many callers ever log."""
    assert str(error) == text


def test_a_redirect_carries_the_leader() -> None:
    """A client follows it without taking the text apart; "nobody" is None."""
    assert (NotLeader(2, "b:7001").leader, NotLeader(2, "b:7001").address) == (2, "b:7001")
    assert (NotLeader().leader, NotLeader().address) == (None, None)


def test_a_rejection_carries_the_commands_own_error() -> None:
    """The caller can tell one of its exceptions from another by name."""
    rejected = Rejected("OutOfStock", "3 left")
    assert (rejected.error_type, rejected.message) == ("OutOfStock", "3 left")


def test_an_impossible_case_stops_the_node() -> None:
    """`unreachable` gives an error to raise that nobody may take for a hiccup."""
    assert isinstance(unreachable(None), SafetyViolation)
    assert isinstance(unreachable(None), NodeStopped)
