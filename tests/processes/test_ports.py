"""Ports for processes under test: nobody else's, now or later."""

from __future__ import annotations

import socket
import subprocess
import sys

from raftkv.processes import ports
from raftkv.processes.ports import free_ports


def test_processes_get_ports_of_shares_of_their_own():
    """Though none of them listens on any: a node that is down for a moment finds its port free."""
    here = free_ports(20)
    code = "from raftkv.processes.ports import free_ports; print(*free_ports(20))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert len({*here, *map(int, there)}) == 40
    assert not {port // ports.SHARE for port in here} & {int(port) // ports.SHARE for port in there}
    assert all(ports.FIRST < port < ports.BEHIND for port in here)


def test_what_somebody_listens_on_is_left_out():
    """Also when all of the share have been given once, and it begins anew."""
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port)):
        assert port not in free_ports(ports.SHARE)
    assert port in free_ports(ports.SHARE)


def test_a_process_that_took_ports_ends_without_a_warning():
    """Its share is bound until then, and closed, as what is only forgotten is warned of when Python ends."""
    code = "from raftkv.processes.ports import free_ports; free_ports(1)"
    ended = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=True)
    assert "ResourceWarning" not in ended.stderr
