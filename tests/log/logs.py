"""Logs to test with: entries, a log with tiny segments, and what it must hold."""

from __future__ import annotations

from raftkv.entry import make_entry
from raftkv.log import Identity, Log
from raftkv.model import EntryKind, LogStart

ROOT = "/n"
DIRECTORY = "/n/log"
VOTE = "/n/vote"
IDENTITY = Identity(cluster_id="c", node_id=1, incarnation="i1")
SEGMENT_BYTES = 2_000


def entry_behind(before, term, size=40):
    """An entry that continues `before` (an entry, or the log's start), with a payload of its own."""
    index = before.index + 1
    payload = f"{index}@{term};".encode() * (size // 5 + 1)
    return make_entry(index, term, 1_000 * index + term, EntryKind.COMMAND, payload[:size], before.chain)


def entries_behind(before, term, sizes):
    """Entries of one term, one for each payload size."""
    found = []
    for size in sizes:
        found.append(entry_behind(found[-1] if found else before, term, size))
    return found


def start_at(entry):
    """A log's start behind an entry."""
    return LogStart(entry.index, entry.term, entry.chain, entry.time_ms)


def open_log(disk, durable_index=0, *, directory=DIRECTORY, segment_bytes=SEGMENT_BYTES, cache_bytes=1_000):
    """Open a log, and check that recovery told everything, in order, and that its attributes agree with it."""
    starts, told = [], []
    log = Log.open(
        disk,
        directory,
        owner=IDENTITY,
        segment_bytes=segment_bytes,
        cache_bytes=cache_bytes,
        durable_index=durable_index,
        on_start=starts.append,
        on_entries=told.extend,
    )
    assert starts == [log.start]
    assert [entry.index for entry in told] == list(range(log.start.index + 1, log.start.index + 1 + len(told)))
    assert log.durable_index == log.last_index == log.start.index + len(told)
    assert read_all(log) == told
    return log


def read_all(log, bytes_max=300):
    """Everything, from disk, some at a time."""
    found = []
    index = log.first_index
    while index <= log.durable_index:
        part = log.load(index, log.durable_index, bytes_max)
        found += part
        index = part[-1].index + 1
    return found


def append(log, *batches):
    """Stage the batches one by one, and write them as one."""
    log.write([log.stage(None, batch) for batch in batches])


def last_of(log):
    """The last durable entry, or the log's start."""
    if log.durable_index == log.start.index:
        return log.start
    return log.load(log.durable_index, log.durable_index, 0)[0]
