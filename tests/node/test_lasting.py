"""A node says for how long what its status shows has been so."""

from __future__ import annotations

from raftkv.kv import KeyValue
from raftkv.node.lasting import Lasting
from raftkv.testing import elapse, scenario


def test_what_goes_on_counts_from_when_it_was_seen_first():
    """And anew when it has been over meanwhile."""
    lasting = Lasting()
    lasting.look({"low": True, "doubt": False}, 10.0)
    lasting.look({"low": True, "doubt": True}, 11.0)
    assert lasting.seconds(12.5) == {"low": 2.5, "doubt": 1.5}
    lasting.look({"low": False, "doubt": True}, 13.0)
    lasting.look({"low": True, "doubt": True}, 14.0)
    assert lasting.seconds(14.0) == {"low": 0.0, "doubt": 3.0}


def test_a_stop_counts_from_the_last_look():
    """Nobody looks at a node that has stopped; asked twice, it says the same moment."""
    lasting = Lasting()
    lasting.look({}, 10.0)
    lasting.since_last_look("stopped", 60.0)
    lasting.since_last_look("stopped", 70.0)
    assert lasting.seconds(70.0) == {"stopped": 60.0}


@scenario(KeyValue, seed=1)
async def test_a_node_that_is_cut_off_says_since_when(cluster):
    """Whom it does not reach, and that it knows no leader; the others say the same of it."""
    leader = cluster.leader
    (lost,) = [node for node in (3, 2) if node != leader.node_id][:1]
    assert all(peer.unreached_s is None for peer in leader.status().peers)
    assert leader.status().lasting_s == {}
    for other in cluster.nodes:
        if other != lost:
            cluster.network.cut(lost, other)
    await cluster.until(lambda: cluster.nodes[lost].node.raft.leader is None, 20, "it is leaderless")
    await elapse(20.0)  # a silent connection is given up some seconds after its leader
    alone = cluster.nodes[lost].node.status()
    assert 19.0 < alone.lasting_s["leaderless"] < 23.0
    assert all(peer.unreached_s > 9.0 for peer in alone.peers)
    seen = {peer.node_id: peer.unreached_s for peer in cluster.leader.status().peers}
    assert seen.pop(lost) > 9.0 and set(seen.values()) == {None}
    assert alone.sessions_max == 4096 and alone.incarnation and alone.data_dir == "/data"
