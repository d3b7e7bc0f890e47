"""What all commands that talk to a cluster have in common: addresses, deadline, TLS, JSON, progress, errors."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from raftkv.addresses import parse
from raftkv.cli.output import errors_reported
from raftkv.client import Admin
from raftkv.client.options import SECONDS_MAX
from raftkv.errors import InvalidArgument
from raftkv.kv import KeyValueClient
from raftkv.server.tls import client_context

T = TypeVar("T")
Command = Callable[..., Any]

DEFAULT_ADDRESS = "127.0.0.1:7001"

PATIENCE_S = 2.0
"""Whatever takes longer says what it waits for."""

stderr = Console(stderr=True, highlight=False, emoji=False)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which cluster a command talks to, and how."""

    addresses: list[str]
    timeout_s: float
    as_json: bool = False
    ssl: ssl.SSLContext | None = None

    def key_value(self) -> KeyValueClient:
        """A client of the key-value machine."""
        return KeyValueClient(self.addresses, deadline_s=self.timeout_s, ssl=self.ssl)

    def admin(self, address: str | None = None) -> Admin:
        """An operator's client, for the whole cluster or for the one node at `address`."""
        return Admin(self.addresses if address is None else [address], ssl=self.ssl)

    def run(self, work: Callable[[], Awaitable[T]], what: str | None) -> T:
        """Run `work` on a new event loop. An error is printed, and ends the process with its exit code.

        `what` is printed when the work takes long; None for work that shows its progress itself.
        """

        async def patient() -> T:
            if what is None:
                return await work()
            async with progress(what):
                return await work()

        with errors_reported(self.as_json):
            return asyncio.run(patient())


@contextlib.asynccontextmanager
async def progress(what: str) -> AsyncIterator[None]:
    """Print on stderr what is being waited for, once that takes longer than two seconds."""
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=stderr,
        transient=True,
    )

    def show() -> None:
        if stderr.is_terminal:
            shown.add_task(what)
            shown.start()
        else:
            stderr.print(f"{what} …", markup=False)

    timer = asyncio.get_running_loop().call_later(PATIENCE_S, show)
    try:
        yield
    finally:
        timer.cancel()
        if shown.tasks:
            shown.stop()


class Seconds(click.FloatRange):
    """A time from `min` to `max` seconds. It also refuses nan, which click takes for part of every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises `click.BadParameter`."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value} is no time", param, ctx)
        return seconds


def _addresses(_: click.Context, __: click.Parameter, value: tuple[str, ...]) -> list[str]:
    # One variable of the environment holds all of them; commas or blanks, as people write lists.
    addresses = [address for given in value for address in given.replace(",", " ").split()] or [DEFAULT_ADDRESS]
    for address in addresses:
        try:
            parse(address)
        except InvalidArgument as exc:
            raise click.BadParameter(str(exc)) from None
    return addresses


def _cluster_options(timeout_s: float) -> list[Callable[[Command], Command]]:
    return [
        click.option(
            "--address",
            "-a",
            "addresses",
            multiple=True,
            metavar="HOST:PORT",
            envvar="RAFTKV_ADDRESS",
            callback=_addresses,
            help=f"A node's client address; repeat it, or separate by commas.  "
            f"[env: RAFTKV_ADDRESS; default: {DEFAULT_ADDRESS}]",
        ),
        click.option(
            "--timeout",
            type=Seconds(0.001, SECONDS_MAX),
            default=timeout_s,
            metavar="SECONDS",
            envvar="RAFTKV_TIMEOUT",
            help=f"Give up after this time.  [env: RAFTKV_TIMEOUT; default: {timeout_s:g}]",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too."),
        click.option(
            "--tls-ca",
            type=click.Path(),
            metavar="FILE",
            envvar="RAFTKV_TLS_CA",
            help="Speak TLS with nodes of this authority (PEM).",
        ),
        click.option(
            "--tls-cert",
            type=click.Path(),
            metavar="FILE",
            envvar="RAFTKV_TLS_CERT",
            help="The certificate to show (PEM).",
        ),
        click.option(
            "--tls-key", type=click.Path(), metavar="FILE", envvar="RAFTKV_TLS_KEY", help="The certificate's key (PEM)."
        ),
    ]


def cluster_command(timeout_s: float = 10.0) -> Callable[[Command], Command]:
    """Give a command the options of all who talk to a cluster; its function gets a `Target` first."""

    def decorate(function: Command) -> Command:
        @wraps(function)
        def command(
            addresses: list[str],
            timeout: float,
            as_json: bool,
            tls_ca: str | None,
            tls_cert: str | None,
            tls_key: str | None,
            **rest: Any,
        ) -> Any:
            with errors_reported(as_json):
                context = client_context(tls_ca, tls_cert, tls_key)
                target = Target(addresses=addresses, timeout_s=timeout, as_json=as_json, ssl=context)
                return function(target, **rest)

        wrapped: Command = command
        for option in reversed(_cluster_options(timeout_s)):
            wrapped = option(wrapped)
        return wrapped

    return decorate
