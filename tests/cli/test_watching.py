"""`raftkv watch`, against a node that runs a machine which the command line does not know."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import msgspec
import pytest

from raftkv import Client, History, StateMachine, Table, command
from raftkv.cli.own import json_field
from raftkv.machine.depth import NESTED_MAX
from raftkv.processes.cluster import import_path
from tests.cli.commands import invoke, when_led
from tests.cli.test_progress import waiting_in
from tests.forked import ForkedCluster
from tests.waiting import until

MACHINE = "tests.client.test_watching:Shop"


class Blobs(StateMachine, history=History(count=400)):
    """Has keys and values that need not be text."""

    blobs = Table(bytes, bytes, watch="old")

    @command
    def keep(self, key: bytes, value: bytes) -> None:
        self.blobs[key] = value

    @command
    def drop(self, key: bytes) -> None:
        del self.blobs[key]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Runs a command against a node of its own, on which some things have changed."""
    with ForkedCluster(tmp_path_factory.mktemp("shop"), 1, arguments=("--machine", MACHINE)) as cluster:
        cluster.start_all()
        when_led(cluster.nodes[1])
        run = partial(invoke, env={"RAFTKV_ADDRESS": cluster.nodes[1].member.client_address})
        for words in (("put", "apple", "3"), ("put", "pear", "4"), ("tag", "new"), ("sell", "apple")):
            assert run("call", *words).exit_code == 0
        yield run


@contextmanager
def serving_blobs(directory):
    """The address of a node of its own."""
    with ForkedCluster(directory, 1, arguments=("--machine", f"{Blobs.__module__}:Blobs")) as cluster:
        cluster.start_all()
        when_led(cluster.nodes[1])
        yield cluster.nodes[1].member.client_address


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """The address of a node that keeps more changes than a pipe takes."""
    with serving_blobs(tmp_path_factory.mktemp("blobs")) as address:

        async def story():
            async with Client(Blobs, [address]) as client:
                await asyncio.gather(*(client.keep(b"k%d" % number, bytes(1000)) for number in range(300)))

        asyncio.run(story())
        yield address


def lines(done):
    """What was printed, without what differs from run to run."""
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(each.pop("time_ms") > 0 and "." in each["cursor"] for each in found)
    return found


def test_each_change_is_a_line_with_the_cursor_to_go_on_behind(shop):
    """Of a table, from the beginning and behind a change; with the values before; of some rows only."""
    all_of_it = lines(shop("watch", "stock", "--after", "0", "--limit", "3", "--old"))
    assert [{**each, "cursor": ""} for each in all_of_it] == [
        {"cursor": "", "key": "apple", "value": 3, "old": None},
        {"cursor": "", "key": "pear", "value": 4, "old": None},
        {"cursor": "", "key": "apple", "deleted": True, "old": 3},
    ]
    (last,) = lines(shop("watch", "stock", "--after", all_of_it[1]["cursor"], "-n", "1"))
    assert last == {"cursor": all_of_it[2]["cursor"], "key": "apple", "deleted": True}
    (pear,) = lines(shop("watch", "stock", "--after", "0", "-n", "1", "--prefix", "p"))
    assert pear["key"] == "pear"


def test_sets_and_events_are_watched_as_well(shop):
    """A set has keys only, an event has none."""
    (tag,) = lines(shop("watch", "tags", "--after", "0", "-n", "1"))
    assert (tag["key"], "value" in tag) == ("new", False)
    (sold,) = lines(shop("watch", "sold", "--after", "0", "-n", "1"))
    assert (sold["value"], "key" in sold) == ({"sku": "apple"}, False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("nothing",), "no table, set or events 'nothing'"),
        (("total",), "no table, set or events 'total'"),
        (("dull",), "are not recorded in the version that is active"),
        (("plain", "--old"), "no old values of plain are kept"),
        (("sold", "--prefix", "a"), "have no keys"),
        (("stock", "--after", "x"), "'x' is no cursor"),
        (("stock", "--prefix", "a", "--to", "b"), "give --prefix, or --from and --to"),
    ],
)
def test_a_wrong_word_says_what_is_wrong(shop, words, text):
    """With the exit code of wrong usage."""
    done = shop("watch", *words)
    assert (done.exit_code, text in done.stderr) == (2, True), done.output


def test_bytes_are_text_where_they_are_and_say_so_where_they_are_not(tmp_path):
    """As `raftkv export` prints a key; what is no UTF-8 has a field of another name."""
    with serving_blobs(tmp_path) as address:

        async def story():
            async with Client(Blobs, [address]) as blobs:
                for key, value in (("Grüße".encode(), b"x\n"), (b"\xff\0", b"a"), (b"b", b"\xc3("), (b"/w==", b"/w==")):
                    await blobs.keep(key, value)
                await blobs.drop(b"b")

        asyncio.run(story())
        found = lines(invoke("watch", "blobs", "--after", "0", "-n", "5", "--old", env={"RAFTKV_ADDRESS": address}))
    assert [{**each, "cursor": ""} for each in found] == [
        {"cursor": "", "key": "Grüße", "value": "x\n", "old": None},
        {"cursor": "", "key_base64": "/wA=", "value": "a", "old": None},
        {"cursor": "", "key": "b", "value_base64": "wyg=", "old": None},
        {"cursor": "", "key": "/w==", "value": "/w==", "old": None},
        {"cursor": "", "key": "b", "deleted": True, "old_base64": "wyg="},
    ]


@pytest.mark.parametrize("given", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_a_pipe_that_stands_still_does_not_hold_the_end_up(given, words, blobs):
    """Nobody takes what changes, as behind a pager: it ends by the first signal, and says how to go on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raftkv", "watch", "blobs", "--after", "0", *words, "-a", blobs],
        env={**os.environ, "PYTHONPATH": import_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        until(lambda: waiting_in(process.stdout) > 60_000, "the pipe is full")
        process.send_signal(given)
        code, said = process.wait(10), process.stderr.read().decode()
    finally:
        process.kill()
        process.communicate()
    assert code == {signal.SIGINT: 130, signal.SIGTERM: 143}[given], said
    assert said == "interrupted: nothing was changed; --after with the last cursor goes on behind it\n"


def test_no_line_is_cut_off_where_a_signal_comes_while_it_is_printed(blobs):
    """Whoever reads gets the line that was begun to its end, and each is JSON; the limit counts lines, not pages."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raftkv", "watch", "blobs", "--after", "0", "-a", blobs],
        env={**os.environ, "PYTHONPATH": import_path()},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: waiting_in(process.stdout) > 60_000, "the pipe is full")
        process.send_signal(signal.SIGINT)
        printed = process.stdout.read()
    finally:
        process.kill()
        process.communicate()
    found = [json.loads(line) for line in printed.splitlines()]
    assert printed.endswith(b"}\n") and len(printed) > 1 << 15
    limited = lines(invoke("watch", "blobs", "--after", "0", "-n", "7", env={"RAFTKV_ADDRESS": blobs}))
    assert [each["cursor"] for each in limited] == [each["cursor"] for each in found[:7]]


def test_the_beginning_is_the_oldest_that_is_kept(tmp_path):
    """`--after 0` also where the history does not go back to the first change any more; behind any other change that
    it does not go back to, nothing is left out without a word."""
    with serving_blobs(tmp_path) as address:

        async def story():
            async with Client(Blobs, [address]) as blobs:
                await asyncio.gather(*(blobs.keep(b"k", b"%d" % number) for number in range(600)))

        asyncio.run(story())
        run = partial(invoke, env={"RAFTKV_ADDRESS": address})
        oldest, following = lines(run("watch", "blobs", "--after", "0", "-n", "2"))
        gone = run("watch", "blobs", "--after", "1", "-n", "1")
        assert gone.exit_code == 1 and "the history of changes is kept from behind" in gone.stderr
        assert lines(run("watch", "blobs", "--after", oldest["cursor"], "-n", "1")) == [following]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (b"", {"key": ""}),
        (b"a\0b", {"key": "a\0b"}),
        ((b"a", "b", 3), {"key": ["a", "b", 3]}),
        ((b"\xff", "b", b"a"), {"key_base64": ["/w==", "b", "YQ=="]}),
        ({b"a": [b"b", {"c": b"d"}]}, {"key": {"a": ["b", {"c": "d"}]}}),
        ({"a": [b"b", {"c": b"\xed\xa0\x80"}]}, {"key_base64": {"a": ["Yg==", {"c": "7aCA"}]}}),
        (None, {"key": None}),
        (1 << 70, {"key": 1 << 70}),
    ],
)
def test_the_name_of_a_field_says_how_all_bytes_in_it_are_to_be_read(value, field):
    """Never both ways in one field, or a text that looks like base64 could be either."""
    assert json_field("key", value) == field


def test_a_value_that_is_nested_as_deep_as_may_be_is_shown():
    """As lists in lists, and as objects in objects."""
    rows, objects = b"a", b"a"
    for _ in range(NESTED_MAX):
        rows, objects = [rows], {"x": objects}
    for value, text in ((rows, b'["a"]'), (objects, b'{"x":"a"}')):
        assert text in msgspec.json.encode(json_field("value", value))
