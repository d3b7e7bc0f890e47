"""What a script may demand, in words:

`expect leader 1` · `expect no-leader` · `expect leaders 1 4` · `expect 1 role follower` · `expect 1 term 3` ·
`expect 1 vote 2|nobody` · `expect 1 leader 2|nobody` · `expect 1 commit 5` · `expect 1 last 5@2` ·
`expect 1 start 3` · `expect 1 durable 4` · `expect 1 log 1 1 2` (terms) · `expect 1 applied x y` ·
`expect 1 membership voters 1 2 learners 3` · `expect 1 joint yes|no` · `expect 1 read r1 at 4` ·
`expect 1 unread r1` · `expect 1 dropped r1` · `expect same-log 1 2` · `expect queue 1->2 0` ·
`expect 1 flow 2 probe` · `expect 1 match 2 5` · `expect 1 inflight 2 3` · `expect down 1`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftkv.core.roles import Leader
from raftkv.model import EntryKind

if TYPE_CHECKING:
    from tests.core.harness.storage import Node
    from tests.core.harness.world import CoreWorld


def _equal(what: str, found: Any, wanted: Any) -> None:
    assert found == wanted, f"{what} is {found}, not {wanted}"


class Expectations:
    """Checks one demand at a time against a world."""

    def __init__(self, world: CoreWorld) -> None:
        self.world = world

    def check(self, text: str) -> None:
        """Raises AssertionError when `text` does not hold."""
        words = text.split()
        if words[0].isdigit():
            self._of_node(self.world.nodes[int(words[0])], words[1], words[2:])
            return
        {
            "leader": self._leader,
            "leaders": self._leader,
            "no-leader": self._leader,
            "same-log": self._same_log,
            "queue": self._queue,
            "down": self._down,
        }[words[0]](words[1:])

    def _leader(self, wanted: list[str]) -> None:
        found = [str(at) for at, node in sorted(self.world.nodes.items()) if node.is_up and node.core.is_leader]
        _equal("leader", found, wanted)

    def _same_log(self, ids: list[str]) -> None:
        logs = [[entry.id for entry in self.world.nodes[int(at)].entries] for at in ids]
        starts = {self.world.nodes[int(at)].entries_start for at in ids}
        if len(starts) == 1:
            assert all(log == logs[0] for log in logs), f"the logs of {ids} differ: {logs}"
        ends = [self.world.nodes[int(at)].core.log.last_chain for at in ids]
        assert len(set(ends)) == 1, f"the logs of {ids} end differently"

    def _queue(self, words: list[str]) -> None:
        sender, to = map(int, words[0].split("->"))
        _equal(f"queue {words[0]}", len(self.world.queue((sender, to))), int(words[1]))

    def _down(self, ids: list[str]) -> None:
        assert not any(self.world.nodes[int(at)].is_up for at in ids), f"{ids} are not down"

    def _of_node(self, node: Node, field: str, wanted: list[str]) -> None:
        raft = node.core
        what = f"node {node.node_id} {field}"
        first = wanted[0] if wanted else ""
        match field:
            case "role":
                _equal(what, type(raft.role).__name__.lower(), first.replace("-", ""))
            case "term":
                _equal(what, raft.term, int(first))
            case "vote":
                _equal(what, raft.vote, None if first == "nobody" else int(first))
            case "leader":
                _equal(what, raft.leader, None if first == "nobody" else int(first))
            case "commit":
                _equal(what, raft.commit_index, int(first))
            case "last":
                _equal(what, str(raft.log.last_id), first)
            case "start":
                _equal(what, raft.log.start.index, int(first))
            case "durable":
                _equal(what, raft.durable_index, int(first))
            case "log":
                _equal(what, [str(entry.term) for entry in node.entries], wanted)
            case "commands":
                found = [e.payload.decode() for e in node.entries if e.kind == EntryKind.COMMAND]
                _equal(what, found, wanted)
            case "applied":
                _equal(what, node.commands, wanted)
            case "membership":
                _equal(what, raft.membership.describe(), " ".join(wanted))
            case "removed":
                _equal(what, [str(at) for at in raft.membership.removed], wanted)
            case "joint":
                _equal(what, raft.membership.is_joint, first == "yes")
            case "read":
                _equal(what, node.reads.get(first), int(wanted[2]))
            case "unread":
                assert first not in node.reads, f"{first} was answered at {node.reads[first]}"
            case "dropped":
                assert first in node.dropped, f"{first} was not dropped ({node.dropped})"
            case "installing":
                _equal(what, node.installing is not None, first == "yes")
            case "time":
                _equal(what, raft.log.last_time_ms, int(first))
            case _:
                self._of_leader(node, field, wanted)

    def _of_leader(self, node: Node, field: str, wanted: list[str]) -> None:
        role = node.core.role
        assert isinstance(role, Leader), f"node {node.node_id} does not lead"
        what = f"node {node.node_id} {field}"
        if field == "transfer":
            found = role.transfer.target if role.transfer is not None else None
            _equal(what, found, None if wanted[0] == "none" else int(wanted[0]))
            return
        progress = role.progress[int(wanted[0])]
        match field:
            case "flow":
                _equal(what, progress.flow.value, wanted[1])
            case "match":
                _equal(what, progress.match_index, int(wanted[1]))
            case "next":
                _equal(what, progress.next_index, int(wanted[1]))
            case "inflight":
                _equal(what, progress.inflight_count, int(wanted[1]))
            case _:
                raise KeyError(f"unknown expectation {field!r}")
