"""`raftkv completion`: the script that a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script.

    \b
      bash:  eval "$(raftkv completion bash)"                               in ~/.bashrc
      zsh:   eval "$(raftkv completion zsh)"                                in ~/.zshrc
      fish:  raftkv completion fish > ~/.config/fish/completions/raftkv.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows no {shell}"
    click.echo(kind(ctx.find_root().command, {}, "raftkv", "_RAFTKV_COMPLETE").source())
