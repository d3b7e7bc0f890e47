"""What a cluster's status says of the versions of its application, in words."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.machine import runs
from raftkv.model import NodeId
from raftkv.node.status import NodeStatus, UpgradeStatus

Range = tuple[int, int]
"""The versions that a class runs: the first and the last."""


def version_lines(nodes: Sequence[NodeStatus]) -> list[str]:
    """Which version of the application is active, who runs which, and how far an upgrade is; empty if none can tell."""
    known = [(node.applied_index, node.versions, node.machine) for node in nodes if node.versions is not None]
    if not known:
        return []
    _, newest, machine = max(known, key=lambda each: each[0])
    name = machine.partition("/")[0]
    if not newest.active:
        return [f"no version of {name} is active yet: the first leader says which"]
    line = f"version {newest.active} of {name} is active"
    ranges = _ranges(nodes)
    if set(ranges.values()) != {(newest.active, newest.active)}:
        line += "; " + "; ".join(f"{who} {runs(*found)}" for found, who in _grouped(ranges))
    return [line, *_progress(newest)]


def _ranges(nodes: Sequence[NodeStatus]) -> dict[NodeId, Range]:
    """What each node says of itself, and for those that do not answer what others have heard from them."""
    found: dict[NodeId, Range] = {}
    for node in nodes:
        for peer in node.peers:
            if peer.newest_version is not None and peer.oldest_version is not None:
                found[peer.node_id] = peer.oldest_version, peer.newest_version
    found |= {node.node_id: (node.versions.oldest, node.versions.newest) for node in nodes if node.versions is not None}
    return dict(sorted(found.items()))


def _grouped(ranges: dict[NodeId, Range]) -> list[tuple[Range, str]]:
    """Who runs each range, in words; the newest first."""
    grouped = []
    for found in sorted(set(ranges.values()), key=lambda each: each[::-1], reverse=True):
        nodes = [str(node) for node, own in ranges.items() if own == found]
        grouped.append((found, f"node {nodes[0]} runs" if len(nodes) == 1 else f"nodes {', '.join(nodes)} run"))
    return grouped


def _progress(versions: UpgradeStatus) -> list[str]:
    if not versions.left:
        return []
    return [
        f"the upgrade to version {versions.active} goes on while commands are served: {versions.steps} pieces done, "
        f"to do: {', '.join(map(_in_words, versions.left))}"
    ]


def _in_words(name: str) -> str:
    return f"drop the rows of {name[1:]}" if name.startswith("-") else name
