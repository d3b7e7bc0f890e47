"""Raft as a pure function of its inputs, and a tutorial of it in the order in which the code does it.

**One machine is not enough.** A service keeps its state by applying *commands* one after the other. If
several machines apply the same commands in the same order, each has the same state, and one may die.
So the whole problem is to agree on an order: a *log*. An `Entry` of it has an index, a term, a payload
and a `chain` value, a checksum that includes the entry before, so that two logs can be compared as a
whole by comparing one number. The core never looks into commands and never keeps them: `LogView`
remembers a few integers an entry, and the entries themselves pass through to whoever runs the core.

**A function of its inputs.** `Raft` is given messages (`Raft.step`), time (`tick`), requests (`propose`,
`read`, `change_membership`, `transfer_leadership`) and news of what was done (`persisted`, `applied`).
It answers with one value, `Ready`, whose fields stand in the order in which they must be done: write,
send, apply, answer. It has no clock, no disk, no socket and no dice, so whatever it does can be done again.

**One leader orders the log.** Everybody starts as a `Follower`. The `Leader` takes commands, appends them
(`tail.append_payloads`) and sends them to the others as `AppendEntries` (`appends.send_entries`). Any other
node answers with who the leader is (`NotLeader`).

**Terms.** Time is cut into terms, numbered 1, 2, 3, …; each has at most one leader. Every message carries its
sender's term. A node that sees a newer one takes it over and follows (`Raft._take_higher_term`,
`transitions.become_follower`); a node that sees an older one answers with its own, and so deposes a leader whose
time is over (`Raft._answer_lower_term`).

**Elections.** A follower that hears no leader for a time drawn from [T, 2T) becomes a `Candidate`
(`transitions.become_candidate`): it raises the term, votes for itself, and asks the others (`RequestVote`). Each
node votes once a term (`RaftState.grant_vote`) and only for a log at least as up-to-date as its own
(`LogView.is_at_least`, §5.4.1). With the votes of a majority (`quorum.is_quorum`) it becomes leader
(`election.count_votes`, `transitions.become_leader`).

**What is said must be remembered.** A vote that is forgotten in a crash can be given twice, and then two leaders
lead in one term. So the term and the vote (`HardState`) are durable before an answer leaves: such messages are in
`Ready.durable_messages`, and go when the write of their number is done. A candidate counts its own vote, and a
leader its own entries, in `Raft.persisted`, when they are durable like everybody else's.

**Replication.** An append names the entry before its first one. A follower that has that very entry takes the
append (`replication.on_append_entries`); else it refuses and names the first index of the term that conflicts, and the
leader looks further back (`replication.on_append_reply`), whole terms at a time. Entries that conflict are removed
(`tail.truncate_from`), those that match never are. The leader's view of each follower is a `Progress`: it probes
until an append fits, then sends on without waiting, within a window of messages and bytes.

**Commitment.** An entry that a majority holds durably is *committed* (`replication.maybe_commit`): it will be in the
log of every later leader, because that leader needs a vote of that majority. `Ready.committed` hands it out to be
applied, once it is durable here, too, so that a state never remembers what its own log might forget.

**Figure 8.** With one exception: an entry of an *older* term may be on a majority and still be overwritten by a
leader that was elected in between. So only entries of the own term are committed by counting, and the older ones
with them. That is why each leader begins with a no-op (`election.count_votes`): it commits whatever the old terms
have left.

**Nobody is disturbed.** A node that was cut off would raise its term again and again, and depose a good leader
when it comes back. So it first asks whether it *could* win, as a `PreCandidate`, which changes nothing
(thesis §9.6); a node that hears a live leader refuses (`election.hears_leader`). In turn, a leader that hears no
majority for an election time-out steps down by itself (`Raft._hears_quorum`): it might be the one that is cut off.

**Reads.** A read may not simply be answered from the leader's state: another leader may have been elected. So the
leader notes its commit index, begins a *round* of heartbeats, and answers when a majority has answered that round
(`reads.start`, `reads.confirm`): it was the leader after the question came. Reads of one turn share a round.
Followers ask the leader for the index (`ReadIndex`) and answer when they have applied it. Before the no-op is committed
there is no answer at all. Leases, which save the round, rest on clocks, and are off by default.

**Snapshots.** The log can't grow for ever. When the state is durable in a snapshot (`SnapshotMeta`: index, term, chain,
membership, digest), the log up to it may go (`Raft.compact`). A follower that needs what is gone gets the snapshot
(`snapshots.send_snapshot`); the core decides, and bytes move elsewhere. What arrives replaces the follower's
log unless the log agrees with it (`snapshots.on_install_snapshot`, Figure 13).

**Membership.** The members change through the log, too. From the old voters to the new ones there is no jump,
since the two could decide differently: a joint `Membership` needs majorities of both (§6), and when it is committed the
new one follows by itself (`changes.on_commit`). A membership is in force as soon as it is in the log
(`transitions.membership_changed`). New nodes are learners first, and become voters when they have caught up. A leader
that is not in the new membership manages the change and then hands over (`handover.hand_over`).

**Handing over.** `Raft.transfer_leadership` stops taking commands, brings the target up to date, and sends `TimeoutNow`
(`handover`, thesis §3.10). If nothing comes of it within a time-out, writes go on.

**Bounds.** Entries, batches, windows, uncommitted bytes and waiting reads have limits (`RaftConfig`). Over them there
is `Busy`, never memory.

**Where to find and change it.** An input comes in at the top, a rule decides, the state is changed, and what is to be
done about it waits in `Pending` until `Raft.ready` takes it. Each module imports only
modules below it in this list (setup.cfg holds that), so a change to one can disturb only those above it:

- `raft`: the inputs, one method each, and `ready`; nothing else changes the core from outside. A new input goes here.
- `replication` and `election`: what each message of theirs means, to leader and follower.
- `changes`: the steps of a change of members, begun by an input, finished by commits.
- `appends`: what a leader sends to whom and when.
- `snapshots`: when one is sent instead, and what it replaces where it arrives; `handover`: who leads next.
- `tail`: the log's end, where it grows, is cut off, and is committed.
- `transitions`: the only place where a role begins. A new role's rules are the asserts here.
- `reads`: rounds and leases; `clocks`: by what time a leader stamps its entries.
- `raftstate`: what a node knows. Whoever runs the core may read it, too, but sets nothing in it, except `has_room`.
- `pending`, `durability`, `ready`, `roles`, `log`, `progress`, `messages`, `quorum`, `logclock`: the parts, each of
  which can be understood and tested alone.

`invariants` looks at all of it from outside and asserts what must hold between any two inputs.

*Deviations* from the paper, and why:

- A heartbeat is answered at once, with what is durable by then, even while a write is under way: a slow disk must
  not look like a dead node. New entries are acknowledged only when they are durable.
- Followers that lose the connection to a dead leader all notice at once. They ask for pre-votes one after the other, by
  their
  ids, and of two that ask at once the one with the weaker claim (a shorter log, else the higher id) lets the other
  go first; else two of three would often split the vote, and wait for a whole time-out.
- Writes are numbered (`Ready.write`) and `persisted` takes the number: an index and a term can't tell a write from
  a later one of the same entries, which were cut off in between (`Durability`).
- An `AppendEntries` names a range; whoever sends it attaches the entries. So the core holds no payloads.
- A heartbeat's `prev_index` is the last entry that was *sent*, so that a lost append is noticed without a time-out of
  its own. To a follower that gets a snapshot it is 0, which always fits.
- Rounds (`AppendEntries.round`) count broadcasts, and any answer confirms one: reads ride on appends under load.
- Log matching is verified by chain values, not assumed. Two logs that differ below an equal entry are a
  `SafetyViolation`.
- Pre-votes are repeated sooner than elections, as they disturb nobody. A broken connection to the leader
  (`Raft.peer_lost`) starts one at once; those who still hear the leader refuse it.
- A voter's rank is added to its time-out, so that equal draws do not meet for ever.
- A newer term alone does not restart a follower's clock (the paper does not say): candidates that can't win would
  keep the one that can from standing.
- Replies with a newer term from a node that is no member are ignored, whatever they are.
- A node that is removed gets one last message with the commit of its removal, and so does not campaign. A leader that
  steps down asks the best follower to take over, instead of leaving everybody to a time-out.
- A learner must hold the log up to the entry that made it one before it becomes a voter: a node that knows of no
  membership refuses its vote, because a wiped disk must not give votes away.
- A snapshot travels as files, out of band, and enters the core only when it is whole and verified.
- A node whose state was lost keeps its log and its vote, asks for a snapshot (`AppendReply.wants_snapshot`), and does
  not lead before it has one.
"""

import typing

from raftkv.lazy import exports as _exports

if typing.TYPE_CHECKING:
    from raftkv.core.log import LogView
    from raftkv.core.messages import (
        AppendEntries,
        AppendReply,
        InstallSnapshot,
        Message,
        ReadIndex,
        ReadIndexReply,
        RequestVote,
        RequestVoteReply,
        TimeoutNow,
    )
    from raftkv.core.raft import Raft
    from raftkv.core.ready import Ready
else:
    __getattr__, __dir__ = _exports(
        __name__,
        {
            "raftkv.core.log": "LogView",
            "raftkv.core.messages": (
                "AppendEntries AppendReply InstallSnapshot Message ReadIndex ReadIndexReply RequestVote "
                "RequestVoteReply TimeoutNow"
            ),
            "raftkv.core.raft": "Raft",
            "raftkv.core.ready": "Ready",
        },
    )

__all__ = [
    "AppendEntries",
    "AppendReply",
    "InstallSnapshot",
    "LogView",
    "Message",
    "Raft",
    "ReadIndex",
    "ReadIndexReply",
    "Ready",
    "RequestVote",
    "RequestVoteReply",
    "TimeoutNow",
]
