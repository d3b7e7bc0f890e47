"""Encoded results: as the active version has them, and within what fits into an answer."""

from __future__ import annotations

import msgspec

from raftkv.config import MIB
from raftkv.machine.active import Narrower
from raftkv.machine.depth import check_nesting
from raftkv.machine.methods import Method

RESULT_BYTES_MAX = 8 * MIB
"""The limit of one encoded result: it is kept with the session, and must fit into a frame."""


def narrowed(method: Method, narrow: Narrower, result: bytes) -> bytes:
    """The encoded result as the active version has it; `TypeError` when that has no such result."""
    try:
        return narrow(result)
    except msgspec.MsgspecError as exc:
        check_nesting(result, f"the result of {method.name}")  # comes first, as an interpreter may not read it
        raise TypeError(f"{method.name} returned what the active version does not return: {exc}") from exc


def bounded(method: Method, result: bytes) -> bytes:
    """The encoded result; `ValueError` when it would not fit into an answer, `RecursionError` when it is nested deeper
    than `NESTED_MAX`."""
    if not method.returns_shallow:
        check_nesting(result, f"the result of {method.name}")
    if len(result) > RESULT_BYTES_MAX:
        raise ValueError(f"{method.name} returned {len(result)} bytes: must be at most {RESULT_BYTES_MAX}")
    return result
