"""`raftkv user`, `role` and `auth`: who may do what."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, get_args

import click
from rich.markup import escape
from rich.table import Table

from raftkv.access import (
    AccessAsk,
    AccessOrder,
    AccessShown,
    AddRole,
    Enable,
    GiveRole,
    Grant,
    GrantRight,
    NewPassword,
    NewToken,
    NewUser,
    RemoveRole,
    RemoveToken,
    RemoveUser,
    RevokeRight,
    SetCertificates,
    ShownRole,
    ShownUser,
    TakeRole,
    TurnOff,
    What,
)
from raftkv.cli.backups import Span
from raftkv.cli.common import Target, cluster_command
from raftkv.cli.keys import to_bytes
from raftkv.cli.output import make_console, print_json
from raftkv.cli.signing import read_secret

NEW_PASSWORD = "RAFTKV_NEW_PASSWORD"  # noqa: S105 (the name of a variable)

Command = Callable[..., Any]


@click.group()
def user() -> None:
    """Say who may sign in, and how.

    \b
    Users count once they are turned on (raftkv auth on). Passwords and tokens are never arguments, as
    everybody on a machine sees those of all processes.
    """


@click.group()
def role() -> None:
    """Say what users may do: a role has grants, and users have roles.

    The role root is built in, and may do everything.
    """


@click.group()
def auth() -> None:
    """Let users and their rights count, or not."""


def password_options(function: Command) -> Command:
    """Where a new password is from."""
    for option in (
        click.option("--no-password", is_flag=True, help="None: sign in by a certificate or token only."),
        click.option(
            "--new-password-file",
            type=click.Path(),
            metavar="FILE",
            help=f"The user's new password, in a file that only you can read.  [env: {NEW_PASSWORD} has it itself]",
        ),
    ):
        function = option(function)
    return function


def new_password(path: str | None, without: bool) -> str:
    """The password that a user is to have: of a file, of the environment, or as somebody types it."""
    if without:
        if path is not None:
            raise click.UsageError("--no-password and --new-password-file exclude each other")
        return ""
    if path is not None:
        return read_secret(path)
    if given := os.environ.get(NEW_PASSWORD):
        return given
    if not sys.stdin.isatty():
        raise click.UsageError(f"nobody is there to type a password: give --new-password-file or {NEW_PASSWORD}")
    return str(click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True))


def _order(target: Target, order: AccessOrder, what: str, done: str) -> str:
    """Have an order carried out, and say so. Returns the token that was made."""

    async def work() -> str:
        async with target.admin() as admin:
            return await admin.change_access(order, target.timeout_s)

    token = target.run(work, what)
    if not token:
        if target.as_json:
            print_json({"done": done})
        else:
            click.echo(done)
    return token


@user.command("add")
@click.argument("name", metavar="NAME")
@click.option("--role", "roles", multiple=True, metavar="ROLE", help="A role that the user has; repeat it.")
@click.option(
    "--certificate", "certificates", multiple=True, metavar="CN", help="A name on the user's certificate; repeat it."
)
@password_options
@cluster_command(timeout_s=10.0)
def add_user(
    target: Target,
    name: str,
    roles: tuple[str, ...],
    certificates: tuple[str, ...],
    new_password_file: str | None,
    no_password: bool,
) -> None:
    """Add a user, with a password that is asked for."""
    password = new_password(new_password_file, no_password)
    _order(target, NewUser(name, password, roles, certificates), f"adding the user {name}", f"user {name} is there")


@user.command("remove")
@click.argument("name", metavar="NAME")
@cluster_command(timeout_s=10.0)
def remove_user(target: Target, name: str) -> None:
    """Remove a user and their tokens; who is signed in as this user is so no more."""
    _order(target, RemoveUser(name), f"removing the user {name}", f"user {name} is gone")


@user.command("passwd")
@click.argument("name", metavar="NAME")
@password_options
@cluster_command(timeout_s=10.0)
def change_password(target: Target, name: str, new_password_file: str | None, no_password: bool) -> None:
    """Give a user another password, which is asked for."""
    password = new_password(new_password_file, no_password)
    done = f"user {name} has another password" if password else f"user {name} has no password"
    _order(target, NewPassword(name, password), f"changing the password of {name}", done)


@user.command("certificate")
@click.argument("name", metavar="NAME")
@click.argument("certificates", nargs=-1, metavar="[CN…]")
@cluster_command(timeout_s=10.0)
def set_certificates(target: Target, name: str, certificates: tuple[str, ...]) -> None:
    """Let whoever shows a certificate with one of these names be this user; without any, nobody.

    The names are the subject's common name (CN) and the alternative names.
    """
    done = f"user {name} has the certificates {', '.join(certificates) or '(none)'}"
    _order(target, SetCertificates(name, certificates), f"changing the certificates of {name}", done)


@user.command("token")
@click.argument("name", metavar="NAME")
@click.option("--ttl", "ttl_s", type=Span(), metavar="TIME", help="How long it lasts, as 30d.  [default: for good]")
@click.option("--remove", "begins", metavar="HEX", help="Remove the one that `raftkv user list` shows like this.")
@click.option("--remove-all", is_flag=True, help="Remove all tokens of the user.")
@cluster_command(timeout_s=10.0)
def make_token(target: Target, name: str, ttl_s: float | None, begins: str | None, remove_all: bool) -> None:
    """Make a token by which one signs in as a user, and print it: nobody can read it later."""
    if (begins is not None) + remove_all + (ttl_s is not None) > 1:
        raise click.UsageError("--ttl is of a new token, --remove and --remove-all of old ones")
    if begins == "":
        raise click.UsageError("--remove: which one? See raftkv user list")
    if begins is not None or remove_all:
        _order(target, RemoveToken(name, begins or ""), f"removing tokens of {name}", "removed")
        return
    ttl_ms = None if ttl_s is None else max(1, round(ttl_s * 1000))
    token = _order(target, NewToken(name, ttl_ms), f"making a token for {name}", "")
    if target.as_json:
        print_json({"user": name, "token": token, "ttl_ms": ttl_ms})
    else:
        click.echo(token)


@user.command("list")
@cluster_command(timeout_s=10.0)
def list_users(target: Target) -> None:
    """Show all users: their roles, and how they may sign in."""
    found = target.run(lambda: _all(target, "users"), "asking the nodes")
    if target.as_json:
        print_json({"is_on": found.is_on, "users": found.some_users})
        return
    table = Table(header_style="bold")
    for column in ("user", "roles", "password", "certificates", "tokens (until)"):
        table.add_column(column, no_wrap=True)
    for each in found.some_users:
        tokens = [f"{token.begins} ({_until(token.expires_ms)})" for token in each.tokens]
        row = (each.user, ", ".join(each.roles), "yes" if each.has_password else "no", ", ".join(each.certificates))
        table.add_row(*map(escape, (*row, ", ".join(tokens))))
    make_console().print(table)
    _say_whether_they_count(found)


def _until(expires_ms: int | None) -> str:
    if expires_ms is None:
        return "for good"
    return datetime.fromtimestamp(expires_ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _say_whether_they_count(found: AccessShown) -> None:
    if not found.is_on:
        click.echo("none of this counts yet: everybody may do everything (raftkv auth on)", err=True)


async def _all(target: Target, what: Any) -> AccessShown:
    """All users or roles, page by page, with what holds for all."""
    users: list[ShownUser] = []
    roles: list[ShownRole] = []
    async with target.admin() as admin:
        after = ""
        while True:
            page = await admin.show_access(AccessAsk(what, after), target.timeout_s)
            users += page.some_users
            roles += page.some_roles
            if not page.has_more:
                return AccessShown(page.is_on, page.users, page.roles, page.tokens, users, roles)
            after = page.some_users[-1].user if page.some_users else page.some_roles[-1].role


@role.command("add")
@click.argument("name", metavar="ROLE")
@cluster_command(timeout_s=10.0)
def add_role(target: Target, name: str) -> None:
    """Add a role, which may do nothing yet."""
    _order(target, AddRole(name), f"adding the role {name}", f"role {name} is there")


@role.command("remove")
@click.argument("name", metavar="ROLE")
@cluster_command(timeout_s=10.0)
def remove_role(target: Target, name: str) -> None:
    """Remove a role that no user has any more."""
    _order(target, RemoveRole(name), f"removing the role {name}", f"role {name} is gone")


def grant_arguments(function: Command) -> Command:
    """Which right of which role."""
    for option in (
        click.option("--hex", "as_hex", is_flag=True, help="PATTERN of read and write is in hexadecimal."),
        click.argument("pattern", metavar="PATTERN"),
        click.argument("what", type=click.Choice(get_args(What)), metavar="WHAT"),
        click.argument("name", metavar="ROLE"),
    ):
        function = option(function)
    return function


def _grant(what: What, pattern: str, as_hex: bool) -> Grant:
    if what in ("read", "write"):
        return Grant(what, to_bytes(pattern, as_hex))
    if as_hex:
        raise click.UsageError("--hex is for prefixes of keys (read and write)")
    return Grant(what, pattern)


@role.command("grant")
@grant_arguments
@cluster_command(timeout_s=10.0)
def grant(target: Target, name: str, what: What, pattern: str, as_hex: bool) -> None:
    """Let a role do something.

    \b
    command, query   PATTERN is a name, with * for any characters: raftkv role grant clerk command 'orders.*'
    read, write      keys that begin with PATTERN, in the key-value machine: raftkv role grant clerk read shop/
    admin            an order, with *: access, backup, clock, configure, member, metrics, snapshot, status,
                     transfer, upgrade
    """
    right = _grant(what, pattern, as_hex)
    _order(target, GrantRight(name, right), f"granting to {name}", f"role {name} has {right.describe()}")


@role.command("revoke")
@grant_arguments
@cluster_command(timeout_s=10.0)
def revoke(target: Target, name: str, what: What, pattern: str, as_hex: bool) -> None:
    """Take a grant from a role, written as it was granted."""
    right = _grant(what, pattern, as_hex)
    _order(target, RevokeRight(name, right), f"revoking from {name}", f"role {name} does not have {right.describe()}")


@role.command("give")
@click.argument("user_name", metavar="USER")
@click.argument("name", metavar="ROLE")
@cluster_command(timeout_s=10.0)
def give_role(target: Target, user_name: str, name: str) -> None:
    """Give a role to a user."""
    _order(target, GiveRole(user_name, name), f"giving {name}", f"user {user_name} has the role {name}")


@role.command("take")
@click.argument("user_name", metavar="USER")
@click.argument("name", metavar="ROLE")
@cluster_command(timeout_s=10.0)
def take_role(target: Target, user_name: str, name: str) -> None:
    """Take a role from a user."""
    _order(target, TakeRole(user_name, name), f"taking {name}", f"user {user_name} does not have the role {name}")


@role.command("list")
@cluster_command(timeout_s=10.0)
def list_roles(target: Target) -> None:
    """Show all roles, and what each may do; root, which may do everything, is not among them."""
    found = target.run(lambda: _all(target, "roles"), "asking the nodes")
    if target.as_json:
        roles = [{"role": each.role, "grants": [_grant_value(one) for one in each.grants]} for each in found.some_roles]
        print_json({"is_on": found.is_on, "roles": roles})
        return
    table = Table(header_style="bold")
    for column in ("role", "may"):
        table.add_column(column, no_wrap=True)
    for each in found.some_roles:
        for at, one in enumerate(each.grants or [None]):
            may = "nothing" if one is None else one.describe()
            table.add_row(escape(each.role) if at == 0 else "", escape(may))
    make_console().print(table)
    _say_whether_they_count(found)


def _grant_value(one: Grant) -> dict[str, str]:
    if isinstance(one.pattern, str):
        return {"what": one.what, "pattern": one.pattern}
    try:
        return {"what": one.what, "prefix": one.pattern.decode()}
    except UnicodeDecodeError:
        return {"what": one.what, "prefix_hex": one.pattern.hex()}


@auth.command("on")
@cluster_command(timeout_s=10.0)
def turn_on(target: Target) -> None:
    """Let rights count from now on; sign in as a user with the role root for that (--user, --token-file, …).

    So nobody is locked out: whoever turns it on has shown that they can turn it off.
    """
    sign_in = target.sign_in
    order = Enable(sign_in.user, sign_in.password, sign_in.token)
    _order(target, order, "turning it on", "on: from now on only what a grant allows is done")


@auth.command("off")
@cluster_command(timeout_s=10.0)
def turn_off(target: Target) -> None:
    """Let everybody do everything again; users and roles stay."""
    _order(target, TurnOff(), "turning it off", "off: everybody may do everything")


@auth.command("status")
@cluster_command(timeout_s=10.0)
def show_status(target: Target) -> None:
    """Show whether rights count, and how many users there are. Exit code 1 when they don't."""

    async def work() -> AccessShown:
        async with target.admin() as admin:
            return await admin.show_access(AccessAsk(), target.timeout_s)

    found = target.run(work, "asking the nodes")
    if target.as_json:
        print_json({"is_on": found.is_on, "users": found.users, "roles": found.roles, "tokens": found.tokens})
    else:
        state = "on" if found.is_on else "off: everybody may do everything"
        click.echo(f"{state}; {found.users} users, {found.roles} roles, {found.tokens} tokens")
    if not found.is_on:
        sys.exit(1)
