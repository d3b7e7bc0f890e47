"""How a command signs in: by a password or token out of a file or the environment, never out of its arguments, which
everybody on the machine can see."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import click

from raftkv.client import ClientOptions
from raftkv.client.options import SIGN_IN_CHARS_MAX
from raftkv.errors import ConfigError

Command = Callable[..., Any]

OPTIONS: list[Callable[[Command], Command]] = [
    click.option("--user", metavar="NAME", envvar="RAFTKV_USER", help="Sign in as this user.  [env: RAFTKV_USER]"),
    click.option(
        "--password-file",
        type=click.Path(),
        metavar="FILE",
        envvar="RAFTKV_PASSWORD_FILE",
        help="The user's password, in a file that only you can read.  [env: RAFTKV_PASSWORD has it itself]",
    ),
    click.option(
        "--token-file",
        type=click.Path(),
        metavar="FILE",
        envvar="RAFTKV_TOKEN_FILE",
        help="Sign in by a token, in a file that only you can read.  [env: RAFTKV_TOKEN has it itself]",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        envvar="RAFTKV_INSECURE",
        help="Sign in without TLS beyond this machine, too, where all on the way can read how.",
    ),
]


def sign_in_options(
    user: str | None, password_file: str | None, token_file: str | None, insecure: bool
) -> ClientOptions:
    """How a command's clients sign in. Raises `ConfigError`.

    What is said in arguments comes before what the environment says.
    """
    if user and not token_file:
        password = read_secret(password_file) if password_file else os.environ.get("RAFTKV_PASSWORD", "")
        if not password:
            raise ConfigError(f"--user {user}: it needs a password: --password-file, or RAFTKV_PASSWORD")
        return ClientOptions(user=user, password=password, insecure=insecure)
    if password_file:
        raise ConfigError(f"--password-file {password_file}: whose is it? Give --user, too, and no token")
    token = read_secret(token_file) if token_file else os.environ.get("RAFTKV_TOKEN", "")
    return ClientOptions(token=token, insecure=insecure)


def read_secret(path: str) -> str:
    """The only line of a file that nobody but its owner can read. Raises `ConfigError`, which never quotes it."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
                mode = f"{stat.S_IMODE(found.st_mode):04o}"
                raise ConfigError(f"{path}: others can read it (mode {mode}): chmod 600 {path}")
            data = file.read(4 * SIGN_IN_CHARS_MAX + 2)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror or exc}") from exc
    try:
        secret = data.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: must be text in UTF-8") from None
    if not secret or len(secret) > SIGN_IN_CHARS_MAX or "\n" in secret:
        raise ConfigError(f"{path}: must have one line of 1 to {SIGN_IN_CHARS_MAX} characters")
    return secret
