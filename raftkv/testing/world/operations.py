"""When something befalls a disk: at one of its next operations, and at all that come later."""

from __future__ import annotations

from raftkv.disk.simulated import Fault


def from_operation(number: int, strike: Fault, only: str | None = None) -> Fault:
    """`strike` at the `number`th operation from now and at every later one; `only` those of one kind count."""
    left = number

    def fault(kind: str, path: str) -> None:
        nonlocal left
        if only is not None and kind != only:
            return
        left -= 1
        if left <= 0:
            strike(kind, path)

    return fault
