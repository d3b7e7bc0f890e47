"""The command line: composition root of the node, and a client for people."""

import sys

try:
    from raftkv.extras import needs

    with needs("cli", "the command line"):
        from raftkv.cli.app import main
except KeyboardInterrupt:
    # Reading the modules is most of what a short command does, and so where Ctrl-C often meets it.
    print("interrupted: nothing was begun", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
