"""Which cluster a directory belongs to: what it may be called, who founds it, and when that is written down."""

from __future__ import annotations

import pytest

from raftkv import failpoints
from raftkv.disk.simulated import SimDisk
from raftkv.errors import ConfigError
from raftkv.model import Member, Membership
from raftkv.node.identity import Founding, founding_membership, load_founding, save_founding
from tests.snapshot.worlds import OWNER


@pytest.mark.parametrize("name", ["shop", "shops", "sho", "a", "z", ""])
def test_a_cluster_that_was_joined_is_called_as_it_was_told(name):
    """By no name that sorts before or behind it either; one that knows no name may be called anything."""
    assert Founding("c", Membership(), name="shop").is_called(name) == (name == "shop")
    assert Founding("c", Membership()).is_called(name)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ((), "at least one voter"),
        ((Member(1), Member(1)), "without repetition"),
        ((Member(1, "a:1"), Member(2, "a:1")), "used by more than one member"),
    ],
)
def test_founders_who_cant_make_a_cluster_are_refused(members, problem):
    """Before anything is written, and with what is wrong."""
    with pytest.raises(ConfigError, match=problem):
        founding_membership(members)


def test_the_failpoint_stands_before_a_cluster_is_written_down(monkeypatch):
    """Who is killed there leaves a directory that does not say yet whose it is."""
    disk, passed = SimDisk(), []
    disk.mkdir("/d")
    monkeypatch.setattr(failpoints, "reach", lambda name: passed.append((name, disk.exists("/d/cluster"))))
    save_founding(disk, "/d/cluster", OWNER, Founding("c", Membership()))
    assert ("cluster.before_save", False) in passed
    assert load_founding(disk, "/d/cluster").value == Founding("c", Membership())
