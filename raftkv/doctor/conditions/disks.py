"""Disks: room, speed, damage, and files that nobody uses."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import FREE, NEVER, Evidence, rebuild, typed
from raftkv.doctor.finding import Sign
from raftkv.node.status import NodeStatus
from raftkv.node.watchdog import bytes_text

SNAPSHOT_BYTES = 64 << 20
"""What a snapshot may write before anything is freed: what the database has in memory, and small files; all others are
linked."""

NEARLY = 2
"""Times the reserve: room for another snapshot or two is left then."""

SLOW_S = 0.05
"""Mean of a synced write: ten times what a disk for this takes, and most of a heartbeat."""

STALLED_S = 1.0
"""A write that takes longer is about to cost leadership (`disk_stall_handover_timeouts`)."""

LYING_S, LYING_BATCHES = 20e-6, 1_000
"""A mean that no disk reaches whose flush waits for the medium: the fastest with power-loss protection take about as
long for the way to the device and back. Fewer writes than that many prove nothing."""

STRANGER = "neither taken nor received by this node"
"""How the store of snapshots says that one was brought here from elsewhere."""


def disk_low(evidence: Evidence) -> Iterator[Sign]:
    """Below the reserve (F13)."""
    for node in evidence.nodes:
        if node.disk_low:
            has_room = node.disk_free_bytes >= SNAPSHOT_BYTES
            snapshot = "A snapshot lets it cut its log" if has_room else "A snapshot, to cut its log, has no room there"
            yield Sign(
                what=f"the disk of node {node.node_id} is nearly full, so it shall not lead",
                why=(_room(node),),
                do=f"{FREE}; the node goes on by itself. {snapshot}",
                commands=(evidence.asking(*(("snapshot", "take", "--all") if has_room else ("status",))),),
                dont=f"Don't remove files in {node.data_dir or 'its directory'}{NEVER}.",
                lasting_s=node.lasting_s.get("disk_low"),
            )


def disk_nearly_low(evidence: Evidence) -> Iterator[Sign]:
    """Above the reserve, and not far (F13)."""
    for node in evidence.nodes:
        if not node.disk_low and node.disk_total_bytes and node.disk_free_bytes < NEARLY * node.disk_reserve_bytes:
            yield Sign(
                what=f"the disk of node {node.node_id} has little room left",
                why=(_room(node),),
                do=f"before it is below the reserve, {FREE}",
                commands=(evidence.asking("status"),),
                dont=f"Don't remove files in {node.data_dir or 'its directory'}{NEVER}.",
            )


def _room(node: NodeStatus) -> str:
    return (
        f"status of node {node.node_id}: {bytes_text(node.disk_free_bytes)} of {bytes_text(node.disk_total_bytes)} are "
        f"free, the reserve is {bytes_text(node.disk_reserve_bytes)}"
    )


def writes_refused(evidence: Evidence) -> Iterator[Sign]:
    """No voter has room (F13)."""
    for node in evidence.nodes:
        if node.writes_refused is not None:
            yield Sign(
                what="writes are refused",
                why=(f"status of node {node.node_id}, which leads: {node.writes_refused}",),
                do=f"on the machine of one voter, {FREE}: it takes over, and writes are accepted again",
                commands=(evidence.asking("status"),),
                dont=f"Don't remove files in any node's directory{NEVER}.",
                lasting_s=node.lasting_s.get("writes_refused"),
            )


def _mean_s(evidence: Evidence, node: NodeStatus) -> tuple[float, int] | None:
    """What a write took lately, and of how many; since the node's start when there was none between the looks."""
    earlier = evidence.earlier(node.node_id)
    batches, seconds = node.write_batches, node.write_seconds
    if earlier is not None and 0 < batches - earlier.write_batches < batches:
        batches, seconds = batches - earlier.write_batches, seconds - earlier.write_seconds
    return (seconds / batches, batches) if batches else None


def disk_slow(evidence: Evidence) -> Iterator[Sign]:
    """By the mean of what it wrote lately (F16)."""
    for node in evidence.nodes:
        mean = _mean_s(evidence, node)
        if mean is not None and mean[0] > SLOW_S:
            yield Sign(
                what=f"the disk of node {node.node_id} is slow",
                why=(
                    f"status of node {node.node_id}: a synced write took {1000 * mean[0]:.0f} ms (mean of {mean[1]})",
                ),
                do="see what else uses the disk, or give the node a disk of its own; if it leads, hand over meanwhile",
                commands=(evidence.asking("transfer"),),
            )


def disk_stalled(evidence: Evidence) -> Iterator[Sign]:
    """By the write that is under way (F16)."""
    for node in evidence.nodes:
        if node.disk_writing_s > STALLED_S:
            yield Sign(
                what=f"the disk of node {node.node_id} hangs in a write",
                why=(f"status of node {node.node_id}: a write has taken {node.disk_writing_s:.1f} s so far",),
                do="look at the disk, its controller and the kernel's log on that machine; the node stops by itself "
                "after half a minute (`disk_stall_stop_s`)",
                commands=(evidence.asking("status", "--watch"),),
                lasting_s=node.disk_writing_s,
            )


def disk_too_quick(evidence: Evidence) -> Iterator[Sign]:
    """Quicker than a flush of any medium, over many writes (F4 F7 F12)."""
    for node in evidence.nodes:
        if node.write_batches >= LYING_BATCHES and 0 < node.write_seconds / node.write_batches < LYING_S:
            mean = 1e6 * node.write_seconds / node.write_batches
            yield Sign(
                what=f"the disk of node {node.node_id} says sooner that data is safe than a disk can know",
                why=(f"status of node {node.node_id}: {node.write_batches} synced writes took {mean:.1f} µs (mean)",),
                do="make sure that it is no memory (tmpfs), and that neither its controller nor a virtual machine "
                "ignores flushes: after a power failure what was acknowledged might be gone on all nodes at once",
                commands=(typed("doctor", node.data_dir or "DIR"),),
            )


def damage_found(evidence: Evidence) -> Iterator[Sign]:
    """What was read again in the background is not what was written (F9 F10 F70)."""
    for node in evidence.nodes:
        for text in node.damaged:
            if STRANGER not in text:
                is_state = "--rebuild" in text
                yield Sign(
                    what=f"node {node.node_id} has found damage on its disk",
                    why=(f"status of node {node.node_id}: {text}",),
                    do="do what the text says, and see to the disk: where one block is damaged, others will be",
                    commands=(rebuild(node.node_id, node.data_dir),)
                    if is_state
                    else (
                        evidence.asking("snapshot", "take", "--all"),
                        typed("snapshot", "verify", node.data_dir or "DIR"),
                    ),
                    dont="Don't restart other nodes until this one is sound or replaced.",
                )


def unused_snapshot(evidence: Evidence) -> Iterator[Sign]:
    """Brought there from elsewhere (F77)."""
    for node in evidence.nodes:
        for text in node.damaged:
            if STRANGER in text:
                yield Sign(
                    what=f"a snapshot lies in the directory of node {node.node_id} that is not its own",
                    why=(f"status of node {node.node_id}: {text}",),
                    do="move it to where it belongs, or remove it; the node does not use it",
                    commands=(typed("snapshot", "list", node.data_dir or "DIR"),),
                )
