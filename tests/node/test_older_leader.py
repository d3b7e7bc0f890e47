"""A leader whose class is older than a client's: what it does not know is refused as what is not active yet."""

from __future__ import annotations

import pytest
from msgspec.msgpack import encode

from raftkv.errors import InvalidArgument, NotActive
from raftkv.machine import NO_SESSION, encode_command
from raftkv.testing import SimCluster, scenario
from tests.testing.versions import After, Before

SAID = r"nothing was done; version 1 is active: node {later} runs a later one, but node {leader}, which leads, runs"


@scenario(Before)
async def test_what_only_a_later_class_has_is_not_active_on_an_older_leader(cluster: SimCluster) -> None:
    """F85: a command, and an argument more: whoever leads, the client hears the same, and nothing gets into the log."""
    client = cluster.client(machine=After)
    assert await client.remote.receive("apple", 3) == 3
    with pytest.raises(InvalidArgument):
        await client.remote.sell("apple")  # no node runs that
    leader = cluster.leader
    later = leader.node_id % 3 + 1
    sim = cluster.nodes[later]
    sim.crash()
    sim.machine = After
    await sim.start()
    await cluster.until(lambda: leader.peers.admission.told[later].newest == 2)
    last = leader.raft.log.last_index
    said = SAID.format(leader=leader.node_id, later=later)
    with pytest.raises(NotActive, match=said):
        await client.remote.sell("apple")
    with pytest.raises(NotActive, match=said):
        await client.remote.receive("apple", 1, "red")
    for name, args in (("receive", ["apple", "three"]), ("receive", ["apple", 1, "red", 4]), ("send", [])):
        with pytest.raises(InvalidArgument):  # no version takes that
            leader.requests.submit(encode_command(NO_SESSION, 0, 0, name, encode(args)), lambda *_: None)
    assert leader.raft.log.last_index == last
    assert await client.remote.receive("apple", 1) == 4
    await client.close()
