"""Who signs in: somebody guesses, somebody has to wait, a token ends."""

from __future__ import annotations

from collections.abc import Iterator

from raftkv.doctor.evidence import Evidence
from raftkv.doctor.finding import Sign
from raftkv.node.status import NodeStatus, Slowed, seconds_text


def _slowed_text(node: NodeStatus, each: Slowed) -> str:
    whom = f" for {each.user}" if each.user else ""
    return (
        f"status of node {node.node_id}: {each.failures} wrong passwords or tokens{whom} from "
        f"{each.host or 'many places'}, the last {seconds_text(int(1000 * each.ago_s))} ago"
    )


def passwords_guessed(evidence: Evidence) -> Iterator[Sign]:
    """More wrong ones of a user, or from a place, than anybody mistypes."""
    for node in evidence.nodes:
        signs = node.sign_ins
        found = [each for each in signs.slowed if each.of != "user from host"] if signs is not None else []
        if signs is not None and found:
            yield Sign(
                what=f"somebody guesses passwords at node {node.node_id}",
                why=(
                    *(_slowed_text(node, each) for each in found),
                    f"{signs.failed} were wrong and {signs.delayed} were not tried since its start",
                ),
                do="look for `audit` in the node's log, which says from where; keep that place out, and see that the "
                "user's password is no word that one finds. Who came in before from elsewhere goes on",
                commands=(evidence.asking("user", "list"),),
                dont="Don't restart nodes for that: they would forget who has to wait.",
            )


def user_slowed(evidence: Evidence) -> Iterator[Sign]:
    """They mistype, a program has an old password, or somebody guesses slowly."""
    for node in evidence.nodes:
        for each in node.sign_ins.slowed if node.sign_ins is not None else []:
            if each.of != "user from host":
                continue
            who = each.user or "somebody who is no user"
            yield Sign(
                what=f"{who} has to wait before signing in at node {node.node_id} from {each.host}",
                why=(_slowed_text(node, each),),
                do="see who or what that is: a program may have an old password or token. It waits a minute at most, "
                "and no more once a right one was shown, or a quarter of an hour after the last wrong one",
                commands=(
                    evidence.asking("user", "passwd", each.user) if each.user else evidence.asking("user", "list"),
                ),
            )


def token_ending(evidence: Evidence) -> Iterator[Sign]:
    """The last one of its user, within three days; or it has ended."""
    found = {
        each.user: (each.expires_ms - node.clock.wall_ms, node)
        for node in evidence.nodes
        if node.sign_ins is not None and node.clock is not None
        for each in node.sign_ins.ending
    }
    for user, (left_ms, node) in sorted(found.items()):
        when = f"ends in {seconds_text(left_ms)}" if left_ms > 0 else f"has ended {seconds_text(-left_ms)} ago"
        yield Sign(
            what=f"the last token of {user} {when}",
            why=(f"status of node {node.node_id}: {node.sign_ins.ending_count if node.sign_ins else 0} such users",),
            do="make another one, and give it to who uses it; for a short one that is made anew each time there is "
            "nothing to do",
            commands=(evidence.asking("user", "token", user),),
        )
