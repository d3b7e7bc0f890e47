"""What becomes of a command in the log that the active version lacks, or does not take as it is."""

from __future__ import annotations

from raftkv.entry import Entry
from raftkv.errors import InvalidArgument, MachineFailed, UnknownCommand
from raftkv.machine.active import Active, Offered
from raftkv.machine.methods import read_array_header
from raftkv.machine.outcome import TOO_DEEP, Outcome, not_active
from raftkv.machine.payloads import CommandPayload


def not_offered(active: Active, command: CommandPayload, entry: Entry) -> Outcome:
    """The active version lacks the command: the same on every node, as the schema is part of the state.

    Raises `UnknownCommand` when no version is active yet, and so nothing tells what the others have.
    """
    if active.kept is not None:
        return not_active(f"version {active.version} has no command {command.name}")
    raise UnknownCommand(
        f"entry {entry.index} holds the command {command.name!r}, which this {active.machine.__name__} does not "
        "have. It was not applied. Start this node with the version of the application that the others run"
    )


def arguments(active: Active, offered: Offered, command: CommandPayload, entry: Entry) -> tuple[object, ...] | Outcome:
    """The decoded arguments; the outcome for those that are nested too deep to be read, or are too many."""
    method = offered.method
    if offered.takes != method.arity and read_array_header(command.args)[0] > offered.takes:
        return _too_many(active, offered)
    try:
        return method.decode_args(command.args)
    except InvalidArgument as exc:
        if isinstance(exc.__cause__, RecursionError):
            return TOO_DEEP
        if active.kept is not None and read_array_header(command.args)[0] > offered.takes:
            return _too_many(active, offered)  # a later class, which could read them, rejects them as well
        raise MachineFailed(
            f"entry {entry.index} can't be applied: {exc}. Start this node with the version of the application "
            "that the others run; types of arguments must not change while old entries are in the log"
        ) from exc


def _too_many(active: Active, offered: Offered) -> Outcome:
    version = active.version
    return not_active(f"version {version} of the command {offered.method.name} takes {offered.takes} arguments")
