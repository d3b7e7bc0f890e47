"""`raftkv doctor` with real nodes: what it asks, what it looks at, how it ends."""

from __future__ import annotations

import json
import shlex
import signal

import pytest

import raftkv.cli.doctor as module
from raftkv.doctor import Silent
from tests.cli.commands import invoke, value_of
from tests.cli.test_view import elsewhere, status_of
from tests.forked import ForkedCluster
from tests.waiting import until

TIMING = {"disk-slow", "disk-stalled", "leader-changes", "node-stuck", "snapshot-sent", "disk-nearly-low"}
"""What a test machine that is busy, or nearly full, may show besides."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Three nodes that log JSON."""
    with ForkedCluster(tmp_path_factory.mktemp("three"), 3, arguments=["--log-json"]) as cluster:
        cluster.start_all()
        address = cluster.addresses[0]
        until(lambda: invoke("status", "--json", "-a", address).exit_code == 0, "all three are there")
        yield cluster


def doctor(*words):
    """The exit code, and the findings by name."""
    result = invoke("doctor", "--json", "--timeout", "3", *words)
    value = value_of(result)
    findings = {each["condition"]: each for each in value["findings"] if each["condition"] not in TIMING}
    return result.exit_code, findings, value


def test_from_well_to_lost_and_back(cluster):
    """One after the other: a node that is stopped by a signal, killed, two killed, all killed, and one damaged."""
    one, two, three = cluster.nodes.values()
    asking = ("-a", one.member.client_address)

    code, found, value = doctor(*asking)
    assert found == {} and value["looked_at"] == ["nodes that answer: 1, 2, 3"]
    for_people = invoke("doctor", *asking)
    assert "looked at nodes that answer: 1, 2, 3" in for_people.stdout

    code, found, value = doctor(*asking, three.data_dir)
    assert set(found) == {"directory-in-use"}
    assert str(three.process.pid) in found["directory-in-use"]["why"][0]

    three.signal(signal.SIGSTOP)
    code, found, _ = doctor(*asking, three.data_dir)
    assert set(found) == {"quorum-at-risk", "directory-held"} and code == 1
    assert f"process {three.process.pid}" in found["directory-held"]["do"]
    assert found["directory-held"]["commands"][0] == f"kill -9 {three.process.pid}"

    three.kill()
    code, found, _ = doctor(*asking, three.data_dir)
    assert {"quorum-at-risk", "voter-silent"} <= set(found) <= {"quorum-at-risk", "voter-silent", "directory-mended"}
    shown = invoke("doctor", *asking)
    assert shown.exit_code == 1
    assert f"looked at nodes that answer: 1, 2; that do not: {three.member.client_address}" in shown.stdout
    (line,) = [line for line in shown.stdout.splitlines() if line.startswith("warning quorum-at-risk")]
    assert "just a majority" in line
    assert "  type   raftkv serve --node-id 3 --data-dir DIR" in shown.stdout.splitlines()

    two.kill()
    until(lambda: "quorum-lost" in doctor(*asking)[1], "it is noticed")
    code, found, _ = doctor(*asking)
    assert code == 3
    assert any("raftkv recover --compare" in typed for typed in found["quorum-lost"]["commands"])

    one.kill()
    code, found, _ = doctor(*asking)
    assert set(found) == {"no-member-answers"} and code == 3

    with open(f"{three.data_dir}/vote", "r+b") as file:
        file.write(bytes(8192))
    code, found, _ = doctor(three.data_dir)
    assert "directory-damaged" in found and code == 5
    three.start()
    assert three.process.wait(60) == 5
    code, found, _ = doctor("--log", str(three.log_path))
    assert set(found) == {"stopped-corrupt"} and code == 5
    assert "both copies" in found["stopped-corrupt"]["why"][0]
    code, found, _ = doctor("--log", str(three.log_path), three.data_dir, two.data_dir)
    assert {"stopped-corrupt", "directory-damaged"} <= set(found) and code == 5


def test_what_is_given_wrong_is_said(tmp_path):
    """A directory that is not there, a log that is none, one that is."""
    missing = invoke("doctor", str(tmp_path / "none"))
    assert missing.exit_code == 2 and "there is no such directory" in missing.stderr
    text = tmp_path / "n.log"
    text.write_text("2026-05-01 something for people\n")
    code, found, _ = doctor("--log", str(text))
    assert set(found) == {"log-unreadable"} and code == 0
    code, found, _ = doctor("--log", str(tmp_path / "none.log"))
    assert set(found) == {"log-unreadable"}


def test_commands_to_type_say_who_asks_as_the_doctor_was_told(tmp_path, monkeypatch):
    """What was on its command line must be on theirs, or they are refused; secrets are in files, by their names."""
    token = tmp_path / "ann's token"
    token.write_text("rkv_something\n")
    token.chmod(0o600)

    async def ask_cluster(target):
        return {address: Silent(address, "sign in", is_refusal=True) for address in target.addresses}

    monkeypatch.setattr(module, "ask_cluster", ask_cluster)
    code, found, _ = doctor("-a", "10.0.0.1:7001", "--token-file", str(token), "--insecure")
    assert code == 1
    (command,) = found["not-allowed"]["commands"]
    told = ["-a", "10.0.0.1:7001", "--token-file", str(token), "--insecure"]
    assert shlex.split(command)[: 2 + len(told)] == ["raftkv", "doctor", *told]


def test_of_two_clusters_it_says_that_they_are_two_and_nothing_that_comes_of_mixing_them(monkeypatch):
    """Their nodes have the same ids, other states and other places: none is to be rebuilt for it, none to be moved."""

    async def ask_cluster(target):
        ours = {f"10.0.0.{each}:7001": status_of(each) for each in (1, 2, 3)}
        return ours | {f"10.0.1.{each}:7001": elsewhere(each) for each in (1, 2)}

    monkeypatch.setattr(module, "ask_cluster", ask_cluster)
    code, found, _ = doctor("-a", "10.0.0.1:7001,10.0.1.1:7001")
    assert set(found) == {"two-clusters"} and code != 0
    assert len(found["two-clusters"]["why"]) == 2


def test_only_the_newest_start_in_a_log_counts(tmp_path):
    """A node that ended with an error and was started again has not stopped; the end of a long file is enough."""
    ended = {"event": "process_ended", "error": "DiskFull", "reason": "no space", "level": "error"}
    started = {"event": "node_started", "node": 3, "level": "info"}
    low = {"event": "files_run_out", "open": 990, "limit": 1000, "level": "warning"}
    log = tmp_path / "n3.log"
    log.write_text("".join(json.dumps(each) + "\n" for each in (started, ended, started)))
    assert doctor("--log", str(log))[1] == {}
    filler = json.dumps({"event": "x", "text": "y" * 1000}) + "\n"
    log.write_text(filler * 2000 + "".join(json.dumps(each) + "\n" for each in (started, low, ended)))
    code, found, _ = doctor("--log", str(log))
    assert set(found) == {"stopped-disk", "files-run-out"} and code == 5
    assert found["stopped-disk"]["what"].startswith("node 3 has stopped: its disk is full")
