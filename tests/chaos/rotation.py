"""A cluster secret that is replaced while nodes are killed and stopped; and a node that has a wrong one."""

from __future__ import annotations

import asyncio
import random
import signal
import ssl
from pathlib import Path

from raftkv.client import Client
from raftkv.processes.cluster import NodeProcess, ProcessCluster
from raftkv.worlds.workload import Workload
from tests.chaos import certificates
from tests.chaos.certificates import Authority
from tests.chaos.clients import MACHINE
from tests.chaos.fault import RealFault
from tests.chaos.slowness import slowness
from tests.chaos.stage import DEADLINE_S, ChaosStage
from tests.chaos.tally import Tally
from tests.chaos.trouble import FAULTS, troubled

COUNTED = 10

PAUSE_S_MAX = 6.0
"""Of clients, of one fault: an election takes one to two seconds, and who asks a silent leader notices after nearly one
more; where the machine is slower, as much longer."""

SETTLES_S, ALONE_S = 1.0, 2.0
"""For what was under way to end, and then to see that nothing more comes."""

TAKEN = "peer_secret_taken"


class SecretReplaced(RealFault):
    """A small cluster beside the other one changes its secret as the README says: old and new, new and old, new alone.

    Meanwhile nodes are killed and stopped, one at a time: clients wait no longer than for an election, and
    all nodes are connected at the end. Then a node is started with the old secret. It takes no part: with the leader
    alone it is no majority. With the new one in its file it is back, without a restart.
    """

    kind = "a cluster secret replaced under load"
    with_tls = "a cluster secret replaced with TLS"
    wrong = "a node with a wrong cluster secret"
    rows = "F91"

    def __init__(self, dice: random.Random, *, has_tls: bool | None = None) -> None:
        self._dice = dice
        wants_tls = has_tls if has_tls is not None else dice.random() < 0.5
        self._has_tls = wants_tls and certificates.missing() is None
        self._is_told = dice.random() < 0.5
        """By SIGHUP; else nodes see by themselves that there is a new file."""

    async def inject(self, stage: ChaosStage) -> None:
        directory = stage.directory / f"secret-{stage.fired[self.kind]}"
        # Without a proxy: it would have to say other addresses than nodes prove to have said.
        with ProcessCluster(directory, 3, arguments=MACHINE, launch=stage.cluster.launch) as cluster:
            context = await asyncio.to_thread(_with_tls, cluster) if self._has_tls else None
            own = ChaosStage(cluster, self._dice, directory, ssl=context)
            old, new = (self._dice.randbytes(32).hex() for _ in range(2))
            for node in cluster.nodes.values():
                node.arguments += ["--peer-secret-file", str(_secret_path(node))]
                _write(node, old)
            cluster.start_all()
            tally = Tally(b"secret", Client(Workload, cluster.addresses, ssl=context))
            try:
                await tally.more(COUNTED, DEADLINE_S)
                await self._replace(stage, own, tally, old, new)
                await self._have_a_wrong_one(own, tally, old, new)
                stage.met(self.wrong)
                await own.until_equal()
                await tally.stop(cluster.addresses, context)
            finally:
                await tally.close()

    async def _replace(self, stage: ChaosStage, own: ChaosStage, tally: Tally, old: str, new: str) -> None:
        """The three steps, each on one node after the other, and the next when all have taken it up."""
        tally.forget_pauses()
        async with troubled(own, self._dice, lambda: tally.more(COUNTED)) as trouble:
            for number, lines in enumerate(([old, new], [new, old], [new]), 1):
                for node in self._dice.sample([*own.cluster.nodes.values()], k=3):
                    await self._give(own, node, *lines)
                own.note(f"step {number} of 3 is taken up by all")
            await trouble.has_come(FAULTS)
        longest_s, most_s = tally.pause_s, PAUSE_S_MAX * slowness()
        stage.note(f"clients waited for {longest_s:.2f} s at most, {trouble.times} faults")
        assert longest_s <= most_s, f"while the secret was replaced clients waited for {longest_s:.1f} s: {most_s:.1f}"
        await own.until(lambda: _all_connected(own), "all nodes connected with the new secret")
        await tally.more(COUNTED)
        stage.met(self.kind)
        if self._has_tls:
            stage.met(self.with_tls)

    async def _give(self, stage: ChaosStage, node: NodeProcess, *lines: str) -> None:
        """Replace a node's file; returns when the node has read it, or was started since."""
        starts, before = node.starts, _times_taken(node)
        _write(node, *lines)
        if self._is_told:
            node.signal(signal.SIGHUP)

        async def is_taken() -> bool | None:
            return (node.starts > starts and node.is_running) or _times_taken(node) > before or None

        await stage.until(is_taken, f"node {node.node_id} taking its new secret up")

    async def _have_a_wrong_one(self, stage: ChaosStage, tally: Tally, old: str, new: str) -> None:
        leader = await stage.leader()
        odd, other = (node for node in stage.cluster.nodes.values() if node is not leader)
        await asyncio.to_thread(odd.terminate)
        _write(odd, old)
        odd.start()
        await stage.until(lambda: _is_refused(stage, odd), f"node {odd.node_id} refused for its secret")
        await tally.more(COUNTED)
        other.kill()
        await asyncio.sleep(SETTLES_S)
        reached = tally.reached
        await asyncio.sleep(ALONE_S)
        assert tally.reached == reached, f"with node {odd.node_id}, whose secret is wrong, a leader made a majority"
        other.start()
        await tally.more(COUNTED)
        status = await stage.status(odd.node_id)
        assert status is not None and status.commit_index < (await _commit_index(stage, leader)), (
            "it was told of entries"
        )
        process = odd.process
        await self._give(stage, odd, new)
        await stage.until(lambda: _all_connected(stage), f"node {odd.node_id} back with the right secret")
        assert odd.process is process, f"node {odd.node_id} ended for its secret"

    def describe(self) -> str:
        told = "told by SIGHUP" if self._is_told else "found by themselves"
        return f"{self.kind}{', with TLS' if self._has_tls else ''}: {told}"


def _with_tls(cluster: ProcessCluster) -> ssl.SSLContext:
    """Give each node a certificate; returns that of a client."""
    authority = Authority(cluster.directory / "authority")
    for node in cluster.nodes.values():
        cert, key = authority.issue(f"n{node.node_id}")
        node.arguments += ["--tls-ca", str(authority.path), "--tls-cert", str(cert), "--tls-key", str(key)]
    context = ssl.create_default_context(cafile=str(authority.path))
    context.load_cert_chain(*authority.issue("client"))
    return context


def _secret_path(node: NodeProcess) -> Path:
    return Path(node.data_dir).with_suffix(".secret")


def _write(node: NodeProcess, *lines: str) -> None:
    """Replace the file of a node's secret: whoever looks sees the old one or the new one."""
    path = _secret_path(node)
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text("".join(f"{line}\n" for line in lines))
    new.rename(path)


def _times_taken(node: NodeProcess) -> int:
    """How often a node has said that it has read its file again."""
    return node.log_path.read_text().count(TAKEN) if node.log_path.exists() else 0


async def _all_connected(stage: ChaosStage) -> bool | None:
    found = await stage.statuses()
    return (
        len(found) == len(stage.cluster.nodes)
        and all(len(each.peers) == len(found) - 1 and all(peer.connected for peer in each.peers) for each in found)
    ) or None


async def _is_refused(stage: ChaosStage, odd: NodeProcess) -> bool | None:
    """Whether both others say that this node is not connected, and one of them that it is for its secret."""
    peers = [
        peer
        for status in await stage.statuses()
        if status.node_id != odd.node_id
        for peer in status.peers
        if peer.node_id == odd.node_id
    ]
    texts = [peer.refused or peer.unreached or "" for peer in peers]
    is_so = len(peers) == 2 and not any(peer.connected for peer in peers) and any("secret" in text for text in texts)
    return is_so or None


async def _commit_index(stage: ChaosStage, node: NodeProcess) -> int:
    status = await stage.status(node.node_id)
    return status.commit_index if status is not None else 0
