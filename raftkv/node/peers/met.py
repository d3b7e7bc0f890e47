"""What this node knows of the peers that it has met. A peer's votes count only when its record is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import msgspec

from raftkv import failpoints
from raftkv.disk import Disk
from raftkv.errors import Corruption, HandshakeRefused
from raftkv.log import Identity, Owned, VoteFile, check_owner, decode_owned, save_owned
from raftkv.model import Index, NodeId
from raftkv.node.starts import is_continued
from raftkv.wire import Acquaintance, Hello

DIRECTORIES = "directories"
"""A doubt: two nodes have met the same peer with two different data directories."""
COPIES = "copies"
"""A doubt: two processes have claimed the same start of one data directory."""
LOST = "lost"
"""A doubt: the peer came back without committed entries that it had acknowledged."""

_MAGIC = b"RKVpeer\n"

_SEEN = {
    DIRECTORIES: "was met by some with another data directory than by others, so one of the two has forgotten what it "
    "acknowledged",
    COPIES: "was met by some as another process than by others, on copies of one data directory, so neither has all "
    "that it acknowledged",
    LOST: "came back without entries that it had acknowledged, so its directory is a copy from before, or its disk has "
    "lost what was synced",
}

failpoints.declare(
    __name__,
    {
        "peers.before_save": "a peer was met, that is in memory only, and the peer waits",
    },
)


class Met:
    """What each peer said of itself in its last handshake, kept in the file `peers`.

    A node that comes back with another data directory has forgotten what it acknowledged, and must not count as the
    one that did (openraft#2002). So a handshake ends only when the peer's record is durable (`until_durable`). Then
    this node knows, even after a crash, from which directory each vote and acknowledgement came that it counted. What
    other nodes report is kept as well, but no handshake waits for that.

    Nodes also tell each other which peers they have met (`told`). A report never replaces what the peer said here; the
    two are compared. Two data directories under one id, or two processes for one start of a directory, are a doubt:
    from then on neither counts anywhere, not even after restarts. If others have met a later start of a peer, the peer
    has to show that start in its next handshake.

    What this can't do:

    - If a founder is wiped before any node that still runs had met it or heard of it, it looks like a new node. A
      committed entry is lost by that only if every other node that had it is down, and if the wiped founder is a
      majority together with nodes that were connected neither to it nor to any of those since it first came. To rule
      this out, a new cluster would have to wait for all of its founders.
    - A copy of a running node's directory, started later, has had every start that the original had. Only a leader to
      which the original had acknowledged more can see that something is missing (`has_lost`).

    Invariant: what is in the file is `known` as it was at `_durable`, or newer.
    """

    def __init__(
        self,
        known: dict[NodeId, Acquaintance],
        save: Callable[[dict[NodeId, Acquaintance]], asyncio.Future[None]],
        written: Callable[[asyncio.Future[None]], None],
    ) -> None:
        """`save` begins to write the file; `written` is called when that has succeeded or failed."""
        self.known = known
        self._write = save
        self._written = written
        self._version = self._durable = 0
        self._changed: dict[NodeId, int] = {}
        """The version in which each record last changed; a record that is durable is dropped from here."""
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._is_saving = False

    def check(self, hello: Hello) -> None:
        """Raises `HandshakeRefused` for a node that comes back with different files than when it was last met."""
        known = self.known.get(hello.node_id)
        if known is None:
            return
        if known.doubt:
            raise HandshakeRefused(doubt_text(hello.node_id, known.doubt))
        if known.incarnation != hello.incarnation:
            raise HandshakeRefused(
                f"node {hello.node_id} comes with another data directory than before, so it has forgotten what it "
                "acknowledged: give it its old directory back, or remove it and add it under a new id"
            )
        if hello.boot == known.boot and hello.nonce != known.nonce:
            raise HandshakeRefused(
                f"two processes run as node {hello.node_id} on copies of one data directory: stop one of them, "
                "remove it, and add it under a new id with an empty directory"
            )
        for boot, nonce in seen(known):
            if hello.boot < boot or not is_continued(hello.starts, boot, nonce):
                raise HandshakeRefused(
                    f"node {hello.node_id} comes with an older copy of its data directory (start {hello.boot}, seen "
                    f"was {boot}): give it the newest one back, or remove it and add it under a new id"
                )

    def has_lost(self, hello: Hello, acknowledged: Index) -> bool:
        """Whether the node was restarted since it was last met, and has lost entries that it had `acknowledged`.

        Always false for a start that was met before: it may have acknowledged more since it wrote this hello.
        """
        known = self.known.get(hello.node_id)
        return known is not None and hello.boot > known.boot and hello.durable_index < acknowledged

    def incarnation_of(self, peer: NodeId) -> str | None:
        """The data directory that `peer` had when it was last met; None when it was never met."""
        known = self.known.get(peer)
        return known.incarnation if known is not None else None

    def told(self, met: Mapping[NodeId, Acquaintance]) -> dict[NodeId, Acquaintance]:
        """The records that change when `met`, another node's records, are compared with the ones here."""
        compared = {peer: compare(self.known.get(peer), theirs) for peer, theirs in met.items()}
        return {peer: each for peer, each in compared.items() if each != self.known.get(peer)}

    def keep(self, news: Mapping[NodeId, Acquaintance]) -> None:
        """Take in new records and begin to write them. All that come during one write share the next one."""
        self._version += 1
        self.known |= news
        self._changed |= dict.fromkeys(news, self._version)
        self._save()

    def until_durable(self, peer: NodeId) -> asyncio.Future[None] | None:
        """A future that is done when the record of `peer` is on disk, and cancelled when it can't be written.

        None when the record is on disk already.
        """
        version = self._changed.get(peer, 0)
        if version <= self._durable:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((version, future))
        return future

    def _save(self) -> None:
        if not self._is_saving:
            self._is_saving = True
            version = self._version
            future = self._write(dict(self.known))
            future.add_done_callback(lambda done: self._saved(done, version))

    def _saved(self, done: asyncio.Future[None], version: int) -> None:
        self._is_saving = False
        self._written(done)
        waiting, self._waiting = self._waiting, []
        if done.cancelled() or done.exception() is not None:
            for _, future in waiting:
                future.cancel()
            return
        self._durable = version
        self._changed = {peer: changed for peer, changed in self._changed.items() if changed > version}
        for changed, future in waiting:
            if changed > version:
                self._waiting.append((changed, future))
            elif not future.done():
                future.set_result(None)
        if self._version > version:
            self._save()


def seen(of: Acquaintance) -> list[tuple[int, str]]:
    """The starts, each with its nonce, that the node's directory has to have had."""
    return [(of.boot, of.nonce), *([of.later] if of.later is not None else [])]


def compare(ours: Acquaintance | None, theirs: Acquaintance) -> Acquaintance:
    """What to believe of a node that was met as `ours` here and as `theirs` elsewhere. A doubt stays for good."""
    if ours is None or ours.doubt:
        return theirs if ours is None else ours
    if theirs.incarnation != ours.incarnation:
        return msgspec.structs.replace(ours, doubt=DIRECTORIES)
    if theirs.doubt:
        return msgspec.structs.replace(ours, doubt=theirs.doubt)
    for boot, nonce in seen(theirs):
        if dict(seen(ours)).get(boot, nonce) != nonce:
            return msgspec.structs.replace(ours, doubt=COPIES)
        if boot > max(seen(ours))[0]:
            ours = msgspec.structs.replace(ours, later=(boot, nonce))
    return ours


def doubt_text(node_id: NodeId, doubt: str) -> str:
    """Why the node is in doubt, and what an operator has to do."""
    return (
        f"node {node_id} {_SEEN.get(doubt, doubt)}: it counts no more. Stop all its processes, remove it, and add it "
        "under a new id with an empty directory"
    )


def save_known(disk: Disk, path: str, vote: VoteFile, known: dict[NodeId, Acquaintance]) -> None:
    """Durable on return. Blocking. Runs on the thread that writes the vote file, so a new member's vote file names its
    cluster before this file does."""
    failpoints.reach("peers.before_save")
    save_owned(disk, path, _MAGIC, vote.identity, known)


def load_known(disk: Disk, path: str, owner: Identity) -> dict[NodeId, Acquaintance]:
    """What was saved. Raises `Corruption`, `WrongDataDir`, `FormatError`."""
    if not disk.exists(path):
        return {}
    found = decode_known(disk.read_bytes(path), path)
    check_owner(path, found.owner, owner)
    return found.value


def decode_known(data: bytes, path: str) -> Owned[dict[NodeId, Acquaintance]]:
    """What was saved in the file at `path`, and whose it is. Raises `Corruption`, `FormatError`."""
    try:
        return decode_owned(data, path, _MAGIC, dict[NodeId, Acquaintance])
    except Corruption as exc:
        raise Corruption(f"{exc}: remove the file, it is written anew") from exc
