"""The group of all commands, and what they have in common."""

from __future__ import annotations

import errno
import itertools
import sys
from typing import Any

import click

from raftkv.cli import admin, bulk, data, own, users
from raftkv.cli.backups import backup
from raftkv.cli.check import check
from raftkv.cli.clock import clock
from raftkv.cli.completion import completion
from raftkv.cli.demo import demo
from raftkv.cli.doctor import doctor
from raftkv.cli.logfiles import log
from raftkv.cli.monitoring import monitoring
from raftkv.cli.output import EXIT_CODES, fail_usage
from raftkv.cli.progress import interruptible
from raftkv.cli.recovering import recover
from raftkv.cli.replacing import replace
from raftkv.cli.replay import replay
from raftkv.cli.restoring import restore_command
from raftkv.cli.schema import schema
from raftkv.cli.serve import serve
from raftkv.cli.settling import config
from raftkv.cli.snapshots import snapshot
from raftkv.cli.stubs import stubs
from raftkv.cli.upgrading import upgrade
from raftkv.cli.watching import watch
from raftkv.server import descriptors
from raftkv.version import __version__

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {text}" for code, text in EXIT_CODES.items())


class _InOrder(click.Group):
    """Lists the commands as they were added: the way in first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the command as click does. If its output can't be written, say so in one line.

        Descriptors 0 to 2 are opened if the process was started without them.
        """
        descriptors.open_standard()
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
            if exc.errno != errno.ENOSPC or exc.filename is not None:
                raise
            sys.stdout = None  # nobody is to try once more when the process ends
            sys.exit(f"raftkv: what there was to print could not be written: {exc.strerror}")

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; after Ctrl-C the exit code is the same for all of them."""
        with interruptible("nothing more is done", as_json=bool(ctx.obj)):
            return super().invoke(ctx)


@click.group(
    cls=_InOrder, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="raftkv")
def main() -> None:
    """A replicated key-value store, and the tools for any state machine on raftkv.

    `raftkv serve` runs a node, `raftkv put`, `get` and the like talk to one at 127.0.0.1:7001 (or wherever
    -a or RAFTKV_ADDRESS say), and `raftkv demo` shows what the nodes survive.
    """


_TOOLS = (
    upgrade,
    config,
    clock,
    snapshot,
    backup,
    restore_command,
    recover,
    log,
    stubs,
    replay,
    check,
    monitoring,
    schema,
    completion,
)
_DATA = (*data.COMMANDS, *bulk.COMMANDS, *own.COMMANDS, watch)

for _command in (serve, demo, *_DATA, *admin.COMMANDS, replace, doctor, *users.COMMANDS, *_TOOLS):
    main.add_command(_command)
