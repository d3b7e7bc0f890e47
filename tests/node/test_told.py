"""Whom a node lets in, by the versions of the application that both can run, and by what is active (F76)."""

from __future__ import annotations

import msgspec
import pytest

from raftkv.errors import HandshakeRefused
from raftkv.machine import Table, encode_schema
from raftkv.node.peers.told import Told, check_versions
from raftkv.wire import Hello
from tests.node.shops import Shop1, Shop2, Shop3, called


@called("Shop")
class Later2(Shop2):
    """Has forgotten the first version."""

    oldest_version = 2


@called("Shop")
class Numbered1(Shop1):
    """Other keys, under the same version."""

    stock = Table(int, Shop1.stock.types[1])


@called("Shop")
class Numbered2(Shop2):
    """Other keys, under the next version."""

    stock = Table(int, Shop2.stock.types[1])


def hello(machine, active=0, **changes):
    """What node 2 says that runs this class."""
    declared = {"oldest": machine.oldest_version, "newest": machine.version, "active": active}
    said = Hello(1, "c", 2, "i", 1, "n", "f", False, 0, declared=encode_schema(machine.schema()), **declared)
    return msgspec.structs.replace(said, **changes)


@pytest.mark.parametrize(
    ("own", "active", "peer", "peers"),
    [
        (Shop1, 0, Shop1, 0),
        (Shop1, 1, Shop1, 1),
        (Shop1, 1, Shop2, 1),
        (Shop2, 1, Shop1, 1),
        (Shop2, 2, Shop2, 2),
        (Shop1, 1, Shop3, 0),
        # Whoever is behind learns of the active version in time.
        (Shop2, 1, Later2, 2),
        (Later2, 2, Shop2, 1),
        (Shop2, 0, Later2, 2),
    ],
)
def test_classes_that_can_run_what_is_active_are_let_in(own, active, peer, peers):
    """Be it active here, there, or not yet; what the peer runs is known then."""
    told = check_versions(own, active, hello(peer, peers), 1)
    assert told == Told(peer.oldest_version, peer.version, encode_schema(peer.schema()))


def test_a_peer_that_knows_of_no_versions_is_let_in():
    """It runs a raftkv of before, and may be the next to be replaced."""
    assert check_versions(Shop2, 1, hello(Shop1, oldest=0, newest=0, declared=b""), 1) == Told(0, 0)


@pytest.mark.parametrize(
    ("own", "active", "peer", "peers", "words"),
    [
        (Shop2, 2, Shop1, 1, "version 2 of Shop is active, and node 2 runs version 1: install .* on node 2 that runs"),
        (Shop2, 2, Shop1, 0, "version 2 of Shop is active, and node 2 runs version 1: install .* on node 2 that runs"),
        (Shop1, 1, Later2, 0, "version 1 of Shop is active, and node 2 runs version 2: install .* on node 2 that runs"),
        (Shop1, 1, Shop2, 2, "version 2 of Shop is active on node 2, and node 1 runs version 1: install .* on node 1"),
        (Later2, 0, Shop1, 1, "version 1 of Shop is active on node 2, and node 1 runs version 2: install .* on node 1"),
        (
            Shop1,
            1,
            Numbered1,
            0,
            "nodes 1 and 2 run different code under one version .1. of Shop; seen from node 1: ta",
        ),
        (
            Shop2,
            2,
            Numbered2,
            0,
            "nodes 1 and 2 run different code under one version .2. of Shop; seen from node 1: ta",
        ),
        (
            Shop2,
            1,
            Numbered1,
            0,
            "node 2 runs version 1 of Shop, which the class of node 1 .of version 2. declares oth",
        ),
        (Numbered2, 0, Shop1, 1, "table stock, key: was str, is int: keep the type of keys"),
    ],
)
def test_others_are_refused_with_who_has_to_do_what(own, active, peer, peers, words):
    """Before anything of theirs gets in, or anything of ours gets there."""
    with pytest.raises(HandshakeRefused, match=words):
        check_versions(own, active, hello(peer, peers), 1)


def test_a_schema_that_nobody_can_read_is_refused():
    """With the words of who has found that out."""
    with pytest.raises(HandshakeRefused, match="what node 2 says of its state machine can't be read"):
        check_versions(Shop1, 1, hello(Shop1, declared=b"?"), 1)
