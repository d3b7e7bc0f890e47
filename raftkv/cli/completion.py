"""`raftkv completion`: the script that a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from raftkv.cli.output import json_option, print_text

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@json_option
@click.pass_context
def completion(ctx: click.Context, shell: str, as_json: bool) -> None:
    """Print a completion script.

    \b
      bash:  eval "$(raftkv completion bash)"                               in ~/.bashrc
      zsh:   eval "$(raftkv completion zsh)"                                in ~/.zshrc
      fish:  raftkv completion fish > ~/.config/fish/completions/raftkv.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, f"click knows no {shell}"
    print_text(kind(ctx.find_root().command, {}, "raftkv", "_RAFTKV_COMPLETE").source() + "\n", as_json)
