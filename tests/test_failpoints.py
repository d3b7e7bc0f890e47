"""Named failpoints: the list is true, a wrong value is refused, and what is armed happens when it is said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftkv import failpoints
from raftkv.errors import ConfigError, DiskError, NodeStopped
from raftkv.node import World

ROOT = Path(__file__).parent.parent
CALL = re.compile(r'failpoints\.reach\(\s*"([^"]+)"\s*\)')


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    """Nothing stays armed."""
    yield
    failpoints.arm({})


def test_what_a_module_declares_is_what_it_reaches() -> None:
    """And each once, and nowhere else; none is reached that is not declared, in the module where it is."""
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): Counter(CALL.findall(path.read_text()))
        for path in (ROOT / "raftkv").rglob("*.py")
    }
    reached = {module: names for module, names in found.items() if names and ".testing." not in module}
    declared: dict[str, Counter[str]] = {}
    for point in failpoints.declared():
        declared.setdefault(point.module, Counter())[point.name] += 1
        assert point.meaning
    assert reached == declared
    assert len(set(failpoints.names())) == len(failpoints.names()) >= 40
    assert any(point.is_droppable for point in failpoints.declared())


def test_a_name_belongs_to_one_module() -> None:
    """A second declaration of it elsewhere is an error of whoever writes it."""
    with pytest.raises(AssertionError, match="declared twice"):
        failpoints.declare("elsewhere", {failpoints.names()[0]: "something else"})


def test_nothing_happens_unless_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither before a node is made nor when one is made without the variable."""
    monkeypatch.delenv(failpoints.VARIABLE, raising=False)
    World.real()
    assert [failpoints.reach(name) for name in failpoints.names()] == [False] * len(failpoints.names())


@pytest.mark.parametrize(
    "text",
    [
        "nowhere:kill",
        "log.batch.after_sync",
        "log.batch.after_sync:explode",
        "log.batch.after_sync:kill@0",
        "log.batch.after_sync:kill=1",
        "log.batch.after_sync:pause=..",
        "log.batch.after_sync:drop",
        "log.batch.after_sync:kill;vote.before_write:kill",
    ],
)
def test_a_wrong_value_is_refused_with_what_to_do(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names the variable, what was given and what may be given, and no node is made."""
    monkeypatch.setenv(failpoints.VARIABLE, text)
    with pytest.raises(ConfigError, match=rf"{failpoints.VARIABLE} = .*(must|see|only at)"):
        World.real()


def test_the_nth_time_counts_and_is_written_down(tmp_path: Path) -> None:
    """Once, and not before or behind; two failpoints don't disturb each other."""
    log = tmp_path / "fired"
    text = "log.batch.after_sync:raise@2,snapshot.begun:raise,send.timeout_now:drop"
    failpoints.arm({failpoints.VARIABLE: text, failpoints.LOG_VARIABLE: str(log)})
    failpoints.reach("log.batch.after_sync")
    assert not log.exists()
    with pytest.raises(DiskError, match="unset it"):
        failpoints.reach("log.batch.after_sync")
    failpoints.reach("log.batch.after_sync")
    with pytest.raises(NodeStopped):
        failpoints.reach("snapshot.begun")
    assert [failpoints.reach("send.timeout_now") for _ in range(2)] == [True, False]
    fired = [line.split(" ")[0] for line in log.read_text().splitlines()]
    assert fired == ["log.batch.after_sync:raise@2", "snapshot.begun:raise@1", "send.timeout_now:drop@1"]


def test_a_thread_is_held_for_so_long() -> None:
    """At least for the seconds given."""
    failpoints.arm({failpoints.VARIABLE: "vote.before_write:pause=0.05"})
    began = time.monotonic()
    failpoints.reach("vote.before_write")
    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("action", ["kill", "pause"])
def test_the_process_is_killed_or_stopped(action: str, tmp_path: Path) -> None:
    """By SIGKILL or SIGSTOP, with a line in the log before."""
    log = tmp_path / "fired"
    process = subprocess.Popen(
        [sys.executable, "-c", "from raftkv import failpoints as f; f.arm(); f.reach('vote.before_write')"],
        cwd=ROOT,
        env={failpoints.VARIABLE: f"vote.before_write:{action}", failpoints.LOG_VARIABLE: str(log)},
    )
    if action == "pause":
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert log.read_text() == f"vote.before_write:{action}@1 pid={process.pid}\n"


def test_a_node_says_what_is_wrong_and_does_not_start(tmp_path: Path) -> None:
    """`raftkv serve` with a wrong value ends with the text of the error and without a traceback."""
    addresses = ["--listen", "127.0.0.1:1", "--peer-listen", "127.0.0.1:2", "--member", "1=127.0.0.1:2/127.0.0.1:1"]
    done = subprocess.run(
        [sys.executable, "-m", "raftkv", "serve", "--node-id", "1", "--data-dir", str(tmp_path / "n1"), *addresses],
        cwd=ROOT,
        env={failpoints.VARIABLE: "nowhere:kill", "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "there is no failpoint 'nowhere'" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "n1").exists()
