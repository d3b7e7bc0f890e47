"""Commands of which the name and the short help are known, and that are imported when they are run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click

from raftkv.extras import needs


class Later(click.Command):
    """Stands for a command in lists: of the help, and of what a shell completes."""

    def __init__(self, name: str, place: str, short_help: str) -> None:
        """`place` is module:attribute, within `raftkv.cli`."""
        super().__init__(name, help=short_help)
        self._place = place

    def load(self) -> click.Command:
        """The command itself. Raises `MissingExtra` when a library that it needs is not installed."""
        module, _, attribute = self._place.partition(":")
        with needs("cli", "the command line"):
            command = getattr(import_module(f"raftkv.cli.{module}"), attribute)
        assert isinstance(command, click.Command) and command.name == self.name, f"{self._place} is {command}"
        return command


class LaterGroup(click.Group):
    """A group of `Later` commands, in the order in which they are given: by name, where it is from and its short help.

    What the short help is in the list is the beginning of the command's own help, which only a test can compare.
    """

    def __init__(self, *args: Any, places: Mapping[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        for name, (place, short_help) in places.items():
            self.add_command(Later(name, place, short_help))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, Later) else command, rest
