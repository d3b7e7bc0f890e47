"""`raftkv schema`: what the JSON looks like that a command prints, as JSON Schema.

Each is made of the very class whose values are printed, so neither can have what the other lacks.
"""

from __future__ import annotations

from typing import Any

import click
import msgspec

from raftkv.cli.backups import BackupShown
from raftkv.cli.doctor import Diagnosis
from raftkv.cli.logfiles import LogReport
from raftkv.cli.output import ErrorSaid, json_option, print_json
from raftkv.cli.settling import Settings
from raftkv.cli.snapshots import DirectoryShown, SnapshotShown, Taken
from raftkv.cli.upgradecheck import UpgradeCheck
from raftkv.cli.view import ClusterStatus
from raftkv.model import Membership

PRINTED: dict[str, Any] = {
    "status": ClusterStatus,
    "member list": Membership,
    "snapshot take": list[Taken],
    "snapshot list": list[SnapshotShown],
    "snapshot verify": DirectoryShown,
    "log inspect": LogReport,
    "doctor": Diagnosis,
    "backup show": BackupShown,
    "upgrade check": UpgradeCheck,
    "config list": list[Settings],
    "error": ErrorSaid,
}
"""What each command prints with --json, by its words; `error` is what any of them prints when it fails."""


def printed_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of what a command prints."""
    dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"raftkv {name} --json"}
    return dialect | msgspec.json.schema(PRINTED[name])


@click.command()
@click.argument("words", nargs=-1, metavar="[NAME…]")
@json_option
def schema(words: tuple[str, ...], as_json: bool) -> None:
    """Print the JSON Schema of what a command prints with --json, such as: raftkv schema snapshot list

    Without NAME, the names that there are (with --json as a list). `raftkv schema error` is what every command prints
    when it fails. Later versions of raftkv may add fields; none changes its meaning.
    """
    name = " ".join(words)
    if not words and as_json:
        print_json(list(PRINTED))
    elif not words:
        click.echo("\n".join(PRINTED))
    elif name in PRINTED:
        print_json(printed_schema(name))
    else:
        raise click.UsageError(f"there is no schema of {name!r}; there are those of {', '.join(PRINTED)}")
