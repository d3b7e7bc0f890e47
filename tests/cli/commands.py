"""Runs the command line in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from raftkv.cli import main
from raftkv.processes.cluster import NodeProcess
from tests.waiting import until


def invoke(*arguments: str, **settings: Any) -> Result:
    """Run a command; an exception that is no exit is raised here."""
    result = CliRunner().invoke(main, list(arguments), **settings)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def when_led(node: NodeProcess, *options: str) -> dict[str, Any]:
    """Wait until this node leads; gives its status back. Its start may take longer than a command likes to wait."""

    def status() -> dict[str, Any] | None:
        assert node.is_running, node.log_path.read_text()
        result = invoke("status", "--json", "-a", node.member.client_address, *options)
        if result.exit_code:
            return None
        (found,) = value_of(result)["nodes"]
        return dict(found)

    return until(status, f"node {node.node_id} leads")


def value_of(result: Result) -> Any:
    """The one JSON document that a command printed, which is not an error's."""
    value = printed(result)
    assert not (isinstance(value, dict) and "error" in value and "message" in value), result.output
    return value


def error_of(result: Result) -> Any:
    """The one JSON document that a command printed, which is an error's."""
    value = printed(result)
    assert value.keys() >= {"error", "message"}, result.output
    return value


def printed(result: Result) -> Any:
    """The one JSON document that a command printed."""
    assert result.stdout.count("\n") == 1, result.output
    return json.loads(result.stdout)
