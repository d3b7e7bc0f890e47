"""The kinds of harm that come to a node's files, so that it is not who it was."""

from __future__ import annotations

from enum import StrEnum


class Harm(StrEnum):
    """What people and disks do to a node's files."""

    ROT = "rot"
    """A bit flips, where that must be noticed."""
    ROT_AT_THE_END = "rot in the newest batch"
    """A bit flips in what was written last to the log, so that it looks like a write that was cut off by a crash."""
    STALE_WRITE = "stale write"
    """A sector is as it was before: a write that the disk has confirmed never came to it."""
    MISDIRECTED_WRITE = "misdirected write"
    """A sector is as another one is: the right data have come to the wrong place."""
    MISSING = "missing file"
    """A file is gone."""
    LOST_STATE = "lost state"
    """Its state and its snapshots are gone, and its log is not: an operator lets it have another node's."""
    HALF_SNAPSHOT = "half a snapshot"
    """The second half of a snapshot's file is gone."""
    WIPED = "wiped directory"
    """It starts with an empty disk, under the same id."""
    OLDER_COPY = "older copy"
    """It starts with what it had some starts ago, under the same id."""
    FOREIGN = "foreign file"
    """A file or directory of another node, or of another cluster's, lies in its own or in the place of its own."""
    COPIED = "copied directory"
    """Its own are as they should be, but a second process runs on a copy of them, under the same id."""
