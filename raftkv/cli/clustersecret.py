"""What a cluster's status says of the secret that its nodes prove to each other, in words, and never what it is."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.model import NodeId
from raftkv.node.status import NodeStatus, by_secrets


def secret_lines(nodes: Sequence[NodeStatus]) -> list[str]:
    """Which secrets the nodes that have answered prove and accept, by their marks; empty where none has any."""
    found = by_secrets(nodes)
    return ["cluster secret: " + "; ".join(_said(who, *marks) for marks, who in found.items())] if found else []


def _said(who: list[NodeId], proven: str, *accepted: str) -> str:
    is_one = len(who) == 1
    named = f"node {who[0]} proves" if is_one else f"nodes {', '.join(map(str, who))} prove"
    verb = "accepts" if is_one else "accept"
    return f"{named} {proven} and {verb} " + (", ".join(accepted) + " too" if accepted else "no other")
