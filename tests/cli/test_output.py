"""Exit codes and errors."""

from __future__ import annotations

import json

import pytest

from raftkv import errors
from raftkv.cli.output import EXIT_CODES, exit_code, fail, size_of


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Rejected("ValueError", "no"), 1),
        (errors.FrameError("x"), 1),
        (errors.InvalidArgument("x"), 2),
        (errors.ConfigError("x"), 2),
        (errors.NotLeader(), 3),
        (errors.Busy("x"), 3),
        (errors.ChangeRefused("x"), 3),
        (errors.Indeterminate("x"), 4),
        (errors.SessionExpired("x"), 4),
        (errors.Corruption("x"), 5),
        (errors.DataDirLocked("x"), 5),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_kind_of_error_has_a_code_that_is_documented(error, code):
    """A script can tell "try again" from "it may have been done" from "mend your call"."""
    assert exit_code(error) == code
    assert code in EXIT_CODES


def test_an_error_can_be_json(capsys):
    """For programs: on stdout, with the kind apart from the text."""
    with pytest.raises(SystemExit) as ended:
        fail(errors.Busy("wait"), as_json=True)
    assert ended.value.code == 3
    assert json.loads(capsys.readouterr().out) == {"error": "Busy", "message": "wait"}


def test_an_errors_text_is_printed_as_it_is(capsys):
    """Brackets are no markup, long lines are not broken."""
    text = "[config] of x: " + "word " * 60
    with pytest.raises(SystemExit):
        fail(errors.ConfigError(text))
    assert text.strip() in capsys.readouterr().err


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3072.0 GiB")]
)
def test_sizes_have_their_largest_unit(count, text):
    """Powers of 1,024, and said so."""
    assert size_of(count) == text
