"""The list of all commands, and what they have in common."""

from __future__ import annotations

import errno
import itertools
import sys
from typing import Any

import click

from raftkv.cli.later import LaterGroup
from raftkv.cli.output import EXIT_CODES, fail, fail_usage
from raftkv.cli.progress import interruptible, terminable
from raftkv.cli.standard import ADRIFT, is_adrift, open_standard
from raftkv.errors import InvalidArgument
from raftkv.version import __version__

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {text}" for code, text in EXIT_CODES.items())


COMMANDS = {
    "serve": ("serve:serve", "Run a node until SIGTERM or SIGINT."),
    "demo": ("demo.command:demo", "Watch real node processes survive real faults, in about half a minute."),
    "put": ("data:put", "Set KEY to VALUE (or to what comes from --file or stdin)."),
    "get": ("data:get", "Print the value of KEY; exit with 1 when there is none."),
    "delete": (
        "data:delete",
        "Delete KEY, and exit with 1 when there was none; or all keys with a prefix or in a range.",
    ),
    "cas": ("data:cas", "Compare and set: set KEY to VALUE only if it is what you think; exit with 1 when it was not."),
    "increment": (
        "data:increment",
        "Add BY (1, may be negative) to the counter at KEY, which starts at 0, and print its new value.",
    ),
    "range": (
        "data:range_",
        "Print what lies from START (included; default: the first key) to END (excluded; default: behind the last).",
    ),
    "prefix": ("data:prefix", "Print all keys that begin with PREFIX, with their values, as `range` does."),
    "txn": (
        "data:txn",
        'A transaction: if all conditions hold the operations are done, else those behind "else"; all or nothing.',
    ),
    "export": (
        "bulk:export",
        "Write keys and values into FILE (- for stdout), in order, a record each; writers go on.",
    ),
    "import": ("bulk:import_", "Set all keys that are in FILE (- for stdin), as `export` has written it."),
    "count": ("bulk:count", "Count keys, and the bytes of them and their values; all, or those that are meant."),
    "call": (
        "own:call",
        "Call METHOD, a command or query of the state machine that the nodes run, and print what it returns.",
    ),
    "tables": (
        "own:tables",
        "Print the tables and single values of the state machine that the nodes run, or the rows of table NAME.",
    ),
    "watch": (
        "watching:watch",
        "Print what changes in the table NAME, or the events of that name, as it happens: "
        "a line of JSON for each change.",
    ),
    "status": (
        "admin:status",
        "Show all nodes of the cluster: the leader, how far each is, who reaches whom, and what is wrong.",
    ),
    "member": ("admin:member", "Add, promote, remove and list the cluster's nodes."),
    "transfer": ("admin:transfer", "Hand leadership over to node ID, or to the voter that holds most of the log."),
    "replace": (
        "replacing:replace",
        "Put another node in the place of a dead one: add it, wait until it has everything, give it the vote, "
        "remove the old one.",
    ),
    "doctor": ("doctor:doctor", "Find out what is wrong, and what to do about it; the worst comes first."),
    "user": ("users:user", "Say who may sign in, and how."),
    "role": ("users:role", "Say what users may do: a role has grants, and users have roles."),
    "auth": ("users:auth", "Let users and their rights count, or not."),
    "upgrade": (
        "upgrading:upgrade",
        "Make a newer version of the application active, or see before what would come of it.",
    ),
    "config": ("settling:config", "Look at settings of nodes that run, and change them."),
    "clock": ("clock:clock", "Show what the nodes' clocks say, and let log time begin anew after one was wrong."),
    "snapshot": ("snapshots:snapshot", "Take, list and verify snapshots."),
    "backup": ("backups:backup", "Make a backup of a running cluster, check one, or show what it is."),
    "restore": (
        "restoring:restore_command",
        "Begin a NEW cluster with a backup: make the data directory of one of its founders from FILE.",
    ),
    "recover": (
        "recovering:recover",
        "For when the majority is lost FOR GOOD: let the node whose data is in DIR go on alone, as a new cluster.",
    ),
    "log": ("logfiles:log", "Look into a node's log."),
    "stubs": (
        "stubs:stubs",
        "Write a module with typed faces of a state machine: for asyncio, for threads, and for unit tests.",
    ),
    "replay": ("replay:replay", "Run a simulated world again, and show what happened before it failed."),
    "check": ("check:check", "Say whether the history of any system is linearizable."),
    "monitoring": ("monitoring:monitoring", "Print files for the programs that watch over nodes."),
    "schema": (
        "schema:schema",
        "Print the JSON Schema of what a command prints with --json, such as: raftkv schema snapshot list",
    ),
    "completion": ("completion:completion", "Print a completion script."),
}
"""In the order of the help, the way in first: where each command is, and its short help."""


class _Commands(LaterGroup):
    """All commands."""

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the command as click does. If its output can't be written, or there is no directory to work in, say so.

        Descriptors 0 to 2 are opened if the process was started without them.
        """
        open_standard()
        given = args[0] if args else settings.get("args")
        words = list(itertools.takewhile(lambda word: word != "--", sys.argv[1:] if given is None else given))
        as_json = "--json" in words or ("--log-json" in words and "serve" in words)
        settings["obj"] = as_json
        try:
            if not as_json:
                return super().main(*args, **settings)
            code = super().main(*args, **{**settings, "standalone_mode": False})
            sys.exit(code if isinstance(code, int) else 0)
        except click.ClickException as exc:
            if not as_json:
                raise
            fail_usage(exc)
        except click.Abort:
            sys.exit(1)
        except OSError as exc:
            if isinstance(exc, FileNotFoundError) and is_adrift():
                fail(InvalidArgument(ADRIFT), as_json=as_json)
            if exc.errno != errno.ENOSPC or exc.filename is not None:
                raise
            sys.stdout = None  # nobody is to try once more when the process ends
            sys.exit(f"raftkv: what there was to print could not be written: {exc.strerror}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; after Ctrl-C the exit code is the same for all of them, and so it is after SIGTERM."""
        with interruptible("nothing more is done", as_json=bool(ctx.obj)), terminable():
            return super().invoke(ctx)


@click.group(
    cls=_Commands,
    places=COMMANDS,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="raftkv")
def main() -> None:
    """A replicated key-value store, and the tools for any state machine on raftkv.

    `raftkv serve` runs a node, `raftkv put`, `get` and the like talk to one at 127.0.0.1:7001 (or wherever
    -a or RAFTKV_ADDRESS say), and `raftkv demo` shows what the nodes survive.
    """
