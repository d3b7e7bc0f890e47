"""`raftkv call` and `raftkv tables`, against a node that runs a machine which the command line does not know."""

from __future__ import annotations

import base64
import copy
from functools import partial

import pytest

from raftkv.machine import SCHEMA
from tests.cli.commands import error_of, invoke, value_of, when_led
from tests.forked import ForkedCluster

MACHINE = "tests.cli.depot:Depot"


@pytest.fixture(scope="module")
def depot(tmp_path_factory):
    """Runs a command against a node of its own."""
    with ForkedCluster(tmp_path_factory.mktemp("depot"), 1, arguments=("--machine", MACHINE)) as cluster:
        cluster.start_all()
        when_led(cluster.nodes[1])
        yield partial(invoke, env={"RAFTKV_ADDRESS": cluster.nodes[1].member.client_address})


@pytest.mark.parametrize("machine", [(), ("--machine", MACHINE)], ids=["schema of the node", "own class"])
def test_a_method_is_called_with_words(depot, machine):
    """Text and bytes as they are, all else as JSON; defaults may be left out; the result is text or JSON."""
    item = '{"sku": "apple", "places": [["north"], ["south", 3]], "seal": "AAE="}'
    stored = {"sku": "apple", "places": [["north", 7], ["south", 3]], "seal": "AAE="}
    assert value_of(depot("call", "store", item, "2", "--json", *machine)) == {"result": stored}
    assert value_of(depot("call", "find", "apple", "--json", *machine))["result"] == stored
    found = value_of(depot("call", "find", "apple", "--stale", "--json", *machine))
    assert found["result"] == stored and found["read_index"] > 0
    assert depot("call", "fill", "x", "0", *machine).stdout == "ok\n"
    assert depot("call", "keep", "k", "null", *machine).stdout == "None\n"
    assert depot("call", "keep", "k", '"AAE="', "2026-03-01", *machine).stdout == "2026-03-01\n"
    assert value_of(depot("call", "raw", "k", "--json", *machine))["result"] == base64.b64encode(b"\0\1").decode()
    assert depot("call", "raw", "none", *machine).stdout == "ok\n"


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("find", "--", "no pear"), 1, "NoSuchItem"),
        (("fnd", "apple"), 2, "no command or query 'fnd'; it has "),
        (("find",), 2, "missing a required argument: 'sku'"),
        (("find", "a", "b"), 2, "2 arguments were given, it takes 1"),
        (("store", "apple"), 2, "must be JSON of its type"),
        (("store", '{"places": []}'), 2, "must be JSON of its type"),
        (("fill", "x", "-1", "--stale"), 2, "fill is a command"),
        (("find", "a", "--machine", "nowhere:Depot"), 2, "nowhere"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else None,
)
def test_a_wrong_call_says_what_is_wrong(depot, words, code, text):
    """With the exit codes of the other commands: 1 what the method rejects, 2 what was wrongly written."""
    done = depot("call", *words)
    assert (done.exit_code, text in done.stderr) == (code, True), done.output
    at = words.index("--") if "--" in words else len(words)
    assert text in error_of(depot("call", *words[:at], "--json", *words[at:]))["message"]


def test_a_rejection_of_ones_own_class_has_its_name(depot):
    """With --machine it is the exception that the class declares."""
    assert error_of(depot("call", "find", "no pear", "--json", "--machine", MACHINE))["error"] == "NoSuchItem"


def test_tables_are_listed_with_their_types(depot):
    """Single values with what they hold."""
    depot("call", "store", '{"sku": "pear"}', "5")
    listed = value_of(depot("tables", "--json"))
    assert (listed["machine"], listed["version"]) == ("Depot", 1)
    parts = {each["name"]: each for each in listed["tables"]}
    assert parts["moves"] == {"name": "moves", "kind": "table", "key": "tuple[str, int]", "type": "datetime"}
    assert (parts["total"]["kind"], parts["total"]["type"]) == ("value", "int")
    assert parts["total"]["value"] >= 5
    lines = depot("tables").stdout.splitlines()
    assert {"items: str → Item", "tags: str", "came: events of str"} <= set(lines)
    assert parts["came"] == {"name": "came", "kind": "events", "type": "str"}
    assert (parts["tags"]["kind"], depot("tables", "tags", "--from", "p").stdout) == ("set", "p\n")
    assert value_of(depot("tables", "tags", "--from", "p", "--json"))["rows"] == [{"key": "p"}]
    assert f"total: int = {parts['total']['value']}" in lines
    assert value_of(depot("tables", "total", "--json"))["rows"] == [{"key": None, "value": parts["total"]["value"]}]


def test_rows_are_read_in_pages_of_the_state_at_one_index(depot):
    """More than a page at once, from any key, up to any, both ways; what comes next is said as one would type it."""
    depot("call", "fill", "many", "1500")
    found = value_of(depot("tables", "items", "--prefix", "many", "-n", "1400", "--json"))
    keys = [row["key"] for row in found["rows"]]
    assert keys == [f"many{number:05}" for number in range(1400)]
    assert found["next"] == "many01400"
    assert found["rows"][0]["value"] == {"sku": "many", "places": [], "seal": ""}
    rest = value_of(depot("tables", "items", "--from", found["next"], "--to", "many01450", "--json"))
    assert [row["key"] for row in rest["rows"]] == [f"many{number:05}" for number in range(1400, 1450)]
    assert (rest["next"], rest["index"] >= found["index"]) == (None, True)
    back = value_of(depot("tables", "items", "--prefix", "many", "--reverse", "-n", "2", "--keys-only", "--json"))
    assert (back["rows"], back["next"]) == ([{"key": "many01499"}, {"key": "many01498"}], "many01498")
    more = depot("tables", "items", "--from", "many", "--to", "many01498", "--reverse", "-n", "1", "--keys-only")
    assert more.stdout == "many01497\n"
    assert "more below many01497" in more.stderr


def test_keys_of_each_type_are_typed_and_shown(depot):
    """Numbers in their order, tuples as JSON arrays, bytes as text that is escaped."""
    depot("call", "fill", "t", "6")
    numbers = value_of(depot("tables", "numbers", "--from", "-2", "--to", "1", "--json"))
    assert numbers["rows"] == [{"key": each, "value": (each + 3) / 2} for each in (-2, -1, 0)]
    moves = value_of(depot("tables", "moves", "--prefix", '["t"]', "-n", "2", "--json"))
    assert [row["key"] for row in moves["rows"]] == [["t", 0], ["t", 1]]
    assert moves["next"] == '["t",2]'
    on = depot("tables", "moves", "--from", moves["next"], "--to", '["t", 3]')
    assert on.stdout.startswith('["t",2]\t"2')
    depot("call", "keep", "a\tb", '"AAE="')
    assert "a\\tb\t\\x00\\x01\n" in depot("tables", "blobs").stdout


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nothing",), "Depot has no table or value 'nothing'; it has "),
        (("numbers", "--from", "x"), "a key of type int"),
        (("numbers", "--prefix", "1"), "ints have no prefixes"),
        (("moves", "--from", "t"), "must be a JSON array"),
        (("moves", "--from", '["t"]'), "a tuple of 2 parts"),
        (("items", "--from", "a", "--prefix", "b"), "give --prefix, or --from and --to"),
        (("--from", "a"), "name the table"),
        (("came",), "came is a stream of events, which is in the history of changes and in no table"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else None,
)
def test_a_wrong_question_says_what_is_wrong(depot, words, text):
    """Exit code 2."""
    done = depot("tables", *words)
    assert (done.exit_code, text in done.stderr) == (2, True), done.output


def test_nodes_that_cannot_tell_are_said_to_be_older(depot, monkeypatch):
    """With what to do: the class instead, or this raftkv on the nodes."""
    unheard_of = copy.copy(SCHEMA)
    unheard_of.name = "*unheard of"
    monkeypatch.setattr("raftkv.cli.own.SCHEMA", unheard_of)
    done = depot("call", "find", "apple")
    assert done.exit_code == 2
    assert "their raftkv is older" in done.stderr and "--machine MODULE:CLASS" in done.stderr
    assert depot("tables").exit_code == 2
    assert "NoSuchItem" in depot("call", "find", "nothing", "--machine", MACHINE).stderr
