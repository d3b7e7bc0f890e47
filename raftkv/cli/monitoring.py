"""`raftkv monitoring`: prints files for the programs that watch over nodes."""

from __future__ import annotations

import json

import click

from raftkv.cli.alerts import alert_rules
from raftkv.cli.dashboard import dashboard
from raftkv.cli.output import errors_reported
from raftkv.cli.unitfile import Unit, this_program


@click.group()
def monitoring() -> None:
    """Print files for the programs that watch over nodes."""


@monitoring.command("systemd")
@click.option("--user", default="raftkv", show_default=True, metavar="NAME", help="Who it runs as.")
@click.option(
    "--config",
    default="/etc/raftkv.toml",
    show_default=True,
    metavar="FILE",
    help="Its settings (raftkv serve --config); they must exist.",
)
@click.option(
    "--data-dir", default="/var/lib/raftkv", show_default=True, metavar="DIR", help="Where it keeps its data."
)
@click.option("--program", metavar="PATH", help="The raftkv that is started.  [default: this one]")
def print_unit(user: str, config: str, data_dir: str, program: str | None) -> None:
    """Print a systemd unit for a node.

    \b
    raftkv monitoring systemd > /etc/systemd/system/raftkv.service
    systemctl daemon-reload && systemctl enable --now raftkv

    A node that fails is started again, but not one whose data is in doubt (exit code 5), nor one that was removed (6).
    It tells systemd when it serves, what it is (`systemctl status`), and that its loop and its disk live; when that
    news ends, it is killed and started again, which is safe.
    """
    with errors_reported(False):
        start = this_program() if program is None else (program,)
        click.echo(Unit(user=user, config=config, data_dir=data_dir, program=start).text(), nl=False)


@monitoring.command("grafana")
def print_dashboard() -> None:
    """Print a dashboard for Grafana.

    \b
    raftkv monitoring grafana > raftkv.json

    Import the file (Dashboards, New, Import). Its data comes from a Prometheus that asks each node's /metrics (raftkv
    serve --http).
    """
    click.echo(json.dumps(dashboard(), indent=2))


@monitoring.command("alerts")
def print_alerts() -> None:
    """Print alert rules for Prometheus.

    \b
    raftkv monitoring alerts > /etc/prometheus/raftkv.yml

    Name that file in rule_files of prometheus.yml. A node that does not answer is found by its job, whose name must
    have raftkv in it.
    """
    click.echo(alert_rules(), nl=False)
