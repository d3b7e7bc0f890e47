"""Clients of real nodes, none of which is one that they were told of."""

from __future__ import annotations

import asyncio
from pathlib import Path

from raftkv import Admin, Client
from raftkv.kv import KeyValue
from raftkv.processes.cluster import NodeProcess, ProcessCluster
from tests.forked import ForkedCluster
from tests.integration.nodes import tell


def test_every_member_that_clients_were_told_of_is_replaced_and_the_leader_killed(tmp_path: Path) -> None:
    """F80: a cluster of one becomes one of three others; a client and an `Admin` that knew the first go on."""

    async def story(cluster: ProcessCluster, others: list[NodeProcess]) -> None:
        seeds = [cluster.nodes[1].member.client_address]
        async with Admin(seeds) as admin, Client(KeyValue, seeds, deadline_s=30.0) as kv:
            assert await kv.increment(b"n") == 1
            for node in others:
                await admin.add_learner(node.member)
                await admin.promote(node.node_id)
            await admin.transfer_leadership(2)
            await kv.get(b"n")  # is answered when the new leader's first entry is committed: before that, no change is
            await admin.remove(1)
            cluster.kill(1)
            assert await kv.increment(b"n") == 2
            cluster.kill(2)
            assert await kv.increment(b"n") == 3
            assert await admin.transfer_leadership() in (3, 4)

    with ForkedCluster(tmp_path, 1) as cluster:
        others = [cluster.add(node_id) for node_id in (2, 3, 4)]
        cluster.start_all()
        tell(asyncio.wait_for(story(cluster, others), 60))
