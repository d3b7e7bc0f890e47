"""Payloads as clients make them."""

from __future__ import annotations

from typing import Any

from raftkv.kv import KeyValue
from raftkv.machine import NO_SESSION

_METHODS = KeyValue.methods


def command(name: str, *args: Any) -> bytes:
    """A command outside of any session."""
    method = _METHODS[name]
    return method.command_payload(NO_SESSION, 0, 0, method.encode_args(args, {}))


def query(name: str, *args: Any) -> bytes:
    """A query."""
    method = _METHODS[name]
    return method.query_payload(method.encode_args(args, {}))
