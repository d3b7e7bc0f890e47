"""The group of all commands, and what they have in common."""

from __future__ import annotations

import click

from raftkv.cli import data
from raftkv.cli.output import EXIT_CODES
from raftkv.cli.serve import serve
from raftkv.node.node import package_version

_EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code}  {text}" for code, text in EXIT_CODES.items())


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_version(), prog_name="raftkv")
def main() -> None:
    """A replicated key-value store, and the tools for any state machine on raftkv.

    `raftkv serve` runs a node, `raftkv put`, `get` and the like talk to one at 127.0.0.1:7001 (or wherever
    -a or RAFTKV_ADDRESS say), and `raftkv demo` shows what the nodes survive.
    """


for _command in (serve, *data.COMMANDS):
    main.add_command(_command)
