"""The command line: composition root of the node, and a client for people."""

from raftkv.extras import needs

with needs("cli", "the command line"):
    from raftkv.cli.app import main

__all__ = ["main"]
