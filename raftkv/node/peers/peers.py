"""All that a node knows of other nodes, put together from the parts in this folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from raftkv.access import Access
from raftkv.log import VoteFile
from raftkv.machine import Active, StateMachine
from raftkv.model import NodeId
from raftkv.node.body import Body
from raftkv.node.identity import Founding
from raftkv.node.peers.admission import Admission
from raftkv.node.peers.belonging import Belonging
from raftkv.node.peers.gossip import Gossip
from raftkv.node.peers.met import Met, save_known
from raftkv.node.peers.moved import Moved
from raftkv.node.peers.places import Places
from raftkv.node.peers.removal import Ending
from raftkv.wire import Acquaintance


class Peers:
    """Holds the parts, each of which answers one question, and tells them when the membership changes."""

    def __init__(
        self,
        body: Body,
        machine: type[StateMachine],
        *,
        founding: Founding,
        vote: VoteFile,
        starts: list[tuple[int, str]],
        known: dict[NodeId, Acquaintance],
        moved: Moved | None,
        active: Callable[[], Active],
        access: Callable[[], Access],
    ) -> None:
        world = body.world

        def save(known: dict[NodeId, Acquaintance]) -> asyncio.Future[None]:
            # On the log's worker, because a handshake waits for this and background work may take seconds.
            return world.log_worker.run(save_known, world.disk, body.paths.peers, vote, known)

        self.belonging = Belonging(founding, vote, world.disk, body.paths.founding, world.log_worker)
        self.met = Met(known, save, body.check_background)
        self.places = Places(body, moved)
        self.gossip = Gossip(body, self.met, vote.identity.incarnation)
        self.ending = Ending(body)
        self.admission = Admission(
            body,
            machine,
            vote,
            starts,
            active=active,
            access=access,
            belonging=self.belonging,
            met=self.met,
            gossip=self.gossip,
            places=self.places,
        )

    def membership_changed(self) -> None:
        """Called when another membership is in force, and again when it is committed."""
        self.places.membership_changed()
        self.admission.hang_up_on_removed()
        self.ending.look_at_membership()
        self.places.compare_own()
        self.places.tell_clients()

    def was_met(self, node_id: NodeId) -> bool:
        """Whether any node is known to have met a data directory under this id."""
        return self.met.incarnation_of(node_id) is not None
