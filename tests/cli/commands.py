"""Runs the command line in this process."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from raftkv.cli import main


def invoke(*arguments: str, **settings: Any) -> Result:
    """Run a command; an exception that is no exit is raised here."""
    result = CliRunner().invoke(main, list(arguments), **settings)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def value_of(result: Result) -> Any:
    """The one JSON document that a command printed."""
    assert result.stdout.count("\n") == 1, result.output
    return json.loads(result.stdout)
