"""Certificates that have run out, and new ones in their place while nodes run."""

from __future__ import annotations

import asyncio
import random
import signal
import ssl

import msgspec

from raftkv.client import Admin, Client
from raftkv.errors import RaftKVError
from raftkv.node.status import NodeStatus, PeerStatus
from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.worlds.workload import Workload
from tests.chaos.certificates import Authority
from tests.chaos.clients import MACHINE
from tests.chaos.fault import RealFault
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.chaos.tally import Tally

COUNTED = 10


class CertificatesRunOut(RealFault):
    """A small cluster with TLS beside the other one: one node's certificate has run out, and then all are replaced.

    The others say whose it is and why; with its new file it is reached, and nobody has ended for it. New files for all
    are taken under load, the leader is killed, and clients are served.
    """

    kind = "certificates replaced under load"
    expired = "a certificate that has run out"
    rows = "F84"

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._is_told = dice.random() < 0.5
        """By SIGHUP; else nodes see by themselves that there are new files."""

    async def inject(self, stage: ChaosStage) -> None:
        directory = stage.directory / f"tls-{stage.fired[self.kind]}"
        authority = await asyncio.to_thread(Authority, directory / "authority")
        with ProcessCluster(directory, 3, arguments=MACHINE, launch=stage.cluster.launch) as cluster:
            nodes = list(cluster.nodes.values())
            late = self._dice.choice(nodes)
            for node in nodes:
                cert, key = await asyncio.to_thread(authority.issue, _name(node), days=-1 if node is late else 100)
                node.arguments += ["--tls-ca", str(authority.path), "--tls-cert", str(cert), "--tls-key", str(key)]
            context = ssl.create_default_context(cafile=str(authority.path))
            context.load_cert_chain(*await asyncio.to_thread(authority.issue, "client"))
            own = ChaosStage(cluster, self._dice, directory)
            cluster.start_all()
            tally = Tally(b"certified", Client(Workload, cluster.addresses, ssl=context))
            try:
                await tally.more(COUNTED, DEADLINE_S)
                others = [node for node in nodes if node is not late]
                text = await own.until(lambda: _told(others[0], late, context), f"why {_name(late)} is not reached")
                stage.note(f"said of node {late.node_id}: {text}")
                stage.met(self.expired)
                running = [node.process for node in nodes]
                await self._replace(own, authority, [late], context)
                await self._replace(own, authority, nodes, context)
                assert [node.process for node in nodes if node.is_running] == running, "a node ended for a certificate"
                await tally.more(COUNTED)
                await self._kill_leader(own, context)
                await tally.more(COUNTED)
                await own.until(lambda: _all_connected(nodes, context), "all nodes connected with new certificates")
                stage.met(self.kind)
                await tally.stop(cluster.addresses, context)
            finally:
                await tally.close()

    async def _replace(
        self, stage: ChaosStage, authority: Authority, nodes: list[NodeProcess], context: ssl.SSLContext
    ) -> None:
        """New certificates and keys in the place of these nodes' own; returns when all nodes are connected."""
        for node in nodes:
            await asyncio.to_thread(authority.issue, _name(node))
        if self._is_told:
            for node in stage.cluster.nodes.values():
                node.signal(signal.SIGHUP)
        every = list(stage.cluster.nodes.values())
        await stage.until(lambda: _all_connected(every, context), "all nodes connected")

    async def _kill_leader(self, stage: ChaosStage, context: ssl.SSLContext) -> None:
        nodes = stage.cluster.nodes

        async def find() -> NodeProcess | None:
            statuses = [await _status(node, context) for node in nodes.values()]
            leading = [status.node_id for status in statuses if status is not None and status.role == "leader"]
            return nodes[leading[0]] if leading else None

        leader = await stage.until(find, "a leader")
        leader.kill()
        leader.start()

    def describe(self) -> str:
        return f"{self.kind}: {'told by SIGHUP' if self._is_told else 'found by themselves'}"


def _name(node: NodeProcess) -> str:
    return f"n{node.node_id}"


async def _status(node: NodeProcess, context: ssl.SSLContext) -> NodeStatus | None:
    try:
        async with Admin([node.own.client_address], ssl=context) as admin:
            return msgspec.convert(await admin.status(2.0), NodeStatus)
    except RaftKVError:
        return None


async def _peers(node: NodeProcess, context: ssl.SSLContext) -> list[PeerStatus]:
    status = await _status(node, context)
    return status.peers if status is not None else []


async def _told(node: NodeProcess, of: NodeProcess, context: ssl.SSLContext) -> str | None:
    """What a node says of why it doesn't reach another one, when it names the certificate."""
    said = [peer.unreached for peer in await _peers(node, context) if peer.node_id == of.node_id]
    return next((text for text in said if text is not None and "expired" in text and repr(_name(of)) in text), None)


async def _all_connected(nodes: list[NodeProcess], context: ssl.SSLContext) -> bool | None:
    peers = [await _peers(node, context) for node in nodes]
    return all(len(each) == len(nodes) - 1 and all(peer.connected for peer in each) for each in peers) or None
