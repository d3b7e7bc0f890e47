"""Drills of data: many keys counted, deleted and watched, and the room that they took."""

from __future__ import annotations

from tests.drills.drill import Drill
from tests.drills.etcds import EtcdNodes
from tests.drills.nodes import Nodes
from tests.drills.ours import OurNodes
from tests.drills.terminal import DrillFailed

KEYS, VALUE_BYTES = 2_000, 4_000

WATCHED = "k/watched"

ROOM_S = 120.0
"""Files are made anew in the background."""


def _stored(nodes: Nodes, value_bytes: int = 100) -> None:
    nodes.found()
    nodes.fill("k/", KEYS, value_bytes)
    nodes.terminal.trouble()


def our_count(nodes: OurNodes) -> None:
    """Keys with a prefix."""
    _stored(nodes)
    _expect(nodes.terminal.type("raftkv", "count", "--prefix", "k/"), str(KEYS))
    nodes.served()


def etcds_count(nodes: EtcdNodes) -> None:
    """The same."""
    _stored(nodes)
    words = ("etcdctl", "get", "k/", "--prefix", "--limit", "1", "--write-out", "fields")
    _expect(nodes.terminal.type(*words), str(KEYS))
    nodes.served()


def our_deletion(nodes: OurNodes) -> None:
    """Keys with a prefix."""
    _stored(nodes)
    _expect(nodes.terminal.type("raftkv", "delete", "--prefix", "k/"), str(KEYS))
    nodes.served()


def etcds_deletion(nodes: EtcdNodes) -> None:
    """The same."""
    _stored(nodes)
    _expect(nodes.terminal.type("etcdctl", "del", "k/", "--prefix"), str(KEYS))
    nodes.served()


def _expect(said: str, word: str) -> None:
    if word not in said.split():
        raise DrillFailed(f"not {word}: {said}")


def our_watch(nodes: OurNodes) -> None:
    """The machine that keeps changes."""
    nodes.more = ["--machine", "raftkv.kv:WatchedKeyValue"]
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.start("raftkv", "watch", "records", "--prefix", "k/", log="watch.log")
    _seen(nodes, WATCHED)


def etcds_watch(nodes: EtcdNodes) -> None:
    """The same."""
    nodes.found()
    nodes.terminal.trouble()
    nodes.terminal.start("etcdctl", "watch", "k/", "--prefix", log="watch.log")
    _seen(nodes, WATCHED)


def _seen(nodes: Nodes, shown: str) -> None:
    """Write until the watch shows it: what is written before it has begun need not be seen."""
    log = nodes.terminal.directory / "watch.log"

    def is_seen() -> bool:
        nodes.put(WATCHED, "3")
        return shown in log.read_text()

    nodes.until(is_seen, "a change is seen")
    nodes.terminal.relief()


def our_room(nodes: OurNodes) -> None:
    """Each node writes out what is left, and makes its files anew."""
    nodes.found()
    nodes.fill("k/", KEYS, VALUE_BYTES)
    nodes.until(lambda: min(_state_bytes(nodes)) > KEYS * VALUE_BYTES // 2, "the states are on the disks")
    nodes.terminal.type("raftkv", "delete", "--prefix", "k/")
    nodes.terminal.trouble()
    nodes.terminal.type("raftkv", "snapshot", "take", "--all")
    nodes.until(lambda: max(_state_bytes(nodes)) < KEYS * VALUE_BYTES // 4, "there is room again", ROOM_S)
    nodes.served()


def _state_bytes(nodes: OurNodes) -> list[int]:
    return [int(nodes.status(number).get("state_bytes", 0)) for number in nodes.founders]


def etcds_room(nodes: EtcdNodes) -> None:
    """History is given up, and each database written anew."""
    nodes.found()
    nodes.fill("k/", KEYS, VALUE_BYTES)
    nodes.terminal.type("etcdctl", "del", "k/", "--prefix")
    nodes.terminal.trouble()
    nodes.make_room()
    nodes.until(lambda: max(_database_bytes(nodes)) < KEYS * VALUE_BYTES // 4, "there is room again")
    nodes.served()


def _database_bytes(nodes: EtcdNodes) -> list[int]:
    return [int(nodes.status(number)["dbSize"]) for number in nodes.founders]


DRILLS = (
    Drill("count", "how many keys have a prefix?", our_count, etcds_count),
    Drill("delete", "all keys with a prefix shall go", our_deletion, etcds_deletion),
    Drill(
        "watch",
        "what changes below a prefix?",
        our_watch,
        etcds_watch,
        note="raftkv's nodes run `raftkv.kv:WatchedKeyValue`, which keeps changes",
    ),
    Drill("room", "8 MB were deleted, and the room is wanted back", our_room, etcds_room),
)
