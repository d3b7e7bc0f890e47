"""What a peer has said that it can run and read: versions of the application, and entries of raftkv's own."""

from __future__ import annotations

import functools

import msgspec

from raftkv.errors import UNREADABLE, HandshakeRefused, InvalidArgument
from raftkv.machine import (
    Difference,
    StateMachine,
    changed,
    decode_command,
    decode_query,
    decode_schema,
    listed,
    not_grown,
    runs,
    strict_decoder,
)
from raftkv.model import NodeId
from raftkv.wire import Hello


class Told(msgspec.Struct, frozen=True):
    """The versions that a node's class runs, first to last; 0 when it did not say. And what it reads."""

    oldest: int
    newest: int
    declared: bytes = b""
    """The encoded schema of the newest."""
    knows_users: bool = False
    """Whether it can read changes of users and roles in the log."""

    def takes(self, request: bytes, kind: str) -> bool:
        """Whether the newest has this encoded command or query (`kind`), and takes its arguments."""
        try:
            call = decode_query(request) if kind == "query" else decode_command(request)
            schema = decode_schema(self.declared)
            method = schema.methods.get(call.name)
            if method is None or method.kind != kind:
                return False
            strict_decoder(method.arguments, schema.records)(call.args)
        except (InvalidArgument, *UNREADABLE):
            return False
        return True


def check_versions(machine: type[StateMachine], active: int, hello: Hello, own: NodeId) -> Told:
    """What the peer can run. Raises `HandshakeRefused` when it, or this node, can't run what is active; or when both
    classes are of one version and declare it differently.

    `active` is the version that is active here, 0 for none. A node that is behind learns of a later one in time.
    """
    if not hello.newest:
        return Told(0, 0, knows_users=hello.knows_users)
    name, peer = machine.__name__, hello.node_id
    theirs, ours = runs(hello.oldest, hello.newest), runs(machine.oldest_version, machine.version)
    both = max(active, hello.active)
    if both and both == active and not hello.oldest <= both <= hello.newest:
        raise HandshakeRefused(
            f"version {both} of {name} is active, and node {peer} runs {theirs}: install a version of the application "
            f"on node {peer} that runs version {both}"
        )
    if both and both == hello.active and not machine.oldest_version <= both <= machine.version:
        raise HandshakeRefused(
            f"version {both} of {name} is active on node {peer}, and node {own} runs {ours}: install a version of the "
            f"application on node {own} that runs version {both}"
        )
    if machine.oldest_version <= hello.newest <= machine.version:
        _compare(machine, hello, own)
    return Told(hello.oldest, hello.newest, hello.declared, hello.knows_users)


def _compare(machine: type[StateMachine], hello: Hello, own: NodeId) -> None:
    """That of an older class may be what becomes active next, so this one must be able to run it."""
    peer, version = hello.node_id, hello.newest
    is_same = version == machine.version
    try:
        differences = _differences(machine, version, hello.declared)
    except InvalidArgument as exc:
        raise HandshakeRefused(f"what node {peer} says of its state machine can't be read: {exc}") from exc
    if differences and is_same:
        raise HandshakeRefused(
            f"nodes {own} and {peer} run different code under one version ({version}) of {machine.__name__}; seen from "
            f"node {own}: {listed(differences)}"
        )
    if differences:
        raise HandshakeRefused(
            f"node {peer} runs version {version} of {machine.__name__}, which the class of node {own} (of version "
            f"{machine.version}) declares otherwise: {listed(differences)}"
        )


@functools.lru_cache(maxsize=16)
def _differences(machine: type[StateMachine], version: int, declared: bytes) -> list[Difference]:
    """Where a class of `version` declares itself otherwise than `machine` needs it. Peers say the same each time that
    they connect, and comparing takes 10 ms of the loop. Raises `InvalidArgument` for what is no schema."""
    theirs = decode_schema(declared)
    return (
        changed(machine.schema(), theirs) if version == machine.version else not_grown(theirs, machine.schema(version))
    )
