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
