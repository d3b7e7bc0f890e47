"""Which addresses can be a member's, and when a node listens somewhere else than others are told."""

from __future__ import annotations

import pytest

from raftkv.addresses import address_problem, address_problems, is_elsewhere, join, parse
from raftkv.errors import InvalidArgument
from raftkv.model import Member


@pytest.mark.parametrize("address", ["10.0.0.1:7001", "node.example:1", "[::1]:65535", "[fe80::1%eth0]:80"])
def test_an_address_is_its_host_and_port(address):
    """Of names and of both families; put together again it is the same."""
    host, port = parse(address)
    assert not host.startswith("[")
    assert join(host, port) == address


@pytest.mark.parametrize(
    "address", ["", "host", ":1", "[]:1", "host:", "host:0", "host:65536", "host:-1", "host:\u0661"]
)
def test_what_is_no_address_is_refused(address):
    """With what it must be; only who listens may leave the port to the system."""
    with pytest.raises(InvalidArgument, match="must be host:port"):
        parse(address)


def test_who_listens_may_leave_the_port_to_the_system():
    """Port 0 stands for any."""
    assert parse("host:0", lowest_port=0) == ("host", 0)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("10.0.0.1:7001", None),
        ("node.example:7001", None),
        ("[::1]:7001", None),
        ("http://10.0.0.1:7001", "write HOST:PORT, as 10.0.0.1:7001"),
        ("0.0.0.0:7001", "as 10.0.0.1:7001"),
        ("[::]:7001", "nobody can dial it"),
        ("*:7001", "nobody can dial it"),
        (":7001", "nobody can dial it"),
        ("10.0.0.1:0", "port 0"),
    ],
)
def test_what_nobody_can_dial_is_refused_with_what_to_write(address, said):
    """Wildcards, port 0 and URLs; names are left alone."""
    problem = address_problem(address)
    assert (problem is None) if said is None else (problem is not None and said in problem)


def test_each_node_has_two_addresses_of_its_own():
    """One address for two nodes, or for nodes and clients, is named with both of its uses."""
    good = [Member(1, "a:1", "a:2"), Member(2, "b:1", "b:2")]
    assert address_problems(good) == []
    (twice,) = address_problems([*good, Member(3, "c:1", "a:1")])
    assert "a:1 is given twice, of node 1 for nodes and of node 3 for clients" in twice
    assert len(address_problems([Member(1, "a:1", "a:1")])) == 1


@pytest.mark.parametrize(
    ("listens", "told", "elsewhere"),
    [
        ("10.0.0.1:7001", "10.0.0.1:7001", False),
        ("0.0.0.0:7001", "10.0.0.1:7001", False),
        ("[::]:7001", "10.0.0.1:7001", False),
        ("10.0.0.1:7001", "node.example:7001", False),
        ("10.0.0.1:7001", "", False),
        ("10.0.0.1:7001", "10.0.0.1:7002", True),
        ("0.0.0.0:7001", "10.0.0.1:7002", True),
        ("10.0.0.1:7001", "10.0.0.2:7001", True),
        ("node.example:7001", "node.example:7002", True),
    ],
)
def test_a_node_that_listens_elsewhere_is_noticed(listens, told, elsewhere):
    """Ports always tell, literal addresses too; names are not looked up."""
    assert is_elsewhere(listens, told) is elsewhere
