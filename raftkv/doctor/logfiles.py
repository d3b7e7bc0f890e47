"""Reads the end of a log file, as `raftkv serve --log-json` writes it."""

from __future__ import annotations

import os
from collections import Counter

import msgspec

from raftkv.doctor.evidence import Event, LogSeen
from raftkv.model import NodeId

TAIL_BYTES = 1 << 20
"""What is read of a file: the last few thousand lines."""

EVENTS_MAX = 500
"""What is kept of it."""

FIELD_CHARS_MAX = 2_000

_OWN = ("event", "level", "timestamp")

_STARTS = "node_started"
"""With this event a process's lines about itself begin anew."""


def read_log_file(path: str) -> LogSeen:
    """The newest events in it; a file that can't be read is said in `problem`."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            first, *lines = file.read().split(b"\n")
            is_whole = file.tell() <= TAIL_BYTES
    except OSError as exc:
        return LogSeen(path=path, problem=f"{path}: {exc.strerror or exc}")
    if is_whole:
        lines.insert(0, first)
    events, unread = [], 0
    nodes: Counter[NodeId] = Counter()
    for line in filter(None, lines):
        event = _event(line)
        if event is None:
            unread += 1
            continue
        if (node := event.fields.get("node", "")).isdecimal():
            nodes[int(node)] += 1
        events.append(event)
    starts = [at for at, event in enumerate(events) if event.name == _STARTS]
    since = events[starts[-1] :] if starts else events
    node_id = nodes.most_common(1)[0][0] if nodes else None
    return LogSeen(path=path, node_id=node_id, events=tuple(since[-EVENTS_MAX:]), unread=unread)


def _event(line: bytes) -> Event | None:
    try:
        found = msgspec.json.decode(line, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(name := found.get("event"), str):
        return None
    fields = {key: str(value)[:FIELD_CHARS_MAX] for key, value in found.items() if key not in _OWN}
    return Event(name, str(found.get("level", "")), str(found.get("timestamp", "")), fields)
