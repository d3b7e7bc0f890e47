"""`raftkv monitoring`: prints files for the programs that watch over nodes."""

from __future__ import annotations

import json

import click

from raftkv.cli.alerts import alert_rules
from raftkv.cli.dashboard import dashboard
from raftkv.cli.output import errors_reported, json_option, print_json, print_text
from raftkv.cli.scraping import Scrape
from raftkv.cli.unitfile import Unit, this_program


@click.group()
def monitoring() -> None:
    """Print files for the programs that watch over nodes.

    With --json a file is the `text` of a document, and the dashboard, which is JSON, is on one line.
    """


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
@json_option
def print_unit(user: str, config: str, data_dir: str, program: str | None, as_json: bool) -> None:
    """Print a systemd unit for a node.

    \b
    raftkv monitoring systemd > /etc/systemd/system/raftkv.service
    systemctl daemon-reload && systemctl enable --now raftkv

    A node that fails is started again, but not one whose data is in doubt (exit code 5), nor one that was removed (6).
    It tells systemd when it serves, what it is (`systemctl status`), and that its loop and its disk live; when that
    news ends, it is killed and started again, which is safe.
    """
    with errors_reported(as_json):
        start = this_program() if program is None else (program,)
        print_text(Unit(user=user, config=config, data_dir=data_dir, program=start).text(), as_json)


@monitoring.command("prometheus")
@click.argument("targets", nargs=-1, required=True, metavar="HOST:PORT...")
@click.option(
    "--token-file",
    type=click.Path(),
    metavar="FILE",
    help="Where the token is of a user with the right metrics; Prometheus must be able to read it.",
)
@click.option("--tls-ca", type=click.Path(), metavar="FILE", help="Ask by HTTPS whom this authority vouches for (PEM).")
@click.option("--tls-cert", type=click.Path(), metavar="FILE", help="Show this certificate (PEM).")
@click.option("--tls-key", type=click.Path(), metavar="FILE", help="The certificate's key (PEM).")
@json_option
def print_scrape(
    targets: tuple[str, ...],
    token_file: str | None,
    tls_ca: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    as_json: bool,
) -> None:
    """Print what has Prometheus ask the nodes (their --http addresses) for metrics.

    \b
    raftkv role add scraper && raftkv role grant scraper admin metrics
    raftkv user add prometheus --no-password --role scraper
    raftkv user token prometheus > /etc/prometheus/raftkv.token
    raftkv monitoring prometheus --tls-ca ca.pem --token-file /etc/prometheus/raftkv.token \\
      10.0.0.1:9100 10.0.0.2:9100 10.0.0.3:9100 > /etc/prometheus/raftkv-nodes.yml

    Name that file in scrape_config_files of prometheus.yml (Prometheus 2.43), or copy its job. The token is needed
    where nodes are started with --http-sign-in all, --tls-cert and --tls-key where they are with --http-tls mutual.
    """
    with errors_reported(as_json):
        scrape = Scrape(targets=targets, token_file=token_file, tls_ca=tls_ca, tls_cert=tls_cert, tls_key=tls_key)
        print_text(scrape.text(), as_json)


@monitoring.command("grafana")
@json_option
def print_dashboard(as_json: bool) -> None:
    """Print a dashboard for Grafana.

    \b
    raftkv monitoring grafana > raftkv.json

    Import the file (Dashboards, New, Import). Its data comes from a Prometheus that asks each node's /metrics (raftkv
    serve --http).
    """
    if as_json:
        print_json(dashboard())
    else:
        click.echo(json.dumps(dashboard(), indent=2))


@monitoring.command("alerts")
@json_option
def print_alerts(as_json: bool) -> None:
    """Print alert rules for Prometheus.

    \b
    raftkv monitoring alerts > /etc/prometheus/raftkv.yml

    Name that file in rule_files of prometheus.yml. A node that does not answer is found by its job, whose name must
    have raftkv in it.
    """
    print_text(alert_rules(), as_json)
