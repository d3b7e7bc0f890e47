"""The active version: which of a machine's versions counts, what is kept of it in the state, and how it is raised.

The nodes of a cluster may run classes of different versions, and a class may be able to run several. One version is
active: it is part of the replicated state, of its digest and of its snapshots, together with its schema (`Kept`).
Entries change it, so it changes at the same place of the log on every node:

- A leader whose state has no version yet offers one in its first entry (`Founding`); it counts if there still is none.
- An `EntryKind.UPGRADE` holds an `Activation`: the next version, with its schema. The upgrades that lead there are run.
  One that goes on in pieces leaves pieces to further entries (`Step`), between which commands are applied.

Whether an upgrade, or a piece, raises is known before it is proposed: the leader tries it on the state that the entry
will find, and the entry says what came of it. So a failure is a fact of the log: a mended class that meets the entry
again, at a start or on a new node, does not run what has failed.

**How a release of raftkv changes what its own commands do** (of recipes and the key-value machine, sessions, timers,
expiring rows, users, …), while nodes of the release before are in the cluster. The application's version does not tell
them apart, and a recipe that is mixed in, or a part, has that of the application. So the later release keeps both ways
in its code, and the new one counts from an entry on, with which the cluster's *edition* goes up:

- `Hello` gets a field behind its last one, `edition: int = 1`. Nodes of before do not send it, and read what has more
  fields than they know. A leader proposes the entry when all members are connected and say that they have the edition
  (`Upgrades.behind` looks so at versions); from the entry on, handshakes refuse who has not (as with `knows_users`).
- The entry is an `EntryKind.UPGRADE` with one more `VersionChange`, of the tag 4. A node that does not know it stops
  there, before it applies it.
- The edition is kept under a key of its own in the state; where there is none, it is 1. Commands ask the state for it,
  and so do those that a log is replayed with, or that follow a snapshot: what they do depends on nothing else.
- With it the state's format version rises, so that a node which goes back to a release that knows but one way is
  refused its own state (`FormatError`), and does not misread it.
- The first release that knows both ways only reads: the one behind it proposes the entry. So there is always a way back
  to the minor before (`tests/formats/test_downgrade.py`).

`tests/node/test_editions.py` goes this way once, beside nodes that run what is here; and it holds what a later release
relies on, which is why no edition is sent or kept before there is a second one.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from raftkv.machine.stored import stored
from raftkv.state import VERSION_KEY, Reader

DROP = "-"
"""Stands before the name of a table in `Kept.left` whose rows are to be deleted, as the new version lacks it.
`jobs.state` is an index, and `locks.held.` (with a dot behind it) the table `held` of the part `locks`."""

BUILD = "+"
"""Stands before the name of an index in `Kept.left` that the rows of before are not in yet."""


class Kept(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the state holds of the active version."""

    version: int
    schema: bytes
    """As `encode_schema` has encoded it."""
    left: tuple[str, ...] = ()
    """The upgrades that are not done yet; the first goes on with the next `Step`."""
    cursor: bytes = b""
    """What the first of them has returned, encoded; empty before it has begun."""
    steps: int = 0
    """How many pieces were tried since the version is active."""
    failed_version: int = 0
    """The version whose upgrade has failed: it, or (as the active one) its next piece; 0 when none has."""
    failed: str = ""
    """What it has raised."""


class Founding(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The version that the state begins with."""

    version: int
    schema: bytes


class Activation(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Makes `version` the active one."""

    version: int
    schema: bytes
    failed: str = ""
    """What an upgrade has raised when the leader tried it: then nothing happens but that it is remembered."""


class Step(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The next piece of an upgrade; without effect unless it is piece `number` of `version`."""

    version: int
    number: int
    failed: str = ""
    """As for an `Activation`."""


VersionChange: TypeAlias = Founding | Activation | Step

_kept = msgspec.msgpack.Decoder(Kept)
_changes: msgspec.msgpack.Decoder[VersionChange] = msgspec.msgpack.Decoder(Founding | Activation | Step)


def encode_change(change: VersionChange) -> bytes:
    """As an entry's payload."""
    return msgspec.msgpack.encode(change)


def decode_change(payload: bytes) -> VersionChange:
    """Raises what msgspec raises for bytes that are none."""
    return _changes.decode(payload)


def encode_kept(kept: Kept) -> bytes:
    """For the state."""
    return msgspec.msgpack.encode(kept)


def read_kept(state: Reader) -> Kept | None:
    """What `state` holds of the active version; None before there is one. Raises `StateCorruption`."""
    data = state.get(VERSION_KEY)
    return None if data is None else stored(_kept, data, "the record of the active version")
