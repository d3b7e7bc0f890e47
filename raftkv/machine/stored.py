"""Reads what the state holds of itself: records that no command writes as they are."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from raftkv.errors import UNREADABLE, StateCorruption

T = TypeVar("T")


def stored(decoder: msgspec.msgpack.Decoder[T], data: bytes, what: str) -> T:
    """What `data` stands for; raises `StateCorruption`, which begins with `what`, when that can't be read."""
    try:
        return decoder.decode(data)
    except UNREADABLE as exc:
        raise StateCorruption(f"{what} can't be read: {exc}") from exc
