"""What a trace consists of: messages, happenings, and calls of clients."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TypeAlias

import msgspec

from raftkv.model import NodeId


class Fate(StrEnum):
    """What became of a message."""

    WAY = "on its way"
    ARRIVED = "arrived"
    UNSENT = "not sent"
    """There was no connection, or no room."""
    LOST = "lost"
    """The connection broke before it arrived."""


class SentMessage(msgspec.Struct, kw_only=True):
    """One message from one node to another."""

    number: int
    at: float
    """Virtual seconds since the world began."""
    sender: NodeId
    to: NodeId
    kind: str
    """The name of its class."""
    label: str
    """In a few characters: `append 5-7`."""
    detail: str
    """Its fields."""
    routine: bool
    """A heartbeat, or what else comes all the time and changes nothing."""
    fate: Fate
    arrivals: list[float] = []
    """More than one when the network repeated it."""


class What(StrEnum):
    """Kinds of happenings."""

    START = "start"
    CRASH = "crash"
    STOP = "stop"
    FAILED = "failed"
    UP = "up"
    ROLE = "role"
    ELECTED = "elected"
    TERM = "term"
    COMMIT = "commit"
    SNAPSHOT = "snapshot"
    INSTALL = "install"
    MEMBERS = "members"
    PAUSE = "pause"
    DISK = "disk"
    CLOCK = "clock"
    NETWORK = "network"
    WORLD = "world"
    BROKEN = "broken"
    """A promise: what the world was run for."""


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened at one node, or, where `node` is None, to the world."""

    number: int
    at: float
    what: What
    node: NodeId | None
    label: str
    detail: str
    role: str = ""
    """The node's role from now on, where it is a happening of one that runs."""


class Calling(msgspec.Struct, kw_only=True):
    """One call of a client."""

    number: int
    at: float
    client: int
    label: str
    returned: float = math.inf
    returned_number: int = 0
    result: str = ""
    refused: bool = False
    """It heard that nothing was done."""


Record: TypeAlias = SentMessage | Happening | Calling
