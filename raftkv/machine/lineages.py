"""Where the cluster goes on from: of which clusters it has the beginning, and up to which entry.

A cluster that was restored from a backup, or recovered from a survivor, uses the indexes behind that again, for entries
of its own. So the first entry that is its own says up to where it is the old one; raftkv makes it when it makes the
data directory. The old one's cursors count up to there. Numbers that are handed out for good, as the tokens of locks
are, go on above all that the old cluster can have handed out: above the time, in microseconds, at which the first
leader of the new one began. So do those of two clusters that were restored from one backup, one after the other, if the
log's time went on in between.

That time may be no later than the one at which the old cluster itself began, if that one goes on from another one: a
machine's clock may be behind the log, or have been reset. Then numbers go on by `LEAP_MS` higher than the old one's.
"""

from __future__ import annotations

import msgspec

from raftkv.entry import Entry
from raftkv.errors import UNREADABLE, MachineFailed
from raftkv.history import Cursor, OtherLineage, lineage_of
from raftkv.machine.outcome import Outcome, OutcomeKind
from raftkv.machine.overlay import Overlay
from raftkv.machine.payloads import BEGIN_LINEAGE, NO_SESSION, CommandPayload, encode_command
from raftkv.machine.statemachine import Moment
from raftkv.machine.stored import stored
from raftkv.model import Index
from raftkv.state import LINEAGE_KEY, Reader

NUMBERS_A_MS = 1_000
"""So many numbers a millisecond are more than any cluster hands out; and until the year 2255 they fit in a double."""

LEAP_MS = 1_000_000_000
"""Some 10¹² numbers: more than a cluster hands out while time stands still in it, or until it is where it was."""

_NOTHING = msgspec.msgpack.encode(None)


class Ancestor(msgspec.Struct, frozen=True, array_like=True):
    """A cluster that this one has the beginning of."""

    cluster_id: str
    index: Index
    """The last entry that is certainly the same in both."""


class Lineages(msgspec.Struct, frozen=True, array_like=True):
    """What the state says of where its cluster goes on from."""

    ancestors: tuple[Ancestor, ...] = ()
    """The first began empty."""
    began_ms: int = 0
    """The log's time at which the first leader began, or a later one, if that is not later than `earlier_ms`; 0 before
    that, and in a cluster that began empty."""
    earlier_ms: int = 0
    """`began_ms` of the cluster that it goes on from."""

    def behind(self, parting: Ancestor) -> Lineages:
        """The lineages of a cluster that goes on from this one, as `parting` says."""
        earlier = [Ancestor(each.cluster_id, min(each.index, parting.index)) for each in self.ancestors]
        return Lineages((*earlier, parting), earlier_ms=max(self.began_ms, self.earlier_ms))

    def begun(self, time_ms: int) -> Lineages:
        """These, when the first leader has begun, at `time_ms`."""
        earlier = self.earlier_ms
        return Lineages(self.ancestors, time_ms if time_ms > earlier else earlier + LEAP_MS, earlier)

    @property
    def floor(self) -> int:
        """Numbers up to it may have been handed out by other clusters with the same beginning."""
        return self.began_ms * NUMBERS_A_MS

    def check(self, cursor: Cursor, cluster_id: str) -> None:
        """Raises `OtherLineage` unless what is behind `cursor` goes on in the cluster of these, `cluster_id`."""
        if cursor.lineage == lineage_of(cluster_id):
            return
        known = {lineage_of(each.cluster_id): each.index for each in reversed(self.ancestors)}
        if not cursor.lineage:  # it may be of before cursors said it: of the cluster that began empty
            if not self.ancestors or cursor.index <= self.ancestors[0].index:
                return
            raise OtherLineage(cursor, self.ancestors[0].index)
        index = known.get(cursor.lineage)
        if index is None or cursor.index > index:
            raise OtherLineage(cursor, index)


_records = msgspec.msgpack.Decoder(Lineages)
_partings = msgspec.msgpack.Decoder(Ancestor)
_encoder = msgspec.msgpack.Encoder()


def lineages_in(state: Reader) -> Lineages:
    """Raises `StateCorruption`."""
    data = state.get(LINEAGE_KEY)
    return Lineages() if data is None else stored(_records, data, "the record of what the cluster goes on from")


def lineage_payload(cluster_id: str, index: Index) -> bytes:
    """The command in the first entry of a cluster's own: up to `index` it is the cluster `cluster_id`."""
    return encode_command(NO_SESSION, 0, 0, BEGIN_LINEAGE, _encoder.encode(Ancestor(cluster_id, index)))


class Origin:
    """Keeps in the state where its cluster goes on from.

    Invariant: between two batches, the record in the store is `lineages`.
    """

    def __init__(self, overlay: Overlay, moment: Moment) -> None:
        """Commands find the floor for their numbers in `moment`. Raises `StateCorruption`."""
        self._overlay = overlay
        self._moment = moment
        self.lineages = lineages_in(overlay.store)
        moment.floor = self.lineages.floor

    @property
    def is_new(self) -> bool:
        """Whether no leader has begun in it."""
        return bool(self.lineages.ancestors) and not self.lineages.began_ms

    def part(self, command: CommandPayload, entry: Entry) -> Outcome:
        """Apply the first entry of a cluster that goes on from another one; what it changes is in the overlay."""
        try:
            parting = _partings.decode(command.args)
        except UNREADABLE as exc:
            raise MachineFailed(
                f"entry {entry.index} says in a way that can't be read what the cluster goes on from ({exc}). It was "
                "not applied. Start this node with the version of raftkv that the others run"
            ) from exc
        self._keep(self.lineages.behind(parting))
        return Outcome(OutcomeKind.APPLIED, _NOTHING)

    def begin(self, time_ms: int) -> None:
        """Its first leader has begun."""
        self._keep(self.lineages.begun(time_ms))

    def _keep(self, lineages: Lineages) -> None:
        self.lineages = lineages
        self._moment.floor = lineages.floor
        self._overlay.own[LINEAGE_KEY] = _encoder.encode(lineages)
