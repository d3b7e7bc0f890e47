"""`raftkv config`, against real nodes that are started again with and without a word of their own."""

from __future__ import annotations

import asyncio

import pytest

from raftkv import Admin
from raftkv.cli.settings import gather
from tests.cli.commands import error_of, invoke, value_of, when_led
from tests.forked import ForkedCluster
from tests.waiting import until


def kept(environment, name, *words):
    """Each node's value of a setting, and where it is from."""
    found = value_of(invoke("config", "get", name, "--json", *words, env=environment))
    return {node["node_id"]: (node["settings"][0]["value"], node["settings"][0]["source"]) for node in found}


def test_a_change_counts_at_once_and_at_the_next_start(tmp_path):
    """A node that takes no snapshots is told to; what it was told is in its status, and there after a kill, but not
    over what its start says."""
    with ForkedCluster(tmp_path, 1) as cluster:
        node = cluster.nodes[1]
        node.start("--set", "snapshot_interval_s=0")
        when_led(node)
        environment = {"RAFTKV_ADDRESS": cluster.addresses[0]}
        assert value_of(invoke("status", "--json", env=environment))["nodes"][0]["snapshots_taken"] == 0
        assert kept(environment, "snapshot_entries") == {1: (50_000, "the default")}
        shown = invoke("config", "set", "snapshot-entries=1", "keep_bytes=8MiB", env=environment)
        assert shown.exit_code == 0 and "snapshot_entries" in shown.stdout and "8388608" in shown.stdout

        def has_taken():
            assert invoke("put", "a", "1", env=environment).exit_code == 0
            return value_of(invoke("status", "--json", env=environment))["nodes"][0]["snapshots_taken"]

        until(has_taken, "the node takes a snapshot")
        (told,) = [value_of(invoke("status", "--json", env=environment))["nodes"][0]["settings"]]
        assert [(each["name"], each["value"]) for each in told] == [
            ("snapshot_entries", 1),
            ("snapshot_interval_s", 0),
            ("keep_bytes", 8 << 20),
        ]
        node.kill()
        node.start("--set", "keep_bytes=7")
        when_led(node)
        assert kept(environment, "snapshot_entries") == {1: (1, "set while it ran")}
        assert kept(environment, "keep_bytes") == {1: (7, "--set")}
        back = value_of(invoke("config", "set", "snapshot_entries=default", "--json", env=environment))
        assert back[0]["settings"][0]["value"] == 50_000
        node.kill()
        node.start()
        when_led(node)
        assert kept(environment, "snapshot_entries") == {1: (50_000, "the default")}
        assert kept(environment, "keep_bytes") == {1: (8 << 20, "set while it ran")}


def test_all_members_are_told_one_after_the_other(tmp_path):
    """Those that are there have it; one that is not is named, with exit code 1. A client can do the same."""
    with ForkedCluster(tmp_path, 3) as cluster:
        cluster.start_all()
        environment = {"RAFTKV_ADDRESS": ",".join(cluster.addresses)}
        until(lambda: invoke("put", "a", "1", env=environment).exit_code == 0, "it serves")
        done = invoke("config", "set", "snapshot_rate_bytes_s=8MiB", "--all", "--json", env=environment)
        assert [each["node_id"] for each in value_of(done)] == [1, 2, 3]
        assert set(kept(environment, "snapshot_rate_bytes_s", "--all").values()) == {(8 << 20, "set while it ran")}
        cluster.kill(3)
        late = invoke("config", "set", "auto_upgrade=no", "--all", "--json", "--timeout", "3", env=environment)
        assert late.exit_code == 1 and [bool(each["error"]) for each in value_of(late)] == [False, False, True]

        async def ask():
            async with Admin([cluster.addresses[0]]) as admin:
                return await admin.settings({"polls_max": 5})

        found = {each["name"]: (each["value"], each["wins_at_start"]) for each in asyncio.run(ask())}
        assert found["polls_max"] == (5, False) and found["auto_upgrade"] == (False, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("set", "snapshot_entries"), "must be NAME=VALUE"),
        (("set", "snapshot_entries=many"), "must be NAME=VALUE, with a number"),
        (("set", "snapshot_entries=0"), "must be a whole number at least 1"),
        (("set", "tick_ms=20", "keep_bytes=1"), "tick_ms can't change while a node runs"),
        (("set", "nonsense=1"), "nonsense: no such setting; those that may change are"),
        (("get", "nonsense"), "nonsense: no such setting; those that may change are"),
        (("set", "snapshot_entires=1"), "auto_upgrade; did you mean 'snapshot_entries'?"),
        (("get", "keep-byte"), "; did you mean 'keep_bytes'?"),
        (("set", "auto_upgrade=2"), "must be NAME=VALUE, with a number, a size such as 8MiB, true or false"),
    ],
)
def test_what_is_not_allowed_is_refused_with_what_is(run, words, said):
    """Exit code 2, and nothing has changed."""
    result = run("config", *words, "--json")
    assert result.exit_code == 2 and said in error_of(result)["message"]
    listed = value_of(run("config", "list", "--json"))[0]["settings"]
    assert {each["source"] for each in listed if each["name"] == "keep_bytes"} == {"the default"}


def test_a_start_says_where_each_value_is_from(tmp_path):
    """Of a flag, the environment and a file the first wins, and is named."""
    path = tmp_path / "raftkv.toml"
    path.write_text("[config]\nkeep_bytes = 1\nkeep_entries = 1\nsnapshots_kept = 1\n")
    environment = {"RAFTKV_KEEP_ENTRIES": "2", "RAFTKV_SNAPSHOTS_KEPT": "2"}
    settings = gather({}, ["snapshots_kept=3"], str(path), environment)
    assert settings.given == {
        "keep_bytes": f"[config] of {path}",
        "keep_entries": "the environment, RAFTKV_KEEP_ENTRIES",
        "snapshots_kept": "--set",
    }
