"""The users and roles in the state: kept beside the application's tables, in every machine, and changed by one command.

That command is raftkv's own. It is applied through sessions and in the digest as any other, so all nodes have the same
users; no client can send it, as none can name it: a leader makes it of an operator's order.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftkv.access import Access, AccessChange, RemoveUser, decode_access_change, encode_access_change
from raftkv.entry import Entry
from raftkv.errors import AccessRejected, InvalidArgument, MachineFailed
from raftkv.machine.outcome import Outcome, OutcomeKind, rejection_payload
from raftkv.machine.overlay import Overlay
from raftkv.machine.payloads import CHANGE_ACCESS, NO_SESSION, CommandPayload, encode_command
from raftkv.machine.sessions import Sessions
from raftkv.state import ACCESS_PREFIX

_END = bytes([ACCESS_PREFIX[0] + 1])
_NOTHING = msgspec.msgpack.encode(None)


class Accesses:
    """Applies changes of users and roles, and tells of what they come to.

    Invariant: between two batches, the records in the store say what `access` says.
    """

    def __init__(self, overlay: Overlay, sessions: Sessions, on_access: Callable[[Access], None] | None) -> None:
        """`sessions` end with their users. `on_access` is told what there is now, and again after each write with a
        change. Raises `StateCorruption`."""
        self._overlay = overlay
        self._sessions = sessions
        self._on_access = on_access
        size = len(ACCESS_PREFIX)
        records = overlay.store.scan(ACCESS_PREFIX, _END)
        self.access = Access.read((place[size:], data) for place, data in records)
        self.has_news = True
        """Whether something was changed, and `on_access` does not know."""
        self.tell()

    def apply(self, command: CommandPayload, entry: Entry) -> Outcome:
        """Apply a change; what it changes is in the overlay."""
        try:
            change = decode_access_change(command.args)
        except InvalidArgument as exc:
            raise MachineFailed(
                f"entry {entry.index} holds {exc}. It was not applied. Start this node with the version of raftkv that "
                "the others run"
            ) from exc
        try:
            effects = self.access.apply(change, entry.time_ms)
        except AccessRejected as exc:
            return Outcome(OutcomeKind.REJECTED, rejection_payload(exc))
        if isinstance(change, RemoveUser):
            self._sessions.close_of(change.user)
        self._overlay.own.update((ACCESS_PREFIX + place, data) for place, data in effects.items())
        self.has_news = self.has_news or bool(effects)
        return Outcome(OutcomeKind.APPLIED, _NOTHING)

    def tell(self) -> None:
        """The changes are in the store."""
        self.has_news = False
        if self._on_access is not None:
            self._on_access(self.access)


def access_payload(change: AccessChange) -> bytes:
    """A change of users and roles as a command in the log."""
    return encode_command(NO_SESSION, 0, 0, CHANGE_ACCESS, encode_access_change(change))
