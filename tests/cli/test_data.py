"""put, get and the others, against a real node."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from raftkv.processes.ports import free_ports
from tests.cli.commands import error_of, invoke, value_of


def test_what_is_put_can_be_got(run):
    """The text that went in comes out, with a line's end for people."""
    assert run("put", "put/a", "one").exit_code == 0
    got = run("get", "put/a")
    assert (got.exit_code, got.stdout) == (0, "one\n")
    value = value_of(run("get", "put/a", "--json"))
    assert (value["key"], value["value"], value["encoding"], value["version"]) == ("put/a", "one", "utf-8", 1)
    assert value["created_index"] == value["changed_index"] > 0


def test_a_key_that_is_not_there_is_a_no(run):
    """Exit code 1, and null in JSON; nothing on stdout that a script could take for a value."""
    missing = run("get", "nowhere")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "nowhere" in missing.stderr
    assert value_of(run("get", "nowhere", "--json"))["value"] is None
    assert run("delete", "nowhere").exit_code == 1


def test_a_delete_deletes(run):
    """Once."""
    run("put", "del/a", "x")
    assert value_of(run("delete", "del/a", "--json")) == {"deleted": True}
    assert value_of(run("delete", "del/a", "--json")) == {"deleted": False}


def test_bytes_pass_unharmed(run, tmp_path):
    """In from a file and from stdin, out into a file; what is no text is hexadecimal in JSON."""
    every_byte = bytes(range(256))
    (tmp_path / "in").write_bytes(every_byte)
    assert run("put", "bytes/f", "--file", str(tmp_path / "in")).exit_code == 0
    assert run("put", "bytes/s", input=every_byte).exit_code == 0
    for key in ("bytes/f", "bytes/s"):
        assert run("get", key, "--output", str(tmp_path / "out")).exit_code == 0
        assert (tmp_path / "out").read_bytes() == every_byte
    value = value_of(run("get", "bytes/f", "--json"))
    assert (value["encoding"], value["value"]) == ("hex", every_byte.hex())
    assert value["key"] == b"bytes/f".hex()


def test_hexadecimal_goes_both_ways(run):
    """--hex means keys and values, in and out."""
    assert run("put", "--hex", "00ff", "fe01").exit_code == 0
    assert run("get", "--hex", "00ff").stdout == "fe01\n"
    wrong = run("put", "--hex", "0g", "00")
    assert wrong.exit_code == 2
    assert "'0g': must be hexadecimal" in wrong.stderr


def test_compare_and_set_says_whether_it_was_done(run):
    """A lock that one takes, another one doesn't get, and that only its holder gives back."""
    assert run("cas", "lock", "me", "--if-absent").exit_code == 0
    assert run("cas", "lock", "you", "--if-absent").exit_code == 1
    assert value_of(run("cas", "lock", "you", "--if-value", "him", "--json")) == {"done": False}
    assert run("cas", "lock", "--if-value", "me", "--delete").exit_code == 0
    assert run("get", "lock").exit_code == 1


@pytest.mark.parametrize(
    "arguments", [("k", "v"), ("k", "v", "--if-absent", "--if-value", "x"), ("k", "v", "--if-absent", "--delete")]
)
def test_compare_and_set_wants_one_condition_and_one_change(arguments):
    """Anything else is a mistake, found before anything is sent."""
    assert invoke("cas", *arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "k", "--timeout", "inf"),
        ("get", "k", "--timeout", "1e300"),
        ("get", "k", "--timeout", "nan"),
        ("get", "k", "--timeout", "0"),
        ("get", "k", "--address", "nowhere"),
        ("status", "--interval", "inf"),
        ("replay", "1", "--virtual", "nan"),
        ("replay", "1", "--virtual", "-1"),
    ],
)
def test_times_and_addresses_are_checked_before_anything_is_sent(arguments):
    """What is no time, or no address, is wrong usage."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Invalid value for" in result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("--help",), ("replay", "1", "--virtual", "1", "--size", "1", "--json")])
def test_no_room_for_what_is_printed_is_one_line(arguments):
    """No traceback, and an exit code that says that something is missing."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "raftkv", *arguments]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "raftkv: what there was to print could not be written: No space left on device\n"


def test_counters_count(run):
    """By one, by more, downwards; something that is no number is rejected by the command itself."""
    assert run("increment", "n").stdout == "1\n"
    assert run("increment", "n", "41").stdout == "42\n"
    assert value_of(run("increment", "n", "-2", "--json")) == {"counter": 40}
    run("put", "text", "abc")
    rejected = run("increment", "text", "--json")
    assert rejected.exit_code == 1
    assert error_of(rejected)["error"] == "Rejected"


def test_ranges_are_in_order_and_in_pages(run):
    """From, to, backwards, by prefix; more than a page is fetched page by page, and what is left is said."""
    lines = [f"put r/{number:04d} {number}" for number in range(250)]
    assert run("txn", "--file", "-", input="\n".join(lines)).exit_code == 0
    got = run("range", "r/0010", "r/0013")
    assert got.stdout == "r/0010\t10\nr/0011\t11\nr/0012\t12\n"
    assert run("range", "r/", "r/0003", "--reverse", "--keys-only").stdout.split() == ["r/0002", "r/0001", "r/0000"]
    limited = run("prefix", "r/", "--limit", "2")
    assert limited.stdout.count("\n") == 2
    assert "more from r/0002" in limited.stderr
    whole = value_of(run("prefix", "r/", "--limit", "5000", "--json"))
    assert [item["value"] for item in whole["items"]] == [str(number) for number in range(250)]
    assert whole["next"] is None
    assert run("prefix", "r/none").exit_code == 0


def test_a_transaction_is_all_or_nothing(run):
    """When its conditions hold; else the other branch, and exit code 1."""
    run("put", "stock", "3")
    lines = ("if value stock 3", "put stock 2", "increment sold", "else get stock")
    done = run("txn", *lines)
    assert done.exit_code == 0
    assert done.stdout.splitlines() == ["the conditions hold", "put stock: version 2", "increment sold: 1"]
    refused = run("txn", *lines, "--json")
    assert refused.exit_code == 1
    value = value_of(refused)
    assert value["succeeded"] is False
    assert value["results"][0]["item"]["value"] == "2"


def test_a_stale_read_says_at_which_index(run):
    """Asked for by name, and its answer carries the index."""
    index = value_of(run("put", "stale", "x", "--json"))["changed_index"]
    assert value_of(run("get", "stale", "--stale", "--json"))["read_index"] >= index


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("put", "", "x"), "a key of 0 bytes"),
        (("put", "k" * 5000, "x"), "a key of 5000 bytes"),
        (("get", "x", "-a", "nowhere"), "address 'nowhere': must be host:port"),
        (("get", "x", "-a", ""), "there is no address in it"),
        (("get", "x", "-a", " , "), "there is no address in it"),
        (("get", "x", "--timeout", "0"), "is not in the range"),
        (("get", "x", "--tls-ca", "ca.pem"), "all three are needed"),
        (("txn", "fly"), "an operation is one of"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_sent(arguments, said):
    """Exit code 2, without any node."""
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_no_node_is_something_to_try_again():
    """Exit code 3, with the address and the reason; the same in JSON."""
    (port,) = free_ports(1)
    where = ("-a", f"127.0.0.1:{port}", "--timeout", "0.3")
    result = invoke("put", "a", "b", *where)
    assert result.exit_code == 3
    assert f"127.0.0.1:{port}" in result.stderr
    assert error_of(invoke("get", "a", *where, "--json"))["error"] == "Unavailable"


def test_addresses_may_come_with_commas(one_node):
    """One variable holds all of them; one that is dead doesn't matter."""
    (port,) = free_ports(1)
    environment = {"RAFTKV_ADDRESS": f"127.0.0.1:{port},{one_node.member.client_address}"}
    assert invoke("put", "commas", "x", env=environment).exit_code == 0


def test_a_range_is_lines_whatever_is_in_it(run):
    """Tabs, line ends, backslashes and terminals' escapes in keys and values can't pass for other lines or columns."""
    run("put", "line/a\tb", "one\ntwo\\n\x1b[2J")
    run("put", "line/b", input=b"\xff\x00")
    lines = run("prefix", "line/").stdout.splitlines()
    assert lines == ["line/a\\tb\tone\\ntwo\\\\n\\x1b[2J", "line/b\t\\xff\\x00"]
    assert run("txn", "get line/b").stdout.splitlines()[-1] == "get line/b: \\xff\\x00"


def test_a_range_may_be_stale(run):
    """From any node, with the index at which each page was read."""
    run("put", "stale/a", "x")
    run("get", "stale/a")
    value = value_of(run("range", "stale/", "stale0", "--stale", "--json"))
    assert [item["key"] for item in value["items"]] == ["stale/a"]
    assert value["indexes"][0] >= value["items"][0]["changed_index"]
    assert run("prefix", "stale/", "--stale").stdout == "stale/a\tx\n"


def test_a_range_may_be_of_one_index(run):
    """All its pages, however many; the index is told. Not together with --stale."""
    run("put", "one/a", "x")
    index = value_of(run("put", "one/b", "y", "--json"))["changed_index"]
    value = value_of(run("range", "one/", "one0", "--one-index", "--json"))
    assert [item["key"] for item in value["items"]] == ["one/a", "one/b"]
    assert len(value["indexes"]) == 1
    assert value["indexes"][0] >= index
    assert run("prefix", "one/", "--one-index").stdout == "one/a\tx\none/b\ty\n"
    assert invoke("range", "--one-index", "--stale").exit_code == 2
