"""Exit codes and errors."""

from __future__ import annotations

import json

import pytest

from raftkv import errors
from raftkv.cli.admin import print_membership
from raftkv.cli.output import EXIT_CODES, exit_code, fail, size_of
from raftkv.disk import RealDisk
from raftkv.model import Member, Membership


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
        (errors.Unauthenticated("x"), 7),
        (errors.Forbidden("x"), 7),
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


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_command_that_the_disk_stops_tells_to_start_no_node(as_json, tmp_path, capsys):
    """What is written by a command, as a backup is, is written when that is given again; no node has to do with it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.DiskError, match="then start the node again") as caught:
        RealDisk().lock(str(tmp_path / "file" / "a.backup"))
    with pytest.raises(SystemExit) as ended:
        fail(caught.value, as_json=as_json)
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert ended.value.code == 5
    assert "a.backup" in text and "move what stands in its place, then give the command again" in text, text
    assert "node" not in text.replace(str(tmp_path), "")


def test_an_errors_text_is_printed_as_it_is(capsys):
    """Brackets are no markup, no part of an address is the name of a picture, long lines are not broken."""
    text = "[config] of x: nobody answers at host:1234: " + "word " * 60
    with pytest.raises(SystemExit):
        fail(errors.ConfigError(text))
    assert text.strip() in capsys.readouterr().err


def test_addresses_of_members_are_printed_as_they_are(capsys):
    """Of IPv6 as well: what stands in brackets is no markup, and `:a:` no picture."""
    addresses = "[fe80::1]:8001", "[2001:db8:a:b:100::1]:7001"
    print_membership(Membership(voters=(1,), members=(Member(1, *addresses),)), as_json=False)
    printed = capsys.readouterr().out
    assert all(address in printed for address in addresses)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 * 2**40, "3072.0 GiB")]
)
def test_sizes_have_their_largest_unit(count, text):
    """Powers of 1,024, and said so."""
    assert size_of(count) == text
