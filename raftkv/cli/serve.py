"""`raftkv serve`: runs one node."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from raftkv.cli.logs import process_log
from raftkv.cli.output import exit_code
from raftkv.cli.settings import LOG_LEVELS, asks_for_json, gather, unknown_variables
from raftkv.cli.standard import ADRIFT, is_adrift
from raftkv.errors import ConfigError, RaftKVError
from raftkv.logs import EventLog
from raftkv.server.process import run_node
from raftkv.server.settings import DEFAULT_LISTEN, DEFAULT_MACHINE, DEFAULT_PEER_LISTEN, Settings

logger = EventLog(__name__)


def _levels(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    return [level for level in LOG_LEVELS if level.startswith(begun)]


@click.command()
@click.option("--node-id", metavar="ID", help="This node's number in the cluster, never used before.  [default: 1]")
@click.option("--data-dir", type=click.Path(), metavar="DIR", help="Where it keeps its data.  [default: ./raftkv-data]")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help=f"Where clients connect; port 0 takes a free one.  [default: as the membership says, else {DEFAULT_LISTEN}]",
)
@click.option(
    "--peer-listen",
    metavar="HOST:PORT",
    help=f"Where other nodes connect.  [default: as the membership says, else {DEFAULT_PEER_LISTEN}]",
)
@click.option(
    "--member",
    multiple=True,
    metavar="ID=PEER/CLIENT",
    help="A founder of a new cluster, as 1=10.0.0.1:8001/10.0.0.1:7001; repeat it for each of them, the same on all.",
)
@click.option("--join", is_flag=True, default=None, help="A new node that `raftkv member add` adds to a cluster.")
@click.option(
    "--cluster-name",
    metavar="NAME",
    help="Keeps clusters apart; the same on all.  [default: as in the directory, else raftkv]",
)
@click.option(
    "--machine", metavar="MODULE:CLASS", help=f"The state machine that it runs.  [default: {DEFAULT_MACHINE}]"
)
@click.option(
    "--rebuild", is_flag=True, default=None, help="Replace a damaged state by a snapshot, its own or another node's."
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    help="Serve a page to look at (/), /metrics, /health, /ready and /status here.  [default: off]",
)
@click.option(
    "--http-tls",
    metavar="MODE",
    help="HTTPS for them: off, server (this node's certificate), mutual (and theirs is asked for).  [default: off]",
)
@click.option(
    "--http-sign-in",
    metavar="MODE",
    help="Who has to sign in there: pages (for all but metrics and health, once users have to: raftkv auth), or all "
    "(always, for metrics as well: a user with the right metrics; /health and /ready say yes or no).  [default: pages]",
)
@click.option(
    "--log-level", metavar="LEVEL", shell_complete=_levels, help="debug, info, warning or error.  [default: info]"
)
@click.option("--log-json", is_flag=True, default=None, help="Log a JSON object a line instead of text for people.")
@click.option(
    "--tls-ca", type=click.Path(), metavar="FILE", help="Accept only who shows a certificate of this authority (PEM)."
)
@click.option("--tls-cert", type=click.Path(), metavar="FILE", help="This node's certificate (PEM).")
@click.option("--tls-key", type=click.Path(), metavar="FILE", help="The certificate's key (PEM).")
@click.option(
    "--tls-peer-ca",
    type=click.Path(),
    metavar="FILE",
    help="Take for a node only who shows a certificate of this authority (PEM).  [default: --tls-ca]",
)
@click.option(
    "--tls-peer-names",
    metavar="NAMES",
    help="Take for a node only who shows a certificate for one of these names, separated by commas; member: for its "
    "host in the membership; any: for whatever.  [default: member, with --tls-peer-ca any]",
)
@click.option(
    "--peer-secret-file",
    type=click.Path(),
    metavar="FILE",
    help="Nodes prove to each other that they know the secret in this file (mode 0600), the same on all.",
)
@click.option(
    "--insecure",
    is_flag=True,
    default=None,
    help="Let other machines reach ports that nothing protects: neither TLS nor, for nodes, a secret; nor, for --http, "
    "certificates that are asked for or users who sign in.",
)
@click.option(
    "--set",
    "config_values",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any setting of raftkv.config.Config, such as snapshot_entries=100000; repeat it.",
)
@click.option(
    "--config",
    "path",
    type=click.Path(),
    metavar="FILE",
    envvar="RAFTKV_CONFIG",
    help="A TOML file with any of these options, and a table [config] for --set.",
)
def serve(path: str | None, config_values: tuple[str, ...], **flags: Any) -> None:
    """Run a node until SIGTERM or SIGINT.

    Without any option it is a cluster of one, with its data in ./raftkv-data. Every option can also be given in
    the environment (RAFTKV_DATA_DIR, RAFTKV_SNAPSHOT_ENTRIES, …) or in a file; flags win over the environment,
    the environment over the file.

    \b
    Three nodes, the same --member on each, on its own machine with its own --node-id:
      raftkv serve --node-id 1 --member 1=10.0.0.1:8001/10.0.0.1:7001 \\
                               --member 2=10.0.0.2:8001/10.0.0.2:7001 \\
                               --member 3=10.0.0.3:8001/10.0.0.3:7001 \\
                               --tls-ca ca.pem --tls-cert n1.pem --tls-key n1.key

    A leader that is asked to stop hands leadership over first. A second signal ends the process at once, which is
    safe too. A node that stops by itself, as going on could lose data, says why and ends with code 5,
    one that was removed from the cluster with code 6.
    """
    try:
        settings = gather(flags, config_values, path)
        if not os.path.isabs(settings.data_dir) and is_adrift():
            raise ConfigError(f"data_dir = {settings.data_dir!r}: {ADRIFT}")
    except RaftKVError as exc:
        with process_log(as_json=asks_for_json(flags), level="error") as said:
            said.ended(exc)
        sys.exit(exit_code(exc))
    sys.exit(_run(settings))


def _run(settings: Settings) -> int:
    """Run the node; returns the exit code. Whatever there is to say is said within a bounded time."""
    with process_log(as_json=settings.log_json, level=settings.log_level) as said:
        try:
            for name, hint in unknown_variables(os.environ).items():
                logger.warning("unknown_variable", name=name, hint=hint)
            run_node(settings, said.health)
        except RaftKVError as exc:
            said.ended(exc)
            return exit_code(exc)
        except Exception:
            logger.error("process_failed", exc_info=True, hint="this is a bug of raftkv or of the machine: report it")
            return 1
        return 0
