"""`python -m raftkv`: the command line."""

from raftkv.cli import main

main(prog_name="raftkv")
