"""Drills of members: who comes, goes, moves and leads."""

from __future__ import annotations

from tests.drills.drill import Drill
from tests.drills.etcds import EtcdNodes
from tests.drills.nodes import BEFORE, Nodes
from tests.drills.ours import OurNodes


def our_new_member(nodes: OurNodes) -> None:
    """It gets its vote when it has everything."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.serve(4, joins=True)
    nodes.terminal.type("raftkv", "member", "add", nodes.member(4), "--promote")
    nodes.all_up()
    nodes.served()


def etcds_new_member(nodes: EtcdNodes) -> None:
    """The short way, on which it has a vote before it has anything."""
    nodes.found()
    nodes.settle()
    nodes.terminal.trouble()
    nodes.terminal.type("etcdctl", "member", "add", "m4", "--peer-urls", nodes.peer(4))
    nodes.serve(4, joins=True)
    nodes.all_up()
    nodes.served()


def our_learner(nodes: OurNodes) -> None:
    """It was added, and has no vote yet."""
    nodes.found()
    nodes.serve(4, joins=True)
    nodes.terminal.type("raftkv", "member", "add", nodes.member(4))
    nodes.all_up()
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "member", "promote", "4")
    nodes.served()


def etcds_learner(nodes: EtcdNodes) -> None:
    """It has everything already: before that, etcd refuses, and it is typed again."""
    nodes.found()
    nodes.settle()
    url = nodes.peer(4)
    added = nodes.terminal.type("etcdctl", "member", "add", "m4", "--learner", "--peer-urls", url)
    own_id = added.split()[1]
    nodes.serve(4, joins=True)
    nodes.all_up()

    def has_everything() -> bool:
        return bool(nodes.status(4).get("raftIndex", 0) >= nodes.status(1)["raftIndex"])

    nodes.until(has_everything, "member 4 has everything")
    nodes.terminal.trouble()
    while nodes.terminal.complaint("etcdctl", "member", "promote", own_id) is not None:
        nodes.until(has_everything, "member 4 has everything")
    nodes.served()


def our_leaver(nodes: OurNodes) -> None:
    """It hears of it, and ends."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "member", "remove", "3")
    _gone(nodes)


def etcds_leaver(nodes: EtcdNodes) -> None:
    """By its id, which has to be looked up."""
    nodes.found()
    nodes.settle()
    nodes.terminal.trouble()
    nodes.terminal.type("etcdctl", "member", "remove", nodes.member_ids()[3])
    _gone(nodes)


def _gone(nodes: Nodes) -> None:
    process = nodes.running.pop(3)
    nodes.until(lambda: process.poll() is not None, "node 3 ends")
    nodes.served()


def our_exchange(nodes: OurNodes) -> None:
    """Node 4 in the place of node 3, which is alive."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.serve(4, joins=True)
    nodes.terminal.type("raftkv", "replace", "--planned", f"3=4@{nodes.peer(4)}/{nodes.client(4)}")
    _gone(nodes)


def etcds_exchange(nodes: EtcdNodes) -> None:
    """The new one comes before the old one goes."""
    nodes.found()
    nodes.settle()
    nodes.terminal.trouble()
    nodes.terminal.type("etcdctl", "member", "add", "m4", "--peer-urls", nodes.peer(4))
    nodes.serve(4, joins=True)
    nodes.all_up()
    nodes.terminal.type("etcdctl", "member", "remove", nodes.member_ids()[3])
    _gone(nodes)


def _move(nodes: Nodes, *numbers: int) -> None:
    """These were stopped, and are on other machines now, with their directories."""
    nodes.kill(*numbers)
    for number in numbers:
        nodes.place[number] = number + 3
    nodes.terminal.trouble()


def our_moved_node(nodes: OurNodes) -> None:
    """It is started at its new addresses, and then everybody is told."""
    nodes.found()
    _move(nodes, 3)
    nodes.serve(3, more=["--listen", nodes.client(3), "--peer-listen", nodes.peer(3)])
    nodes.terminal.type("raftkv", "member", "update", nodes.member(3))
    nodes.all_up()
    nodes.served()


def etcds_moved_node(nodes: EtcdNodes) -> None:
    """Everybody is told first, and hears it only where somebody leads: the node may have been the leader."""
    nodes.found()
    nodes.settle()
    _move(nodes, 3)
    nodes.put(BEFORE, "1")
    ids = nodes.member_ids()
    nodes.terminal.type("etcdctl", "member", "update", ids[3], "--peer-urls", nodes.peer(3))
    nodes.serve(3)
    nodes.all_up()
    nodes.served()


def all_of_ours_moved(nodes: OurNodes) -> None:
    """Each directory is told where all are now."""
    nodes.found()
    _move(nodes, 1, 2, 3)
    for number in nodes.founders:
        nodes.terminal.type("raftkv", "member", "rewrite", f"n{number}", *[nodes.member(each) for each in (1, 2, 3)])
    for number in nodes.founders:
        nodes.serve(number)
    nodes.all_up()
    nodes.served()


def all_of_etcds_moved(nodes: EtcdNodes) -> None:
    """A new cluster is made of the database of the member that has most."""
    nodes.found()
    source = f"n{nodes.leader()}/member/snap/db"
    _move(nodes, 1, 2, 3)
    nodes.restore(source, "r")
    for number in nodes.founders:
        nodes.serve(number)
    nodes.all_up()
    nodes.served()


def our_new_leader(nodes: OurNodes) -> None:
    """Another node shall lead."""
    nodes.found()
    target = _other(nodes)
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "transfer", str(target))
    _led_by(nodes, target)


def etcds_new_leader(nodes: EtcdNodes) -> None:
    """By its id, which has to be looked up."""
    nodes.found()
    target = _other(nodes)
    nodes.terminal.trouble()
    nodes.terminal.type("etcdctl", "move-leader", nodes.member_ids()[target])
    _led_by(nodes, target)


def _other(nodes: Nodes) -> int:
    return next(number for number in nodes.founders if number != nodes.leader())


def _led_by(nodes: Nodes, target: int) -> None:
    nodes.until(lambda: nodes.leader() == target, f"node {target} leads")
    nodes.served()


DRILLS = (
    Drill(
        "member-added",
        "a fourth node shall come",
        our_new_member,
        etcds_new_member,
        note="etcd's member has a vote before it has any data; as a learner first, it is one command more",
    ),
    Drill("member-promoted", "a node without a vote shall get one", our_learner, etcds_learner),
    Drill("member-removed", "a node shall go", our_leaver, etcds_leaver),
    Drill("node-exchanged", "a node shall go, and another one come in its place", our_exchange, etcds_exchange),
    Drill("node-moved", "a node has other addresses now", our_moved_node, etcds_moved_node),
    Drill(
        "all-moved",
        "all nodes have other addresses now",
        all_of_ours_moved,
        all_of_etcds_moved,
        note="etcd's becomes another cluster, without what only the other members had",
    ),
    Drill("leader-moved", "another node shall lead", our_new_leader, etcds_new_leader),
)
