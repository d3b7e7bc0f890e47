"""Nodes that are forked from a warm parent are what fresh ones are: processes with an end of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftkv.failpoints import LOG_VARIABLE, VARIABLE
from raftkv.processes.cluster import NodeProcess, ProcessCluster, import_path, launch
from tests.chaos.clients import MACHINE
from tests.chaos.warm import WarmParent, WarmProcess
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs descriptors of processes, which Linux has")

END_S = 30.0


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmParent]:
    """One for all tests, as it takes a while to get warm."""
    with WarmParent() as warm:
        yield warm


@pytest.fixture
def node(tmp_path: Path, warm: WarmParent) -> Iterator[NodeProcess]:
    """A node of its own, forked when it is started."""
    with ProcessCluster(tmp_path, 1, arguments=MACHINE, launch=warm.launch) as cluster:
        yield cluster.nodes[1]


def serving(node: NodeProcess, times: int = 1) -> None:
    """Wait until its log says, for this time, that it serves."""
    until(lambda: node.log_path.read_text().count(" serving ") == times, f"{node.log_path}: serving")


def state(pid: int) -> str:
    """A letter, as in proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["serve", "--no-such-option"], ["serve", "--set", "tick_ms=0"], ["serve", "--machine", "no:Such"]],
)
def test_it_says_what_a_fresh_process_says_and_ends_as_that(
    tmp_path: Path, warm: WarmParent, arguments: list[str]
) -> None:
    """The same output, from the first line of a usage error to a version, and the same exit code."""
    environment = {**os.environ, "PYTHONPATH": import_path()}
    said, codes = [], []
    for start in (launch, warm.launch):
        log = tmp_path / f"{len(said)}.log"
        process = start([sys.executable, "-m", "raftkv", *arguments], environment, log)
        codes.append(process.wait(END_S))
        said.append(log.read_text().partition("] ")[2] or log.read_text())  # without the time of a log line
    assert isinstance(process, WarmProcess)
    assert said[0] == said[1] != "" and codes[0] == codes[1]


def test_it_is_a_process_of_its_own(node: NodeProcess) -> None:
    """In its own session, its log as its output, in the directory where it was started, without its parent's socket."""
    node.start()
    assert isinstance(node.process, WarmProcess)
    serving(node)
    place = Path(f"/proc/{node.process.pid}")
    assert os.getsid(node.process.pid) == node.process.pid
    assert os.readlink(place / "cwd") == os.getcwd()
    assert [os.readlink(place / "fd" / str(number)) for number in range(3)] == [os.devnull, *[str(node.log_path)] * 2]
    paths = [os.readlink(each) for each in (place / "fd").iterdir()]
    parent = Path(f"/proc/{(place / 'stat').read_text().rpartition(')')[2].split()[1]}")
    assert not {path for path in paths if path.startswith("socket:")} & {
        os.readlink(each) for each in (parent / "fd").iterdir()
    }


def test_its_signals_and_its_end_are_seen(node: NodeProcess) -> None:
    """SIGSTOP and SIGCONT, SIGKILL, and SIGTERM with a graceful end; a signal to who has ended does nothing."""
    node.start()
    process = node.process
    assert process is not None
    serving(node)
    node.signal(signal.SIGSTOP)
    until(lambda: state(process.pid) == "T", "stopped")
    node.signal(signal.SIGCONT)
    until(lambda: state(process.pid) != "T", "going on")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    node.kill()
    assert process.poll() == process.wait() == -signal.SIGKILL
    process.send_signal(signal.SIGKILL)
    node.start()
    serving(node, times=2)
    assert node.terminate() == 0


def test_it_has_the_environment_of_its_own_start(node: NodeProcess, tmp_path: Path) -> None:
    """A failpoint that is armed for one start kills that process, as its log says, and no other."""
    armed = {VARIABLE: "founding.listening:kill", LOG_VARIABLE: str(tmp_path / "failpoints.log")}
    node.environment.update(armed)
    node.start()
    assert isinstance(node.process, WarmProcess)
    assert node.process.wait(END_S) == -signal.SIGKILL
    assert (tmp_path / "failpoints.log").read_text().split() == ["founding.listening:kill@1", f"pid={node.process.pid}"]
    node.environment.clear()
    node.start()
    serving(node)


def test_what_an_interpreter_reads_as_it_begins_makes_a_fresh_one(node: NodeProcess) -> None:
    """A seed of hashes, or a command that is to become the node: no fork could have them."""
    node.environment["PYTHONHASHSEED"] = "7"
    node.start()
    assert isinstance(node.process, subprocess.Popen)
    node.kill()
    node.environment.clear()
    node.wrapper = ["/usr/bin/env"]
    node.start()
    assert isinstance(node.process, subprocess.Popen)


PROGRAM = """
import sys
from raftkv.processes.cluster import ProcessCluster
from tests.chaos.warm import WarmParent
with WarmParent() as warm, ProcessCluster(sys.argv[1], 1, launch=warm.launch) as cluster:
    cluster.start_all()
    print(cluster.nodes[1].process.pid, flush=True)
    input()
"""


def test_nothing_is_left_of_a_program_that_was_killed(tmp_path: Path) -> None:
    """Its warm parent hears of that, and the nodes end with that one, stopped ones too."""
    environment = {**os.environ, "PYTHONPATH": import_path()}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as program:
        assert program.stdout is not None
        pid = int(program.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        program.kill()
    until(lambda: not Path(f"/proc/{pid}").exists(), f"the node with pid {pid} gone")


def test_nodes_end_with_their_parent_and_are_told_of_as_killed(tmp_path: Path) -> None:
    """So whoever cleans up goes on; no other node can be started then, and that is said."""
    with (
        WarmParent() as warm,
        ProcessCluster(tmp_path, 1, arguments=MACHINE, launch=warm.launch) as cluster,
    ):
        node = cluster.nodes[1]
        node.start()
        assert node.process is not None
        os.kill(warm.pid, signal.SIGKILL)
        assert node.process.wait(END_S) == -signal.SIGKILL
        with pytest.raises(ConnectionError, match="forked from has ended"):
            node.start()
