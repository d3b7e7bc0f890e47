"""What all commands that talk to a cluster have in common: addresses, deadline, TLS, JSON, progress, errors."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from click.core import ParameterSource

from raftkv.addresses import parse
from raftkv.cli.output import errors_reported
from raftkv.cli.progress import bar, interruptible
from raftkv.cli.signing import OPTIONS, sign_in_options
from raftkv.client import Admin, ClientOptions
from raftkv.client.options import SECONDS_MAX
from raftkv.errors import InvalidArgument
from raftkv.server.tls import client_context

if TYPE_CHECKING:
    import ssl

    from raftkv.kv import KeyValueClient

T = TypeVar("T")
Command = Callable[..., Any]

DEFAULT_ADDRESS = "127.0.0.1:7001"

PATIENCE_S = 2.0
"""Whatever takes longer says what it waits for."""

UNHEARD = "if a node was asked already, it may do it all the same; nothing more is asked of any"
"""What Ctrl-C leaves behind, where there is no more to say."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which cluster a command talks to, and how."""

    addresses: list[str]
    timeout_s: float
    as_json: bool = False
    ssl: ssl.SSLContext | None = None
    sign_in: ClientOptions = ClientOptions()
    """How its clients sign in."""

    @property
    def options(self) -> ClientOptions:
        """Of a client that calls commands and queries."""
        return msgspec.structs.replace(self.sign_in, deadline_s=self.timeout_s)

    def key_value(self) -> KeyValueClient:
        """A client of the key-value machine."""
        from raftkv.kv import KeyValueClient

        return KeyValueClient(self.addresses, options=self.options, ssl=self.ssl)

    def admin(self, address: str | None = None) -> Admin:
        """An operator's client, for the whole cluster or for the one node at `address`."""
        return Admin(self.addresses if address is None else [address], options=self.sign_in, ssl=self.ssl)

    def run(self, work: Callable[[], Awaitable[T]], what: str | None, left: str | Callable[[], str] = UNHEARD) -> T:
        """Run `work` on a new event loop. An error is printed, and ends the process with its exit code; so does Ctrl-C,
        with what is `left` behind.

        `what` is shown when the work takes long; None for work that shows its progress itself.
        """

        async def patient() -> T:
            if what is None:
                return await work()
            async with waiting_shown(f"{what}, for {self.timeout_s:g} s at most"):
                return await work()

        with errors_reported(self.as_json), interruptible(left, as_json=self.as_json):
            return asyncio.run(patient())


@contextlib.asynccontextmanager
async def waiting_shown(what: str) -> AsyncIterator[None]:
    """Show on a terminal what is being waited for, once that takes longer than two seconds."""
    with contextlib.ExitStack() as shown:
        timer = asyncio.get_running_loop().call_later(PATIENCE_S, lambda: shown.enter_context(bar(what)))
        try:
            yield
        finally:
            timer.cancel()


class Seconds(click.FloatRange):
    """A time from `min` to `max` seconds. It also refuses nan, which click takes for part of every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Raises `click.BadParameter`."""
        seconds = float(super().convert(value, param, ctx))
        if math.isnan(seconds):
            self.fail(f"{value} is no time", param, ctx)
        return seconds


def _addresses(context: click.Context, param: click.Parameter, value: tuple[str, ...]) -> list[str]:
    # One variable of the environment holds all of them; commas or blanks, as people write lists.
    addresses = [address for given in value for address in given.replace(",", " ").split()]
    if not addresses and context.get_parameter_source(str(param.name)) is ParameterSource.COMMANDLINE:
        # A script's variable that is not set must not send its writes to another cluster, the one at the default.
        raise click.BadParameter("there is no address in it: write HOST:PORT, or leave it out")
    addresses = addresses or [DEFAULT_ADDRESS]
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
        *OPTIONS,
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
            user: str | None,
            password_file: str | None,
            token_file: str | None,
            insecure: bool,
            **rest: Any,
        ) -> Any:
            with errors_reported(as_json):
                context = client_context(tls_ca, tls_cert, tls_key)
                sign_in = sign_in_options(user, password_file, token_file, insecure)
                target = Target(addresses=addresses, timeout_s=timeout, as_json=as_json, ssl=context, sign_in=sign_in)
                return function(target, **rest)

        wrapped: Command = command
        for option in reversed(_cluster_options(timeout_s)):
            wrapped = option(wrapped)
        return wrapped

    return decorate


async def page_by_page(
    read: Callable[[bytes, bytes | None, int], Awaitable[tuple[list[T], bytes | None]]],
    start: bytes,
    end: bytes | None,
    reverse: bool,
    limit: int,
) -> tuple[list[T], bytes | None]:
    """What is between two bounds, until there is `limit` of it, and where one could go on; None: that is all.

    `read` gives a page of up to so many, and where the next one begins (in reverse: below what it lies).
    """
    found: list[T] = []
    while True:
        some, following = await read(start, end, limit - len(found))
        found += some
        if following is None or len(found) >= limit:
            return found, following
        if reverse:
            end = following
        else:
            start = following


class WithDefault(click.Group):
    """A group in which one command's name may be left out: `raftkv backup FILE` is `raftkv backup make FILE`."""

    def __init__(self, *args: Any, default: str, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        needs_words = any(parameter.required for parameter in self.commands[self._default].params)
        if args[0] not in (*self.commands, *ctx.help_option_names) if args else not needs_words:
            args = [self._default, *args]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not args or args[0] not in self.commands:
            args = [self._default, *args]
        return super().resolve_command(ctx, args)
