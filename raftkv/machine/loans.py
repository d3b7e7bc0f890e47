"""Values that a command has read and could change in place, which would change nothing in the state."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from raftkv.config import MIB
from raftkv.machine.depth import NESTED_MAX, is_nested_deeper
from raftkv.machine.overlay import Overlay

LOANS_MAX = 1_000
"""Values that are looked at again when a command ends; of one that reads more, the earlier ones are forgotten."""

LOANED_BYTES_MAX = 4 * MIB
"""The same for their encoded size: they stay in memory until then."""


class _Loan(NamedTuple):
    value: Any
    data: bytes
    """What it was encoded as when it was read, or set last."""
    place: bytes
    kept: bytes | None
    """What is at that place: the same, but None where a default stands for nothing."""
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    told: Callable[[], str]
    """Makes the name of the place, as one writes it."""
    file: str
    line: int


class Loans:
    """The values that were read since `clear`. What was changed and not set again is a mistake, and `check` says so."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self.lent: dict[int, _Loan] = {}
        """By the value's id, which is its own as long as it is kept here."""
        self._size = 0

    def lend(
        self,
        value: Any,
        data: bytes,
        place: bytes,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        told: Callable[[], str],
        *,
        is_default: bool = False,
    ) -> None:
        """`value` was read from `place`, where `data` is, or stands for nothing. Outside of commands nothing is
        watched."""
        if not self._overlay.writable:
            return
        self._size += len(data)
        if len(self.lent) >= LOANS_MAX or self._size > LOANED_BYTES_MAX:
            self.clear()
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_globals.get("__name__") in _OWN:
            frame = frame.f_back
        self.lent[id(value)] = _Loan(
            value,
            data,
            place,
            None if is_default else data,
            encode,
            decode,
            told,
            frame.f_code.co_filename,
            frame.f_lineno,
        )

    def set_again(self, value: Any, data: bytes, place: bytes) -> None:
        """`value`, which may have been read before, was set at `place`, where `data` is now."""
        loan = self.lent.get(id(value))
        if loan is not None:
            self.lent[id(value)] = loan._replace(data=data, place=place, kept=data)

    def clear(self) -> None:
        """Forget all of them."""
        self.lent.clear()
        self._size = 0

    def check(self) -> None:
        """Raises `TypeError` for a value that was changed, when nothing else has been set in its place."""
        try:
            for loan in self.lent.values():
                if _is_changed(loan) and self._overlay.get(loan.place) == loan.kept:
                    name = loan.told()
                    read_at = f"{os.path.basename(loan.file)}:{loan.line}"
                    raise TypeError(
                        f"{name}, read at {read_at}, was changed after it was read, and not set again, so that nothing "
                        f"changes in the state: end with `{name} = value`, or change a copy (`copy.deepcopy`) if that "
                        "is what you want"
                    )
        finally:
            self.clear()


def _is_changed(loan: _Loan) -> bool:
    try:
        now = loan.encode(loan.value)
    except TypeError:
        return True  # it is not even of its type any more
    except RecursionError:
        if is_nested_deeper(loan.data, NESTED_MAX):
            return False  # it was kept before there was a bound: who only reads it is not to blame
        raise
    if now == loan.data:
        return False
    # What an older class has written may be encoded otherwise, though nothing is changed.
    return now != loan.encode(loan.decode(loan.data))


_OWN = frozenset(
    {
        "raftkv.machine.loans",
        "raftkv.machine.view",
        "raftkv.machine.mapped",
        "raftkv.machine.tables",
        "collections.abc",
        "_collections_abc",
    }
)
"""The modules between a command and its values."""
