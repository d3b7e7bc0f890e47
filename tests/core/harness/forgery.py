"""Messages that no correct core sends, or not now: `forge KIND SENDER->TO FIELD=VALUE …` in a script.

`forge append 1->2 term=3 prev=2@1 commit=9 [chain=7] [round=1]` (a heartbeat), `forge holds 2->1 term=1 match=10`,
`forge timeout-now 1->2 term=1`, `forge vote 2->1 term=3`, `forge vote? 2->1 term=9 last=1@1 [transfer=yes]`,
`forge snapshot 1->2 term=2 at=5@1 [chain=7] voters=1,2,3`.
"""

from __future__ import annotations

from raftkv.core.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Message,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.model import EntryId, Membership, NodeId, SnapshotMeta


def _id(text: str) -> EntryId:
    index, _, term = text.partition("@")
    return EntryId(term=int(term), index=int(index))


def forged(kind: str, sender: NodeId, to: NodeId, fields: dict[str, str]) -> Message:
    """Build the message; `KeyError` names a field that is missing."""
    term = int(fields["term"])
    match kind:
        case "append":
            prev = _id(fields["prev"])
            chain, number = int(fields.get("chain", 0)), int(fields.get("round", 1))
            return AppendEntries(
                sender, to, term, prev.index, prev.term, chain, prev.index, int(fields["commit"]), number, []
            )
        case "holds":
            return AppendReply(sender, to, term, int(fields.get("round", 0)), int(fields["match"]))
        case "timeout-now":
            return TimeoutNow(sender, to, term)
        case "vote":
            return RequestVoteReply(sender, to, term, granted=True)
        case "vote?":
            last = _id(fields["last"])
            return RequestVote(sender, to, term, last.index, last.term, transfer=fields.get("transfer") == "yes")
        case "snapshot":
            at = _id(fields["at"])
            voters = tuple(map(int, fields["voters"].split(",")))
            meta = SnapshotMeta(at.index, at.term, int(fields.get("chain", 0)), 0, Membership.of(voters))
            return InstallSnapshot(sender, to, term, meta)
    raise KeyError(f"no message is called {kind!r}")
