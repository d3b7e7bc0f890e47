"""A client's numbers: what makes the machine apply each command once (thesis §6.3)."""

from __future__ import annotations


class Session:
    """An open session: gives each command its sequence number, and knows which are still awaited.

    Invariants: sequence numbers start at 1 and are never used twice; every number below
    `acked_below` belongs to a command that nobody waits for any more, so the machine may forget its
    answer, and ignores the command should it turn up late.
    """

    def __init__(self, session_id: int) -> None:
        self.id = session_id
        self._next = 1
        self._acked_below = 1
        self._open: set[int] = set()

    def __repr__(self) -> str:
        return f"<session {self.id} next={self._next} acked_below={self._acked_below}>"

    def begin(self) -> int:
        """The sequence number of a new command."""
        sequence = self._next
        self._next += 1
        self._open.add(sequence)
        return sequence

    def end(self, sequence: int) -> None:
        """Nobody waits for `sequence` any more: it was answered, or its caller has gone."""
        self._open.discard(sequence)

    @property
    def newest(self) -> int:
        """The sequence number of the newest command; 0 before the first."""
        return self._next - 1

    @property
    def acked_below(self) -> int:
        """Every command below this was answered or given up."""
        # Each number is stepped over once in the session's life, so this costs nothing per command.
        while self._acked_below < self._next and self._acked_below not in self._open:
            self._acked_below += 1
        return self._acked_below
